"""Warnings about what a connection does to its server, or the server to it."""

from __future__ import annotations

import logging

__all__ = ["warn_once"]

_logger = logging.getLogger("locust_ws_async.client")
_warned: set[tuple[str, str]] = set()


def warn_once(name: str, kind: str, text: str, error: BaseException | None = None) -> None:
    """
    Log a warning; for debugging only, if this connection's name had a warning of this kind already.

    Thousands of users do the same at the same time, and one of them tells enough.

    Args:
        name: the name of the connection's rows.
        kind: what the warning is about, one word for each place that warns.
        text: what happens, and what to do about it.
        error: whose traceback to add.
    """
    level = logging.DEBUG if (name, kind) in _warned else logging.WARNING
    _warned.add((name, kind))
    _logger.log(level, "%s: %s (Warned once for each name.)", name, text, exc_info=error)
