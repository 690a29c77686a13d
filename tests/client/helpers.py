"""What the client's tests share: running a coroutine, reading rows, and servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import gevent
from websockets.utils import accept_key

from locust_ws_async.bridge import LoopHost
from locust_ws_async.client import WebSocketClient
from tests.support import SCALE

T = TypeVar("T")

HOSTED = os.environ.get("LOCUST_WS_TEST_LOOP") == "greenlet"

PATIENCE = 20 * SCALE
"""Seconds after which a test that waits has failed."""


def run(
    coroutine: Coroutine[Any, Any, T],
    *,
    collect: bool = True,
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> T:
    """
    Run a test's coroutine in a loop of its own, which it must leave clean: in one of the bridge's when
    ``tests/test_client_in_a_greenlet.py`` says so.

    ``collect=False`` leaves out the collection of garbage, for tests with hundreds of runs.
    """
    complaints: list[dict[str, Any]] = []

    async def main() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        async with asyncio.timeout(PATIENCE):
            result = await coroutine
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left
        return result

    if HOSTED and new_loop is asyncio.new_event_loop:
        result = gevent.spawn(_run_hosted, main()).get()
    else:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            result = runner.run(main())
    if collect:
        gc.collect()  # what was not closed, awaited or retrieved complains now
    assert not complaints, complaints
    return result


def _run_hosted(main: Coroutine[Any, Any, T]) -> T:
    host = LoopHost()
    try:
        return host.run(main)
    finally:
        host.close()


class Row(NamedTuple):
    """One call of the report."""

    type: str
    name: str
    time: float | None
    length: int
    error: BaseException | None
    start: float
    url: str
    response: object


class Bench:
    """Makes clients and keeps their rows."""

    def __init__(self, engine: str, base_url: str | None) -> None:
        self.engine = engine
        self.base_url = base_url
        self.rows: list[Row] = []

    def client(self, **arguments: Any) -> WebSocketClient:
        arguments.setdefault("base_url", self.base_url)
        arguments.setdefault("report", self.report)
        return WebSocketClient(engine=self.engine, **arguments)

    def report(self, *row: Any) -> None:
        self.rows.append(Row(*row))

    def types(self) -> list[str]:
        return [row.type for row in self.rows]

    def only(self, request_type: str) -> Row:
        (row,) = [row for row in self.rows if row.type == request_type]
        return row

    def failures(self) -> dict[str, str]:
        return {row.type: repr(row.error) for row in self.rows if row.error is not None}


async def eventually(condition: Callable[[], Any]) -> None:
    """Let the loop run until the condition is true."""
    while not condition():
        await asyncio.sleep(0.005)


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def tcp_server(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that runs this script for each TCP connection, then cuts it; gives its URL."""
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        task.add_done_callback(running.discard)
        try:
            await script(reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # also when cancelled, at the end of the block: asyncio's streams would log that
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"{'ws' if tls is None else 'wss'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await server.wait_closed()


@contextlib.asynccontextmanager
async def raw_server(
    script: Script, headers: str = "", then: bytes = b"", tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """
    A server that does the handshake, then runs this script on the bytes.

    ``headers``: further lines of its answer. ``then``: bytes in the same write as the answer.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_handshake(reader, writer, headers, then)
        await script(reader, writer)

    async with tcp_server(serve, tls) as url:
        yield url


async def answer_handshake(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: str = "", then: bytes = b""
) -> str:
    """Accept the opening handshake; gives the request."""
    request = (await reader.readuntil(b"\r\n\r\n")).decode()
    key = next(line.split(": ")[1] for line in request.splitlines() if line.lower().startswith("sec-websocket-key"))
    answer = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key)}\r\n{headers}\r\n"
    )
    writer.write(answer.encode() + then)
    await writer.drain()
    return request


async def until_eof(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A script that reads and says nothing."""
    while await reader.read(65536):
        pass


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame as a server sends it."""
    size = len(payload)
    first = bytes([(0x80 if fin else 0) | opcode])
    if size < 126:
        return first + bytes([size]) + payload
    if size < 65536:
        return first + b"\x7e" + size.to_bytes(2, "big") + payload
    return first + b"\x7f" + size.to_bytes(8, "big") + payload
