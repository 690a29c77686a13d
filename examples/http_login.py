"""A user logs in by HTTP, then opens a WebSocket with the cookie that the login has set.

locust-ws-async server
locust -f examples/http_login.py --headless -u 10 -r 10 --run-time 10s
"""

import asyncio

from locust import HttpUser, between

from locust_ws_async import AsyncWebSocketUser, task


class Member(AsyncWebSocketUser, HttpUser):
    host = "http://127.0.0.1:8765"  # self.ws makes ws:// of it
    wait_time = between(0.1, 0.5)
    share_cookies = True

    def on_start(self) -> None:  # A plain def may block.
        self.client.get("/login?user=anna", name="/login")

    @task
    async def talk(self) -> None:
        async with self.ws.connect("/whoami") as room:
            assert "session=" in (await room.recv_json())["cookie"]
            await room.send("hello")
            await room.recv()
            # This runs HTTP beside the coroutine, while the socket stays served.
            await asyncio.to_thread(self.client.get, "/cookies")
