"""Cookies and headers that a user's WebSocket handshakes share with the same user's HTTP requests."""

from __future__ import annotations

from collections.abc import Mapping
from email.message import Message
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from typing import Any, Protocol, cast
from urllib.request import Request

from websockets.datastructures import Headers

__all__ = ["HTTPSession", "cookie_header", "matching_cookies", "store_cookies"]


class HTTPSession(Protocol):
    """The HTTP client of the same user, as far as it is shared. A :class:`requests.Session` is one."""

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
    """One ``Cookie`` header (RFC 6265 section 5.4); a cookie that is given stands in for a shared one of its name."""
    kept = [cookie for cookie in shared if cookie.split("=", 1)[0] not in given]
    return "; ".join(kept + [f"{name}={value}" for name, value in given.items()])


def store_cookies(jar: CookieJar, url: str, headers: Headers) -> None:
    """Put what this answer to a handshake sets into the jar, by the jar's rules."""
    values = headers.get_all("Set-Cookie")
    if values:
        answer = Message()
        for value in values:
            answer["Set-Cookie"] = value
        jar.extract_cookies(cast(HTTPResponse, _Answer(answer)), _as_http(url))


def _as_http(url: str) -> Request:
    # A jar knows http and https only; ws has the cookies of the one, wss those of the other (RFC 6455 section 4.1).
    return Request("http" + url.removeprefix("ws"))


class _Answer:
    """What a jar reads of an HTTP answer."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def info(self) -> Message:
        return self._message
