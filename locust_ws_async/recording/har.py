"""A HAR file, read and checked: the WebSocket connections in it with their messages, and the HTTP requests.

Chrome, Playwright and mitmproxy write the messages of a connection as ``_webSocketMessages`` of its entry: ``type``
(send or receive), ``time`` (seconds since the epoch), ``opcode``, ``data`` (base64 when binary).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

__all__ = ["Frame", "HARError", "HTTPExchange", "Headers", "Recording", "Socket", "parse"]

T = TypeVar("T")

Headers = tuple[tuple[str, str], ...]

# Text and binary; those of a close, a ping and a pong are not the application's (RFC 6455 section 5.2).
_TEXT, _BINARY, _CONTROL = 1, 2, {8, 9, 10}
_MILLISECONDS = 1e11  # a number of seconds above this is in the year 5138: it is milliseconds
_NOT_IN_HOST = re.compile(r"""[\x00-\x20"<>\\^`{|}\x7f]""")


class HARError(ValueError):
    """The file cannot be made into a locustfile; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. ``time``: seconds since the epoch."""

    sent: bool
    time: float
    data: str | bytes


@dataclass(frozen=True, slots=True)
class Socket:
    """One WebSocket connection: its handshake's request, and its messages."""

    url: SplitResult
    """``ws`` or ``wss``, without a fragment."""
    headers: Headers
    cookies: dict[str, str]
    set_cookies: dict[str, str]
    """The cookies that the answer to the handshake set."""
    compressed: bool
    """Whether the server agreed to permessage-deflate."""
    opened: float
    frames: tuple[Frame, ...]

    def header(self, name: str) -> str | None:
        """The value of a header of the handshake, the name in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), None)


@dataclass(frozen=True, slots=True)
class HTTPExchange:
    """One HTTP request and its answer."""

    method: str
    url: SplitResult
    headers: Headers
    cookies: dict[str, str]
    body: str
    content_type: str
    started: float
    status: int
    set_cookies: dict[str, str]
    answer: str
    """The body of the response; empty where the recording has none."""

    @property
    def is_form(self) -> bool:
        """Whether the body is that of a form."""
        return "application/x-www-form-urlencoded" in self.content_type


@dataclass(frozen=True, slots=True)
class Recording:
    """What was recorded, in the order in which it began."""

    sockets: tuple[Socket, ...]
    requests: tuple[HTTPExchange, ...]


def parse(text: str | bytes) -> Recording:
    """
    Read a HAR.

    Raises:
        HARError: it is none, or has no WebSocket messages.
    """
    try:
        har = json.loads(text)
    except UnicodeDecodeError:
        raise HARError("this is no HAR: it is not text in UTF-8") from None
    except ValueError as exc:
        raise HARError(f"this is no HAR: it is not JSON ({exc})") from None
    except RecursionError:
        raise HARError("this is no HAR: its JSON is nested too deep") from None
    if not isinstance(har, dict) or not isinstance(har.get("log"), dict):
        raise HARError('this is no HAR: it is JSON without a "log" object')
    log = har["log"]
    sockets: list[Socket] = []
    requests: list[HTTPExchange] = []
    seen = 0
    for index, value in enumerate(_get(log, "entries", list, "log")):
        where = f"log.entries[{index}]"
        entry = _checked(value, dict, where)
        if _is_websocket(entry):
            seen += 1
            sockets.extend(_sockets(entry, where))
        elif (request := _request(entry, where)) is not None:
            requests.append(request)
    if not any(socket.frames for socket in sockets):
        raise HARError(_nothing_recorded(log, seen))
    sockets.sort(key=lambda socket: socket.opened)
    requests.sort(key=lambda request: request.started)
    return Recording(tuple(sockets), tuple(requests))


def _nothing_recorded(log: dict[str, Any], seen: int) -> str:
    creator = log.get("creator")
    name = creator.get("name") if isinstance(creator, dict) else None
    if not seen:
        return "there is no WebSocket connection in this HAR: record from before the page connects (reload it)"
    if name == "Firefox":
        return (
            "Firefox does not write WebSocket messages into its HAR: record with Chrome, Edge, Playwright or mitmproxy"
        )
    return (
        "no WebSocket connection in this HAR has messages (_webSocketMessages): "
        "record with Chrome, Edge, Playwright or mitmproxy, from before the page connects"
    )


def _is_websocket(entry: dict[str, Any]) -> bool:
    request, response = entry.get("request"), entry.get("response")
    url = request.get("url") if isinstance(request, dict) else None
    return (
        "_webSocketMessages" in entry
        or entry.get("_resourceType") == "websocket"
        or (isinstance(url, str) and url.lower().startswith(("ws://", "wss://")))
        or (isinstance(response, dict) and response.get("status") == 101)
    )


def _sockets(entry: dict[str, Any], where: str) -> Iterator[Socket]:
    """The connection of an entry, unless it was never established."""
    request = _get(entry, "request", dict, where)
    response = _optional(entry, "response", dict, where, {})
    messages = _optional(entry, "_webSocketMessages", list, where, [])
    frames = [
        frame
        for index, message in enumerate(messages)
        for frame in _frames(message, f"{where}._webSocketMessages[{index}]")
    ]
    if not frames and response.get("status", 101) != 101:
        return
    headers = _headers(request, f"{where}.request")
    answered = _headers(response, f"{where}.response")
    extensions = " ".join(value for name, value in answered if name.lower() == "sec-websocket-extensions")
    yield Socket(
        url=_url(_get(request, "url", str, f"{where}.request"), f"{where}.request.url", websocket=True),
        headers=headers,
        cookies=_cookies(request, headers),
        set_cookies=_set_cookies(answered),
        compressed="permessage-deflate" in extensions,
        opened=_started(entry, frames[0].time if frames else 0.0),
        frames=tuple(frames),
    )


def _frames(message: object, where: str) -> Iterator[Frame]:
    message = _checked(message, dict, where)
    kind = _get(message, "type", str, where)
    opcode = _get(message, "opcode", int, where)
    if kind == "error" or opcode in _CONTROL or opcode < 0:  # Chrome tells errors so
        return
    if kind not in ("send", "receive"):
        raise HARError(f'{where}.type is "{kind[:20]}": it must be "send" or "receive"')
    data: str | bytes
    text = _get(message, "data", str, where)
    if opcode == _BINARY:
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise HARError(f"{where}.data is not base64, as that of a binary message must be") from None
    elif opcode != _TEXT:
        raise HARError(f"{where}.opcode is {opcode}: it must be 1 (text) or 2 (binary)")
    else:
        data = _without_surrogates(text)
    time = message.get("time")
    if isinstance(time, bool) or not isinstance(time, (int, float)) or not -1e15 < time < 1e15:
        raise HARError(f"{where}.time must be a number of seconds since the epoch")
    yield Frame(kind == "send", time / 1000 if time > _MILLISECONDS else float(time), data)


def _request(entry: dict[str, Any], where: str) -> HTTPExchange | None:
    """An HTTP request; None for what a page loads from elsewhere than a server (``data:``, ``blob:``, ``file:``)."""
    request = _get(entry, "request", dict, where)
    url = _get(request, "url", str, f"{where}.request")
    if not url.lower().startswith(("http://", "https://")):
        return None
    response = _optional(entry, "response", dict, where, {})
    headers = _headers(request, f"{where}.request")
    posted = _optional(request, "postData", dict, f"{where}.request", {})
    content = _optional(response, "content", dict, f"{where}.response", {})
    answer = _text(content, "text")
    if content.get("encoding") == "base64":
        try:
            answer = base64.b64decode(answer).decode()
        except ValueError:
            answer = ""  # an image, say
    status = response.get("status")
    return HTTPExchange(
        method=_text(request, "method") or "GET",
        url=_url(url, f"{where}.request.url", websocket=False),
        headers=headers,
        cookies=_cookies(request, headers),
        body=_without_surrogates(_text(posted, "text")),
        content_type=_text(posted, "mimeType"),
        started=_started(entry, 0.0),
        status=status if isinstance(status, int) else 0,
        set_cookies=_set_cookies(_headers(response, f"{where}.response")),
        answer=_without_surrogates(answer),
    )


def _url(text: str, where: str, *, websocket: bool) -> SplitResult:
    try:
        parts = urlsplit(_without_surrogates(text))
        valid = bool(parts.hostname) and parts.port != 0 and not _NOT_IN_HOST.search(parts.netloc)
    except ValueError:
        valid = False
    if not valid or parts.scheme not in ("ws", "wss", "http", "https"):
        raise HARError(f"{where} is not a URL of a {'WebSocket' if websocket else 'web'} server")
    scheme = "s" if parts.scheme in ("wss", "https") else ""
    return parts._replace(scheme=("ws" if websocket else "http") + scheme, fragment="")


def _headers(message: dict[str, Any], where: str) -> Headers:
    found = []
    for index, value in enumerate(_optional(message, "headers", list, where, [])):
        header = _checked(value, dict, f"{where}.headers[{index}]")
        name, text = _text(header, "name"), _without_surrogates(_text(header, "value"))
        if re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):  # not HTTP/2's ":authority"
            found.append((name, text.replace("\r", "").replace("\n", ", ")))
    return tuple(found)


def _cookies(request: dict[str, Any], headers: Headers) -> dict[str, str]:
    """The cookies that were sent, from the header, or where that was left out from the list of them."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name.lower() == "cookie":
            for pair in value.split(";"):
                key, _, content = pair.strip().partition("=")
                found[key] = content
    listed = request.get("cookies")
    for cookie in listed if isinstance(listed, list) and not found else []:
        if isinstance(cookie, dict):
            found[_text(cookie, "name")] = _without_surrogates(_text(cookie, "value"))
    return {name: value for name, value in found.items() if re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)}


