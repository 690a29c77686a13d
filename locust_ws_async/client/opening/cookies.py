"""Cookies and headers that a user's WebSocket handshakes share with the same user's HTTP requests."""

from __future__ import annotations

from collections.abc import Mapping
from email.message import Message
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from typing import Any, Protocol, cast
from urllib.parse import urlsplit
from urllib.request import Request

from websockets.datastructures import Headers

__all__ = ["HTTPSession", "cookie_header", "matching_cookies", "store_cookies"]


class HTTPSession(Protocol):
    """What ``share_cookies`` and ``share_headers`` need of a user's HTTP client. A :class:`requests.Session` is one."""

    @property
    def cookies(self) -> CookieJar: ...

    @property
    def headers(self) -> Mapping[str, Any]: ...


def matching_cookies(jar: CookieJar, url: str) -> list[str]:
    """The jar's cookies for this ``ws://`` or ``wss://`` URL, as ``name=value``."""
    request = _as_http(url)
    jar.add_cookie_header(request)
    header = request.get_header("Cookie")
    return header.split("; ") if header else []


def cookie_header(shared: list[str], given: Mapping[str, str]) -> str:
    """
    The one ``Cookie`` header (RFC 6265 section 5.4).

    Args:
        shared: cookies of the HTTP session, as ``name=value``.
        given: cookies of the settings, which replace shared ones of the same name.
    """
    kept = [cookie for cookie in shared if cookie.split("=", 1)[0] not in given]
    return "; ".join(kept + [f"{name}={value}" for name, value in given.items()])


def store_cookies(jar: CookieJar, url: str, headers: Headers) -> None:
    """
    Store the cookies that the server sets in its answer to a handshake, as far as the jar's policy allows it.

    Args:
        jar: the cookies of the HTTP session.
        url: where the handshake went, with ``ws://`` or ``wss://``.
        headers: those of the server's answer.
    """
    values = headers.get_all("Set-Cookie")
    if values:
        answer = Message()
        for value in values:
            answer["Set-Cookie"] = value
        jar.extract_cookies(cast(HTTPResponse, _Answer(answer)), _as_http(url))


def _as_http(url: str) -> Request:
    # A jar knows http and https only. The cookies of http also go with ws, and those of https with wss (RFC 6455
    # section 4.1).
    # Nor does one know that a dot at the end of a host is no part of its name.
    parts = urlsplit("http" + url.removeprefix("ws"))
    host, colon, port = parts.netloc.partition(":")
    if host.endswith("."):
        parts = parts._replace(netloc=host.removesuffix(".") + colon + port)
    return Request(parts.geturl())


class _Answer:
    """As much of an HTTP response as a jar reads."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def info(self) -> Message:
        return self._message
