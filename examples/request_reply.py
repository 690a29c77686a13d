"""Requests and replies are paired by id: many are in flight on one connection, and each reply has its own time.

locust-ws-async server
locust -f examples/request_reply.py --headless -u 10 -r 10 --run-time 10s
"""

import asyncio
from itertools import count
from typing import Any

from locust import between

from locust_ws_async import AsyncWebSocketUser, task
from locust_ws_async.client import json_field


class RpcUser(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"
    wait_time = between(0.1, 0.5)

    async def on_start(self) -> None:
        self.ids = count()
        self.rpc = await self.ws.connect("/rpc")

    async def ask(self, method: str, **options: Any) -> None:
        request = {"id": next(self.ids), "params": [method], **options}
        async with self.rpc.request(
            request, match=json_field("id"), timeout=2, name=method, catch_response=True
        ) as reply:
            assert reply.json()["result"] == [method], "the result is another method's"

    @task(3)
    async def one(self) -> None:
        await self.ask("balance")

    @task
    async def several_at_once(self) -> None:
        await asyncio.gather(*(self.ask("history", delay=0.05) for _ in range(5)))
