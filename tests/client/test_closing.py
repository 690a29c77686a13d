"""close() is bounded in every state, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Literal

import pytest
from websockets.protocol import State

from locust_ws_async.client import Backoff, WebSocketConnection
from locust_ws_async.exceptions import ConnectionClosed, ConnectionClosedError

from ..support import SCALE
from .helpers import Bench, eventually, frame, raw_server, run, until_eof


def test_the_server_sees_a_normal_close(bench: Bench) -> None:
    async def main() -> None:
        async def expect_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readexactly(2)
            assert head[0] == 0x88
            mask = await reader.readexactly(4)
            payload = await reader.readexactly(head[1] & 0x7F)
            closes.append(bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload)))
            writer.write(frame(8, closes[-1]))

        closes: list[bytes] = []
        async with raw_server(expect_close) as url:
            connection = await bench.client().connect(url)
            await connection.close(4000, "done")
            await connection.close()
            async with bench.client().connect(url):
                pass
            with pytest.raises(RuntimeError, match="author's own"):
                async with bench.client().connect(url):
                    raise RuntimeError("author's own")
        assert closes == [b"\x0f\xa0done", b"\x03\xe8", b"\x03\xe8"]

    run(main())
    assert not bench.failures()


@pytest.mark.parametrize("path", ["/silent", "/stalled"])
def test_a_server_that_does_not_answer(bench: Bench, path: str) -> None:
    async def main() -> None:
        connection = await bench.client().connect(path, close_timeout=0.05)
        await connection.close()
        assert connection.state is State.CLOSED

    run(main())
    text = "connection closed by this side, which the server did not answer with a close frame"
    assert bench.failures() == {"WS SESSION": f"ConnectionClosedError({text!r})"}


def test_a_server_that_closes_tcp_without_a_close_frame(bench: Bench) -> None:
    async def main() -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)

        async with raw_server(hang_up) as url:
            connection = await bench.client().connect(url)
            await connection.close()
            assert connection.close_code == 1006

    run(main())
    assert not bench.failures()


def test_a_server_that_answers_but_keeps_tcp_open(bench: Bench) -> None:
    async def main() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(frame(8, b"\x03\xe8"))
            await until_eof(reader, writer)

        async with raw_server(answer) as url:
            connection = await bench.client().connect(url, close_timeout=0.05)
            await connection.close()
            assert connection.close_code == 1000

    run(main())
    assert not bench.failures()


def test_a_server_that_closes_but_keeps_tcp_open(bench: Bench) -> None:
    async def main() -> None:
        async def close_and_stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(8, b"\x03\xe8"))
            await until_eof(reader, writer)

        async with raw_server(close_and_stay) as url:
            connection = await bench.client().connect(url, close_timeout=0.05)
            await connection.wait_closed()

    run(main())
    assert not bench.failures()


def test_a_writer_that_is_blocked(bench: Bench) -> None:
    """The close frame waits behind megabytes that the server does not read."""

    async def main() -> None:
        connection = await bench.client().connect("/stalled", close_timeout=0.05)

        async def flood() -> None:
            while True:
                await connection.send(b"x" * 1_000_000)

        flooding = asyncio.create_task(flood())
        await eventually(lambda: connection._drain_waiters)
        await connection.close()
        with pytest.raises(ConnectionClosedError):
            await flooding

    run(main())
    assert list(bench.failures()) == ["WS SESSION"]


def test_a_send_that_is_blocked_when_the_server_ends_the_connection_has_failed(bench: Bench) -> None:
    async def main() -> None:
        async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(1)
            writer.transport.abort()

        async with raw_server(cut) as url:
            connection = await bench.client().connect(url)
            with pytest.raises(ConnectionClosedError):
                await connection.send(bytes(50_000_000))

    run(main())
    assert isinstance(bench.only("WS SEND").error, ConnectionClosedError)


@pytest.mark.parametrize("receives", [True, False])
def test_what_comes_while_closing_is_for_who_waits(bench: Bench, receives: bool) -> None:
    async def main() -> None:
        async def send_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not receives:
                writer.write(frame(1, b"early") * 2)
            await reader.readexactly(8)  # the close frame
            writer.write(frame(1, b"late") * 3 + frame(9, b"") + frame(8, b"\x03\xe8"))

        async with raw_server(send_more) as url:
            connection = await bench.client().connect(url)

            async def receive() -> list[str | bytes]:
                return [message async for message in connection]

            if receives:
                receiving = asyncio.create_task(receive())
                await asyncio.sleep(0)
                await connection.close()
                assert await receiving == ["late"] * 3
            else:
                await eventually(lambda: connection.stats.messages_received == 2)
                await connection.close()
                assert await receive() == ["early"] * 2
            assert connection.stats.messages_dropped == (0 if receives else 3)
            assert connection.stats.messages_received == (3 if receives else 5)

    run(main())
    assert not bench.failures()


def test_a_wait_that_this_side_ends_is_not_reported(bench: Bench) -> None:
    async def main() -> None:
        connection = await bench.client().connect("/sink")

        async def iterate() -> None:
            async for _ in connection:
                pass

        iterating = asyncio.create_task(iterate())
        await asyncio.sleep(0)
        await connection.close()
        await iterating

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SESSION"]


@pytest.mark.parametrize("operation", ["recv", "iterate", "ping", "send"])
def test_nor_is_one_that_ends_when_the_server_does_not_answer_the_close(bench: Bench, operation: str) -> None:
    async def main() -> None:
        connection = await bench.client().connect("/stalled", close_timeout=0.1)
        waits = {
            "recv": connection.recv,
            "iterate": connection.__anext__,
            "ping": connection.ping,
            "send": lambda: connection.send(bytes(50_000_000)),
        }
        waiting = asyncio.ensure_future(waits[operation]())
        await asyncio.sleep(0)
        assert not waiting.done()
        await connection.close()
        with pytest.raises(ConnectionClosedError):
            await waiting

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SESSION"]


@pytest.mark.parametrize("operation", ["send", "ping"])
def test_nor_is_one_for_a_reconnect_that_this_side_gives_up(bench: Bench, operation: str) -> None:
    async def main() -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            pass

        async with raw_server(hang_up) as url:
            connection = await bench.client().connect(url, reconnect=Backoff(1000, 1000))
            await eventually(lambda: connection.state is State.CONNECTING)
            waiting = asyncio.ensure_future(connection.send("x") if operation == "send" else connection.ping())
            await asyncio.sleep(0)
            assert not waiting.done()
            await connection.close()
            with pytest.raises(ConnectionClosed):
                await waiting

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SESSION", "WS RECOVERY"]


def test_cancelling_close_closes_all_the_same(bench: Bench) -> None:
    async def main() -> None:
        connection = await bench.client().connect("/silent", close_timeout=0.1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await connection.close()
        assert connection.state is State.CLOSING
        await connection.wait_closed()

    run(main())


def test_a_wait_closed_that_is_cancelled_leaves_nothing_behind(bench: Bench) -> None:
    def futures() -> int:
        gc.collect()
        return sum(type(each) is asyncio.Future for each in gc.get_objects())

    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            before = futures()
            for _ in range(100):
                waiting = asyncio.ensure_future(connection.wait_closed())
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])
            assert futures() < before + 10

    run(main())


@pytest.mark.parametrize(
    ("code", "reason"), [(1005.5, ""), (1004, ""), (1006, ""), (999, ""), (5000, ""), (1000, "é" * 62)]
)
def test_what_cannot_be_sent(bench: Bench, code: int, reason: str) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            with pytest.raises(ValueError, match="close"):
                await connection.close(code, reason)
            assert connection.state is State.OPEN

    run(main())


def test_aclose_closes_all_at_once(bench: Bench) -> None:
    async def main() -> None:
        client = bench.client()
        connections = [await client.connect(path) for path in ["/silent"] * 20 + ["/echo"] * 20]
        assert client.connections == set(connections)
        started = time.monotonic()
        await client.aclose(timeout=0.1 * SCALE)
        elapsed = time.monotonic() - started
        assert elapsed < 20 * 0.1 * SCALE, "they were closed one after the other"
        assert client.connections == set()
        assert [connection.close_code for connection in connections] == [1006] * 20 + [1000] * 20
        await client.aclose()

    run(main())


def test_aclose_shortens_a_close_under_way(bench: Bench) -> None:
    async def main() -> None:
        client = bench.client()
        connection = await client.connect("/silent", close_timeout=1000)
        closing = asyncio.create_task(connection.close())
        await asyncio.sleep(0)
        await client.aclose(timeout=0.05)
        await closing

    run(main())


@pytest.mark.parametrize(("engine", "compression"), [("websockets", None), ("websockets", "deflate"), ("picows", None)])
def test_between_the_end_of_the_stream_and_the_end_of_the_connection(
    engine: str, compression: Literal["deflate"] | None
) -> None:
    """asyncio tells the one in one iteration of the loop, the other in the next, and tasks run before it."""
    headers = "" if compression is None else "Sec-WebSocket-Extensions: permessage-deflate\r\n"
    bench = Bench(engine, None)

    async def end_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write_eof()
        await until_eof(reader, writer)

    async def send(connection: WebSocketConnection) -> None:
        while True:
            await connection.send("x")
            await asyncio.sleep(0)

    async def ping(connection: WebSocketConnection) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(connection.ping())
                await asyncio.sleep(0)

    async def main() -> None:
        async with raw_server(end_stream, headers) as url:
            client = bench.client()
            with pytest.raises(ConnectionClosedError):
                await send(await client.connect(url, compression=compression))
            with pytest.raises(ExceptionGroup) as caught:
                await ping(await client.connect(url, compression=compression))
            assert caught.value.split(ConnectionClosedError)[1] is None
            for turns in range(10):
                connection = await client.connect(url, compression=compression)
                for _ in range(turns):
                    await asyncio.sleep(0)
                await connection.close()

    run(main())
