"""The settings of a connection that its handshake shows: the headers that matter, and what they stand for."""

from __future__ import annotations

import re
from base64 import b64decode
from urllib.parse import unquote

from .har import Socket
from .login import Login
from .payloads import Payloads
from .source import Code, Expression, Group, fields, listing, mapping, text

__all__ = ["LEFT_OUT", "PLAIN_COOKIE", "TRACKING_COOKIE", "basic", "settings_of"]

LEFT_OUT = re.compile(
    r"accept(?:-.*)?|authorization|cache-control|connection|content-(?:length|type)|cookie|dnt|expect|host|origin|pragma"
    r"|priority|proxy-.*|referer|sec-.*|te|traceparent|tracestate|transfer-encoding|upgrade(?:-.*)?|user-agent",
    re.IGNORECASE,
)
"""Headers that every browser sends, that a client makes itself, or that have settings of their own."""

TRACKING_COOKIE = re.compile(r"_ga|_gid|_gat|_gcl|_fbp|_hj|_pk_|__utm|ajs_|amplitude|mp_|OptanonConsent", re.IGNORECASE)
"""Cookies that are not for the server."""

PLAIN_COOKIE = re.compile(r"[A-Za-z]{0,8}|[01]|[a-z]{2}[-_][A-Za-z]{2}")
"""Values of cookies that are no secret: a language, a theme."""

_MAX_SIZE = 2**20  # the default of max_size


def settings_of(
    socket: Socket, cookies: dict[str, str], payloads: Payloads, login: Login
) -> tuple[dict[str, Expression], dict[str, Expression]]:
    """
    The settings of a connection, and those of them that are known only when the user has logged in.

    Args:
        cookies: those that nothing the user does before sets.
    """
    settings: dict[str, Expression] = {}
    told: dict[str, Expression] = {}
    if origin := socket.header("origin"):
        settings["origin"] = payloads.text(origin)
    if offered := socket.header("sec-websocket-protocol"):
        names = [name.strip() for name in offered.split(",")]
        settings["subprotocols"] = listing(payloads.text(name) for name in names if name)
    headers = [
        (text(name), payloads.field(name, value)) for name, value in socket.headers if not LEFT_OUT.fullmatch(name)
    ]
    value = socket.header("authorization") or ""
    scheme, _, token = value.partition(" ")
    if socket.url.username is not None:
        settings["auth"] = _pair(unquote(socket.url.username), unquote(socket.url.password or ""), payloads)
    elif (credentials := basic(value)) is not None:
        settings["auth"] = _pair(*credentials, payloads)
    elif scheme.lower() == "bearer" and token:
        if (known := login.value(token)) is not None:
            told["bearer"] = known
        else:
            settings["bearer"] = payloads.field("token", token)
    elif value:
        headers.append((text("Authorization"), payloads.field("authorization", value)))
    if headers:
        settings["headers"] = fields(headers)
    left = [(name, value) for name, value in sorted(cookies.items()) if not TRACKING_COOKIE.match(name)]
    if left:
        settings["cookies"] = mapping((text(name), payloads.secret(value)) for name, value in left)
    if socket.compressed:
        settings["compression"] = text("deflate")
    largest = max((_size(frame.data) for frame in socket.frames if not frame.sent), default=0)
    if largest > _MAX_SIZE:
        settings["max_size"] = Code(f"2**{largest.bit_length()}")
    return settings, told


def _size(data: str | bytes) -> int:
    return len(data.encode()) if isinstance(data, str) else len(data)


def _pair(user: str, password: str, payloads: Payloads) -> Group:
    return Group("(", (("", payloads.text(user)), ("", payloads.secret(password))), ")")


def basic(value: str) -> tuple[str, str] | None:
    """User and password of an Authorization header (RFC 7617); None for another one."""
    scheme, _, credentials = value.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = b64decode(credentials, validate=True).decode().partition(":")
    except ValueError:
        return None
    return (user, password) if colon else None
