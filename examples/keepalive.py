"""The chat of a shop. The server sends keepalives, which the client must send back, and data, which it answers.

    locust-ws-async server
    locust -f examples/keepalive.py --headless -u 10 -r 3 --run-time 10s

Each user holds one connection as long as the user lives.
"""

import json

from locust import between

from locust_ws_async import AsyncWebSocketUser, task


class CartUser(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"
    wait_time = between(5, 9)  # If the server ends the chat, the user waits so long, then connects again.
    data = json.dumps({"type": "data", "item": "book", "quantity": 1})

    @task
    async def chat(self) -> None:
        async with self.ws.connect("/cart/chat?sid=11303", name="cart") as cart:
            async for message in cart:
                if json.loads(message)["type"] == "keepalive":
                    await cart.send(message)
                else:
                    await cart.send(self.data)
