"""Does each member of a room get each message, and how long after the first of them does the last one get it?

    locust-ws-async server
    locust -f examples/broadcast.py --headless -u 50 -r 50 --run-time 10s
    locust -f examples/broadcast.py --headless -u 50 -r 50 --run-time 10s --processes 2

WS REACH counts the messages, over all workers: a message that somebody did not get is a failure. Its time is from the
publication to the last delivery. WS SPREAD has the time from the first delivery to the last.
"""

from uuid import uuid4

from locust import between

from locust_ws_async import AsyncWebSocketUser, task
from locust_ws_async.together import Fanout

room = Fanout("room 42", id="id")


class Member(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"
    wait_time = between(1, 3)

    async def on_start(self) -> None:
        self.line = await self.ws.connect("/room/42")
        room.join(self.line)

    @task
    async def talk(self) -> None:
        message = {"id": str(uuid4()), "text": "hello"}
        room.published(message["id"])
        await self.line.send_json(message)
