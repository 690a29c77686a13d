"""
A kill that arrives where the author's code blocks, and which no task of the author's would get: it ends the user only.
And a cancellation there that is none of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import gevent
import pytest
from gevent import GreenletExit
from gevent.event import Event

from locust_ws_async.bridge import LoopHost
from locust_ws_async.client import Backoff, WebSocketClient, WebSocketConnection, any_message, json_field, reply
from locust_ws_async.exceptions import MessageTimeout

from .helpers import PATIENCE, Bench, Script, eventually, frame, raw_server, run

FOREVER = 1000

Life = Callable[[WebSocketClient, str], Awaitable[None]]


class Blockade:
    """Where the user blocks until it is killed."""

    def __init__(self) -> None:
        self.reached = Event()
        self.times = 0

    def block(self) -> None:
        self.times += 1
        self.reached.set()
        gevent.sleep(FOREVER)

    def report(self, bench: Bench, where: str) -> Callable[..., None]:
        """A client's ``report`` that blocks in rows of this type or name."""

        def report(*row: Any) -> None:
            bench.report(*row)
            if where in row[:2]:
                self.block()

        return report


def kill_at(blockade: Blockade, client: WebSocketClient, live: Life, script: Script, then: bytes = b"") -> None:
    """Let a user live with such a server (see ``raw_server``) until it blocks, kill it, and close what it left open."""

    def user() -> None:
        host = LoopHost()
        server = contextlib.AsyncExitStack()
        url = host.run(server.enter_async_context(raw_server(script, then=then)))
        with contextlib.suppress(GreenletExit):
            host.run(_live(live, client, url))
        with gevent.Timeout(PATIENCE):
            host.run(client.aclose())
            host.run(server.aclose())
            host.close()

    greenlet = gevent.spawn(user)
    assert blockade.reached.wait(PATIENCE)
    greenlet.kill()
    greenlet.get()


async def _live(live: Life, client: WebSocketClient, url: str) -> None:
    await live(client, url)
    await asyncio.sleep(FOREVER)


def test_in_the_report_of_the_end(engine: str) -> None:
    blockade = Blockade()
    bench = Bench(engine, None)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async def live(client: WebSocketClient, url: str) -> None:
        connection = await client.connect(url)
        await connection.send("x")

    client = bench.client(report=blockade.report(bench, "WS SESSION"))
    kill_at(blockade, client, live, hang_up)
    assert client.connections == set()
    assert bench.types() == ["WS CONNECT", "WS SEND", "WS SESSION"]


async def answer_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\x88\x82")  # a close frame with a code and no reason
    writer.write(frame(8, b"\x03\xe8"))


def after(size: int, frames: bytes) -> Script:
    """Sends these frames when so many bytes have come, then waits for the close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(size)
        writer.write(frames)
        await answer_close(reader, writer)

    return serve


@pytest.mark.parametrize("place", ["handler", "async handler", "sent_at", "report of a handler", "report of an age"])
def test_in_the_handling_of_a_push(engine: str, place: str) -> None:
    """The connection lives on, to be closed as it should be, and the pushes behind this one block nobody again."""
    blockade = Blockade()
    bench = Bench(engine, None)

    async def handle(message: str) -> None:
        blockade.block()

    def sent_at(message: str) -> float:
        blockade.block()
        return 0.0

    async def live(client: WebSocketClient, url: str) -> None:
        connection = await client.connect(url)
        match place:
            case "handler":
                connection.on(any_message, lambda message: blockade.block())
            case "async handler":
                connection.on(any_message, handle)
            case "sent_at":
                connection.measure_push(any_message, sent_at=sent_at)
            case "report of a handler":
                connection.on(any_message, lambda message: None)
            case "report of an age":
                connection.measure_push(any_message, sent_at=lambda message: 0.0)
        await connection.send("now")

    report = blockade.report(bench, "WS PUSH") if "report" in place else bench.report
    kill_at(blockade, bench.client(report=report), live, after(9, frame(1, b"push") * 3))  # bytes of the "now"
    assert blockade.times == 1
    assert bench.only("WS SESSION").error is None


@pytest.mark.parametrize("place", ["match", "keepalive"])
def test_where_it_is_found_out_who_takes_a_message(engine: str, place: str) -> None:
    blockade = Blockade()
    bench = Bench(engine, None)

    def block(message: object) -> str:
        blockade.block()
        return "answer"

    async def live(client: WebSocketClient, url: str) -> None:
        connection = await client.connect(url, keepalive=reply(any_message, block) if place == "keepalive" else ())
        if place == "match":
            connection.on(lambda message: bool(block(message)), lambda message: None)
        await connection.send("now")

    kill_at(blockade, bench.client(), live, after(9, frame(1, b"push")))  # bytes of the "now"
    assert bench.only("WS SESSION").error is None


def test_in_the_report_of_a_late_reply(engine: str) -> None:
    blockade = Blockade()
    bench = Bench(engine, None)

    async def live(client: WebSocketClient, url: str) -> None:
        connection = await client.connect(url)
        for number in range(2):
            with contextlib.suppress(MessageTimeout):
                await connection.request({"id": number}, match=json_field("id"), timeout=0.01, name="request")
        await connection.send("now")

    sent = 2 * 14 + 9  # bytes of the requests and the "now"
    late = after(sent, frame(1, b'{"id": 0}') + frame(1, b'{"id": 1}'))
    kill_at(blockade, bench.client(report=blockade.report(bench, "request (late)")), live, late)
    assert blockade.times == 1
    assert bench.only("WS SESSION").error is None


def cut_first() -> Script:
    """Ends the first connection when something was sent, and keeps the others until they are closed."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await reader.read(1)
        else:
            await answer_close(reader, writer)

    return serve


def test_in_on_connected_of_a_reconnect(engine: str) -> None:
    blockade = Blockade()
    bench = Bench(engine, None)
    escalated: list[BaseException] = []
    calls = 0

    async def on_connected(connection: WebSocketConnection) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            blockade.block()

    async def live(client: WebSocketClient, url: str) -> None:
        connection = await client.connect(url, reconnect=Backoff(0.01, 0.01), on_connected=on_connected)
        await connection.send("now")

    kill_at(blockade, bench.client(escalate=escalated.append), live, cut_first())
    assert blockade.times == 1
    assert not escalated


def test_on_connected_of_a_reconnect_that_awaits_what_was_cancelled_is_a_failed_attempt(engine: str) -> None:
    bench = Bench(engine, None)
    escalated: list[BaseException] = []
    calls = 0

    async def on_connected(connection: WebSocketConnection) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            cancelled = asyncio.get_running_loop().create_future()
            cancelled.cancel()
            await cancelled

    async def main() -> None:
        async with (
            raw_server(cut_first()) as url,
            bench.client(escalate=escalated.append).connect(
                url, reconnect=Backoff(0.01, 0.01), on_connected=on_connected
            ) as connection,
        ):
            await connection.send("now")
            await eventually(lambda: calls == 3)
            await connection.send("after")

    run(main())
    assert [type(exc) for exc in escalated] == [RuntimeError]  # the other would pass for a cancellation of who gets it
    assert [row.error is None for row in bench.rows if row.type == "WS SESSION"] == [False, True, True]
