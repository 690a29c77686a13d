"""Looking up names in a greenlet: by what the program has set, else by gevent's resolver."""

from __future__ import annotations

import socket
from typing import Any

import gevent.socket
from gevent.hub import get_hub
from gevent.monkey import get_original
from gevent.resolver.thread import Resolver as ThreadResolver

__all__ = ["resolve"]


def resolve(name: str, *arguments: Any, **hints: Any) -> Any:
    """
    Call ``socket.getaddrinfo`` or ``socket.getnameinfo``, and block the greenlet meanwhile.

    People replace these functions to pin a name to an address, in :mod:`socket` as asyncio asks it, or in
    ``gevent.socket``. What they have put there is called. Else gevent's resolver is.

    Args:
        name: that of the function.
        arguments, hints: for the function.

    Raises:
        OSError: as the function does.
    """
    function = getattr(socket, name)
    if _is_known(function):
        function = getattr(gevent.socket, name)
        resolver = get_hub().resolver
        if _is_known(function) and isinstance(resolver, ThreadResolver):
            # The same as the resolver's method, but that the pool does not print a traceback for an OSError.
            result = resolver.pool.apply(_without_raising, (get_original("socket", name), arguments, hints))
            if isinstance(result, OSError):
                raise result
            return result
    return function(*arguments, **hints)


def _is_known(function: Any) -> bool:
    return getattr(function, "__module__", "").partition(".")[0] in ("socket", "_socket", "gevent")


def _without_raising(function: Any, arguments: Any, hints: Any) -> Any:
    try:
        return function(*arguments, **hints)
    except OSError as exc:
        return exc
