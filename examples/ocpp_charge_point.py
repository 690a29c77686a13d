"""A charge point speaks OCPP through the library `ocpp` (pip install ocpp), which knows nothing of Locust.

locust-ws-async server
locust -f examples/ocpp_charge_point.py --headless -u 10 -r 10 --run-time 10s

It survives a restart of the server: the connection is made again, and each time it sends its boot notification first.
"""

import asyncio
import uuid

from locust import constant, task
from ocpp.v16 import ChargePoint, call

from locust_ws_async import AsyncWebSocketUser
from locust_ws_async.client import Backoff


class ChargePointUser(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"
    subprotocols = ["ocpp1.6"]
    wait_time = constant(0.5)
    reconnect = Backoff(initial=0.5, maximum=5)

    async def on_start(self):
        self.id = f"CP-{uuid.uuid4()}"
        self.listening = None
        await self.ws.connect(f"/ocpp/{self.id}", name="/ocpp")

    async def on_connected(self, connection):
        # A ChargePoint makes one call at a time. A call whose answer got lost goes on waiting for a while, and the boot
        # notification must not wait for that. So after each connect there is a new ChargePoint.
        self.connection = connection
        if self.listening is not None:
            self.listening.cancel()
        self.charge_point = ChargePoint(self.id, connection, response_timeout=5)
        self.listening = asyncio.create_task(self.charge_point.start())
        await self.call(call.BootNotification(charge_point_model="Wallbox", charge_point_vendor="Example"))

    async def call(self, payload):
        return await self.timed(type(payload).__name__, self.answer(payload), request_type="OCPP")

    async def answer(self, payload):
        await self.connection.until_ready()  # While it is lost, the ChargePoint is the old one.
        try:
            return await self.charge_point.call(payload)
        except TimeoutError:
            raise TimeoutError("no answer") from None  # Locust groups by the text, and that of ocpp has an id.

    @task
    async def heartbeat(self):
        await self.call(call.Heartbeat())
