"""A user logs in by HTTP, and its WebSocket has the cookie: with each of Locust's HTTP clients, in either order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import SCALE, demo_server_process

LOCUSTFILE = """
import asyncio, traceback
from locust import FastHttpUser, HttpUser, task
from locust.exception import StopTest
from locust_ws_async import AsyncWebSocketUser

class Shopper({bases}):
    share_cookies = True
    share_headers = ["X-Tenant"]
    default_headers = {{"X-Tenant": "7"}}  # those of a FastHttpUser

    async def on_start(self):
        if isinstance(self, HttpUser):
            self.client.headers["X-Tenant"] = "7"
        await asyncio.to_thread(self.client.get, "/login?user=me")

    @task
    async def once(self):
        try:
            await self.look()
            print("shared")
        except Exception:
            traceback.print_exc()
        self.environment.runner.quit()

    async def look(self):
        for visit in (1, 2):
            async with self.ws.connect("/whoami") as connection:
                headers = await connection.recv_json()
                assert "session=" in headers["cookie"], headers
                assert visit == 1 or "visits=1" in headers["cookie"], headers  # set by the handshake before
                assert headers["x-tenant"] == "7", headers
        answer = await asyncio.to_thread(self.client.get, "/cookies")
        assert answer.json()["visits"] == "2", answer.text  # and HTTP has what the handshakes set
"""


@pytest.mark.parametrize(
    "bases",
    [
        "AsyncWebSocketUser, HttpUser",
        "HttpUser, AsyncWebSocketUser",
        "AsyncWebSocketUser, FastHttpUser",
        "FastHttpUser, AsyncWebSocketUser",
    ],
)
@pytest.mark.parametrize("engine", ["websockets", "picows"])
def test_one_login_for_both(bases: str, engine: str, tmp_path: Path) -> None:
    locustfile = LOCUSTFILE.format(bases=bases).replace("share_headers", f'engine = "{engine}"\n    share_headers', 1)
    (tmp_path / "locustfile.py").write_text(locustfile)
    with demo_server_process() as server:
        options = f"--host {server.http_url} --headless -u 1 --run-time 20s".split()
        result = subprocess.run(
            [sys.executable, "-m", "locust", *options], cwd=tmp_path, capture_output=True, text=True, timeout=60 * SCALE
        )
    assert "shared" in result.stdout and result.returncode == 0, result.stdout + result.stderr


def test_nothing_to_share(tmp_path: Path) -> None:
    (tmp_path / "locustfile.py").write_text(
        "from locust import task\n"
        "from locust_ws_async import AsyncWebSocketUser\n"
        "class Shopper(AsyncWebSocketUser):\n"
        "    share_cookies = True\n"
        "    @task\n"
        "    async def look(self):\n"
        "        try:\n"
        "            self.ws.connect('/echo')\n"
        "        except ValueError as exc:\n"
        "            print(exc)\n"
        "        self.environment.runner.quit()\n"
    )
    command = [sys.executable, "-m", "locust", "--host", "ws://h", "--headless", "-u", "1", "--run-time", "20s"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60 * SCALE)
    assert "add HttpUser or FastHttpUser to the bases of the user class" in result.stdout
