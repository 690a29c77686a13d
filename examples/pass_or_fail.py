"""Pass or fail: Locust exits with 3 unless the balance is fast and right, whatever else has failed.

locust-ws-async server
locust -f examples/pass_or_fail.py --headless -u 10 -r 10 --run-time 10s --ws-junit verdict.xml
"""

from itertools import count

from locust import between

from locust_ws_async import AsyncWebSocketUser, require, task
from locust_ws_async.client import json_field

require("balance", "WS REQUEST", p95=200, p99=800, fail_ratio=0.01, count=10, after=1)
require("balance", "WS REQUEST", fail_ratio=0.5, abort_after=3)


class RpcUser(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"
    wait_time = between(0.01, 0.1)

    async def on_start(self) -> None:
        self.ids = count()
        self.rpc = await self.ws.connect("/rpc")

    @task
    async def balance(self) -> None:
        request = {"id": next(self.ids), "params": ["balance"]}
        await self.rpc.request(request, match=json_field("id"), timeout=2, name="balance")
