"""``storm``: exactly so many connections are lost, as the server sees it, and come back."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError, URLError

import pytest

from tests.support import SCALE, eventually, unused_port

from .conftest import Fleet, Rooms

Start = Callable[..., Fleet]

MEMBERS = """
class Member(AsyncWebSocketUser):
    reported = {"WS CONNECT", "WS RECONNECT", "WS RECOVERY", "WS RECV"}
    reconnect = Backoff(initial=0.1, maximum=1)

    def __init__(self, environment):
        self.engine = next(ENGINES)
        super().__init__(environment)

    async def on_start(self):
        self.line = await self.ws.connect("/member", name="line")
        await self.line.send("ready")

    @task
    async def listen(self):
        async for message in self.line:
            pass
        note("died")

def recovered(environment):
    row = environment.stats.entries.get(("line", "WS RECOVERY"))
    return row.num_requests if row else 0
"""

STORM = (
    MEMBERS
    + """
@on_master
def rage(environment):
    until(lambda: os.path.exists("go"))
    one = storm(environment, {arguments})
    note("storm", one.how, one.connections, one.chosen)
    until(lambda: recovered(environment) == one.chosen == one.dropped)
    note("recovered")
    until(lambda: os.path.exists("end"))
    environment.runner.quit()
"""
)


@pytest.mark.parametrize("how", ["abort", "close", "silence"])
@pytest.mark.parametrize("workers", [0, 3])
def test_exactly_so_many_are_lost_and_come_back(fleet: Start, how: str, workers: int) -> None:
    server = Rooms("--pings")  # who does not answer pings is lost for it within a few seconds
    locust = fleet(server.url, STORM.replace("{arguments}", f"0.3, how={how!r}"), users=20, workers=workers)
    server.meet(20)
    server.publish("welcome")
    (locust.folder / "go").touch()
    eventually(lambda: ["recovered"] in locust.main.notes(), seconds=60)
    eventually(lambda: (now := server.state())["members"] == 20 and now["lost"] == 6, seconds=60)
    (locust.folder / "end").touch()
    result = locust.main.finish()
    assert locust.noted("storm") == [[how, 20, 6]]
    assert locust.noted("died") == []
    assert result.rows["WS RECOVERY line"].requests == 6
    assert result.failures == {} and result.exceptions == {}
    assert result.complaints == "" and result.code == 0
    assert how in result.stdout.partition("Storms")[2]
    eventually(lambda: server.state()["members"] == 0)
    server.stop()


def test_over_some_time_of_virtual_users_too_and_from_a_shape(rooms: Rooms, fleet: Start) -> None:
    source = (
        MEMBERS
        + """
class Visitor(Member):
    arrivals = 1000
    arrivals_limit = 5
    fixed_count = 1

class Shape(LoadTestShape):
    raging = None

    def tick(self):
        if not Shape.raging and os.path.exists("../go") + os.path.exists("go"):
            Shape.raging = storm(self.runner.environment, fraction=1, over=1)
            note("began", time.perf_counter())
        if Shape.raging and recovered(self.runner.environment) == 9:
            note("recovered", Shape.raging.dropped, time.perf_counter())
            return None
        return 5, 100
"""
    )
    locust = fleet(rooms.url, source, users=5)
    rooms.meet(9)
    rooms.publish("welcome")
    (locust.folder / "go").touch()
    locust.main.finish()
    ((dropped, recovered),), (began,) = locust.noted("recovered"), locust.noted("began")
    assert dropped == 9
    assert recovered - began >= 8 / 9


def test_it_ends_with_the_test(rooms: Rooms, fleet: Start) -> None:
    source = (
        MEMBERS
        + """
@on_master
def rage(environment):
    until(lambda: os.path.exists("go"))
    one = storm(environment, 1, over=10_000)
    until(lambda: recovered(environment) == 1)
    environment.runner.stop()
    note("dropped", one.dropped)
    environment.runner.quit()
"""
    )
    locust = fleet(rooms.url, source, users=5)
    rooms.meet(5)
    rooms.publish("welcome")
    (locust.folder / "go").touch()
    result = locust.main.finish()
    assert result.notes == [["dropped", 1]]
    assert result.complaints == ""


def test_what_cannot_be_done_is_refused(rooms: Rooms, fleet: Start) -> None:
    source = (
        MEMBERS.replace("reconnect = Backoff(initial=0.1, maximum=1)", "")
        + """
def refused(call):
    try:
        call()
    except (TypeError, ValueError, RuntimeError) as exc:
        note("refused", f"{type(exc).__name__}: {exc}")

