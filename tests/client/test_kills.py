"""A kill that arrives while a handler or a request listener blocks in a callback of the loop: it ends the user only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import gevent
from gevent import GreenletExit
from gevent.event import Event

from locust_ws_async.bridge import LoopHost
from locust_ws_async.client import WebSocketClient

from .helpers import PATIENCE, Bench, Script, raw_server

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


def kill_at(blockade: Blockade, client: WebSocketClient, live: Life, script: Script, then: bytes = b"") -> None:
    """Let a user live with such a server (see ``raw_server``) until it blocks, kill it, and close what it left open."""

    def user() -> None:
        host = LoopHost()
        server = contextlib.AsyncExitStack()
        url = host.run(server.enter_async_context(raw_server(script, then=then)))
        try:
            host.run(_live(live, client, url))
        except GreenletExit:
            pass
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

    def report(*row: Any) -> None:
        bench.report(*row)
        if row[0] == "WS SESSION":
            blockade.block()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async def live(client: WebSocketClient, url: str) -> None:
        connection = await client.connect(url)
        await connection.send("x")

    client = bench.client(report=report)
    kill_at(blockade, client, live, hang_up)
    assert client.connections == set()
    assert bench.types() == ["WS CONNECT", "WS SEND", "WS SESSION"]
