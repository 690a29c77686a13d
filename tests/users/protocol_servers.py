"""Servers for docs/protocols.md in one process: `python-socketio`'s, and small ones for GraphQL and STOMP.

Prints its port and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

import socketio
from aiohttp import WSMsgType, web

SUBSCRIBERS: web.AppKey[dict[web.WebSocketResponse, str]] = web.AppKey("subscribers", dict)


async def graphql(request: web.Request) -> web.WebSocketResponse:
    """As graphql-transport-ws is specified; a query has one result, a subscription three. It pings after each."""
    connection = web.WebSocketResponse(protocols=["graphql-transport-ws"])
    await connection.prepare(request)
    assert connection.ws_protocol == "graphql-transport-ws"
    pongs = 0
    async for received in connection:
        message = json.loads(received.data)
        match message["type"]:
            case "connection_init":
                await connection.send_json({"type": "connection_ack"})
            case "pong":
                pongs += 1
            case "subscribe":
                results = 3 if message["payload"]["query"].startswith("subscription") else 1
                selected = re.search(r"\bprice \{\s+([\w\s]+?)\s+\}", message["payload"]["query"])
                if selected is None:
                    error = {"message": "Field 'price' of type 'Price!' must have a selection of subfields."}
                    await connection.send_json({"id": message["id"], "type": "error", "payload": [error]})
                    continue
                for _ in range(results):
                    fields = {"value": pongs, "time": time.time()}
                    price = {name: fields[name] for name in selected[1].split()}
                    result = {"id": message["id"], "type": "next", "payload": {"data": {"price": price}}}
                    await connection.send_json(result)
                await connection.send_json({"id": message["id"], "type": "complete"})
                await connection.send_json({"type": "ping"})
    return connection


async def stomp(request: web.Request) -> web.WebSocketResponse:
    """A broker with one destination; it sends a heart-beat behind each frame."""
    connection = web.WebSocketResponse(protocols=["v12.stomp"])
    await connection.prepare(request)
    assert connection.ws_protocol == "v12.stomp"
    async for received in connection:
        assert received.type is WSMsgType.TEXT
        if received.data == "\n":
            continue
        head, body = received.data.split("\n\n", 1)
        command, *lines = head.split("\n")
        headers = dict(line.split(":", 1) for line in lines)
        match command:
            case "CONNECT":
                await connection.send_str("CONNECTED\nversion:1.2\n\n\0")
            case "SUBSCRIBE":
                request.app[SUBSCRIBERS][connection] = headers["id"]
            case "SEND":
                for subscriber, number in request.app[SUBSCRIBERS].items():
                    await subscriber.send_str(f"MESSAGE\nsubscription:{number}\n\n{body}")
        if "receipt" in headers:
            await connection.send_str(f"RECEIPT\nreceipt-id:{headers['receipt']}\n\n\0")
        await connection.send_str("\n")
    request.app[SUBSCRIBERS].pop(connection, None)
    return connection


def serve_socketio(events: socketio.AsyncServer) -> None:
    """Events that ask back, carry bytes, fall silent, or belong to a namespace that wants a password."""
    events.on("ask", lambda _, data: {"answer": data})
    events.on("nothing", lambda _: None)
    events.on("several", lambda _, first, second: (second, first))
    events.on("bytes", lambda _, data: {"again": [data["one"], data["two"]], "text": "and text"})

    @events.on("silent")
    async def silent(_: str) -> None:
        await asyncio.sleep(60)

    @events.on("ask me")
    async def ask_me(sid: str, data: object) -> object:
        # The client answers while it waits for the answer to this.
        return await events.call("question", ("how", data), to=sid)

    @events.on("leave")
    async def leave(sid: str) -> None:
        await events.disconnect(sid)

    @events.on("cut")
    async def cut(sid: str) -> None:
        await events.eio.disconnect(events.manager.eio_sid_from_sid(sid, "/"))

    events.on("connect", lambda sid, _, auth: auth == "password", namespace="/chat")
    events.on("ask", lambda _, data: ["chat", data], namespace="/chat")


async def main() -> None:
    # Pings come soon, and who does not answer is cut off.
    events = socketio.AsyncServer(async_mode="aiohttp", ping_interval=0.05, ping_timeout=1)
    serve_socketio(events)
    app = web.Application()
    app[SUBSCRIBERS] = {}
    app.router.add_get("/graphql", graphql)
    app.router.add_get("/stomp", stomp)
    events.attach(app)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
