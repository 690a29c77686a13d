"""A locustfile with a steady load well below what a worker can do, in many rows: for `benchmarks.distributed`."""

from __future__ import annotations

from itertools import count

from locust import constant_throughput, task

from locust_ws_async import AsyncWebSocketUser

ROWS = 20
_number = count()


class PacedUser(AsyncWebSocketUser):
    wait_time = constant_throughput(2)
    compression = None
    ping_interval = None

    async def on_start(self) -> None:
        self.connection = await self.ws.connect("/", name=f"/room/{next(_number) % ROWS}")

    @task
    async def echo(self) -> None:
        await self.connection.send("x" * 64)
        await self.connection.recv()
