"""Pings and their pongs: those that a task sends, and those of the heartbeat (RFC 6455 sections 5.5.2 and 5.5.3)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

from websockets.exceptions import ConcurrencyError
from websockets.frames import Close

from ...exceptions import ConnectionClosed, PingTimeout
from ..observing.stats import Statistics
from ..wire.interface import Wire

__all__ = ["Heartbeat", "Pings"]

# The unanswered pings of the heartbeat that are kept, where there is no ping_timeout and the peer never answers. A pong
# that takes up to so many intervals still gives a latency.
_HEARTBEATS = 16

_random_bytes = random.Random().randbytes


class ConnectionForPings(Protocol):
    """What :class:`Pings` needs of its connection."""

    stats: Statistics
    wire: Wire

    @property
    def reading_paused(self) -> bool: ...


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
        Send a ping and wait for its pong. Cancelling stops the wait; the pong, if it comes, is then ignored.

        Args:
            payload: what ``new_payload`` returned.
            sent: the time, by perf_counter.
            timeout: seconds to wait; None for no limit.

        Returns:
            The seconds between ping and pong.

        Raises:
            PingTimeout: no pong came in time.
            ConnectionClosed: the session ended first.
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
        """Take a pong. It may answer one of these pings, and may not."""
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
        """Give the pong more time: it may be among what was not read for a while."""
        if self._heartbeat is not None:
            self._heartbeat.restart_pong_timeout()

    def stop_heartbeat(self) -> None:
        """Stop sending pings in the background."""
        if self._heartbeat is not None:
            self._heartbeat.stop()

    def connection_lost(self, new_error: Callable[[], ConnectionClosed]) -> None:
        """Fail every wait for a pong, because none will come."""
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
        """Whether reading is paused, so that a pong would not be read."""
        return self._connection.reading_paused

    def send_heartbeat(self) -> None:
        """Send a ping that no task waits for."""
        unanswered = [payload for payload, (waiter, _) in self._unanswered.items() if waiter is None]
        if len(unanswered) == _HEARTBEATS:
            del self._unanswered[unanswered[0]]
        self._send(_random_bytes(4), None, perf_counter())

    def fail_unresponsive(self) -> None:
        """End the connection, because the peer answered no ping within ``ping_timeout``."""
        self._connection.wire.fail(Close(1011, "keepalive ping timeout"))
        self._connection.wire.transport.abort()


def _expire(waiter: asyncio.Future[float]) -> None:
    if not waiter.done():
        waiter.set_exception(PingTimeout())


class HeartbeatPeer(Protocol):
    """What a heartbeat acts on; :class:`Pings`, except in tests."""

    @property
    def reading_paused(self) -> bool: ...

    def send_heartbeat(self) -> None: ...

    def fail_unresponsive(self) -> None: ...


class Heartbeat:
    """
    The pings that a client sends by itself, to notice a peer that is gone.

    There is one timer for each connection. It waits for the time of the next ping, or for the pong of the last.

    Args:
        interval: seconds from one ping to the next.
        timeout: seconds for the pong; None to wait for as long as it takes.
    """

    __slots__ = ("_awaits_pong", "_interval", "_loop", "_peer", "_sent", "_stopped", "_timeout", "_timer")

    def __init__(
        self, peer: HeartbeatPeer, loop: asyncio.AbstractEventLoop, interval: float, timeout: float | None
    ) -> None:
        self._peer = peer
        self._loop = loop
        self._interval = interval
        self._timeout = timeout
        self._sent = 0.0
        self._awaits_pong = False  # whether the timer is that of the timeout
        self._stopped = False
        self._timer = loop.call_later(interval, self._beat)

    def stop(self) -> None:
        """Send no more pings. Pongs may still come."""
        self._timer.cancel()
        self._stopped = True

    def pong_received(self) -> None:
        """Wait for the time of the next ping, because the last was answered."""
        if self._timeout is not None and not self._stopped:
            self._awaits_pong = False
            self._timer.cancel()
            self._timer = self._loop.call_at(max(self._sent + self._interval, self._loop.time()), self._beat)

    def restart_pong_timeout(self) -> None:
        """Give the pong the whole timeout again: it may be behind what was not read because the task is slow."""
        if self._timeout is not None and self._awaits_pong and not self._stopped:
            self._timer.cancel()
            self._timer = self._loop.call_later(self._timeout, self._expired)

    def _beat(self) -> None:
        self._sent = self._loop.time()
        if self._timeout is None:
            self._timer = self._loop.call_later(self._interval, self._beat)
        else:
            self._awaits_pong = True
            self._timer = self._loop.call_later(self._timeout, self._expired)
        self._peer.send_heartbeat()

    def _expired(self) -> None:
        if self._peer.reading_paused:
            # This is not the peer's failure: see restart_pong_timeout().
            self._timer = self._loop.call_later(self._timeout or self._interval, self._expired)
        else:
            self._peer.fail_unresponsive()
