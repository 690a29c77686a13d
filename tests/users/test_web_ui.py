"""Locust's web UI knows our rows."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.error import URLError

import pytest

from tests.support import SCALE, eventually, unused_port

from .conftest import Server
from .running import LocustProcess

pytestmark = pytest.mark.once

Start = Callable[..., LocustProcess]


def test_the_web_ui_shows_rows_stops_and_starts_again(start: Start, server: Server) -> None:
    port = unused_port()
    locust = start(
        """
        class Echo(AsyncWebSocketUser):
            wait_time = constant(0.1)

            async def on_start(self):
                self.connection = await self.ws.connect("/echo")

            @task
            async def echo(self):
                await self.connection.send("x")
                await self.connection.recv()

            @task
            async def fail(self):
                await self.ws.connect("/reject/503", name="rejected")
        """,
        "--autostart",
        "--users",
        "3",
        "--web-host",
        "127.0.0.1",
        "--web-port",
        str(port),
    )

    def page(path: str, data: bytes | None = None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data)
        with urllib.request.urlopen(request, timeout=10 * SCALE) as response:
            return response.read().decode()

    def stats() -> dict[str, Any]:
        try:
            result: dict[str, Any] = json.loads(page("/stats/requests"))
        except URLError:  # not up yet
            return {"stats": [], "errors": [], "user_count": 0}
        return result

    def rows() -> dict[str, int]:
        return {f"{row['method']} {row['name']}": row["num_requests"] for row in stats()["stats"]}

    expected = {"WS CONNECT /echo", "WS SEND /echo", "WS RECV /echo", "WS CONNECT rejected"}
    eventually(lambda: rows().keys() >= expected and stats()["user_count"] == 3, seconds=30)
    (error,) = stats()["errors"]
    assert error["method"] == "WS CONNECT" and error["name"] == "rejected"
    assert "HTTP 503 Service Unavailable" in error["error"]
    assert json.loads(page("/exceptions"))["exceptions"] == []  # the failed row tells of it

    page("/stop", data=b"")
    eventually(lambda: rows().get("WS SESSION /echo") == 3)
    assert server.open() == 0
    page("/swarm", data=b"user_count=2&spawn_rate=2")
    eventually(lambda: stats()["user_count"] == server.open() == 2, seconds=30)
    eventually(lambda: rows().get("WS RECV /echo", 0) > 0)

    locust.process.terminate()
    result = locust.finish()
    assert result.complaints == ""
    assert server.counts()["closes"] == {"1000": 5}
