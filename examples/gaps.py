"""Does every message of a feed come, once and in order? Also across a reconnect?

    locust-ws-async server
    locust -f examples/gaps.py --headless -u 10 -r 10 --run-time 10s

Each incident is a failed WS STREAM row; a feed that ends adds a success. To see some, let the demo server leave out,
repeat or mix up numbers: FEED="/subscribe?rate=50&lose=40", or repeat=40, swap=40, restart=40.
"""

import os

from locust import constant

from locust_ws_async import AsyncWebSocketUser, task
from locust_ws_async.client import Backoff, WebSocketConnection

FEED = os.environ.get("FEED", "/subscribe?rate=50")


class Reader(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"
    wait_time = constant(1)
    reported = {"WS CONNECT", "WS RECOVERY", "WS STREAM", "WS SESSION"}
    reconnect = Backoff(initial=0.1)

    async def on_connected(self, feed: WebSocketConnection) -> None:
        for topic in ("prices", "news"):
            await feed.send_json({"subscribe": topic})

    async def on_start(self) -> None:
        self.feed = await self.ws.connect(FEED, name="feed")
        self.ticks = self.feed.track(seq="seq", key="topic", name="ticks", resume=True)

    @task
    async def read(self) -> None:
        async for _ in self.feed:
            pass
