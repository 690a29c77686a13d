"""HTTP and WebSocket in one user."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support import SCALE

from .conftest import Server
from .running import LocustRun

pytestmark = pytest.mark.once

Run = Callable[..., LocustRun]


def test_no_setting_is_one_of_locusts_http_users() -> None:
    """A base class would otherwise give the other's value, of another meaning, to one of the two clients."""
    program = (
        "import locust\n"
        "from locust_ws_async import AsyncWebSocketUser\n"
        "settings = AsyncWebSocketUser.__annotations__.keys() - locust.User.__annotations__.keys()\n"
        "assert 'verify' in settings\n"
        "http = dir(locust.HttpUser) + dir(locust.FastHttpUser)\n"
        "print(settings & {name for name in http if not name.startswith('_')})"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60 * SCALE, check=True)
    assert result.stdout == "set()\n"


def test_http_and_websocket_in_one_user(run: Run, server: Server) -> None:
    """Also in either order of the base classes, in tasks of either kind; the sessions stay each user's own."""
    result = run(
        f"""
        quit_when_done()

        class Mixed(User):
            abstract = True
            fixed_count = 5
            wait_time = constant(0.1)

            async def on_start(self):
                note(type(self).__name__, self.client is not self.ws, type(self.client).__name__)
                # Beside the loop ...
                await asyncio.to_thread(self.client.get, "/login?user=" + str(id(self)), name="/login")
                self.connection = await self.ws.connect("/echo", name=type(self).__name__)

            @task
            class Steps(SequentialTaskSet):
                @task
                async def in_the_loop(self):
                    # ... or in it, where it holds up this user alone.
                    self.client.get("/cookies")
                    await self.user.connection.send("x")
                    assert await self.user.connection.recv() == "x"

                @task
                def in_a_plain_task(self):
                    response = self.client.get("/cookies")
                    assert response.json().keys() == {{"session"}}

                @task
                async def stop(self):
                    raise StopUser

        class WebSocketFirst(Mixed, AsyncWebSocketUser, HttpUser):
            pass

        class HttpFirst(Mixed, HttpUser, AsyncWebSocketUser):
            pass

        class WebSocketFirstFast(Mixed, AsyncWebSocketUser, FastHttpUser):
            pass

        class FastFirst(Mixed, FastHttpUser, AsyncWebSocketUser):
            pass

        @events.init.add_listener
        def init(environment, **_):
            environment.host = {server.http_url!r}
        """,
        "-u",
        "20",
    )
    assert (result.code, result.complaints) == (0, "")
    classes = {
        "WebSocketFirst": "HttpSession",
        "HttpFirst": "HttpSession",
        "WebSocketFirstFast": "FastHttpSession",
        "FastFirst": "FastHttpSession",
    }
    assert sorted(result.notes) == sorted([name, True, session] for name, session in classes.items() for _ in range(5))
    websocket = {f"WS {kind} {name}": 5 for kind in ("CONNECT", "SEND", "RECV", "SESSION") for name in classes}
    assert result.counts == {"GET /login": 20, "GET /cookies": 40} | websocket
    assert server.counts()["closes"] == {"1000": 20}
