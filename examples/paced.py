"""Requests at a rate, counted from when each was meant to go out: a server that stands still cannot hide it.

    locust-ws-async server
    locust -f examples/paced.py --headless -u 10 -r 10 --run-time 10s

Both users have the same rate. `closed` waits for each reply before it goes on, and catches up when it is late; `open`
waits for nothing, and its rate grows with the time since the test began.
"""

from itertools import count

from locust_ws_async import AsyncWebSocketUser, task
from locust_ws_async.client import json_field


class Closed(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"

    @task
    async def order(self) -> None:
        async with self.ws.connect("/echo?delay=0.02") as shop:
            async for tick in self.pace(20):
                await shop.request("order", name="closed", since=tick)


class Open(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"

    @task
    async def order(self) -> None:
        ids = count()
        async with self.ws.connect("/rpc") as shop:
            async for tick in self.pace(lambda t: 10 + t, law="poisson"):
                order = {"id": next(ids), "params": [], "delay": 0.2}
                tick.spawn(shop.request(order, match=json_field("id"), name="open", since=tick))
