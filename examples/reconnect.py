"""A connection that is lost is made again, and logs in again each time.

    locust-ws-async server
    locust -f examples/reconnect.py --headless -u 10 -r 10 --run-time 10s

The demo server cuts each connection after three echoes. In the table at the end, WS RECOVERY counts the losses. Its
time is how long the user was without a connection, login included. WS RECONNECT counts the attempts. The requests that
were in flight at a loss have failed. Those that began during an outage have waited for its end, which is in their time.
A user that is stopped in an outage is a failed WS RECOVERY, and Locust's exit code is 1.
"""

from locust import between

from locust_ws_async import AsyncWebSocketUser, task
from locust_ws_async.client import Backoff, WebSocketConnection


class Survivor(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"
    wait_time = between(0.1, 0.5)
    # Not WS SESSION: here every session fails, as intended.
    reported = {"WS CONNECT", "WS RECONNECT", "WS RECOVERY", "WS REQUEST"}
    reconnect = Backoff(initial=0.1, maximum=5, attempts=10)

    async def on_start(self) -> None:
        self.line = await self.ws.connect("/drop?after=3", on_connected=self.log_in)

    async def log_in(self, connection: WebSocketConnection) -> None:
        await connection.request("log in", name="log in")

    @task
    async def talk(self) -> None:
        # This fails if the connection is lost before the reply. Nothing is sent twice.
        await self.line.request("hello", timeout=2)
