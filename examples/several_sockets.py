"""One user has several connections at a time: it sends orders on one while prices arrive on another.

locust-ws-async server
locust -f examples/several_sockets.py --headless -u 10 -r 10 --run-time 10s
"""

import asyncio
from typing import Any

from locust import between

from locust_ws_async import AsyncWebSocketUser, task


class Trader(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"
    wait_time = between(0.1, 0.5)

    async def on_start(self) -> None:
        self.orders, self.prices = await asyncio.gather(
            self.ws.connect("/echo", name="orders"),
            self.ws.connect("/ticker?rate=10", name="prices"),
        )
        self.price: Any = None
        self.following = asyncio.create_task(self.follow_prices())  # This goes on between tasks.

    async def follow_prices(self) -> None:
        async for message in self.prices:
            self.price = message

    @task
    async def order(self) -> None:
        await self.orders.request(f"buy at {self.price}")
