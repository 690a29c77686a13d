"""
Who gets a message. It is offered in this order, and the first that wants it gets it alone:

1. the rules of application keepalive (``keepalive=``);
2. the waits of ``request`` and ``expect``, the oldest that matches first; replies that are overdue keep their place;
3. the subscriptions of ``on`` and ``measure_push``, the first that matches; ``take=False`` looks at it and leaves it;
4. ``recv``, and ``async for``.
"""

from __future__ import annotations

from typing import Protocol

from .auto_replies import AutoReplies
from .matching import clear_json_cache
from .requests import PendingWaits
from .subscriptions import Subscriptions

__all__ = ["MessageRouter"]

_SMALL = 4096  # bytes; a message that is no longer may stay in memory until the next one is parsed


class ConnectionForRouter(Protocol):
    """What :class:`MessageRouter` needs of its connection."""

    def escalate(self, exc: BaseException) -> None: ...


class MessageRouter:
    """
    Offers each message to everyone but ``recv``. A connection on which only ``recv`` is used has no router.

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
