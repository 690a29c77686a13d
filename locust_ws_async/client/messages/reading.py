"""Why nothing is read from a connection's socket for a while, so that TCP slows the server down."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from ..wire.interface import Wire

__all__ = ["PauseByHand", "PingsForReading", "ReadRate", "ReadingPause"]

_SHORTEST_PAUSE = 0.01
"""Seconds. What takes less at the rate is read at once: a timer for each small message would cost more than it."""


class PingsForReading(Protocol):
    """What a :class:`ReadingPause` tells the pings of its connection."""

    def reading_resumed(self) -> None:
        """A pong may be among what was not read for a while."""


class ConnectionForReading(Protocol):
    """What a :class:`ReadingPause` needs of its connection."""

    @property
    def connected(self) -> bool: ...

    @property
    def pings(self) -> PingsForReading: ...

    @property
    def reading_paused(self) -> bool: ...

    @property
    def wire(self) -> Wire: ...


class ReadingPause:
    """
    One reason not to read. Nothing is read while there is any; what was read before is still delivered.

    Class attributes and methods only, so that a queue can be one as well.
    """

    if not TYPE_CHECKING:  # mypy would want the attributes here, where they clash with those of a deque
        __slots__ = ()

    _connection: ConnectionForReading
    paused: bool
    """Whether reading has stopped for this reason."""

    @property
    def unread_because(self) -> str | None:
        """The reason, for the error of a wait that times out meanwhile; None where it would not last so long."""
        return None

    def stop_reading(self) -> None:
        """Read nothing more from now on."""
        if not self.paused:
            paused_already = self._connection.reading_paused
            self.paused = True
            if not paused_already:
                self._connection.wire.pause_reading()

    def resume(self) -> None:
        """Read on, if there is no other reason not to."""
        self.paused = False
        if not self._connection.reading_paused:
            self._connection.pings.reading_resumed()
            wire = self._connection.wire
            if not wire.transport.is_closing():
                wire.resume_reading()

    def session_ended(self) -> None:
        """The reason is none any more, as there is nothing to read: the connection is lost."""
        self.paused = False


class PauseByHand(ReadingPause):
    """``pause()`` was called, and ``resume()`` was not."""

    __slots__ = ("_connection", "paused")

    def __init__(self, connection: ConnectionForReading) -> None:
        self._connection = connection
        self.paused = False

    @property
    def unread_because(self) -> str:
        return "pause() was called"


class ReadRate(ReadingPause):
    """
    The setting ``read_rate`` at work in one session: after each read, nothing more is read for as long as its bytes
    take at this rate.

    Args:
        connection: the connection that is read from.
        loop: its loop.
        rate: bytes a second.
    """

    __slots__ = ("_connection", "_free_at", "_loop", "_rate", "_timer", "paused")

    def __init__(self, connection: ConnectionForReading, loop: asyncio.AbstractEventLoop, rate: float) -> None:
        self._connection = connection
        self._loop = loop
        self._rate = rate
        self._free_at = 0.0  # by the loop's clock: when what was read so far is paid for
        self._timer: asyncio.TimerHandle | None = None
        self.paused = False

    def note_read(self, nbytes: int) -> None:
        """So many bytes were read just now."""
        now = self._loop.time()
        self._free_at = max(self._free_at, now) + nbytes / self._rate
        if self._free_at - now >= _SHORTEST_PAUSE and self._timer is None and self._connection.connected:
            self.stop_reading()
            self._timer = self._loop.call_at(self._free_at, self.resume)

    def resume(self) -> None:
        self._stop_timer()
        super().resume()

    def session_ended(self) -> None:
        self._stop_timer()
        super().session_ended()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
