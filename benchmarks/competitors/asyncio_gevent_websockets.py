"""`websockets` in Locust on `asyncio-gevent`, as far as that goes: one loop that all users share.

A loop for each user, as its `future_to_greenlet` starts one, fails for the second user with "Cannot run the event
loop while another loop is running". So one of its loops runs in a greenlet of its own, and users hand it their
coroutines. It does not notice a coroutine that is handed over while it sleeps; `call_soon_threadsafe` wakes it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncio_gevent
import gevent
from gevent.event import AsyncResult
from locust import User, task
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.hosts import LocustHost, end_of_user, restart_statistics_on_signal
from benchmarks.workload import Workload, versions

NAME = "websockets in Locust on asyncio-gevent"
VERSION = versions("asyncio-gevent", "websockets", "gevent", "locust")
HOST = LocustHost()

workload = Workload.of_this_process()
restart_statistics_on_signal()


class SharedLoop:
    """Started by the first user: not before, as Locust may fork."""

    loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def wait_for(cls, coroutine: Any) -> None:
        if cls.loop is None:
            cls.loop = asyncio_gevent.EventLoop()
            gevent.spawn(cls.loop.run_forever)
        done: AsyncResult[None] = AsyncResult()

        def start() -> None:
            task = asyncio.ensure_future(coroutine)
            task.add_done_callback(
                lambda task: done.set_exception(task.exception()) if task.exception() else done.set()
            )

        cls.loop.call_soon_threadsafe(start)
        done.get()


class TimedConnection:
    def __init__(self, connection: ClientConnection, request: Any) -> None:
        self.connection = connection
        self.request = request

    async def send(self, message: str) -> None:
        start_time, start = time.time(), time.perf_counter()
        await self.connection.send(message)
        self.fire("WS SEND", start_time, start, len(message))

    async def recv(self) -> Any:
        start_time, start = time.time(), time.perf_counter()
        message = await self.connection.recv()
        self.fire("WS RECV", start_time, start, len(message))
        return message

    async def close(self) -> None:
        await self.connection.close()

    def fire(self, request_type: str, start_time: float, start: float, length: int) -> None:
        self.request.fire(
            request_type=request_type,
            name="/",
            response_time=(time.perf_counter() - start) * 1000,
            response_length=length,
            start_time=start_time,
            exception=None,
            context={},
        )


class EchoUser(User):
    @task
    def live(self) -> None:
        SharedLoop.wait_for(workload.live(self.connect))
        end_of_user(self)

    async def connect(self) -> TimedConnection:
        connection = await connect(workload.url, ssl=workload.ssl_context, compression=None, ping_interval=None)
        return TimedConnection(connection, self.environment.events.request)
