"""`picows` on uvloop with two Locust events, and nothing else: what no client that reports to Locust can get below."""

from __future__ import annotations

from time import perf_counter

import uvloop
from picows import WSMsgType

from benchmarks.competitors import uvloop_picows
from benchmarks.hosts import PythonHost
from benchmarks.timed import request_event
from benchmarks.workload import versions

NAME = "picows on uvloop, two events"
VERSION = versions("picows", "aiofastnet", "uvloop", "locust")
HOST = PythonHost()


class TimedConnection(uvloop_picows.Connection):
    """Not a call more than needed, and of the events' arguments only those that the statistics look at."""

    async def send(self, message: str) -> None:
        start = perf_counter()
        self.transport.send(WSMsgType.TEXT, message)
        request_event.fire(
            request_type="WS SEND",
            name="/",
            response_time=(perf_counter() - start) * 1000,
            response_length=len(message),
        )

    async def recv(self) -> str:
        start = perf_counter()
        while not self.arrived:
            self.waiter = self.loop.create_future()
            await self.waiter
        message = self.arrived.popleft()
        request_event.fire(
            request_type="WS RECV",
            name="/",
            response_time=(perf_counter() - start) * 1000,
            response_length=len(message),
        )
        return message


if __name__ == "__main__":
    uvloop.run(uvloop_picows.users(TimedConnection))
