"""Echo servers that are not ours, each in a process of its own: aiohttp's, and Starlette on uvicorn with wsproto.

``python -m tests.users.servers aiohttp|uvicorn [certificate key]`` prints its URL. ``/echo`` echoes, ``/counts`` tells
what the server has seen.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

from tests.support import SCALE

__all__ = ["OtherServer", "other_server"]


class OtherServer:
    """A server that runs: its URL, and what it has counted."""

    def __init__(self, url: str) -> None:
        self.url = url

    def counts(self) -> Any:
        """Connections opened, messages received and sent, and the clients' close codes."""
        anyone = ssl._create_unverified_context()
        url = self.url.replace("ws", "http", 1) + "/counts"
        with urllib.request.urlopen(url, timeout=10 * SCALE, context=anyone) as response:
            return json.load(response)


@contextlib.contextmanager
def other_server(library: str, *tls: str) -> Iterator[OtherServer]:
    """Run a server of this library for the block; ``tls`` is the path of a certificate and of its key."""
    command = [sys.executable, "-m", "tests.users.servers", library, *tls]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield OtherServer(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


# In the server's process.

opened = received = sent = 0
closes: collections.Counter[int] = collections.Counter()


def counts() -> dict[str, Any]:
    return {"opened": opened, "received": received, "sent": sent, "closes": closes}


def count(**changes: int) -> None:
    for name, change in changes.items():
        globals()[name] += change


async def serve_aiohttp(tls: ssl.SSLContext | None) -> int:
    from aiohttp import WSMsgType, web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        count(opened=1)
        async for message in connection:
            count(received=1, sent=1)
            if message.type is WSMsgType.TEXT:
                await connection.send_str(message.data)
            else:
                await connection.send_bytes(message.data)
        closes[connection.close_code or 0] += 1
        return connection

    async def show(request: web.Request) -> web.Response:
        return web.json_response(counts())

    app = web.Application()
    app.add_routes([web.get("/echo", echo), web.get("/counts", show)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    return int(runner.addresses[0][1])


async def serve_uvicorn(tls: ssl.SSLContext | None) -> int:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket

    async def echo(connection: WebSocket) -> None:
        await connection.accept()
        count(opened=1)
        while (event := await connection.receive())["type"] == "websocket.receive":
            count(received=1, sent=1)
            if event.get("text") is not None:
                await connection.send_text(event["text"])
            else:
                await connection.send_bytes(event["bytes"])
        closes[event["code"]] += 1

    async def show(request: Request) -> JSONResponse:
        return JSONResponse(counts())

    app = Starlette(routes=[WebSocketRoute("/echo", echo), Route("/counts", show)])
    # Of the two implementations that uvicorn has, the one that is not websockets.
    config = uvicorn.Config(app, host="127.0.0.1", port=0, ws="wsproto", log_level="warning")
    config.load()
    config.ssl = tls
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    return int(server.servers[0].sockets[0].getsockname()[1])


async def main(library: str, *tls: str) -> None:
    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*tls)
    serve = {"aiohttp": serve_aiohttp, "uvicorn": serve_uvicorn}[library]
    port = await serve(context)
    print(f"{'wss' if tls else 'ws'}://127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
