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

from .exchanges import Pending
from .handlers import Handlers
from .keepalive import Keepalive, KeepaliveRule
from .matching import forget_parsed

if TYPE_CHECKING:
    from .connection import WebSocketConnection

__all__ = ["Dispatch"]

_SMALL = 4096  # bytes; a message that is no longer may stay in memory until the next is parsed


class Dispatch:
    """Everything but ``recv`` that takes messages of one connection. A connection that needs none of it has none."""

    __slots__ = ("_connection", "handlers", "keepalive", "pending")

    def __init__(
        self, connection: WebSocketConnection, loop: asyncio.AbstractEventLoop, rules: tuple[KeepaliveRule, ...]
    ) -> None:
        self._connection = connection
        self.keepalive = Keepalive(connection, loop, rules)
        self.pending = Pending(connection, loop)
        self.handlers = Handlers(connection)

    def take(self, message: str | bytes, size: int, arrived: float) -> bool:
        """Whether somebody took the message, so that ``recv`` does not get it."""
        try:
            taken = (
                self.keepalive.take(message, size, arrived)
                or self.pending.take(message, size, arrived)
                or self.handlers.take(message, size, arrived)
            )
        except BaseException as exc:  # a kill, where a match or a payload blocked
            self._connection.escalate(exc)
            taken = True
        if size > _SMALL:
            forget_parsed()
        return taken

    def take_again(self, message: str | bytes, size: int, arrived: float) -> bool:
        """The same for a message that a wait had taken, and has no use for any more."""
        return self.pending.take(message, size, arrived) or self.handlers.take(message, size, arrived)
