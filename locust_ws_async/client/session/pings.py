"""Pings and their pongs: those that a task sends, and those of the heartbeat."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

from websockets.exceptions import ConcurrencyError
from websockets.frames import Close

from ...exceptions import ConnectionClosed, PingTimeout
from ..messages.queue import ReceiveQueue
from ..observing.stats import Statistics
from ..wire.interface import Wire
from .heartbeat import Heartbeat

__all__ = ["Pings"]

# Of a peer that never answers and has no ping_timeout. So many intervals may a pong take, and still give a latency.
_HEARTBEATS = 16

_random_bytes = random.Random().randbytes


class ConnectionForPings(Protocol):
    """What :class:`Pings` needs of its connection."""

    @property
    def queue(self) -> ReceiveQueue: ...

    @property
    def stats(self) -> Statistics: ...

    @property
    def wire(self) -> Wire: ...


class Pings:
    """The pings of one connection that are not answered yet, in the order in which they were sent."""

    __slots__ = ("_connection", "_heartbeat", "_loop", "_unanswered", "latency")

    def __init__(self, connection: ConnectionForPings, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._unanswered: dict[bytes, tuple[asyncio.Future[float] | None, float]] = {}
        self._heartbeat: Heartbeat | None = None
        self.latency = 0.0
        """Seconds from the last answered ping to its pong; 0.0 before the first."""

    def new_payload(self, data: str | bytes | None) -> bytes:
        """The payload of a ping with this data, by default random."""
        payload = _random_bytes(4) if data is None else data.encode() if isinstance(data, str) else bytes(data)
        if len(payload) > 125:
            raise ValueError(f"a ping carries at most 125 bytes (RFC 6455 section 5.5), not {len(payload)}")
        if payload in self._unanswered:
            raise ConcurrencyError("another task waits for the pong to a ping with the same data")
        return payload

    async def pong(self, payload: bytes, sent: float, timeout: float | None) -> float:
        """
        Send a ping and wait for its pong; gives the seconds between. ``sent``: perf_counter; ``timeout``: seconds.

        Raises:
            PingTimeout, ConnectionClosed: there was none.
        """
        waiter: asyncio.Future[float] = self._loop.create_future()
        timer = None if timeout is None else self._loop.call_later(timeout, _expire, waiter)
        try:
            self._send(payload, waiter, sent)
            return await waiter
        finally:
            self._unanswered.pop(payload, None)
            if timer is not None:
                timer.cancel()

    def pong_received(self, payload: bytes, arrived: float) -> None:
        """A pong came."""
        if payload not in self._unanswered:
            return  # unsolicited: RFC 6455 section 5.5.3
        # It also answers the pings before it, if the server chose to answer the last one only (section 5.5.3).
        for ping in list(self._unanswered):
            waiter, sent = self._unanswered.pop(ping)
            if waiter is None:
                assert self._heartbeat is not None
                self._heartbeat.pong_received()
            elif not waiter.done():
                waiter.set_result(arrived - sent)
            if ping == payload:
                self.latency = arrived - sent
                return

    def start_heartbeat(self, interval: float, timeout: float | None) -> None:
        """Send pings in the background: see :class:`Heartbeat`."""
        self._heartbeat = Heartbeat(self, self._loop, interval, timeout)

    def reading_resumed(self) -> None:
        """A pong may be among what was not read for a while."""
        if self._heartbeat is not None:
            self._heartbeat.restart_pong_timeout()

    def stop_heartbeat(self) -> None:
        """Send no more of them."""
        if self._heartbeat is not None:
            self._heartbeat.stop()

    def connection_lost(self, new_error: Callable[[], ConnectionClosed]) -> None:
        """No pong will come."""
        for waiter, _ in self._unanswered.values():
            if waiter is not None and not waiter.done():
                waiter.set_exception(new_error())
        self._unanswered.clear()

    def _send(self, payload: bytes, waiter: asyncio.Future[float] | None, sent: float) -> None:
        self._unanswered[payload] = (waiter, sent)
        self._connection.stats.pings_sent += 1
        self._connection.wire.send_ping(payload)

    # What the heartbeat asks for

    @property
    def reading_paused(self) -> bool:
        """Whether a pong would not be read."""
        return self._connection.queue.paused

    def send_heartbeat(self) -> None:
        """Send a ping that no task waits for."""
        unanswered = [payload for payload, (waiter, _) in self._unanswered.items() if waiter is None]
        if len(unanswered) == _HEARTBEATS:
            del self._unanswered[unanswered[0]]
        self._send(_random_bytes(4), None, perf_counter())

    def fail_unresponsive(self) -> None:
        """The peer answered no ping in ping_timeout. Nothing more is expected of it."""
        self._connection.wire.fail(Close(1011, "keepalive ping timeout"))
        self._connection.wire.transport.abort()


def _expire(waiter: asyncio.Future[float]) -> None:
    if not waiter.done():
        waiter.set_exception(PingTimeout())
