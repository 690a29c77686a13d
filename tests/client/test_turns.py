"""What one read brings is handled in turns of the loop; what is behind it, the end above all, waits for its turn."""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
import time
import warnings
from pathlib import Path

import pytest
import trustme

from locust_ws_async.client import echo, prefix
from locust_ws_async.client.wire.base import TURN_FRAMES
from locust_ws_async.exceptions import ConnectionClosed

from .helpers import Bench, eventually, frame, raw_server, run, until_eof

MANY = 5 * TURN_FRAMES
CLOSE = frame(8, b"\x03\xe8")


def numbered(count: int) -> bytes:
    return b"".join(frame(1, b"%d" % number) for number in range(count))


@pytest.fixture(params=["ws", "wss"])
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ssl.SSLContext | None, dict[str, Path]]:
    """A server's TLS, and what makes a client accept it."""
    if request.param == "ws":
        return None, {}
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    return context, {"verify": tmp_path / "authority.pem"}


# What ends the connection behind the messages, and its close code. The first of them is in the same read.
ENDS = {
    "close frame": (CLOSE, 1000),
    "malformed frame": (b"\x83\x00", 1006),
    "end of the stream": (b"", 1006),
    "half a frame": (b"\x81\x05ab", 1006),
}


@pytest.mark.parametrize("end", ENDS)
def test_all_messages_before_the_end_are_delivered(
    bench: Bench, tls: tuple[ssl.SSLContext | None, dict[str, Path]], end: str
) -> None:
    context, options = tls
    last, code = ENDS[end]

    async def send_and_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(numbered(MANY) + frame(9, b"ping") + frame(2, b"last") + last)
        await writer.drain()
        if last in (CLOSE, b"\x83\x00"):
            await until_eof(reader, writer)

    async def main() -> None:
        async with raw_server(send_and_end, tls=context) as url:
            connection = await bench.client().connect(url, max_queue=None, close_timeout=0.1, **options)
            received = []
            with pytest.raises(ConnectionClosed):
                while True:
                    received.append(await connection.recv())
            assert received == [*(str(number) for number in range(MANY)), b"last"]
            assert connection.stats.pings_received == 1
            assert connection.close_code == code

    run(main())


@pytest.mark.parametrize(
    ("message", "error", "answer"),
    [(b"", "connection closed by the server", 1000), (frame(1, b"cut", fin=False), "sent a malformed frame", 1002)],
)
@pytest.mark.parametrize("busy", [False, True])
def test_a_close_frame_that_waits_for_its_turn(
    bench: Bench, message: bytes, error: str, answer: int, busy: bool
) -> None:
    """What follows it means nothing; but it may itself be out of place, within a message.

    picows meets the malformed frame first, and ends the connection a moment later: before the turn of the close frame,
    if the loop is busy.
    """
    closes: list[bytes] = []

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(numbered(MANY) + message + CLOSE + b"\x83\x00")
        closes.append(await reader.read())

    async def main() -> None:
        async with raw_server(send) as url:
            connection = await bench.client().connect(url, max_queue=None, close_timeout=0.1)
            blocks = [str(TURN_FRAMES + 1)] if busy else []
            if busy:
                connection.on(lambda message: message in blocks, lambda message: time.sleep(0.2))
            received = []
            with pytest.raises(ConnectionClosed, match=error):
                while True:
                    received.append(await connection.recv())
            assert received == [str(number) for number in range(MANY) if str(number) not in blocks]
            await eventually(lambda: closes)

    run(main())
    (close,) = closes
    assert close[0] == 0x88
    assert bytes(byte ^ mask for byte, mask in zip(close[6:8], close[2:4], strict=True)) == answer.to_bytes(2)


def test_other_callbacks_run_between_the_turns(bench: Bench) -> None:
    async def main() -> None:
        async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(1) * MANY)
            await until_eof(reader, writer)

        async with raw_server(send) as url, bench.client().connect(url, max_queue=None) as connection:
            at_once, before = 0, connection.stats.messages_received
            while connection.stats.messages_received < MANY:
                await asyncio.sleep(0)
                now = connection.stats.messages_received
                at_once, before = max(at_once, now - before), now
            assert at_once <= TURN_FRAMES

    run(main())


