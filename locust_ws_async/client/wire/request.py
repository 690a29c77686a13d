"""The request of the opening handshake as text."""

from __future__ import annotations

from collections.abc import Iterable

from websockets.datastructures import Headers
from websockets.http11 import Request

from ...internals.websockets import add_header

__all__ = ["parse_request", "request_text"]


def request_text(target: str, headers: Iterable[tuple[str, str]]) -> str:
    """Return the request as it is sent (RFC 9112 section 3), before it is encoded in UTF-8."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"GET {target} HTTP/1.1\r\n{lines}\r\n"


def parse_request(text: str) -> Request:
    """Return the request that :func:`request_text` made this text of."""
    first, *lines = text[:-4].split("\r\n")
    headers = Headers()
    for line in lines:
        name, _, value = line.partition(": ")
        add_header(headers, name, value)
    return Request(first.split(" ")[1], headers)
