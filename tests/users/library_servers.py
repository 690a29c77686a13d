"""Servers that other people's libraries make: an `ocpp` central system and a `python-socketio` server, in one process.

Prints their two ports and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from datetime import UTC, datetime
from typing import Any

import socketio
from aiohttp import web
from ocpp.routing import on
from ocpp.v16 import ChargePoint, call_result
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed


class CentralSystem(ChargePoint):
    @on("BootNotification")
    def boot(self, **_: Any) -> call_result.BootNotification:
        now = datetime.now(UTC).isoformat()
        return call_result.BootNotification(current_time=now, interval=1, status="Accepted")

    @on("Heartbeat")
    def heartbeat(self) -> call_result.Heartbeat:
        return call_result.Heartbeat(current_time=datetime.now(UTC).isoformat())


async def charge_point(connection: ServerConnection) -> None:
    assert connection.request is not None
    with contextlib.suppress(ConnectionClosed):
        await CentralSystem(connection.request.path.strip("/"), connection).start()


async def main() -> None:
    events = socketio.AsyncServer(async_mode="aiohttp")
    events.on("ask", lambda _, data: {"answer": data})
    app = web.Application()
    events.attach(app)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with serve(charge_point, "127.0.0.1", 0, subprotocols=["ocpp1.6"]) as ocpp:
        print(next(iter(ocpp.sockets)).getsockname()[1], runner.addresses[0][1], flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