def test_a_full_queue_and_the_turns_both_stop_the_reading(bench: Bench) -> None:
    """And it goes on when neither does."""

    async def main() -> None:
        async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(20):
                writer.write(numbered(MANY))
                await writer.drain()
            writer.write(CLOSE)
            await until_eof(reader, writer)

        async with raw_server(send) as url:
            connection = await bench.client().connect(url, max_queue=10)
            received = [message async for message in connection]
            assert received == [str(number) for number in range(MANY)] * 20

    run(main())
    assert not bench.failures()


def test_an_abort_drops_what_was_not_yet_handled(bench: Bench) -> None:
    async def main() -> None:
        async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(1) * MANY)
            await until_eof(reader, writer)

        async with raw_server(send) as url:
            connection = await bench.client().connect(url, max_queue=None)
            await eventually(lambda: connection.stats.messages_received)
            connection.abort()
            received = connection.stats.messages_received
            await connection.wait_closed()
            assert connection.stats.messages_received == received

    run(main())


# Answers that nobody reads


def test_the_last_ping_is_answered_when_the_server_reads_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        reads, answer = asyncio.Event(), asyncio.get_running_loop().create_future()

        async def ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.pause_reading()  # type: ignore[attr-defined] # asyncio.Transport
            for number in range(100_000):
                writer.write(frame(9, b"%0125d" % number))
                await writer.drain()
            await reads.wait()
            writer.transport.resume_reading()  # type: ignore[attr-defined] # asyncio.Transport
            data = b""
            while True:
                data += await reader.read(2**20)
                for start in range(0, len(data) - 130, 131):
                    header, mask, payload = (
                        data[start : start + 2],
                        data[start + 2 : start + 6],
                        data[start + 6 : start + 131],
                    )
                    assert header == b"\x8a\xfd"
                    if bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload)) == b"%0125d" % 99_999:
                        answer.set_result(None)
                        return await until_eof(reader, writer)
                data = data[len(data) - len(data) % 131 :]

        async with raw_server(ping) as url:
            connection = await bench.client().connect(url, name=f"pings {bench.engine}")
            await eventually(lambda: connection.stats.pings_received == 100_000)
            assert connection.stats.pongs_sent < 100_000
            sent = connection.stats.pongs_sent
            reads.set()
            await answer
            assert connection.stats.pongs_sent == sent + 1
            await connection.close()

    run(main())
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "only its last ping is answered" in warning.getMessage()


def test_keepalives_are_left_out_while_the_server_does_not_read(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                writer.write(frame(1, b"KA" + b"k" * 1000) * 100)
                await writer.drain()

        async with raw_server(ask) as url:
            keepalive = echo(prefix("KA"))
            connection = await bench.client().connect(url, keepalive=keepalive, name=f"keepalive {bench.engine}")
            await eventually(lambda: connection.stats.keepalives_skipped >= 1000)
            assert connection.wire.transport.get_write_buffer_size() < 200_000
            connection.abort()
            await connection.wait_closed()

    run(main())
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "its messages are left out" in warning.getMessage()


def test_a_dead_socket_is_no_noise(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def ping_and_cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((frame(9, b"p" * 125) + frame(1, b"KA")) * 100)
            await writer.drain()
            writer.transport.abort()

        async with raw_server(ping_and_cut) as url:
            for _ in range(20):
                connection = await bench.client().connect(url, keepalive=echo(prefix("KA")))
                await connection.wait_closed()

    run(main())
    assert not caplog.records


# Handlers


def test_a_handler_that_never_began_is_no_warning(bench: Bench) -> None:
    async def main() -> None:
        async with raw_server(until_eof, then=frame(1, b"x") * 3) as url:
            connection = await bench.client().connect(url)
            await eventually(lambda: connection.stats.messages_received == 3)
            before = asyncio.all_tasks()

            async def handler(message: object) -> None: ...

            connection.on(lambda message: True, handler)
            (task,) = asyncio.all_tasks() - before
            task.cancel()
            await asyncio.wait([task])
            connection.abort()
            await connection.wait_closed()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(main())
        gc.collect()
    assert not [warning for warning in caught if "never awaited" in str(warning.message)]
