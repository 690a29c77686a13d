"""A charge point speaks OCPP through the library `ocpp` (pip install ocpp), which knows nothing of Locust.

locust-ws-async server
locust -f examples/ocpp_charge_point.py --headless -u 10 -r 10 --run-time 10s
"""

import asyncio
import uuid
from typing import Any

from locust import constant
from ocpp.v16 import ChargePoint, call  # type: ignore[import-untyped] # it has no types

from locust_ws_async import AsyncWebSocketUser, task


class ChargePointUser(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"
    subprotocols = ["ocpp1.6"]
    wait_time = constant(0.5)

    async def on_start(self) -> None:
        name = f"CP-{uuid.uuid4()}"
        connection = await self.ws.connect(f"/ocpp/{name}", name="/ocpp")
        self.charge_point = ChargePoint(name, connection)
        self.listening = asyncio.create_task(self.charge_point.start())
        await self.call(call.BootNotification(charge_point_model="Wallbox", charge_point_vendor="Example"))

    async def call(self, payload: Any) -> Any:
        return await self.timed(type(payload).__name__, self.charge_point.call(payload), request_type="OCPP")

    @task
    async def heartbeat(self) -> None:
        await self.call(call.Heartbeat())
