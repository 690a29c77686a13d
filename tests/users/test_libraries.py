"""asyncio libraries that were not written for us run unmodified inside an AsyncUser (locust #2383)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from .running import LocustRun

pytestmark = pytest.mark.once


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


@pytest.mark.parametrize("when", ["before", "later", "after init_gevent"])
def test_grpc_aio(run: Callable[..., LocustRun], when: str) -> None:
    """It waits in a thread of its own, which gevent would make a greenlet, that would freeze the process."""
    pytest.importorskip("grpc")
    with subprocess.Popen(
        [sys.executable, "-m", "tests.users.grpc_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        port = int(server.stdout.readline())
        result = run(
            f"""
            if {when!r} != "later":
                import grpc
            if {when!r} == "after init_gevent":
                import grpc.experimental.gevent
                grpc.experimental.gevent.init_gevent()

            quit_when_done()

            class Caller(AsyncUser):
                @task
                async def call_and_go_on(self):
                    import grpc

                    turns = 0

                    async def turn():
                        nonlocal turns
                        while True:
                            await asyncio.sleep(0.001)
                            turns += 1

                    turning = asyncio.create_task(turn())
                    async with grpc.aio.insecure_channel("127.0.0.1:{port}") as channel:
                        for _ in range(5):
                            call = channel.unary_unary("/shop.Cart/Get")(b"hello", wait_for_ready=True)
                            assert await self.timed("call", call) == b"hello"
                    turning.cancel()
                    assert turns
                    raise StopUser
            """,
            "-u",
            "3",
            python=(),
        )
        server.stdin.close()
    assert (result.code, result.counts) == (0, {"ASYNC call": 15}), result.stderr
