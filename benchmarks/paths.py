"""The paths that :mod:`benchmarks.instructions` guards: what a user of this package does, inside of Locust.

A locustfile that runs under callgrind. That counts nothing until a library is called that ``COUNTER`` names, so that
start-up costs little time and is not in the figures. All users walk a path together: once to warm up, and then counted
``REPEATS`` times.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
from collections.abc import Awaitable, Callable
from functools import partial

import gevent
import gevent.event
from locust import task
from locust.exception import StopUser

from locust_ws_async import AsyncWebSocketUser
from locust_ws_async.client import WebSocketConnection, json_field

COUNT = 8  # operations of each user that are counted at a time
REPEATS = 2  # of which the least counts: now and then Locust looks at its own CPU
USERS = int(os.environ["USERS"])

counter = ctypes.CDLL(os.environ["COUNTER"])
by_id = json_field("id")


class Gate:
    """Lets users through when all of them are there."""

    def __init__(self) -> None:
        self.waiting = 0
        self.opened = gevent.event.Event()

    def wait(self, and_then: Callable[[], object]) -> None:
        """Wait for the others; the last one does this before all go on."""
        self.waiting += 1
        opened = self.opened
        if self.waiting < USERS:
            opened.wait()
            return
        self.waiting = 0
        self.opened = gevent.event.Event()
        and_then()
        opened.set()


gate = Gate()


class PathUser(AsyncWebSocketUser):
    engine = os.environ["ENGINE"]
    compression = None
    ping_interval = None

    @task
    async def measure(self) -> None:
        connection = await self.ws.connect("/")
        await self.count("echo", lambda: self.echo(connection))
        await self.count("request", lambda: self.request_by_id(connection))
        await self.count("connect and close", self.connect_and_close)
        came = asyncio.Event()
        connection.on(lambda message: True, lambda message: came.set())
        await self.count("push", lambda: self.push(connection, came))
        await connection.close()
        gate.wait(lambda: gevent.spawn(self.environment.runner.quit))
        raise StopUser

    async def count(self, path: str, operate: Callable[[], Awaitable[None]]) -> None:
        for repeat in range(1 + REPEATS):
            gate.wait(counter.start_counting if repeat else bool)
            for _ in range(COUNT):
                await operate()
            gate.wait(partial(counter.stop_counting, path.encode()) if repeat else bool)

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
