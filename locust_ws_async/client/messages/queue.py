"""The messages that wait for ``recv``, and what happens when there are too many."""

from __future__ import annotations

import logging
from collections import deque
from typing import Protocol

from websockets.frames import Close

from ..observing.stats import Statistics
from ..wire.interface import Wire
from .matching import Match, clear_json_cache, matches
from .message import Received

__all__ = ["ReceiveQueue"]

_logger = logging.getLogger("locust_ws_async.client")
_warned: set[str] = set()  # the names of connections whose queue was full once; one warning for each is enough


class PingsForQueue(Protocol):
    """What :class:`ReceiveQueue` tells the pings of its connection."""

    def reading_resumed(self) -> None:
        """A pong may be among what was not read for a while."""


class ConnectionForQueue(Protocol):
    """What :class:`ReceiveQueue` needs of its connection."""

    @property
    def connected(self) -> bool: ...

    @property
    def name(self) -> str: ...

    @property
    def pings(self) -> PingsForQueue: ...

    @property
    def stats(self) -> Statistics: ...

    @property
    def wire(self) -> Wire: ...


class ReceiveQueue(deque[tuple["str | bytes", int, float]]):
    """
    A queue of (message, size in bytes, time of arrival), the fields of :class:`Received`.

    Args:
        connection: the connection whose messages these are.
        limit: the setting ``max_queue``: how many messages may wait; None for no limit.
        overflow: the setting of this name: "pause", "drop" or "fail".
    """

    __slots__ = ("_connection", "_overflow", "limit", "paused")

    def __init__(self, connection: ConnectionForQueue, limit: int | None, overflow: str) -> None:
        super().__init__()
        self._connection = connection
        self._overflow = overflow
        self.limit = limit or float("inf")
        self.paused = False
        """Whether reading from the socket has stopped."""

    def full(self) -> None:
        """Do what ``overflow`` says: ``limit`` messages wait, or more."""
        match self._overflow:
            case "pause":
                if not self.paused and self._connection.connected:
                    self._warn("Reading stops until half of them are taken, which also delays pings and pongs.")
                    self.paused = True
                    self._connection.wire.pause_reading()
            case "drop":
                if len(self) > self.limit:
                    self._warn("The oldest are dropped.")
                    self.popleft()
                    self._connection.stats.messages_dropped += 1
            case "fail":
                if len(self) > self.limit and self._connection.connected:
                    self._connection.wire.fail(Close(1008, "receive queue full"))

    def resume_if_drained(self) -> None:
        """Resume reading if the queue is down to half its limit."""
        if self.paused and len(self) <= self.limit / 2:
            self.resume()

    def resume(self) -> None:
        """Resume reading, however many messages wait."""
        self.paused = False
        self._connection.pings.reading_resumed()
        wire = self._connection.wire
        if not wire.transport.is_closing():
            wire.resume_reading()

    def find(
        self, match: Match, *, take: bool = True, limit: int | None = None, since: float | None = None
    ) -> list[Received]:
        """
        The messages that match, oldest first.

        Args:
            match: a predicate on the message.
            take: whether to remove them from the queue.
            limit: how many to find at most; None for all.
            since: only those that arrived after this time, by perf_counter.
        """
        found: list[Received] = []
        left: list[tuple[str | bytes, int, float]] = []
        for entry in self:
            if len(found) != limit and (since is None or entry[2] > since) and matches(match, entry[0]):
                found.append(Received(*entry))
            else:
                left.append(entry)
        clear_json_cache()
        if take and found:
            self.clear()
            self.extend(left)
            self.resume_if_drained()
        return found

    def _warn(self, consequence: str) -> None:
        name = self._connection.name
        level = logging.DEBUG if name in _warned else logging.WARNING
        _warned.add(name)
        _logger.log(
            level,
            "%s: %s messages wait for recv(), the limit max_queue. %s Receive faster, or set max_queue. "
            "(Warned once for each name.)",
            name,
            self.limit,
            consequence,
        )
