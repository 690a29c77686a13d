"""New virtual users at a rate, whatever the server does: the open model.

    locust-ws-async server
    locust -f examples/arrivals.py --headless -u 1 --run-time 10s
    locust -f examples/arrivals.py --headless -u 3 --processes 3 --arrivals 50 --run-time 10s

Locust's users (`-u`) are sources here, which share the rate: one for each process is right.
"""

from locust import between

from locust_ws_async import AsyncWebSocketUser, task


class Shopper(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"
    arrivals = 20  # a second, over all sources; or a function of the seconds since the test began
    arrivals_limit = 500  # at a time; more are dropped, and counted
    wait_time = between(0.1, 0.3)  # between its tasks

    async def on_start(self) -> None:
        self.shop = await self.ws.connect("/echo")

    @task
    async def browse(self) -> None:
        await self.shop.request("what is there?", name="browse")

    @task
    async def buy(self) -> None:
        await self.shop.request("this", name="buy")
