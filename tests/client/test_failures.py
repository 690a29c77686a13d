"""Each way to fail is a row with a stable text, the same on both engines."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import time
from typing import Any, Literal

import pytest
import trustme
import websockets.exceptions
from websockets.asyncio.server import ServerConnection, serve

from locust_ws_async.client import Backoff, any_message, echo
from locust_ws_async.exceptions import (
    ConnectError,
    ConnectionClosedError,
    ConnectionClosedOK,
    ConnectionRefused,
    ConnectTimeout,
    HandshakeError,
    HandshakeRejected,
    TLSError,
    UnknownHost,
    WebSocketError,
)
from tests.support import SCALE, unknown_host, unused_port

from .helpers import Bench, eventually, frame, raw_server, run, tcp_server, until_eof


def connect_fails(bench: Bench, url: str, kind: type[ConnectError], text: str, **options: object) -> ConnectError:
    """Connect, and check the error and its row."""

    async def main() -> ConnectError:
        with pytest.raises(kind) as caught:
            await bench.client().connect(url, **options)
        return caught.value

    error = run(main())
    assert type(error) is kind
    assert repr(error) == f"{kind.__name__}({text!r})"
    (row,) = bench.rows
    assert row.type == "WS CONNECT" and row.error is error
    assert row.time is not None and row.length == 0
    return error


def test_connection_refused(bench: Bench) -> None:
    error = connect_fails(bench, f"ws://127.0.0.1:{unused_port()}/", ConnectionRefused, "connection refused")
    assert isinstance(error, ConnectionRefusedError)


def test_unknown_host(bench: Bench) -> None:
    connect_fails(bench, "ws://no-such-host.invalid/", *unknown_host())


def test_a_resolver_that_gives_no_answer(bench: Bench) -> None:
    async def busy(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def main() -> None:
        asyncio.get_running_loop().getaddrinfo = busy  # type: ignore[method-assign] # no resolver here can be broken
        with pytest.raises(ConnectError, match=r"^the resolver gave no answer$"):
            await bench.client().connect("ws://server.invalid/")

    run(main())
    assert bench.failures() == {"WS CONNECT": "ConnectError('the resolver gave no answer')"}


def test_a_host_name_that_cannot_be_one(bench: Bench) -> None:
    connect_fails(bench, f"ws://{'x' * 64}.invalid/", UnknownHost, "unknown host")


@pytest.mark.parametrize(
    ("status", "phrase"), [(401, "Unauthorized"), (404, "Not Found"), (503, "Service Unavailable")]
)
def test_an_http_answer(bench: Bench, status: int, phrase: str) -> None:
    text = f"the server answered the handshake with HTTP {status} {phrase}"
    error = connect_fails(bench, f"/reject/{status}?token=secret", HandshakeRejected, text)
    assert isinstance(error, HandshakeRejected)
    assert error.status_code == error.response.status_code == status
    assert "content-type" in error.response.headers
    assert bench.rows[0].name == f"/reject/{status}"


def test_an_http_answer_whose_body_comes_late(bench: Bench) -> None:
    async def main() -> None:
        async def reject(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nno")
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(b"way")

        async with tcp_server(reject) as url:
            with pytest.raises(HandshakeRejected):
                await bench.client().connect(url)

    run(main())


def test_a_status_that_python_does_not_know(bench: Bench) -> None:
    async def main() -> None:
        async def reject(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 522 Origin timed out\r\nContent-Length: 0\r\n\r\n")

        async with tcp_server(reject) as url:
            with pytest.raises(HandshakeRejected) as caught:
                await bench.client().connect(url)
        assert caught.value.status_code == 522

    run(main())


NO_ANSWER = (
    "no WebSocket server answered the handshake: the connection was closed, or the answer was not HTTP "
    "(is it the right port, and does the server want wss:// or ws://?)"
)


def test_a_server_that_does_not_speak_http(bench: Bench) -> None:
    connect_fails(bench, "/not-http", HandshakeError, NO_ANSWER)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101", b"garbage\r\n\r\n", b"\x00\xff" * 99])
def test_answers_that_are_not_http(bench: Bench, answer: bytes) -> None:
    async def main() -> str:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)

        async with tcp_server(hang_up) as url:
            with pytest.raises(HandshakeError) as caught:
                await bench.client().connect(url)
        return str(caught.value)

    assert run(main()) == NO_ANSWER


@pytest.mark.parametrize("name", ["Upgrade", "Connection", "Sec-WebSocket-Accept"])
def test_a_wrong_header_in_the_answer(bench: Bench, name: str) -> None:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": "x"}
    headers[name] = "wrong"

    async def main() -> str:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
            writer.write(f"HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n".encode())
            await reader.read()

        async with tcp_server(answer) as url:
            with pytest.raises(HandshakeError) as caught:
                await bench.client().connect(url)
        return str(caught.value)

    assert run(main()) == f"the answer to the handshake has no valid {name} header: is this a WebSocket server?"


@pytest.mark.parametrize("header", ["Sec-WebSocket-Protocol: other\r\n", "Sec-WebSocket-Extensions: deflate\r\n"])
def test_what_was_not_offered(bench: Bench, header: str) -> None:
    async def main() -> str:
        async with raw_server(until_eof, headers=header) as url:
            with pytest.raises(HandshakeError) as caught:
                await bench.client().connect(url, subprotocols=["chat"])
        return str(caught.value)

    assert run(main()) == "the server chose a subprotocol or an extension that was not offered"


def test_handshake_timeout(bench: Bench) -> None:
    text = "no connection within open_timeout, while waiting for the answer to the opening handshake"
    error = connect_fails(bench, "/slow-handshake", ConnectTimeout, text, open_timeout=0.05)
    assert isinstance(error, TimeoutError)
    assert bench.rows[0].time is not None and bench.rows[0].time >= 50


def test_cancelling_a_connect_closes_the_socket_and_is_not_reported(bench: Bench) -> None:
    async def main() -> None:
        gone = asyncio.Event()

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await until_eof(reader, writer)
            gone.set()

        async with tcp_server(say_nothing) as url:
            connecting = bench.client().connect(url)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await connecting
            await gone.wait()

    run(main())
    assert bench.rows == []


# TLS


def test_a_certificate_of_an_unknown_authority(bench: Bench) -> None:
    async def main() -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

        async def handle(connection: ServerConnection) -> None:
            await connection.wait_closed()

        async with serve(handle, "127.0.0.1", 0, ssl=context) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            with pytest.raises(TLSError) as caught:
                await bench.client().connect(f"wss://127.0.0.1:{port}/")
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        return str(caught.value)

    assert run(main()) == "TLS certificate not accepted: unable to get local issuer certificate"


def test_tls_with_a_server_that_has_none(bench: Bench) -> None:
    async def main() -> str:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with tcp_server(answer) as url:
            with pytest.raises(TLSError) as caught:
                await bench.client().connect(url.replace("ws:", "wss:"))
        return str(caught.value)

    assert run(main()).startswith("TLS handshake failed: ")


def test_echo_over_tls(bench: Bench) -> None:
    async def main() -> None:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)

        async def echo(connection: ServerConnection) -> None:
            async for message in connection:
                await connection.send(message)

        async with serve(echo, "127.0.0.1", 0, ssl=context) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with bench.client().connect(f"https://127.0.0.1:{port}/", ssl=trusting) as connection:
                for message in ("hello", "x" * 300_000):
                    await connection.send(message)
                    assert await connection.recv() == message
                await connection.ping()

    run(main())
    assert not bench.failures()


# An open connection


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/close/1008", "connection closed by the server: 1008 policy violation"),
        ("/close/1011?reason=secret", "connection closed by the server: 1011 internal error"),
        ("/close/4321", "connection closed by the server: 4321"),
        ("/drop", "connection lost without a close frame (1006)"),
        ("/half-close", "connection lost without a close frame (1006)"),
        *[
            (f"/garbage?kind={kind}", "connection failed: the server sent a malformed frame (1002 protocol error)")
            for kind in ("opcode", "rsv", "masked", "ping", "continuation", "close")
        ],
        (
            "/garbage?kind=utf8",
            "connection failed: the server sent a text message that is not UTF-8 (1007 invalid frame payload data)",
        ),
    ],
)
def test_the_server_ends_the_connection(bench: Bench, path: str, text: str) -> None:
    async def main() -> None:
        connection = await bench.client().connect(path, close_timeout=1)
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as caught:
            await connection.recv()
        assert isinstance(caught.value, ConnectionClosedError) and isinstance(caught.value, ConnectionError)
        assert caught.value.close_code == connection.close_code

    run(main())
    error = f"ConnectionClosedError({text!r})"
    assert bench.failures() == {"WS RECV": error, "WS SESSION": error}


@pytest.mark.parametrize("fragments", [1, 2])
@pytest.mark.parametrize("size", [126, 1001, 100_000])
def test_a_message_over_max_size(bench: Bench, size: int, fragments: int) -> None:
    async def main() -> None:
        async with bench.client().connect(f"/fragments?parts={fragments}", max_size=100) as connection:
            await connection.send("x" * 100)
            assert await connection.recv() == "x" * 100
            await connection.send("x" * size)
            with pytest.raises(ConnectionClosedError) as caught:
                await connection.recv()
            assert caught.value.sent is not None and caught.value.sent.code == 1009

    run(main())
    text = "connection failed: the server sent a message over max_size (1009 message too big)"
    assert bench.failures()["WS SESSION"] == f"ConnectionClosedError({text!r})"


def test_messages_of_64_mib(bench: Bench) -> None:
    async def main() -> None:
        message = bytes(2**26)
        async with bench.client().connect("/echo", max_size=None) as connection:
            await connection.send(message)
            assert await connection.recv() == message

    run(main())


@pytest.mark.parametrize(
    "frames",
    [
        frame(1, b"a", fin=False) + frame(1, b"b"),
        frame(1, b"a", fin=False) + frame(2, b"b" * 200),
        frame(2, b"a", fin=False) + frame(2, b"b", fin=False),
        frame(1, b"a", fin=False) + frame(8, b"\x03\xe8"),
        frame(9, b"a", fin=False),
        frame(8, b"\x03\xec"),
        frame(1, b"good") + frame(0, b"b"),
    ],
)
def test_frames_out_of_order(bench: Bench, frames: bytes) -> None:
    async def main() -> None:
        async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frames)
            await until_eof(reader, writer)

        async with raw_server(send) as url:
            connection = await bench.client().connect(url, close_timeout=0.1)
            with pytest.raises(ConnectionClosedError, match="malformed frame"):
                async for message in connection:
                    assert message == "good"

    run(main())


@pytest.mark.parametrize("size", [5, 121])
def test_masked_frames(bench: Bench, size: int) -> None:
    """Also where the length with the mask bit in it is the length of what comes together."""

    async def main() -> None:
        async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(7)  # so that it does not come with the handshake's answer
            length = 0x80 | size
            writer.write(bytes([0x82, length]) + bytes(length))  # the frame, and some zeros
            await until_eof(reader, writer)

        async with raw_server(send) as url:
            connection = await bench.client().connect(url, close_timeout=0.1)
            await connection.send("x")
            with pytest.raises(ConnectionClosedError, match="malformed frame") as caught:
                await connection.recv()
            assert caught.value.sent is not None and caught.value.sent.code == 1002

    run(main())


@pytest.mark.parametrize("kind", ["text", "cut text"])
def test_text_that_is_not_utf8(bench: Bench, kind: str) -> None:
    bad = frame(1, b"\xff" * 200) if kind == "text" else frame(1, b"\xc3", fin=False) + frame(0, b"\x28")

    async def main() -> None:
        async def send_bad(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(1, b"good") + bad + frame(1, b"never"))
            await until_eof(reader, writer)

        async with raw_server(send_bad) as url, bench.client().connect(url, close_timeout=0.1) as connection:
            assert await connection.recv() == "good"
            with pytest.raises(ConnectionClosedError, match="not UTF-8"):
                await connection.recv()

    run(main())


def test_sending_on_a_closed_connection(bench: Bench) -> None:
    async def main() -> None:
        connection = await bench.client().connect("/echo")
        await connection.close()
        for operation in (connection.send("x"), connection.recv(), connection.ping()):
            with pytest.raises(ConnectionClosedOK):
                await operation

    run(main())
    text = "ConnectionClosedOK('connection closed by this side, answered with 1000 OK')"
    assert bench.failures() == {"WS SEND": text, "WS RECV": text, "WS PING": text}


def test_sending_after_the_server_closed(bench: Bench) -> None:
    async def main() -> None:
        connection = await bench.client().connect("/close/1001")
        await connection.wait_closed()
        with pytest.raises(ConnectionClosedOK):
            await connection.send("x")

    run(main())
    assert bench.failures() == {"WS SEND": "ConnectionClosedOK('connection closed by the server: 1001 going away')"}


def test_all_errors_are_ours() -> None:
    assert issubclass(ConnectionClosedError, WebSocketError) and issubclass(ConnectError, WebSocketError)
    assert issubclass(ConnectionClosedOK, websockets.exceptions.ConnectionClosedOK)


@pytest.mark.parametrize("bad", [b"\x81\x85\0\0\0\0hello", frame(1, b"x" * 200)], ids=["masked", "too long"])
def test_a_failed_connection_is_not_used_any_more(bench: Bench, bad: bytes) -> None:
    """From the close frame on, and not only when the connection has ended."""

    async def main() -> None:
        failed = asyncio.Event()

        async def send_bad(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(bad)
            await reader.readexactly(2)  # of the close frame
            failed.set()
            writer.write(frame(1, b"late"))
            await until_eof(reader, writer)

        async with raw_server(send_bad) as url:
            connection = await bench.client().connect(url, max_size=100, close_timeout=0.1)
            await failed.wait()
            with pytest.raises(ConnectionClosedError):
                await connection.send("x")
            await connection.wait_closed()
        assert connection.stats.messages_received == connection.stats.messages_sent == 0

    run(main())


ENGINES_AND_COMPRESSION: list[tuple[str, Literal["deflate"] | None]] = [
    ("websockets", None),
    ("websockets", "deflate"),
    ("picows", None),
]


@pytest.mark.parametrize(("engine", "compression"), ENGINES_AND_COMPRESSION)
@pytest.mark.parametrize("first", ["server", "client", "client, without a code"])
def test_a_keepalive_that_comes_with_the_close(engine: str, compression: Literal["deflate"] | None, first: str) -> None:
    """It is no failure, and no data goes out behind the close frame."""
    bench = Bench(engine, None)
    sent: list[bytes] = []

    async def main() -> None:
        async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(65536)
            writer.write(frame(1, b"keepalive") + frame(8, b"\x03\xe8"))
            writer.write_eof()
            sent.append(await reader.read())

        headers = "" if compression is None else "Sec-WebSocket-Extensions: permessage-deflate\r\n"
        async with raw_server(end, headers) as url:
            connection = await bench.client().connect(url, compression=compression, keepalive=[echo(any_message)])
            if first != "server":
                await connection.close(1000 if first == "client" else 1005)
            else:
                await connection.send("x")
                await connection.wait_closed()
            await eventually(lambda: sent)
        assert connection.stats.messages_received == 1

    run(main())
    assert not bench.failures()
    if first != "server":
        assert sent == [b""]
    else:
        assert sent[0][-8:-6] == b"\x88\x82"


@pytest.mark.parametrize(("engine", "compression"), ENGINES_AND_COMPRESSION)
def test_the_heartbeat_expires_when_the_stream_ends(engine: str, compression: Literal["deflate"] | None) -> None:
    """Both in one turn of the loop: the end comes first."""
    bench = Bench(engine, None)

    async def main() -> None:
        async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(6)  # the ping
            writer.write_eof()
            time.sleep(0.25 * SCALE)  # nothing runs until both are there
            await until_eof(reader, writer)

        headers = "" if compression is None else "Sec-WebSocket-Extensions: permessage-deflate\r\n"
        async with raw_server(end, headers) as url:
            connection = await bench.client().connect(
                url, compression=compression, ping_interval=0.01, ping_timeout=0.2 * SCALE, close_timeout=0.1
            )
            with pytest.raises(ConnectionClosedError, match="lost without a close frame"):
                await connection.recv()

    run(main())


# Failing again and again


def test_a_failing_client_backs_off(bench: Bench) -> None:
    async def main() -> None:
        backoff = Backoff(initial=0.05, factor=2, jitter=0)
        client = bench.client(base_url=f"ws://127.0.0.1:{unused_port()}", connect_backoff=backoff)
        waits = []  # with the attempt that follows
        for _ in range(3):
            started = asyncio.get_running_loop().time()
            with pytest.raises(ConnectionRefused):
                await client.connect("/")
            waits.append(asyncio.get_running_loop().time() - started)
        # The wait is not part of what is measured: it is at least what that leaves of the whole.
        unmeasured = [took - (row.time or 0) / 1000 for took, row in zip(waits, bench.rows, strict=True)]
        assert unmeasured[1] >= 0.049 and unmeasured[2] >= 0.099

    run(main())


def test_a_success_ends_the_backoff(bench: Bench) -> None:
    async def main() -> None:
        client = bench.client(connect_backoff=Backoff(initial=0.05, maximum=1e6, factor=1e6, jitter=0))
        with pytest.raises(HandshakeRejected):
            await client.connect("/reject/503")
        for _ in range(3):
            async with client.connect("/echo"):
                pass
        with pytest.raises(HandshakeRejected):
            await client.connect("/reject/503")
        async with client.connect("/echo"):  # the second failure would have meant 14 hours
            pass

    run(main())


def test_nothing_is_printed(engine: str) -> None:
    """With default logging, failures leave no trace on the error stream."""
    program = f"""
import asyncio
from locust_ws_async.client import WebSocketClient
from locust_ws_async.exceptions import WebSocketError
from tests.client.helpers import frame, raw_server, tcp_server, until_eof

async def main():
    for bad in (frame(3), frame(1, b"\\xff"), frame(8, b"\\x00"), frame(1, b"x" * 200), b"\\x81"):
        async def send_bad(reader, writer):
            writer.write(bad)
            await writer.drain()
        async with raw_server(send_bad) as url:
            client = WebSocketClient(base_url=url, report=lambda *row: None, engine={engine!r})
            try:
                async with client.connect("/", max_size=100) as connection:
                    await connection.recv()
            except WebSocketError as exc:
                print(repr(exc))
    async def end(reader, writer):
        await reader.read(1)
    async with tcp_server(end) as url:
        for scheme in ("ws", "wss"):
            try:
                await client.connect(url.replace("ws", scheme))
            except WebSocketError as exc:
                print(repr(exc))

asyncio.run(main())
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60 * SCALE, check=True
    )
    assert result.stderr == ""
    assert result.stdout.count("ConnectionClosedError") == 5
    assert result.stdout.count("HandshakeError") == result.stdout.count("TLSError") == 1
