"""What servers and proxies answer to the opening handshake: the same comes of it on every engine."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import websockets.exceptions
from websockets.utils import accept_key

from locust_ws_async.client.wire.answer import MAX_BODY, MAX_HEAD, Answer
from locust_ws_async.exceptions import ConnectError, HandshakeError, HandshakeRejected

from .helpers import Bench, eventually, frame, run, tcp_server, until_eof

TOO_LONG = "the answer to the handshake has headers of over 64 KiB"


class Answering:
    """
    A server of this answer, in which {accept} is filled in. Afterwards it holds the connection open, or ends it.

    pieces: sends the answer in as many writes.
    """

    def __init__(self, answer: bytes, *, ends: bool = False, pieces: int = 1) -> None:
        self._answer = answer
        self._ends = ends
        self._pieces = pieces

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(line.split(": ")[1] for line in request.splitlines() if line.lower().startswith("sec-websocket-key"))
        answer = self._answer.replace(b"{accept}", accept_key(key).encode())
        size = max(1, len(answer) // self._pieces)
        for start in range(0, len(answer), size):
            writer.write(answer[start : start + size])
            await writer.drain()
            if self._pieces > 1:
                await asyncio.sleep(0.002)
        if not self._ends:
            await until_eof(reader, writer)


def switching(*lines: str, connection: str = "Upgrade", upgrade: str = "websocket", more: bytes = b"") -> bytes:
    head = [
        "HTTP/1.1 101 Switching Protocols",
        f"Upgrade: {upgrade}",
        f"Connection: {connection}",
        "Sec-WebSocket-Accept: {accept}",
        *lines,
    ]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + more


def rejected(bench: Bench, answer: Answering, **options: Any) -> HandshakeRejected:
    async def main() -> HandshakeRejected:
        async with tcp_server(answer) as url:
            with pytest.raises(HandshakeRejected) as caught:
                await bench.client().connect(url, open_timeout=None, **options)
        return caught.value

    return run(main())


def fails(bench: Bench, answer: Answering, **options: Any) -> str:
    async def main() -> str:
        async with tcp_server(answer) as url:
            with pytest.raises(HandshakeError) as caught:
                await bench.client().connect(url, open_timeout=None, **options)
        assert not isinstance(caught.value, HandshakeRejected)
        return str(caught.value)

    return run(main())


# What is accepted

ACCEPTED = {
    "token list": switching(connection="keep-alive, Upgrade"),
    "any case": switching(connection="UPGRADE", upgrade="WebSocket"),
    "two lines": switching("Connection: keep-alive"),
    "empty tokens": switching(connection=", upgrade,,"),
    "upgrade twice": switching("Upgrade: websocket"),
    "accept twice": switching("Sec-WebSocket-Accept: {accept}"),
    "transfer encoding": switching("Transfer-Encoding: chunked"),
    "content length": switching("Content-Length: 19"),
    "no number": switching("Content-Length: many"),
    "long header": switching("Content-Security-Policy: " + "a" * 20_000),
    "many cookies": switching(*(f"Set-Cookie: c{i}={'a' * 4000}" for i in range(10))),
    "many headers": switching(*(f"X-{i}: {i}" for i in range(300))),
    "folded": switching("X-Folded: a", "  b"),
    "beyond ASCII": switching("X-Name: Jos\xe9"),
    "no reason": switching().replace(b" Switching Protocols", b""),
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + switching(),
    "lines without CR": switching().replace(b"\r\n", b"\n"),
}


@pytest.mark.parametrize("pieces", [1, 5, 1000], ids=["whole", "in pieces", "byte by byte"])
@pytest.mark.parametrize("answer", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_valid_answers(bench: Bench, answer: bytes, pieces: int) -> None:
    if pieces == 1000 and len(answer) > 1000:
        pieces = 50

    async def main() -> None:
        greeting = frame(1, b"hello") + frame(2, b"x" * 70_000) + frame(1, b"bye")
        async with (
            tcp_server(Answering(answer + greeting, pieces=pieces)) as url,
            bench.client().connect(url, max_queue=None, close_timeout=0.01) as connection,
        ):
            messages = [await connection.recv() for _ in range(3)]
            assert messages == ["hello", b"x" * 70_000, "bye"]
            assert connection.response.status_code == 101
            assert connection.response.headers.get_all("Sec-WebSocket-Accept")
            await connection.send("x")

    run(main())


# What is not


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (switching(connection="keep-alive"), "the answer to the handshake has no valid Connection header"),
        (switching(connection="upgraded"), "the answer to the handshake has no valid Connection header"),
        (switching(upgrade="h2c"), "the answer to the handshake has no valid Upgrade header"),
        (switching("Upgrade: h2c"), "the answer to the handshake has no valid Upgrade header"),
        (switching("Sec-WebSocket-Accept: other"), "the answer to the handshake has no valid Sec-WebSocket-Accept"),
        (switching("Sec-WebSocket-Protocol: a, b"), "the answer to the handshake has no valid Sec-WebSocket-Protocol"),
        (switching("Sec-WebSocket-Protocol: "), "the answer to the handshake has no valid Sec-WebSocket-Protocol"),
        (switching("Sec-WebSocket-Protocol: A"), "the server chose a subprotocol or an extension that was not offered"),
        (switching("Sec-WebSocket-Extensions: x"), "the server chose a subprotocol or an extension that was not"),
        (switching("no colon"), "the answer to the handshake has a malformed header line"),
        (switching("X-Null: a\0b"), "the answer to the handshake has a malformed header line"),
        (switching("X Y: a"), "the answer to the handshake has a malformed header line"),
        (switching().replace(b"HTTP/1.1", b"HTTP/1.0"), "the server answered the handshake with HTTP/1.0 101"),
        (switching(*[f"X-{i}: {'a' * 8000}" for i in range(9)]), TOO_LONG),
        (b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"a" * MAX_HEAD, TOO_LONG),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD, TOO_LONG),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 2", "no WebSocket server answered the handshake"),
        (b"SSH-2.0-OpenSSH_9.6", "no WebSocket server answered the handshake"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "no WebSocket server answered the handshake"),
        (b"HTTP/1.1 abc\r\n", "no WebSocket server answered the handshake"),
    ],
)
def test_invalid_answers(bench: Bench, answer: bytes, text: str) -> None:
    ends = answer.endswith(b"HTTP/1.1 2")
    assert fails(bench, Answering(answer, ends=ends), subprotocols=["a", "b"]).startswith(text)


# A status other than 101

STATUSES = {
    "HTTP/1.0": (b"HTTP/1.0 403 Forbidden\r\n\r\n", b""),
    "no reason": (b"HTTP/1.1 403\r\nContent-Length: 2\r\n\r\nno", b"no"),
    "empty reason": (b"HTTP/1.1 403 \r\nContent-Length: 2\r\n\r\nno", b"no"),
    "whole": (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno more", b"no"),
    "chunked": (
        b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nn\r\n1;a=b\r\no\r\n0\r\n\r\n",
        b"no",
    ),
    "cut body": (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 20\r\n\r\nno", b"no"),
    "endless body": (b"HTTP/1.1 403 Forbidden\r\n\r\nno", b"no"),
    "endless chunks": (b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n", b"no"),
    "event stream": (
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\ndata: 1\n\n",
        b"data: 1\n\n",
    ),
    "huge body": (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 9_999_999, b"x" * MAX_BODY),
    "malformed length": (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1e3\r\n\r\nno", b"no"),
    "two lengths": (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nno", b"no"),
    "malformed header": (b"HTTP/1.1 403 Forbidden\r\nno colon\r\nContent-Length: 2\r\n\r\nno", b"no"),
    "no end of headers": (b"HTTP/1.1 403 Forbidden\r\nX-Reason: a", b""),
    "many headers": (
        b"HTTP/1.1 403 Forbidden\r\n"
        + b"".join(b"X-%d: 1\r\n" % i for i in range(300))
        + b"Content-Length: 2\r\n\r\nno",
        b"no",
    ),
    "lines without CR": (b"HTTP/1.1 403 Forbidden\nContent-Length: 2\n\nno", b"no"),
}


@pytest.mark.parametrize("ends", [False, True], ids=["held open", "ended"])
@pytest.mark.parametrize(("answer", "body"), STATUSES.values(), ids=STATUSES.keys())
def test_the_status_is_told_at_once(bench: Bench, answer: bytes, body: bytes, ends: bool) -> None:
    """Without a limit of time: what waited for the rest of a body would not end here."""
    error = rejected(bench, Answering(answer, ends=ends))
    assert str(error) == "the server answered the handshake with HTTP 403 Forbidden"
    assert error.status_code == 403
    assert error.response.body == body


@pytest.mark.parametrize("status", [204, 304, 599, 999])
def test_other_statuses(bench: Bench, status: int) -> None:
    answer = f"HTTP/1.1 {status} Reason\r\nX-A: b\r\n\r\n".encode()
    error = rejected(bench, Answering(answer, ends=status > 500))
    assert error.status_code == status
    assert error.response.headers["X-A"] == "b"


def test_a_redirect_without_a_length_is_followed_at_once(bench: Bench) -> None:
    async def main() -> None:
        async with tcp_server(Answering(switching())) as target:
            answer = f"HTTP/1.1 302 Found\r\nLocation: {target}/there\r\n\r\n".encode()
            async with (
                tcp_server(Answering(answer)) as url,
                bench.client().connect(url, open_timeout=None, close_timeout=0.01) as connection,
            ):
                assert connection.response.status_code == 101

    run(main())


def test_any_answer_cut_anywhere() -> None:
    rng = random.Random(7)
    for answer in [*ACCEPTED.values(), *(answer for answer, _ in STATUSES.values())]:
        if len(answer) > 10_000:
            continue
        whole = Answer()
        complete = whole.feed(answer)
        for _ in range(20):
            cuts = sorted(rng.randrange(len(answer)) for _ in range(rng.randrange(1, 6)))
            pieces = Answer()
            for start, stop in zip([0, *cuts], [*cuts, len(answer)], strict=True):
                ended = pieces.feed(answer[start:stop]) if not (pieces.response and complete and pieces.rest) else True
            assert ended == complete
            assert str(pieces.end()) == str(whole.end())


# What is sent


def test_headers_beyond_ascii_are_utf8(bench: Bench) -> None:
    requests: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))

    async def main() -> None:
        async with tcp_server(note) as url:
            with pytest.raises(ConnectError):
                await bench.client().connect(
                    url, headers={"X-Name": "José \N{SNOWMAN}"}, cookies={"city": "Łódź"}, user_agent="Ünit"
                )

    run(main())
    (request,) = requests
    lines = request.decode("utf-8").splitlines()
    assert {"X-Name: José \N{SNOWMAN}", "Cookie: city=Łódź", "User-Agent: Ünit"} <= set(lines)


# Closing


@pytest.mark.parametrize(
    ("before", "payload", "follows"),
    [
        (b"", b"\x03\xe8bye", frame(8, b"\x03\xe9again")),
        (b"", b"\x03\xf1", frame(8, b"\x03\xe8")),  # 1009, as if this side had found a message too long
        (frame(1, b"last"), b"\x03\xe8bye", b"\x83\x00"),
        (b"", b"\x03\xe8bye", b"\x81\x7f" + (2**62).to_bytes(8, "big")),
        (b"", b"", frame(8)),
    ],
    ids=["another", "1009", "malformed", "too long", "empty"],
)
def test_what_follows_a_close_frame_means_nothing(bench: Bench, before: bytes, payload: bytes, follows: bytes) -> None:
    """The first one counts, also if all comes in one piece (RFC 6455 section 1.4)."""
    received: list[bytes] = []

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Answering(switching() + before + frame(8, payload) + follows, ends=True)(reader, writer)
        writer.write_eof()
        received.append(await reader.read())

    async def main() -> None:
        async with tcp_server(close) as url:
            connection = await bench.client().connect(url)
            with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
                while True:
                    await connection.recv()
            await eventually(lambda: received)
        assert caught.value.rcvd is not None and caught.value.sent is not None
        assert caught.value.rcvd_then_sent is True
        if payload:
            assert caught.value.rcvd.code == caught.value.sent.code == int.from_bytes(payload[:2], "big")

    run(main())
    (answer,) = received
    assert answer[0] == 0x88 and len(answer) == 6 + (answer[1] & 0x7F)  # one close frame, and nothing else
    sent = bytes(byte ^ answer[2 + i % 4] for i, byte in enumerate(answer[6:]))
    assert sent == payload or (not payload and sent == b"\x03\xe8")
