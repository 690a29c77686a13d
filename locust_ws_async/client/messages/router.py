"""
Who gets a message. In this order, and nobody after the one who takes it:

1. the rules of application keepalive (``keepalive=``);
2. the waits of ``request`` and ``expect``, the oldest that matches first; replies that are overdue keep their place;
3. the subscriptions of ``on`` and ``measure_push``, the first that matches; ``take=False`` looks and leaves it;
4. ``recv``, and ``async for``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .auto_replies import AutoReplies, KeepaliveRule
from .matching import clear_json_cache
from .requests import PendingWaits
from .subscriptions import Subscriptions

if TYPE_CHECKING:
    from ..connection import WebSocketConnection

__all__ = ["MessageRouter"]

_SMALL = 4096  # bytes; a message that is no longer may stay in memory until the next is parsed


class MessageRouter:
    """Everything but ``recv`` that takes messages of one connection. A connection that needs none of it has none."""

    __slots__ = ("_connection", "auto_replies", "pending", "subscriptions")

    def __init__(
        self, connection: WebSocketConnection, loop: asyncio.AbstractEventLoop, rules: tuple[KeepaliveRule, ...]
    ) -> None:
        self._connection = connection
        self.auto_replies = AutoReplies(connection, loop, rules)
        self.pending = PendingWaits(connection, loop)
        self.subscriptions = Subscriptions(connection)

    def route(self, message: str | bytes, size: int, arrived: float) -> bool:
        """Whether somebody took the message, so that ``recv`` does not get it."""
        try:
            taken = (
                self.auto_replies.try_consume(message, size, arrived)
                or self.pending.try_consume(message, size, arrived)
                or self.subscriptions.try_consume(message, size, arrived)
            )
        except BaseException as exc:  # a kill, where a match or a payload blocked
            self._connection.escalate(exc)
            taken = True
        if size > _SMALL:
            clear_json_cache()
        return taken

    def reroute(self, message: str | bytes, size: int, arrived: float) -> bool:
        """The same for a message that a wait had taken, and has no use for any more."""
        return self.pending.try_consume(message, size, arrived) or self.subscriptions.try_consume(
            message, size, arrived
        )
