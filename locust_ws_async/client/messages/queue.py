"""The messages that wait: for ``recv``, or for a handler. What happens when there are too many."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol, TypeVar

from websockets.frames import Close

from ..observing.log import warn_once
from ..observing.stats import Statistics
from ..wire.interface import Wire
from .matching import Match, clear_json_cache, matches
from .message import Received
from .reading import PingsForReading, ReadingPause

__all__ = ["PLACE_BYTES", "BoundedQueue", "ReceiveQueue"]

PLACE_BYTES = 200
"""What a waiting message takes in memory beside its payload: about so much, for Python's objects."""

Entry = TypeVar("Entry", bound=tuple[Any, ...])


class ConnectionForQueue(Protocol):
    """What :class:`BoundedQueue` needs of its connection."""

    @property
    def connected(self) -> bool: ...

    @property
    def name(self) -> str: ...

    @property
    def pings(self) -> PingsForReading: ...

    @property
    def reading_paused(self) -> bool: ...

    @property
    def stats(self) -> Statistics: ...

    @property
    def wire(self) -> Wire: ...


class BoundedQueue(deque[Entry], ReadingPause):
    """
    A queue of tuples that begin with the fields of :class:`Received`: message, size in bytes, time of arrival.

    Code that appends or removes directly, as ``recv`` does, must keep ``bytes`` and the limits right, as :meth:`put`
    and :meth:`note_removed` do. It need not count a message that a task waits for already: ``bytes`` is then too low by
    at most that message, and right again once the queue is empty.

    Args:
        connection: the connection whose messages these are.
        limits: the settings ``max_queue`` and ``max_queue_bytes``; None for no limit.
        overflow: the setting of this name: "pause", "drop" or "fail".
        consumer: for what the messages wait, and what its author could do: the words of the warning.
    """

    __slots__ = ("_connection", "_consumer", "_overflow", "byte_limit", "bytes", "limit", "paused")

    _connection: ConnectionForQueue

    def __init__(
        self,
        connection: ConnectionForQueue,
        limits: tuple[int | None, int | None],
        overflow: str,
        consumer: tuple[str, str],
    ) -> None:
        super().__init__()
        self._connection = connection
        self._overflow = overflow
        self._consumer = consumer
        self.limit = limits[0] or float("inf")
        """How many messages may wait."""
        self.byte_limit = limits[1] or float("inf")
        """How many bytes their payloads and places may take together. A message may always wait alone."""
        self.bytes = 0
        """How many they take. It is not 0 while reading is paused because of this queue."""
        self.paused = False

    @property
    def unread_because(self) -> str:
        return f"the queue of {self._consumer[0].removesuffix('()')} is full (max_queue)"

    def put(self, entry: Entry) -> None:
        """Append a message that has to wait."""
        self.append(entry)
        self.bytes += entry[1] + PLACE_BYTES
        if len(self) >= self.limit or self.bytes >= self.byte_limit:
            self.full()

    def note_removed(self, size: int) -> None:
        """Note that a message of this size was removed; resume reading if the queue is down to half its limits."""
        self._set_bytes(self.bytes - size - PLACE_BYTES)

    def full(self) -> None:
        """Do what ``overflow`` says: one of the limits is reached, or exceeded."""
        if not self._connection.connected:
            # A close frame is out, so nothing can stop the server or fail the connection any more.
            if self._exceeded:
                self._drop(self.pop())
            return
        match self._overflow:
            case "pause":
                if not self.paused:
                    self._warn("Reading stops until half of them are taken, which also delays pings and pongs.")
                    self.stop_reading()
            case "drop":
                while self._exceeded:
                    self._warn("The oldest are dropped.")
                    self._drop(self.popleft())
            case "fail":
                if self._exceeded:
                    self._connection.wire.fail(Close(1008, "receive queue full"))

    def discard(self) -> None:
        """Forget all messages."""
        self.clear()
        self._set_bytes(0)

    @property
    def _exceeded(self) -> bool:
        return len(self) > self.limit or (self.bytes > self.byte_limit and len(self) > 1)

    def _set_bytes(self, count: int) -> None:
        self.bytes = max(1, count) if self else 0
        if self.paused and len(self) <= self.limit / 2 and self.bytes <= self.byte_limit / 2:
            self.resume()

    def _drop(self, entry: Entry) -> None:
        self._connection.stats.messages_dropped += 1
        self.note_removed(entry[1])

    def _warn(self, consequence: str) -> None:
        consumer, advice = self._consumer
        if len(self) >= self.limit:
            count, setting = f"{len(self)} messages", "max_queue"
        else:
            count, setting = f"messages of {self.bytes} bytes", "max_queue_bytes"
        text = f"{count} wait for {consumer}, the limit {setting}. {consequence} {advice}, or set {setting}."
        warn_once(self._connection.name, consumer, text)


class ReceiveQueue(BoundedQueue[tuple["str | bytes", int, float]]):
    """The messages that wait for ``recv``. For the parameters see :class:`BoundedQueue`."""

    __slots__ = ()

    def __init__(self, connection: ConnectionForQueue, limits: tuple[int | None, int | None], overflow: str) -> None:
        super().__init__(connection, limits, overflow, ("recv()", "Receive faster"))

    def stop(self) -> None:
        """From now on drop each message that comes while no task waits for it. Those that are here stay."""
        self.limit = 0

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
            self._set_bytes(sum(size + PLACE_BYTES for _, size, _ in left))
        return found
