"""
The server's answer to an opening handshake or to CONNECT, read without I/O: the same on every engine.

What is refused in a 101 is what leaves in doubt whether the other side speaks WebSocket. Of any other answer the status
counts, so it is read as leniently as it can be (RFC 9112 section 2.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from websockets.datastructures import Headers
from websockets.http11 import Response
from websockets.utils import accept_key

from ...exceptions import HandshakeError
from ...fast_paths import PLAIN
from ...internals.websockets import add_header
from .interface import MALFORMED, NO_ANSWER, NOT_OFFERED, OLD_HTTP, TOO_LONG, invalid_header

__all__ = ["MAX_BODY", "MAX_HEAD", "Answer", "agreed_subprotocol", "parse_head"]

MAX_HEAD = 64 * 1024
"""Bytes that status line and headers may have together, with those of interim answers (1xx)."""

MAX_BODY = 64 * 1024
"""Bytes that are kept of the body of an answer that is none of a WebSocket."""

_STATUS_LINE = re.compile(rb"HTTP/([0-9])\.([0-9])[ \t]+([1-9][0-9][0-9])(?:[ \t]+([^\r\n]*))?\r?")
_HEADER = re.compile(rb"([-!#$%&'*+.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)\r?")
_FOLD = re.compile(rb"\r?\n[ \t]+")  # obsolete, and to be read as a space (RFC 9112 section 5.2)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[^\r\n]*\r?\n")
_BODILESS = frozenset({204, 304})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Answer:
    """
    Reads one answer from a stream that comes in chunks cut anywhere.

    Interim answers (1xx other than 101) are passed over (RFC 9110 section 15.2).

    Attributes:
        response: the answer, once its head is there.
        known: whether it is the same as one that was found good before, but for its ``Sec-WebSocket-Accept``. It then
            chooses neither subprotocol nor extension.
        head: the head of a 101 as it came, from which :func:`parse_head` makes the same response again.
        rest: what came behind a head that no body follows.
    """

    __slots__ = (
        "_body",
        "_body_length",
        "_chunked",
        "_head",
        "has_body",
        "head",
        "known",
        "malformed",
        "old_http",
        "response",
        "rest",
    )

    def __init__(self, *, has_body: bool = True) -> None:
        self._head = b""
        self._body = b""
        self._body_length: int | None = None  # None: as far as the stream goes
        self._chunked = False
        self.has_body = has_body
        self.known = False
        self.malformed = False
        self.old_http = False
        self.response: Response | None = None
        self.head = b""
        self.rest = b""

    @property
    def refuses(self) -> bool:
        """Whether it is certain by now that this is no 101, even if not all of it is there."""
        if self.response is not None:
            return self.response.status_code != 101
        line, newline, _ = self._head.partition(b"\n")
        status = _STATUS_LINE.fullmatch(line) if newline else None
        return status is not None and status[3][:1] != b"1"

    def feed(self, data: bytes) -> bool:
        """
        Take the next chunk; returns whether the answer is complete.

        Raises:
            HandshakeError: this is no HTTP, or its head is over :data:`MAX_HEAD`.
        """
        if self.response is not None:
            return self._feed_body(data)
        searched = max(0, len(self._head) - 3)
        head = self._head + data
        while (end := _end_of_head(head, searched)) >= 0:
            parsed, head = head[:end], head[end:]
            response = self._parse(parsed)
            if 100 <= response.status_code < 200 and response.status_code != 101:
                searched = 0
                continue
            self._head = b""
            self.response = response
            if response.status_code == 101 or not self.has_body:
                self.head = parsed
                self.rest = head
                return True
            self._frame_body(response)
            return self._feed_body(head)
        self._head = head
        if len(head) > MAX_HEAD:
            raise HandshakeError(TOO_LONG)
        line, newline, _ = head.partition(b"\n")
        if not (_STATUS_LINE.fullmatch(line) if newline else line[:5] == b"HTTP/"[: len(line)]):
            raise HandshakeError(NO_ANSWER)
        return False

    def feed_known(self, data: bytes, key: str) -> bool:
        """Take the first chunk, if it is the whole head of an answer that is known; returns whether it was."""
        # Fast path "the same answer again": a server gives the same answer to all, but for the accepted key
        # (benchmarks/README.md). The plain twin is `feed` and agreed_subprotocol().
        if PLAIN or self._head or self.response is not None or data[-4:] != b"\r\n\r\n":
            return False
        before, _, behind = data.partition(accept_key(key).encode())
        if _known.get(before) != behind:
            return False
        self.known = True
        self.head = data
        self.response = _LaterResponse(data)
        return True

    def end(self) -> Response | None:
        """The stream has ended, or no more is wanted of it: the answer as far as it came, if its status did."""
        if self.response is None and self.refuses:
            self.response = self._parse(self._head)
        if self.response is not None and self._body:
            self.response.body = self._unchunked()[0] if self._chunked else self._body
        return self.response

    def _parse(self, head: bytes) -> Response:
        if len(head) > MAX_HEAD:
            raise HandshakeError(TOO_LONG)
        if b"\n " in head or b"\n\t" in head:
            head = _FOLD.sub(b" ", head)
        lines = head.split(b"\n")
        status = _STATUS_LINE.fullmatch(lines[0])
        if status is None:
            raise HandshakeError(NO_ANSWER)
        headers = Headers()
        for line in lines[1:]:
            if line in (b"", b"\r"):
                continue
            header = _HEADER.fullmatch(line)
            if header is None:
                self.malformed = True
            else:
                # ISO 8859-1, as all of HTTP was once (RFC 9110 section 5.5): no byte is lost.
                add_header(headers, header[1].decode("ascii"), header[2].strip(b" \t").decode("iso-8859-1"))
        self.old_http = (status[1], status[2]) < (b"1", b"1")
        return Response(int(status[3]), (status[4] or b"").decode("iso-8859-1"), headers)

    # The body (RFC 9112 section 6.3)

    def _frame_body(self, response: Response) -> None:
        headers = response.headers
        if response.status_code in _BODILESS or (response.status_code in _REDIRECTS and "Location" in headers):
            self._body_length = 0  # of a redirect nobody wants it
        elif "Transfer-Encoding" in headers:
            self._chunked = True
        else:
            lengths = {length.strip() for value in headers.get_all("Content-Length") for length in value.split(",")}
            length = lengths.pop() if len(lengths) == 1 else ""
            if length.isascii() and length.isdecimal() and len(length) < 16:
                self._body_length = int(length)

    def _feed_body(self, data: bytes) -> bool:
        self._body += data
        if self._body_length is not None:
            self._body = self._body[: self._body_length]
        complete = len(self._body) == self._body_length or (self._chunked and self._unchunked()[1])
        if len(self._body) > MAX_BODY:
            self._body = self._body[:MAX_BODY]
            complete = True
        if complete:
            self.end()
        return complete

    def _unchunked(self) -> tuple[bytes, bool]:
        """The chunks that are there, and whether the last of them is (RFC 9112 section 7.1)."""
        parts: list[bytes] = []
        position = 0
        while (size := _CHUNK.match(self._body, position)) is not None:
            length = int(size[1], 16)
            if not length:
                return b"".join(parts), True
            parts.append(self._body[size.end() : size.end() + length])
            position = size.end() + length
            position += 2 if self._body[position : position + 2] == b"\r\n" else 1
        return b"".join(parts), False


def agreed_subprotocol(answer: Answer, key: str, offered: tuple[str, ...]) -> str | None:
    """
    Check that a 101 is the answer of a WebSocket server to us (RFC 6455 section 4.1); give its subprotocol.

    What says how a body is transferred means nothing here, as a 101 has none (RFC 9112 section 6.3).

    Args:
        answer: with the status 101.
        key: the ``Sec-WebSocket-Key`` that was sent.
        offered: the subprotocols that were offered.

    Raises:
        HandshakeError: it is not.
    """
    response = answer.response
    assert response is not None
    if answer.old_http:
        raise HandshakeError(OLD_HTTP)
    if answer.malformed:
        raise HandshakeError(MALFORMED)
    headers = response.headers
    if "upgrade" not in _tokens(headers, "Connection"):
        raise HandshakeError(invalid_header("Connection"))
    # Some proxies give once more what the server has given already.
    if set(_tokens(headers, "Upgrade")) != {"websocket"}:
        raise HandshakeError(invalid_header("Upgrade"))
    if set(headers.get_all("Sec-WebSocket-Accept")) != {accept_key(key)}:
        raise HandshakeError(invalid_header("Sec-WebSocket-Accept"))
    if "Sec-WebSocket-Protocol" not in headers:
        if "Sec-WebSocket-Extensions" not in headers:
            _remember(answer.head, accept_key(key))
        return None
    chosen = {value.strip() for value in ",".join(headers.get_all("Sec-WebSocket-Protocol")).split(",")}
    if len(chosen) != 1 or chosen == {""}:
        raise HandshakeError(invalid_header("Sec-WebSocket-Protocol"))
    (subprotocol,) = chosen
    if subprotocol not in offered:
        raise HandshakeError(NOT_OFFERED)
    return subprotocol


_known: dict[bytes, bytes] = {}
"""Of each answer that was good what came behind the accepted key, by what came before it."""

_MANY_KNOWN = 64


def _remember(head: bytes, accept: str) -> None:
    before, key, behind = head.partition(accept.encode())
    if key:
        if len(_known) == _MANY_KNOWN:  # those with the time of day in them, say
            _known.clear()
        _known[before] = behind


class _LaterResponse(Response):
    """One whose head is parsed when somebody looks at it."""

    def __init__(self, head: bytes) -> None:
        self._head = head

    if not TYPE_CHECKING:  # for which every attribute would be there

        def __getattr__(self, name: str) -> Any:
            if name not in ("headers", "reason_phrase", "status_code"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
            vars(self).update(vars(parse_head(self._head)))
            return vars(self)[name]


def _end_of_head(data: bytes, start: int) -> int:
    """Where the empty line ends; -1 if it is not there yet."""
    # Not by a regular expression, which would look at each byte for a line break without CR.
    end, bare = data.find(b"\n\r\n", start), data.find(b"\n\n", start)
    if bare >= 0 and (end < 0 or bare < end):
        return bare + 2
    return end + 3 if end >= 0 else -1


def _tokens(headers: Headers, name: str) -> Iterator[str]:
    for value in headers.get_all(name):
        for token in value.split(","):
            if token := token.strip().lower():
                yield token


def parse_head(head: bytes) -> Response:
    """Return the response that :class:`Answer` made of this head."""
    return Answer()._parse(head)
