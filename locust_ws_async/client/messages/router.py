"""
Who gets a message. It is offered in this order, and the first that wants it gets it alone:

1. the rules of application keepalive (``keepalive=``);
2. the streams of ``stream``, by their ids, and then the oldest that matches;
3. the waits of ``request`` and ``expect``, the oldest that matches first; replies that are overdue keep their place;
4. the subscriptions of ``on`` and ``measure_push``, the first that matches; ``take=False`` looks at it and leaves it;
5. ``recv``, and ``async for``.

Before all of them, ``track`` has looked at it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...exceptions import ConnectionClosed
from .auto_replies import AutoReplies
from .matching import clear_json_cache
from .queue import BoundedQueue
from .requests import PendingWaits
from .streams import Streams
from .subscriptions import Subscriptions
from .tracking import Tracker

__all__ = ["MessageRouter", "StreamRouter"]

_SMALL = 4096  # bytes; a message that is no longer may stay in memory until the next one is parsed


class ConnectionForRouter(Protocol):
    """What :class:`MessageRouter` needs of its connection."""

    def escalate(self, exc: BaseException) -> None: ...


class MessageRouter:
    """
    Offers each message to everyone but ``recv``. A connection on which only ``recv`` is used has no router, and one on
    which ``stream`` or ``track`` is used has a :class:`StreamRouter`.

    Args:
        connection: takes a kill that comes while a match runs.
        auto_replies: the rules of ``keepalive``.
        pending: the waits of ``request`` and ``expect``.
        subscriptions: those of ``on`` and ``measure_push``.
    """

    __slots__ = ("_connection", "auto_replies", "pending", "subscriptions")

    def __init__(
        self,
        connection: ConnectionForRouter,
        auto_replies: AutoReplies,
        pending: PendingWaits,
        subscriptions: Subscriptions,
    ) -> None:
        self._connection = connection
        self.auto_replies = auto_replies
        self.pending = pending
        self.subscriptions = subscriptions

    def route(self, message: str | bytes, size: int, arrived: float) -> bool:
        """
        Offer a message that has just arrived; return whether somebody took it, so that ``recv`` does not get it.

        Args:
            message: the message.
            size: bytes of its payload.
            arrived: when it was read, by :func:`time.perf_counter`.
        """
        try:
            taken = (
                self.auto_replies.try_consume(message, size, arrived)
                or self.pending.try_consume(message, size, arrived)
                or self.subscriptions.try_consume(message, size, arrived)
            )
        except BaseException as exc:  # a kill, which came while a match or a payload blocked
            self._connection.escalate(exc)
            taken = True
        if size > _SMALL:
            clear_json_cache()
        return taken

    def reroute(self, message: str | bytes, size: int, arrived: float) -> bool:
        """
        Offer a message again, which an ``expect`` took that was cancelled in the same turn of the loop.

        The rules of ``keepalive`` are left out: they have declined it already.
        """
        return self.pending.try_consume(message, size, arrived) or self.subscriptions.try_consume(
            message, size, arrived
        )

    @property
    def queues(self) -> Sequence[BoundedQueue[Any]]:
        """The messages that wait for somebody, but for those that wait for ``recv``."""
        return (self.subscriptions.waiting,)

    def connection_lost(self, new_error: Callable[[], ConnectionClosed], by_us: bool) -> None:
        """
        End what cannot go on: nothing more comes in this session.

        Args:
            new_error: gives an error for each wait that fails.
            by_us: whether this side has closed the connection.
        """
        self.pending.connection_lost(new_error)

    def finish(self, by_us: bool) -> None:
        """Nothing more comes at all. The parameter is that of :meth:`connection_lost`."""


class StreamRouter(MessageRouter):
    """
    A router that knows streams and trackers too. It takes the place of a plain one, with all that it has.

    Args:
        connection: takes a kill that comes while a match runs.
        plain: the router of this connection so far.
        streams: those of ``stream``.
    """

    __slots__ = ("streams", "trackers")

    def __init__(self, connection: ConnectionForRouter, plain: MessageRouter, streams: Streams) -> None:
        super().__init__(connection, plain.auto_replies, plain.pending, plain.subscriptions)
        self.streams = streams
        self.trackers: list[Tracker] = []

    def route(self, message: str | bytes, size: int, arrived: float) -> bool:
        try:
            for tracker in self.trackers:
                tracker.observe(message, arrived)
            # Not super().route(), as streams come between the others.
            taken = (
                self.auto_replies.try_consume(message, size, arrived)
                or self.streams.try_consume(message, size, arrived)
                or self.pending.try_consume(message, size, arrived)
                or self.subscriptions.try_consume(message, size, arrived)
            )
        except BaseException as exc:  # as in super().route()
            self._connection.escalate(exc)
            taken = True
        if size > _SMALL:
            clear_json_cache()
        return taken

    def reroute(self, message: str | bytes, size: int, arrived: float) -> bool:
        return self.streams.try_consume(message, size, arrived) or super().reroute(message, size, arrived)

    @property
    def queues(self) -> Sequence[BoundedQueue[Any]]:
        return (*super().queues, *self.streams.queues)

    def connection_lost(self, new_error: Callable[[], ConnectionClosed], by_us: bool) -> None:
        super().connection_lost(new_error, by_us)
        self.streams.connection_lost(new_error, by_us)
        for tracker in self.trackers:
            tracker.session_ended(by_us=by_us)

    def finish(self, by_us: bool) -> None:
        for tracker in self.trackers.copy():
            tracker.finish(by_us=by_us)
