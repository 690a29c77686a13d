"""`picows` on uvloop with two Locust events, and nothing else: what no client that reports to Locust can get below."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import uvloop
from picows import WSMsgType

from benchmarks.competitors import uvloop_picows
from benchmarks.hosts import PythonHost
from benchmarks.timed import request_event
from benchmarks.workload import versions

NAME = "picows on uvloop, two events"
VERSION = versions("picows", "aiofastnet", "uvloop", "locust")
HOST = PythonHost()

waiting: list[Any] = []
"""Of each event four arguments. As in this package they are fired in a row, when what is ready has been served."""


def fire_all() -> None:
    each = iter(waiting.copy())
    waiting.clear()
    for request_type, name, response_time, response_length in zip(each, each, each, each, strict=True):
        request_event.fire(
            request_type=request_type, name=name, response_time=response_time, response_length=response_length
        )


class TimedConnection(uvloop_picows.Connection):
    """Not a call more than needed, and of the events' arguments only those that the statistics look at."""

    async def send(self, message: str) -> None:
        start = perf_counter()
        self.transport.send(WSMsgType.TEXT, message)
        if not waiting:
            self.loop.call_soon(fire_all)
        waiting.extend(("WS SEND", "/", (perf_counter() - start) * 1000, len(message)))

    async def recv(self) -> str:
        start = perf_counter()
        while not self.arrived:
            self.waiter = self.loop.create_future()
            await self.waiter
        message = self.arrived.popleft()
        if not waiting:
            self.loop.call_soon(fire_all)
        waiting.extend(("WS RECV", "/", (perf_counter() - start) * 1000, len(message)))
        return message


if __name__ == "__main__":
    uvloop.run(uvloop_picows.users(TimedConnection))