@on_master
def try_them(environment):
    refused(lambda: storm(environment))
    until(lambda: os.path.exists("go"))
    refused(lambda: storm(environment, 1.1))
    refused(lambda: storm(environment, -0.1))
    refused(lambda: storm(environment, True))
    refused(lambda: storm(environment, how="softly"))
    refused(lambda: storm(environment, over=-1))
    refused(lambda: storm(None))
    refused(lambda: storm(environment))
    until(lambda: os.path.exists("end"))
    environment.runner.quit()

@events.test_start.add_listener
def on_a_worker(environment, **_):
    if isinstance(environment.runner, runners.WorkerRunner):
        refused(lambda: storm(environment))
        note("refused by a worker")
"""
    )
    locust = fleet(rooms.url, source, users=2, workers=1)
    rooms.meet(2)
    (locust.folder / "go").touch()
    eventually(lambda: ["refused by a worker"] in locust.main.notes() and len(locust.noted("refused")) == 9)
    (locust.folder / "end").touch()
    result = locust.main.finish()
    texts = set(locust.noted("refused"))
    assert texts >= {
        "ValueError: storm: fraction must be between 0 and 1, not 1.1",
        "ValueError: storm: fraction must be between 0 and 1, not -0.1",
        "ValueError: storm: fraction must be between 0 and 1, not True",
        """ValueError: storm: how must be "abort", "close" or "silence", not 'softly'""",
        "ValueError: storm: over must be a number of seconds, 0 or more, not -1",
        "TypeError: storm: environment must be Locust's Environment, not None",
        "RuntimeError: storm: none of the 2 open connections has `reconnect`, so that nobody would come back: set "
        "reconnect = Backoff() on the user class",
        "RuntimeError: storm: call it on the master, which knows all workers; this is a worker",
        "RuntimeError: storm: no connection is open",
    }
    assert result.code == 0


@pytest.mark.parametrize("base", ["", "/load"])
def test_by_post(rooms: Rooms, fleet: Start, base: str) -> None:
    port = unused_port()
    source = MEMBERS
    arguments = ["--web-host", "127.0.0.1", "--web-port", str(port), "--autostart"]
    locust = fleet(rooms.url, source, *arguments, *(["--web-base-path", base] if base else []), users=4, headless=False)
    rooms.meet(4)
    rooms.publish("welcome")

    def post(body: bytes, kind: str = "application/json") -> tuple[int, Any]:
        url = f"http://127.0.0.1:{port}{base}/websocket/storm"
        request = urllib.request.Request(url, data=body, headers={"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=30 * SCALE) as response:
                return response.status, json.load(response)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)

    done = {"success": True, "connections": 4, "chosen": 2}
    assert post(b'{"fraction": 0.5}') == (200, done)
    eventually(lambda: (now := rooms.state())["members"] == 4 and now["lost"] == 2, seconds=30)
    assert post(b"fraction=0.5&how=close&over=0.1", "application/x-www-form-urlencoded") == (200, done)
    eventually(lambda: (now := rooms.state())["members"] == 4 and now["lost"] == 4, seconds=30)
    for body, text in {
        b'{"fraction": 2}': "storm: fraction must be between 0 and 1, not 2",
        b'{"fraction": "x"}': "storm: fraction must be a number, not 'x'",
        b'{"part": 1}': "storm: there is no 'part', only fraction, how and over",
        b"[1]": "storm: send a form or a JSON object with fraction, how, over; each may be left out",
    }.items():
        assert post(body) == (400, {"success": False, "message": text})
    locust.main.process.terminate()
    result = locust.main.finish()
    assert result.complaints == ""
    assert rooms.state()["lost"] == 4


LOGIN = """
from flask import Flask
from flask_login import LoginManager, UserMixin

class Someone(UserMixin):
    def get_id(self):
        return "someone"

@events.init.add_listener
def protect(environment, web_ui, **_):
    web_ui.login_manager.user_loader(lambda user_id: Someone())
    web_ui.app.secret_key = "x"
"""


def test_it_wants_locusts_login(rooms: Rooms, fleet: Start) -> None:
    port = unused_port()
    arguments = ("--web-host", "127.0.0.1", "--web-port", str(port), "--autostart", "--web-login")
    locust = fleet(rooms.url, MEMBERS + LOGIN, *arguments, users=2, headless=False)
    rooms.meet(2)

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    opener = urllib.request.build_opener(NoRedirect)

    def post() -> int:
        try:
            with opener.open(f"http://127.0.0.1:{port}/websocket/storm", b"{}", timeout=30 * SCALE) as response:
                return int(response.status)
        except HTTPError as error:
            with error:
                return error.code
        except URLError:
            return 0

    assert post() in (302, 401)
    assert rooms.state() == {"members": 2, "messages": 2, "lost": 0}
    locust.main.process.terminate()
    locust.main.finish()
