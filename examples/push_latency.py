"""A user subscribes to a feed and measures how old its messages are when they arrive, by the time in their payload.

locust-ws-async server
locust -f examples/push_latency.py --headless -u 10 -r 10 --run-time 10s
"""

import asyncio

from locust import constant

from locust_ws_async import AsyncWebSocketUser, task
from locust_ws_async.client import json_subset


class Subscriber(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"
    wait_time = constant(0.5)
    reported = {"WS CONNECT", "WS PUSH", "WS SESSION"}

    async def on_start(self) -> None:
        self.feed = await self.ws.connect("/subscribe?rate=5")
        self.feed.measure_push(json_subset({"topic": "prices"}), sent_at="sent_at", name="prices")

    @task
    async def follow_prices_for_a_while(self) -> None:
        await self.feed.request({"subscribe": "prices"}, match=json_subset({"subscribed": "prices"}))
        await asyncio.sleep(2)
        await self.feed.request({"unsubscribe": "prices"}, match=json_subset({"unsubscribed": "prices"}))
