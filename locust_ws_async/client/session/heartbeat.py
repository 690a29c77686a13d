"""The pings that a client sends by itself, to notice a peer that is gone (RFC 6455 section 5.5.2)."""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ["Heartbeat"]


class HeartbeatPeer(Protocol):
    @property
    def reading_paused(self) -> bool: ...

    def send_heartbeat(self) -> None: ...

    def fail_unresponsive(self) -> None: ...


class Heartbeat:
    """
    One timer per connection: it waits for the time of the next ping, or for the pong of the last.

    Args:
        interval: seconds from one ping to the next.
        timeout: seconds for the pong; None to wait for as long as it takes.
    """

    __slots__ = ("_awaits_pong", "_connection", "_interval", "_loop", "_sent", "_stopped", "_timeout", "_timer")

    def __init__(
        self, connection: HeartbeatPeer, loop: asyncio.AbstractEventLoop, interval: float, timeout: float | None
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._interval = interval
        self._timeout = timeout
        self._sent = 0.0
        self._awaits_pong = False  # within the timeout
        self._stopped = False
        self._timer = loop.call_later(interval, self._beat)

    def stop(self) -> None:
        """No more pings, though pongs may still come."""
        self._timer.cancel()
        self._stopped = True

    def pong_received(self) -> None:
        """The last ping was answered: wait for the time of the next."""
        if self._timeout is not None and not self._stopped:
            self._awaits_pong = False
            self._timer.cancel()
            self._timer = self._loop.call_at(max(self._sent + self._interval, self._loop.time()), self._beat)

    def restart_pong_timeout(self) -> None:
        """The pong may be behind what was not read because the task is slow: it gets the whole timeout again."""
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
        self._connection.send_heartbeat()

    def _expired(self) -> None:
        if self._connection.reading_paused:
            # That is not the peer's failure: see restart_pong_timeout().
            self._timer = self._loop.call_later(self._timeout or self._interval, self._expired)
        else:
            self._connection.fail_unresponsive()
