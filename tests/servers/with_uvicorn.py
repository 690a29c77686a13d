"""An ASGI application on uvicorn, which speaks WebSocket by wsproto."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto.events import Ping, Pong

from .routes import SUBPROTOCOLS, Page, page_for
from .routes import serve as serve_session

__all__ = ["serve"]


class UvicornSession:
    """A connection of ASGI; and of wsproto, for ASGI has no pings, and no way to break anything."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers = [(name.decode(), value.decode()) for name, value in scope["headers"]]
        self.pongs: list[str] = []
        self.close_code = 0
        self._receive = receive
        self._send = send
        self._protocol: WSProtocol = receive.__self__
        self._protocol.handle_pong = self._pong_received
        self.transport = self._protocol.transport

    def _pong_received(self, event: Pong) -> None:
        self.pongs.append(event.payload.decode())

    async def receive(self) -> str | bytes | None:
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            self.close_code = event["code"]
            return None
        message: str | bytes = event["text"] if "text" in event else event["bytes"]
        return message

    async def send(self, message: str | bytes) -> None:
        await self._send({"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message})

    async def ping(self, payload: bytes) -> None:
        self.transport.write(self._protocol.conn.send(Ping(payload)))

    async def close(self, code: int, reason: str) -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": reason})


async def app(scope: Any, receive: Any, send: Any) -> None:
    page = await page_for(scope["path"], dict(parse_qsl(scope["query_string"].decode())))
    is_websocket = scope["type"] == "websocket"
    if page is not None:
        await answer(page, send, "websocket.http.response" if is_websocket else "http.response")
        return
    assert (await receive())["type"] == "websocket.connect"
    subprotocol = next((name for name in SUBPROTOCOLS if name in scope["subprotocols"]), None)
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": [(b"set-cookie", b"visited=yes")]})
    await serve_session(scope["path"], UvicornSession(scope, receive, send))


async def answer(page: Page, send: Any, kind: str) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in page.headers]
    await send({"type": f"{kind}.start", "status": page.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": page.body})


async def serve(sockets: Iterable[socket.socket], tls: ssl.SSLContext | None) -> None:
    config = uvicorn.Config(
        app, ws="wsproto", ws_max_size=2**27, lifespan="off", log_level="warning", proxy_headers=False
    )
    config.load()
    config.ssl = tls
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(list(sockets))
