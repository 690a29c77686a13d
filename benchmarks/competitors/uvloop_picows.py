"""`picows` on uvloop, without Locust and without statistics: the floor for Python."""

from __future__ import annotations

import asyncio
from collections import deque

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.hosts import PythonHost, run_users
from benchmarks.workload import Workload, versions

NAME = "picows on uvloop"
VERSION = versions("picows", "aiofastnet", "uvloop")
HOST = PythonHost()


class Connection(WSListener):
    """The least that lets a user write ``await connection.recv()``."""

    def __init__(self) -> None:
        self.arrived: deque[str] = deque()
        self.waiter: asyncio.Future[None] | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.loop = asyncio.get_running_loop()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.arrived.append(frame.get_payload_as_utf8_text())
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def send(self, message: str) -> None:
        self.transport.send(WSMsgType.TEXT, message)

    async def recv(self) -> str:
        while not self.arrived:
            self.waiter = self.loop.create_future()
            await self.waiter
        return self.arrived.popleft()

    async def close(self) -> None:
        self.transport.send_close()
        await self.transport.wait_disconnected()


async def users(connection_class: type[Connection] = Connection) -> None:
    workload = Workload.of_this_process()

    async def connect() -> Connection:
        connection = connection_class()
        await ws_connect(lambda: connection, workload.url, ssl_context=workload.ssl_context)
        return connection

    await run_users(workload, connect)


if __name__ == "__main__":
    uvloop.run(users())
