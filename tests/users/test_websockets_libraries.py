"""Libraries that call `websockets.connect` themselves, unmodified, over the connections of users."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from .running import LocustRun

pytestmark = pytest.mark.once

SIGNALR = """
from pysignalr.client import SignalRClient

class Caller(AsyncWebSocketUser):
    async def on_start(self):
        self.ready = asyncio.Event()
        self.hub = SignalRClient(self.host.replace("ws", "http", 1) + "/hub")
        self.hub.on_open(self.opened)
        self.running = asyncio.create_task(self.hub.run())
        await self.ready.wait()

    async def opened(self):
        self.ready.set()

    @task
    async def ask(self):
        for number in range(10):
            answer = asyncio.get_running_loop().create_future()

            async def completed(message):
                answer.set_result(message.result)

            async def call():
                await self.hub.send("echo", [number], on_invocation=completed)
                return await answer

            assert await self.timed("echo", call()) == number
        raise StopUser
"""
CENTRIFUGO = """
from centrifuge import Client

class Caller(AsyncWebSocketUser):
    async def on_start(self):
        self.centrifugo = Client(self.host + "/connection/websocket")
        await self.centrifugo.connect()
        await self.centrifugo.ready()

    @task
    async def ask(self):
        for number in range(10):
            answer = await self.timed("echo", self.centrifugo.rpc("echo", {"number": number}))
            assert answer.data == {"number": number}
        raise StopUser

    async def on_stop(self):
        await self.centrifugo.disconnect()
"""
OPENAI = """
from openai import AsyncOpenAI

class Caller(AsyncWebSocketUser):
    @task
    async def talk(self):
        openai = AsyncOpenAI(
            api_key="key", base_url=self.host.replace("ws", "http", 1) + "/v1", websocket_base_url=self.host + "/v1"
        )
        async with openai.realtime.connect(model="stand-in") as realtime:
            assert (await realtime.recv()).type == "session.created"
            for _ in range(10):
                await self.timed("echo", self.answer(realtime))
        await openai.close()
        raise StopUser

    async def answer(self, realtime):
        await realtime.response.create()
        text = ""
        async for event in realtime:
            if event.type == "response.done":
                assert text == "so it is"
                return
            text += event.delta
"""
LIBRARIES = {"pysignalr": SIGNALR, "centrifuge": CENTRIFUGO, "openai": OPENAI}
MESSAGES = {"pysignalr": (11, 11), "centrifuge": (11, 11), "openai": (10, 41)}  # sent and received by each user


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.users.websockets_servers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as servers:
        assert servers.stdin is not None and servers.stdout is not None
        yield f"ws://127.0.0.1:{servers.stdout.readline().strip()}"
        servers.stdin.close()


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library(library: str, engine: str, run: Callable[..., LocustRun], host: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    source = LIBRARIES[library].replace("(AsyncWebSocketUser):", f"(AsyncWebSocketUser):\n    engine = {engine!r}", 1)
    result = run(
        "from locust_ws_async.protocols.websockets import replace_connect\nreplace_connect()\n"
        + source
        + "\nquit_when_done()\n",
        *("--users", "3", "--host", host),
        python=(),  # some of them use what Python will deprecate
    )
    assert (result.code, result.failures, result.exceptions) == (0, {}, {}), result.stderr
    sent, received = MESSAGES[library]
    of_all = {row.partition(" /")[0]: count for row, count in result.counts.items()}
    assert of_all.pop("ASYNC echo") == 30
    assert of_all == {"WS CONNECT": 3, "WS SEND": 3 * sent, "WS RECV": 3 * received, "WS SESSION": 3}
