"""Which client is that of the code that runs: for libraries that open their connections by themselves."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

__all__ = ["current_client", "is_asked_for", "set_current_client"]

current_client: ContextVar[Any] = ContextVar("locust_ws_async_client", default=None)
"""A ``WebSocketClient``, or None."""

_asked_for = False


def is_asked_for() -> None:
    """Have :func:`set_current_client` do something. Without a library that asks, users pay for no context of theirs."""
    global _asked_for
    _asked_for = True


def set_current_client(client: object) -> None:
    """Let *client* be that of the code of this greenlet, or of this task."""
    if _asked_for:
        current_client.set(client)
