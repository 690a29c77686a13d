"""Locustfiles as authors write them are clean for type checkers, and a checker finds what is wrong in one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from locust_ws_async.client import ConnectOptions
from locust_ws_async.client.options import ConnectSettings

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(str(path) for path in (ROOT / "examples").glob("*.py"))
CHECKERS = {
    "mypy": ["mypy", "--strict", "--scripts-are-modules"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}

CLEAN = """
from __future__ import annotations

from locust import TaskSet, between

from locust_ws_async import AsyncUser, AsyncWebSocketUser, tag, task
from locust_ws_async.client import Backoff, WebSocketConnection


class Room(TaskSet):
    @task
    async def talk(self) -> None: ...


class Typical(AsyncWebSocketUser):
    host = "wss://shop.example"
    wait_time = between(1, 2)
    subprotocols = ["a"]
    reported = {"WS CONNECT"}
    reconnect = Backoff()
    compression = "deflate"
    tasks = [Room]

    async def on_start(self) -> None:
        await super().on_start()
        self.connection = await self.ws.connect("/", max_size=3, on_connected=self.log_in, bearer=self.token)

    async def log_in(self, connection: WebSocketConnection) -> None:
        self.report("log in", 1.0)

    async def token(self) -> str:
        return "x"

    async def on_stop(self) -> None:
        await self.connection.close()

    @tag("slow")
    @task(3)
    async def ask(self) -> None:
        async with self.connection.request("x", catch_response=True) as reply:
            assert reply.json()

    @task
    class Nested(TaskSet):
        @task
        def plain(self) -> None: ...


class Overriding(AsyncWebSocketUser):
    async def bearer(self) -> str:
        return "x"

    def headers(self) -> dict[str, str]:
        return {}

    async def on_connected(self, connection: WebSocketConnection) -> None: ...

    async def wait_time(self) -> float:
        return 1.0


class Plain(AsyncUser):
    def on_start(self) -> None: ...
"""

WRONG = """
from locust_ws_async import AsyncWebSocketUser, task


class Wrong(AsyncWebSocketUser):
    @task
    async def work(self) -> None:
        await self.ws.connect("/", max_sise=3)
        await self.ws.connect("/", max_size="3")
        self.unknown()
"""


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_typical_locustfile_is_clean(checker: str, tmp_path: Path) -> None:
    path = tmp_path / "clean_locustfile.py"
    path.write_text(CLEAN)
    result = check(checker, str(path), *EXAMPLES)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("checker", CHECKERS)
def test_what_is_wrong_is_found(checker: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong_locustfile.py"
    path.write_text(WRONG)
    result = check(checker, str(path))
    assert result.returncode == 1
    for line in (8, 9, 10):
        assert f"wrong_locustfile.py:{line}:" in result.stdout
    assert "max_sise" in result.stdout and "3 errors" in result.stdout


def check(checker: str, *files: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *CHECKERS[checker], *files]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_connect_takes_the_settings_that_there_are() -> None:
    """The types of ``connect`` name each field of ``ConnectOptions``, with its type."""
    typed: dict[str, Any] = ConnectSettings.__annotations__
    options = {field.name: field.type for field in fields(ConnectOptions)}
    assert list(typed) == list(options)
    # Kept as tuples, given as any sequence.
    widened = {"record_unmasked", "redirect_headers", "share_headers", "subprotocols"}
    assert {name: kind.__forward_arg__ for name, kind in typed.items() if name not in widened} == {
        name: kind for name, kind in options.items() if name not in widened
    }
