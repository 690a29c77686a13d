"""Stand-ins for services whose client libraries call `websockets.connect`: SignalR, Centrifugo, OpenAI's realtime API.

Each says no more than its library needs to hear. Prints its port and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from aiohttp import web

END = "\x1e"  # of a SignalR message


async def negotiate(request: web.Request) -> web.Response:
    transport = {"transport": "WebSockets", "transferFormats": ["Text", "Binary"]}
    return web.json_response({"connectionId": "1", "connectionToken": "1", "availableTransports": [transport]})


async def signalr(request: web.Request) -> web.WebSocketResponse:
    """A hub with the method `echo`."""
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    async for received in connection:
        for message in filter(None, received.data.split(END)):
            match json.loads(message):
                case {"protocol": "json"}:
                    await connection.send_str("{}" + END)
                case {"type": 1, "invocationId": invocation, "arguments": [argument]}:
                    done = {"type": 3, "invocationId": invocation, "result": argument}
                    await connection.send_str(json.dumps(done) + END)
    return connection


async def centrifugo(request: web.Request) -> web.WebSocketResponse:
    """Answers a call with its data."""
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    async for received in connection:
        for line in received.data.splitlines():
            match json.loads(line):
                case {"id": number, "connect": _}:
                    connected = {"client": "1", "version": "5", "ping": 25, "pong": True}
                    await connection.send_str(json.dumps({"id": number, "connect": connected}))
                case {"id": number, "rpc": {"data": data}}:
                    await connection.send_str(json.dumps({"id": number, "rpc": {"data": data}}))
    return connection


async def realtime(request: web.Request) -> web.WebSocketResponse:
    """Answers each `response.create` with three pieces of text."""
    assert request.headers["Authorization"] == "Bearer key"
    connection = web.WebSocketResponse()
    await connection.prepare(request)

    async def event(kind: str, **fields: Any) -> None:
        await connection.send_json({"event_id": "1", "type": kind, **fields})

    await event("session.created", session={"type": "realtime", "model": request.query["model"]})
    async for received in connection:
        if json.loads(received.data)["type"] == "response.create":
            for text in ("so", " it", " is"):
                await event("response.output_text.delta", delta=text)
            await event("response.done", response={"status": "completed"})
    return connection


def add_routes(app: web.Application) -> None:
    """Add the paths of all of them."""
    app.router.add_post("/hub/negotiate", negotiate)
    app.router.add_get("/hub", signalr)
    app.router.add_get("/connection/websocket", centrifugo)
    app.router.add_get("/v1/realtime", realtime)


async def main() -> None:
    app = web.Application()
    add_routes(app)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
