"""What the connections of a process have counted together, and which of them are not over yet.

Nothing here runs for a message. Messages and bytes are counted once, in the :class:`Statistics` of their connection;
those of a connection that is over are added up here, and whoever asks adds those of the live ones.
"""

from __future__ import annotations

from collections import Counter
from operator import add, attrgetter
from typing import Any, Literal

from ..wire.interface import CloseInfo

__all__ = ["SHELF", "SUMMED", "ClosedBy", "OpenConnections", "Shelf", "Tally"]

ClosedBy = Literal["us", "peer", "lost"]

SUMMED = (
    "texts_received",
    "binaries_received",
    "text_bytes_received",
    "binary_bytes_received",
    "texts_sent",
    "binaries_sent",
    "text_bytes_sent",
    "binary_bytes_sent",
    "late_replies",
    "messages_dropped",
)
"""What of a connection's statistics is added up."""

_summed = attrgetter(*SUMMED)
_stats = attrgetter("stats")
_NOTHING = (0,) * len(SUMMED)


SHELF = 250
"""About so many connections are on one shelf; to look at them takes a quarter of a millisecond."""


class Shelf:
    """The connections of some clients: so many that one can look at all of them and keep nobody waiting."""

    __slots__ = ("finished", "live")

    def __init__(self) -> None:
        self.live: set[Any] = set()
        """The connections that are not over: that connect, are open, or are being made again."""
        self.finished = _NOTHING
        """What those that are over have counted, in the order of :data:`SUMMED`."""

    def sums(self) -> tuple[int, ...]:
        """What all of them have counted so far, in the order of :data:`SUMMED`."""
        live = map(_summed, map(_stats, list(self.live)))
        return tuple([sum(column) for column in zip(self.finished, *live, strict=True)])


class Tally:
    """
    The counters of all clients that share it. They only grow, so that a difference of two is what happened between.

    Attributes:
        shelves: the connections, and what they have counted themselves.
        live: how many are not over.
        connecting: how many of these connect for the first time.
        opened: opening handshakes that were complete, reconnects included.
        closes: the ends of these connections by close code; 1006 where the server sent no close frame.
        closed_by: the same ends, by who began to close. "us": this side, by ``close()`` or because of an error;
            "peer": the server sent its close frame first; "lost": nobody sent one.
        recoveries: lost connections that were made again.
        cancelled_waits: waits that a stop has cancelled, which are no row.
        queue_waits: messages that had waited when ``recv`` took them.
        queue_wait: for how long, in seconds, together.
        longest_queue_wait: and the longest, since it was set to 0.
    """

    def __init__(self) -> None:
        self.shelves = [Shelf()]
        self.live = 0
        self.connecting = 0
        self.opened = 0
        self.closes: Counter[int] = Counter()
        self.closed_by: Counter[ClosedBy] = Counter()
        self.recoveries = 0
        self.cancelled_waits = 0
        self.queue_waits = 0
        self.queue_wait = 0.0
        self.longest_queue_wait = 0.0

    @property
    def ended(self) -> int:
        """How many of the opened connections have ended."""
        return sum(self.closes.values())

    @property
    def open(self) -> int:
        """How many connections are open: from the server's answer to the handshake to the end of TCP."""
        return self.opened - self.ended

    @property
    def reconnecting(self) -> int:
        """How many are lost and not made again yet: they wait for their next attempt, or it is under way."""
        return self.live - self.connecting - self.open

    def shelf_with_room(self) -> Shelf:
        """Return a shelf for the connections of another client."""
        shelf = self.shelves[-1]
        if len(shelf.live) >= SHELF:
            shelf = min(self.shelves, key=lambda each: len(each.live))
            if len(shelf.live) >= SHELF:
                shelf = Shelf()
            else:
                self.shelves.remove(shelf)
            self.shelves.append(shelf)
        return shelf

    def session_ended(self, info: CloseInfo, *, closed_by_us: bool) -> None:
        """Count the end of an open connection."""
        self.closes[1006 if info.rcvd is None else int(info.rcvd.code)] += 1
        by: ClosedBy = "lost"
        if info.rcvd is not None and (info.sent is None or info.rcvd_then_sent):
            by = "peer"
        elif closed_by_us or info.sent is not None:
            by = "us"
        self.closed_by[by] += 1

    def queue_waited(self, seconds: float) -> None:
        """Count a message that had waited for ``recv``."""
        self.queue_waits += 1
        self.queue_wait += seconds
        if seconds > self.longest_queue_wait:
            self.longest_queue_wait = seconds


class OpenConnections(set[Any]):
    """The connections of one client that have been open and are not over; it tells the tally of them."""

    __slots__ = ("_shelf", "tally")

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally = tally
        self._shelf: Shelf | None = None  # until there is a connection

    def begin(self, connection: Any) -> None:
        """A connection begins to connect for the first time."""
        tally = self.tally
        if self._shelf is None:
            self._shelf = tally.shelf_with_room()
        self._shelf.live.add(connection)
        tally.live += 1
        tally.connecting += 1

    def opened(self, connection: Any) -> None:
        """Its opening handshake is complete, for the first time or again."""
        self.tally.opened += 1
        if connection not in self:
            self.tally.connecting -= 1
            self.add(connection)

    def finish(self, connection: Any) -> None:
        """It is over for good."""
        tally, shelf = self.tally, self._shelf
        assert shelf is not None
        tally.live -= 1
        if connection in self:
            self.discard(connection)
        else:
            tally.connecting -= 1
        shelf.live.discard(connection)
        shelf.finished = tuple(map(add, shelf.finished, _summed(connection.stats)))
