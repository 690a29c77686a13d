"""`websockets` on plain asyncio as a careful tester would write it: a fixed receive buffer, and two Locust events.

What this package's default engine is held against: the library, the buffer and the events are the same.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.hosts import PythonHost, run_users
from benchmarks.timed import request_event
from benchmarks.workload import Workload, versions

NAME = "websockets on asyncio, fixed buffer, two events"
VERSION = versions("websockets", "locust")
HOST = PythonHost()

BUFFER = memoryview(bytearray(65536))
"""asyncio's transport would allocate 256 KiB for each receive."""


class TimedConnection(ClientConnection, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint: int) -> memoryview:
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(BUFFER[:nbytes]))

    async def send(self, message: Any) -> None:
        start_time, start = time.time(), time.perf_counter()
        await super().send(message)
        self.fire("WS SEND", start_time, start, len(message))

    async def recv(self) -> Any:
        start_time, start = time.time(), time.perf_counter()
        message = await super().recv()
        self.fire("WS RECV", start_time, start, len(message))
        return message

    def fire(self, request_type: str, start_time: float, start: float, length: int) -> None:
        request_event.fire(
            request_type=request_type,
            name="/",
            response_time=(time.perf_counter() - start) * 1000,
            response_length=length,
            start_time=start_time,
            exception=None,
            context={},
        )


async def users() -> None:
    workload = Workload.of_this_process()
    options: dict[str, Any] = {
        "ssl": workload.ssl_context,
        "compression": None,
        "ping_interval": None,
        "create_connection": TimedConnection,
    }
    await run_users(workload, lambda: connect(workload.url, **options))


if __name__ == "__main__":
    asyncio.run(users())
