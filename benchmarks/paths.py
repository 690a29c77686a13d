"""The paths that :mod:`benchmarks.instructions` guards: what a user of this package does, inside of Locust.

A locustfile with one user, which runs under callgrind. That counts nothing until a library is called that ``COUNTER``
names, so that start-up costs little time and is not in the figures. Each path is run once to warm up, and then counted
``REPEATS`` times.

What Locust's statistics take is a path of its own, "event". In the others nothing is reported: how many events are
counted at once depends on how busy the machine is.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
from collections.abc import Awaitable, Callable
from time import perf_counter

import gevent
from locust import task
from locust.exception import StopUser

from benchmarks.hosts import leave_out_what_seconds_cost
from locust_ws_async import AsyncWebSocketUser
from locust_ws_async.client import WebSocketConnection, json_field
from locust_ws_async.client.wire import stamps

COUNT = 50  # operations that are counted at a time
REPEATS = 3  # of which the least counts: now and then Locust looks at its own CPU

leave_out_what_seconds_cost()
stamps._TRUST = 60.0  # seconds; or valgrind, which is slow, would let a clock be looked at for every few messages

counter = ctypes.CDLL(os.environ["COUNTER"])
by_id = json_field("id")


class PathUser(AsyncWebSocketUser):
    engine = os.environ["ENGINE"]
    compression = None
    ping_interval = None
    reported = frozenset()

    @task
    async def measure(self) -> None:
        connection = await self.ws.connect("/")
        await self.count("echo", lambda: self.echo(connection))
        await self.count("request", lambda: self.request_by_id(connection))
        await self.count("connect and close", self.connect_and_close)
        came = asyncio.Event()
        connection.on(lambda message: True, lambda message: came.set())
        await self.count("push", lambda: self.push(connection, came))
        await self.count("event", self.event, end=lambda: asyncio.sleep(0.01))  # they are counted together
        await connection.close()
        gevent.spawn(self.environment.runner.quit)
        raise StopUser

    async def count(
        self, path: str, operate: Callable[[], Awaitable[None]], end: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        for repeat in range(1 + REPEATS):
            if repeat:
                counter.start_counting()
            for _ in range(COUNT):
                await operate()
            if end is not None:
                await end()
            if repeat:
                counter.stop_counting(path.encode())

    async def echo(self, connection: WebSocketConnection) -> None:
        await connection.send("x" * 64)
        await connection.recv()

    async def request_by_id(self, connection: WebSocketConnection) -> None:
        await connection.request(json.dumps({"id": 7, "item": "x" * 40}), match=by_id)

    async def connect_and_close(self) -> None:
        await (await self.ws.connect("/")).close()

    async def push(self, connection: WebSocketConnection, came: asyncio.Event) -> None:
        came.clear()
        await connection.send("x" * 64)  # which the server answers
        await came.wait()

    async def event(self) -> None:
        self.ws.report("WS RECV", "/", 1.0, 64, None, perf_counter(), "", None)
