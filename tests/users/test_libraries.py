"""asyncio libraries that were not written for us run unmodified inside an AsyncUser (locust #2383)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from .running import LocustRun


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.users.library_servers"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as servers:
        assert servers.stdin is not None and servers.stdout is not None
        ocpp, socketio = servers.stdout.readline().split()
        yield int(ocpp), int(socketio)
        servers.stdin.close()


def test_libraries(run: Callable[..., LocustRun], ports: tuple[int, int]) -> None:
    result = run(
        f"""
        import aiohttp, httpx, socketio, websockets
        from ocpp.v16 import ChargePoint, call

        quit_when_done()

        class Libraries(AsyncUser):
            def http(self, path):
                return self.host.replace("ws", "http", 1) + path

            @task
            async def all_at_once(self):
                await asyncio.gather(self.aiohttp(), self.httpx(), self.ocpp(), self.socketio())
                raise StopUser

            async def aiohttp(self):
                async with aiohttp.ClientSession() as session:
                    async with session.get(self.http("/cookies")) as response:
                        await self.timed("aiohttp", response.json())
                    async with session.ws_connect(self.http("/echo")) as connection:
                        await connection.send_str("hello")
                        assert (await connection.receive()).data == "hello"

            async def httpx(self):
                async with httpx.AsyncClient() as client:
                    response = await self.timed("httpx", client.get(self.http("/cookies")))
                    assert response.status_code == 200

            async def ocpp(self):
                async with websockets.connect("ws://127.0.0.1:{ports[0]}/CP1", subprotocols=["ocpp1.6"]) as connection:
                    point = ChargePoint("CP1", connection)
                    listening = asyncio.create_task(point.start())
                    boot = await self.timed("boot", point.call(call.BootNotification(
                        charge_point_model="Wallbox", charge_point_vendor="Example")))
                    assert boot.status == "Accepted"
                    for _ in range(3):
                        assert (await self.timed("heartbeat", point.call(call.Heartbeat()))).current_time
                    listening.cancel()

            async def socketio(self):
                client = socketio.AsyncClient()
                await client.connect("http://127.0.0.1:{ports[1]}", transports=["websocket"])
                assert await self.timed("socketio", client.call("ask", "why")) == {{"answer": "why"}}
                await client.disconnect()
        """,
        "-u",
        "3",
        "-r",
        "3",
    )
    assert result.counts == {
        "ASYNC aiohttp": 3,
        "ASYNC boot": 3,
        "ASYNC heartbeat": 9,
        "ASYNC httpx": 3,
        "ASYNC socketio": 3,
    }
    assert (result.code, result.complaints) == (0, "")
