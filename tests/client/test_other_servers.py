"""Against a server that shares no code with either engine: aiohttp's."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from aiohttp import WSMsgType, web

from .helpers import Bench, run


@contextlib.asynccontextmanager
async def aiohttp_server() -> AsyncIterator[str]:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        connection = web.WebSocketResponse(protocols=["chat"], compress=request.query.get("compress") == "yes")
        await connection.prepare(request)
        async for message in connection:
            if message.type is WSMsgType.TEXT:
                if message.data == "ping":
                    await connection.ping(b"from the server")
                await connection.send_str(message.data)
            else:
                await connection.send_bytes(message.data)
        return connection

    app = web.Application()
    app.router.add_get("/ws", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/ws"
    finally:
        await runner.cleanup()


def test_aiohttp(bench: Bench) -> None:
    async def main() -> None:
        async with (
            aiohttp_server() as url,
            bench.client().connect(url, subprotocols=["chat"]) as connection,
        ):
            assert connection.subprotocol == "chat"
            for message in ("é" * 500, b"x" * 100_000, "ping"):
                await connection.send(message)
                assert await connection.recv() == message
            await connection.ping()

    run(main())
    assert not bench.failures()


def test_compression() -> None:
    bench = Bench("websockets", None)

    async def main() -> None:
        async with (
            aiohttp_server() as url,
            bench.client().connect(url + "?compress=yes", compression="deflate") as connection,
        ):
            assert "permessage-deflate" in connection.response.headers["Sec-WebSocket-Extensions"]
            for message in ("é" * 5000, b"x" * 100_000, ""):
                await connection.send(message)
                assert await connection.recv() == message
            await connection.ping()

    run(main())
    assert not bench.failures()
    assert [row.length for row in bench.rows if row.type == "WS RECV"] == [10_000, 100_000, 0]
