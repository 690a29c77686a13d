"""What an outage looks like: users who wait for a reply to each order, and users who follow prices, lose their server.

    locust-ws-async demo --web

runs this against a server that goes away for eight seconds of every minute. Look at the tab WebSocket. Against a server
of your own: `locust -f examples/outage.py`.
"""

import random
from itertools import count
from math import sin

from locust_ws_async import AsyncWebSocketUser, task
from locust_ws_async.client import Backoff, any_message, json_field


class Trader(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"
    reconnect = Backoff(initial=0.5, maximum=4)

    @task
    async def order(self) -> None:
        ids = count()
        exchange = await self.ws.connect("/rpc", name="orders")
        async for tick in self.pace(lambda t: 4 + 2 * sin(t / 4), law="poisson"):
            order = {"id": next(ids), "params": ["buy"], "delay": random.expovariate(20)}
            tick.spawn(exchange.request(order, match=json_field("id"), timeout=2, name="order", since=tick))


class Follower(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"
    reconnect = Backoff(initial=0.5, maximum=4)

    @task
    async def follow(self) -> None:
        prices = await self.ws.connect("/ticker?rate=5", name="prices")
        prices.measure_push(any_message, sent_at="sent_at", name="price", take=False)
        async for _ in prices:  # for as long as the user lives
            pass
