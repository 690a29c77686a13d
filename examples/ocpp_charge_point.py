"""A charge point speaks OCPP through the library `ocpp` (pip install ocpp), which knows nothing of Locust.

locust-ws-async server
locust -f examples/ocpp_charge_point.py --headless -u 10 -r 10 --run-time 10s

It survives a restart of the server: the connection is made again, and each time it sends its boot notification first.
"""

import asyncio
import uuid
from typing import Any

from locust import constant
from ocpp.v16 import ChargePoint, call  # type: ignore[import-untyped] # it has no types

from locust_ws_async import AsyncWebSocketUser, task
from locust_ws_async.client import Backoff, WebSocketConnection


class ChargePointUser(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"
    subprotocols = ["ocpp1.6"]
    wait_time = constant(0.5)
    reconnect = Backoff(initial=0.5, maximum=5)

    async def on_start(self) -> None:
        self.id = f"CP-{uuid.uuid4()}"
        self.listening: asyncio.Task[None] | None = None
        await self.ws.connect(f"/ocpp/{self.id}", name="/ocpp")

    async def on_connected(self, connection: WebSocketConnection) -> None:
        # A ChargePoint makes one call at a time. A call whose answer got lost goes on waiting for a while, and the boot
        # notification must not wait for that. So after each connect there is a new ChargePoint.
        self.connection = connection
        if self.listening is not None:
            self.listening.cancel()
        self.charge_point = ChargePoint(self.id, connection, response_timeout=5)
        self.listening = asyncio.create_task(self.charge_point.start())
        await self.call(call.BootNotification(charge_point_model="Wallbox", charge_point_vendor="Example"))

    async def call(self, payload: Any) -> Any:
        return await self.timed(type(payload).__name__, self.answer(payload), request_type="OCPP")

    async def answer(self, payload: Any) -> Any:
        await self.connection.until_ready()  # While it is lost, the ChargePoint is the old one.
        try:
            return await self.charge_point.call(payload)
        except TimeoutError:
            raise TimeoutError("no answer") from None  # Locust groups by the text, and that of ocpp has an id.

    @task
    async def heartbeat(self) -> None:
        await self.call(call.Heartbeat())