def _set_cookies(headers: Headers) -> dict[str, str]:
    found = {}
    for name, value in headers:
        if name.lower() == "set-cookie":
            key, _, content = value.partition(";")[0].partition("=")
            found[key.strip()] = content.strip()
    return found


def _started(entry: dict[str, Any], otherwise: float) -> float:
    try:
        started = datetime.fromisoformat(_text(entry, "startedDateTime"))
        time = (started if started.tzinfo else started.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return otherwise
    return time if isfinite(time) else otherwise


def _without_surrogates(text: str) -> str:
    """Halves of characters, which JSON can have and UTF-8 cannot, as a browser sends them."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _text(of: dict[str, Any], key: str) -> str:
    """A member that may be missing, and that is no reason to refuse the file."""
    value = of.get(key)
    return value if isinstance(value, str) else ""


def _get(of: dict[str, Any], key: str, kind: type[T], where: str) -> T:
    if key not in of:
        raise HARError(f"{where}.{key} is missing")
    return _checked(of[key], kind, f"{where}.{key}")


def _optional(of: dict[str, Any], key: str, kind: type[T], where: str, otherwise: T) -> T:
    return otherwise if of.get(key) is None else _checked(of[key], kind, f"{where}.{key}")


_KINDS: dict[type, str] = {dict: "an object", list: "an array", str: "a string", int: "a whole number"}


def _checked(value: object, kind: type[T], where: str) -> T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise HARError(f"{where} must be {_KINDS[kind]}")
    return value
