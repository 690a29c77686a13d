"""The HTTP requests that a user has to make before it connects: those that set the cookies of the handshake."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .har import HTTPExchange, Socket

__all__ = ["cookies_left", "login_of"]


def login_of(
    sockets: Iterable[Socket], requests: Sequence[HTTPExchange], needed: Iterable[HTTPExchange]
) -> list[HTTPExchange]:
    """
    The requests whose responses set the cookies of these handshakes, in their order; those that set the cookies of such
    requests; and those that are ``needed`` anyway.
    """
    sockets = list(sockets)
    opened = max((socket.opened for socket in sockets), default=0.0)
    wanted = {cookie for socket in sockets for cookie in socket.cookies.items()}
    always = set(map(id, needed))
    found = []
    for request in sorted(requests, key=lambda request: request.started, reverse=True):
        sets = wanted & set(request.set_cookies.items())
        if id(request) not in always and not (sets and request.started <= opened and _succeeded(request)):
            continue
        wanted -= sets
        wanted |= set(request.cookies.items())
        found.append(request)
    return found[::-1]


def cookies_left(socket: Socket, before: Iterable[HTTPExchange | Socket]) -> dict[str, str]:
    """The cookies of a handshake that none of these, of which the user has made each before, sets."""
    given = {cookie for other in before for cookie in other.set_cookies.items()}
    return {name: value for name, value in socket.cookies.items() if (name, value) not in given}


def _succeeded(request: HTTPExchange) -> bool:
    return request.status < 400
