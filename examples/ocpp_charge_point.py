"""A charge point speaks OCPP through the library `ocpp` (pip install ocpp). It survives a restart of the server.

locust-ws-async server & locust -f examples/ocpp_charge_point.py --headless -u 10 -r 10 --run-time 10s
"""

from asyncio import Future, create_task, wait_for
from typing import Any
from uuid import uuid4

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
        self.id, self.listening = f"CP-{uuid4()}", Future[Any]()
        self.connection = await self.ws.connect(f"/ocpp/{self.id}", name="/ocpp")

    async def on_connected(self, connection: WebSocketConnection) -> None:
        # A call whose answer is lost still holds the old ChargePoint. The boot notification must not wait for that.
        self.listening.cancel()
        self.charge_point = ChargePoint(self.id, connection)
        self.listening = create_task(self.charge_point.start())
        await self.call(call.BootNotification(charge_point_model="Wallbox", charge_point_vendor="Example"))

    async def call(self, payload: Any) -> None:
        await self.timed(type(payload).__name__, wait_for(self.charge_point.call(payload), 5), request_type="OCPP")

    @task
    async def heartbeat(self) -> None:
        await self.connection.until_ready()  # While it is lost, the ChargePoint is the old one.
        await self.call(call.Heartbeat())
