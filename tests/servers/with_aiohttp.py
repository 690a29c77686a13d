"""aiohttp's server."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable

from aiohttp import WSMsgType, web

from .routes import SUBPROTOCOLS, page_for
from .routes import serve as serve_session

__all__ = ["serve"]


class AiohttpSession:
    """A connection of aiohttp, which leaves pings and pongs to the application when it is told to."""

    def __init__(self, request: web.Request, response: web.WebSocketResponse) -> None:
        assert request.transport is not None
        self.headers = [(name.lower(), value) for name, value in request.headers.items()]
        self.transport = request.transport
        self.pongs: list[str] = []
        self.ping = response.ping
        self._response = response

    @property
    def close_code(self) -> int:
        return self._response.close_code or 0

    async def receive(self) -> str | bytes | None:
        while True:
            message = await self._response.receive()
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    data: str | bytes = message.data
                    return data
                case WSMsgType.PING:
                    await self._response.pong(message.data)
                case WSMsgType.PONG:
                    self.pongs.append(message.data.decode())
                case _:
                    return None

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self._response.send_str(message)
        else:
            await self._response.send_bytes(message)

    async def close(self, code: int, reason: str) -> None:
        await self._response.close(code=code, message=reason.encode())


async def handle(request: web.Request) -> web.StreamResponse:
    page = await page_for(request.path, dict(request.query))
    if page is not None:
        return web.Response(status=page.status, headers=page.headers, body=page.body)
    response = web.WebSocketResponse(protocols=SUBPROTOCOLS, max_msg_size=0, autoping=False)
    response.headers["Set-Cookie"] = "visited=yes"
    await response.prepare(request)
    await serve_session(request.path, AiohttpSession(request, response))
    return response


async def serve(sockets: Iterable[socket.socket], tls: ssl.SSLContext | None) -> None:
    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    for listening in sockets:
        await web.SockSite(runner, listening, ssl_context=tls).start()
