"""Servers for docs/protocols.md in one process: `python-socketio`'s, and small ones for the other protocols.

Prints its port and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import time

import socketio
from aiohttp import WSMsgType, web

from tests.support import SCALE

from .websockets_servers import add_routes as add_websockets_routes

MEMBERS: web.AppKey[set[web.WebSocketResponse]] = web.AppKey("members", set)
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
                for subscriber, number in list(request.app[SUBSCRIBERS].items()):
                    with contextlib.suppress(ConnectionError):
                        await subscriber.send_str(f"MESSAGE\nsubscription:{number}\n\n{body}")
        if "receipt" in headers:
            await connection.send_str(f"RECEIPT\nreceipt-id:{headers['receipt']}\n\n\0")
        await connection.send_str("\n")
    request.app[SUBSCRIBERS].pop(connection, None)
    return connection


async def phoenix(request: web.Request) -> web.WebSocketResponse:
    """A socket with channels: each may be joined, and gives back to all members what one says."""
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    async for received in connection:
        joined, reference, topic, event, payload = json.loads(received.data)
        if event == "phx_join":
            request.app[MEMBERS].add(connection)
        status = "error" if event == "phx_join" and payload != {"token": "secret"} else "ok"
        await connection.send_json([joined, reference, topic, "phx_reply", {"status": status, "response": {}}])
        if event == "new_msg":
            for member in list(request.app[MEMBERS]):
                with contextlib.suppress(ConnectionError):  # one that is just leaving
                    await member.send_json([None, None, topic, "new_msg", payload])
    request.app[MEMBERS].discard(connection)
    return connection


async def jsonrpc(request: web.Request) -> web.WebSocketResponse:
    """An exchange: a price, and a trade for each time that somebody asks for it."""
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    async for received in connection:
        call = json.loads(received.data)
        answer = {"jsonrpc": "2.0", "id": call["id"]}
        match call["method"]:
            case "public/subscribe":
                answer["result"] = call["params"]["channels"]
            case "public/ticker":
                answer["result"] = {"last": 1.5}
            case _:
                answer["error"] = {"code": -32601, "message": "Method not found"}
        await connection.send_json(answer)
        data = {"time": time.time()}
        await connection.send_json(
            {"jsonrpc": "2.0", "method": "subscription", "params": {"channel": "trades", "data": data}}
        )
    return connection


def mqtt_packet(kind: int, body: bytes) -> bytes:
    """A control packet of MQTT 3.1.1 (section 2.2); the body is a short one."""
    assert len(body) < 128
    return bytes([kind, len(body)]) + body


async def mqtt(request: web.Request) -> web.WebSocketResponse:
    """A broker with one topic, which gives each message to all subscribers (MQTT 3.1.1, section 3)."""
    connection = web.WebSocketResponse(protocols=["mqtt"])
    await connection.prepare(request)
    unread = b""
    async for received in connection:
        unread += received.data
        while len(unread) >= 2 and len(unread) >= 2 + unread[1]:
            kind, body, unread = unread[0], unread[2 : 2 + unread[1]], unread[2 + unread[1] :]
            match kind >> 4:
                case 1:  # CONNECT, answered by CONNACK
                    await connection.send_bytes(mqtt_packet(0x20, b"\0\0"))
                case 8:  # SUBSCRIBE, answered by SUBACK
                    request.app[MEMBERS].add(connection)
                    await connection.send_bytes(mqtt_packet(0x90, body[:2] + b"\1"))
                case 3:  # PUBLISH with QoS 1, answered by PUBACK
                    end = 2 + int.from_bytes(body[:2], "big")
                    await connection.send_bytes(mqtt_packet(0x40, body[end : end + 2]))
                    for member in [each for each in request.app[MEMBERS] if each.ws_protocol == "mqtt"]:
                        with contextlib.suppress(ConnectionError):
                            await member.send_bytes(mqtt_packet(0x30, body[:end] + body[end + 2 :]))
                case 12:  # PINGREQ, answered by PINGRESP
                    await connection.send_bytes(mqtt_packet(0xD0, b""))
    request.app[MEMBERS].discard(connection)
    return connection


async def sse(request: web.Request) -> web.StreamResponse:
    """Five events, 10 ms apart."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(5):
        await response.write(f"data: {number}\n\n".encode())
        await asyncio.sleep(0.01)
    return response


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
    events = socketio.AsyncServer(async_mode="aiohttp", ping_interval=0.05, ping_timeout=SCALE)
    serve_socketio(events)
    app = web.Application()
    app[SUBSCRIBERS] = {}
    app[MEMBERS] = set()
    app.router.add_get("/graphql", graphql)
    app.router.add_get("/socket/websocket", phoenix)
    app.router.add_get("/jsonrpc", jsonrpc)
    app.router.add_get("/mqtt", mqtt)
    app.router.add_get("/events", sse)
    add_websockets_routes(app)
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
