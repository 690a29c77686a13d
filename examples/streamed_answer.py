"""A voice call: 50 audio frames a second go up, each at its instant, while the answer streams down.

    locust-ws-async server
    locust -f examples/streamed_answer.py --headless -u 10 -r 10 --run-time 10s

WS FIRST has the time from the end of the question to the first audio of the answer, and WS GAP that between frames. How
late a frame went up is at the end of the run, under "Offered and achieved": its p99 says whether this machine keeps up.
"""

import asyncio

from locust import constant

from locust_ws_async import AsyncWebSocketUser, task
from locust_ws_async.client import WebSocketConnection, json_subset

FRAME = bytes(640)  # 20 ms of silence


class Caller(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"
    wait_time = constant(0.5)
    reported = {"WS CONNECT", "WS REQUEST", "WS FIRST", "WS GAP", "WS SESSION"}  # not WS SEND, 50 a second

    @task
    async def call(self) -> None:
        async with self.ws.connect("/realtime?first=0.2&jitter=0.005") as line, asyncio.TaskGroup() as group:
            speaking = group.create_task(self.speak(line))
            for _ in range(3):
                done = json_subset({"type": "done"})
                async with line.stream({"type": "respond"}, end=done, name="turn", gap_timeout=2) as turn:
                    async for _ in turn:
                        pass
                    assert turn.count == 60  # 50 frames of audio, and a text with each fifth
            speaking.cancel()

    async def speak(self, line: WebSocketConnection) -> None:
        async for _ in self.pace(50):
            await line.send(FRAME)
