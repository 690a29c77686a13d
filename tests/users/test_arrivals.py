"""``arrivals``: fresh virtual users at a rate, whatever the server does."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.error import URLError

import pytest

from tests.support import SCALE, eventually, unused_port

from .conftest import ENGINES, Server
from .running import LocustProcess, LocustRun
from .test_pace import told

pytestmark = pytest.mark.once

Run = Callable[..., LocustRun]
Start = Callable[..., LocustProcess]

VISITOR = """
class Visitor(AsyncWebSocketUser):
    arrivals = 20
    engine = {engine!r}

    async def on_start(self):
        self.line = await self.ws.connect("/echo")

    @task(2)
    async def ask(self):
        await self.line.request("x")

    @task
    def think(self):
        time.sleep(0.01)
        note("visited", os.getpid(), id(self))

    async def on_stop(self):
        await self.line.request("bye", name="bye")
"""

QUIT = """
def visits():
    with open(os.environ["LOCUST_NOTES"], "a+") as notes:
        notes.seek(0)
        return sum('"visited"' in line for line in notes)

quit_when(lambda: visits() >= 20)
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_each_arrival_is_a_fresh_user_for_its_tasks_once(run: Run, server: Server, engine: str) -> None:
    result = run(VISITOR.format(engine=engine) + QUIT, "--users", "2")
    assert result.complaints == ""
    assert result.code == 0
    row = told(result)["arrivals of Visitor"]
    started = int(row["started"])
    assert row["offered"] == row["started"] and row["dropped"] == row["running"] == "0"
    assert 20 <= result.counts["WS CONNECT /echo"] <= started  # the end may come before one is connected
    assert 2 * len(result.noted("visited")) <= result.counts["WS REQUEST /echo"] <= 2 * started
    assert 1 <= result.counts["WS REQUEST bye"] <= result.counts["WS SESSION /echo"]
    assert result.counts["WS SESSION /echo"] == result.counts["WS CONNECT /echo"]
    assert len({visitor for _, visitor in result.noted("visited")}) > 1


def test_the_limit_drops_what_is_too_many(run: Run) -> None:
    result = run(
        """
        class Visitor(AsyncUser):
            arrivals = 200
            arrivals_limit = 3

            @task
            async def stay(self):
                note("came")
                await asyncio.sleep(1000)

        from locust_ws_async.pacing import snapshot
        quit_when(lambda: snapshot().get("arrivals", {}).get("Visitor", {}).get("dropped", 0) > 20)
        """,
        "--users",
        "1",
    )
    row = told(result)["arrivals of Visitor"]
    assert row["started"] == "3" and len(result.notes) == 3
    assert int(row["offered"]) == 3 + int(row["dropped"])
    assert row["running"] == "0"
    assert result.complaints.count("its share of arrivals_limit") == 1


def test_the_rate_may_be_a_function_and_random(run: Run) -> None:
    result = run(
        """
        class Visitor(AsyncUser):
            arrivals = lambda t: 0 if t < 1 else 300
            arrivals_law = "poisson"

            @task
            async def come(self):
                from locust_ws_async.pacing import clock
                note(time.perf_counter() - clock.began())

        quit_when(lambda: os.path.exists(os.environ["LOCUST_NOTES"]))
        """,
        "--users",
        "1",
    )
    assert all(when >= 1 for (when,) in result.notes)


def test_arrivals_that_cannot_connect_are_failed_rows_and_no_more(run: Run) -> None:
    result = run(
        """
        class Visitor(AsyncWebSocketUser):
            arrivals = 50

            async def on_start(self):
                await self.ws.connect("/reject/503")

            async def on_stop(self):
                note("never: on_start failed")

            @task
            async def unreached(self):
                note("never")

        from locust_ws_async.pacing import snapshot
        quit_when(lambda: snapshot().get("arrivals", {}).get("Visitor", {}).get("started", 0) > 10)
        """,
        "--users",
        "1",
    )
    assert result.notes == []
    assert result.complaints == ""
    assert result.exceptions == {}
    (failed,) = result.failures["WS CONNECT /reject/503"].values()
    assert failed >= 1


def test_an_error_of_the_author_is_told_and_ends_only_its_visit(run: Run) -> None:
    result = run(
        """
        class Visitor(AsyncUser):
            arrivals = 50

            async def on_start(self):
                raise ValueError("of mine")

            @task
            async def unreached(self):
                note("never")

        from locust_ws_async.pacing import snapshot
        quit_when(lambda: snapshot().get("arrivals", {}).get("Visitor", {}).get("started", 0) > 3)
        """,
        "--users",
        "1",
    )
    assert result.notes == []
    assert result.exceptions["of mine"] >= 1
    assert "ignored" not in result.stderr and "Greenlet" not in result.stderr


def test_an_error_of_on_stop_is_told(run: Run) -> None:
    result = run(
        """
        class Visitor(AsyncUser):
            arrivals = 50

            @task
            async def come(self): ...

            async def on_stop(self):
                raise ValueError("of mine")

        from locust_ws_async.pacing import snapshot
        quit_when(lambda: snapshot().get("arrivals", {}).get("Visitor", {}).get("started", 0) > 3)
        """,
        "--users",
        "1",
    )
    assert result.exceptions["of mine"] >= 1
    assert "of mine" in result.stderr


def test_a_graceful_stop_lets_visits_end(run: Run) -> None:
    result = run(
        """
        class Visitor(AsyncUser):
            arrivals = 50

            @task
            async def visit(self):
                note("came")
                await asyncio.sleep(0.2)
                note("went")

            @task
            async def next(self):
                await asyncio.sleep(0.2)

        quit_when(lambda: os.path.exists(os.environ["LOCUST_NOTES"]))
        """,
        "--users",
        "1",
        "--stop-timeout",
        "100",
    )
    assert result.code == 0
    assert result.notes.count(["came"]) == result.notes.count(["went"]) > 0


WORKERS = """
from locust import runners

runners.WORKER_REPORT_INTERVAL = 0.2  # seconds; 3 as shipped

from locust_ws_async.pacing import clock, snapshot

@events.test_start.add_listener
def started(environment, **_):
    note("run", clock.run_id())
    if isinstance(environment.runner, runners.MasterRunner):
        gevent.spawn(stop_then_quit, environment.runner)

def counted():
    return snapshot().get("arrivals", {}).get("Visitor", {})

def stop_then_quit(master):
    while counted().get("started", 0) < 60:
        gevent.sleep(0.02)
    master.stop()
    while counted()["running"]:
        gevent.sleep(0.02)
    note("told", counted())
    master.quit()
"""


def test_the_sources_of_all_workers_share_the_rate(start: Start, server: Server) -> None:
    """More than its share nobody offers: not for as long as it does not know it, nor where one worker has two."""
    port = str(unused_port())
    ports = ("--master-bind-port", port, "--master-port", port)
    source = VISITOR.format(engine="websockets") + WORKERS + QUIT.partition("quit_when")[0]
    users = ("--users", "4", "--spawn-rate", "4")
    result = start(source, "--processes", "3", "--headless", *ports, *users).finish()
    assert result.code == 0
    (told_by_master,) = result.noted("told")
    assert told_by_master["offered"] == told_by_master["started"] >= len(result.noted("visited")) > 0
    assert told_by_master["offered"] <= 20 * told_by_master["seconds"] + 4
    assert len({process for process, _ in result.noted("visited")}) == 3
    assert len(set(result.noted("run"))) == 1
    row = told(result)["arrivals of Visitor"]  # with the last reports
    assert int(row["offered"]) >= told_by_master["offered"]
    assert server.counts()["opened"] <= int(row["started"])


def test_what_a_lost_worker_offered_the_others_take_over(start: Start) -> None:
    source = """
        from locust import runners
        from locust_ws_async.pacing import snapshot

        runners.WORKER_REPORT_INTERVAL = runners.HEARTBEAT_INTERVAL = 0.2  # seconds; 3 and 1 as shipped

        class Visitor(AsyncUser):
            arrivals = 50

            @task
            async def come(self): ...

        from locust_ws_async.pacing.arrivals import Source

        class Noting(Source):
            noted = None

            def _rate(self, elapsed):
                rate = super()._rate(elapsed)
                if rate != Noting.noted:
                    Noting.noted = rate
                    note(os.getpid(), rate)
                return rate

        import locust_ws_async.users
        locust_ws_async.users.Source = Noting
    """
    port = str(unused_port())
    users = ("--users", "2", "--spawn-rate", "2")
    master = start(source, "--master", "--headless", "--expect-workers", "2", "--master-bind-port", port, *users)
    workers = [start(source, "--worker", "--master-port", port) for _ in range(2)]

    def rate(worker: LocustProcess) -> float | None:
        rates = [rate for process, rate in master.notes() if process == worker.process.pid]
        return rates[-1] if rates else None

    eventually(lambda: [rate(worker) for worker in workers] == [25, 25], seconds=60)
    workers[0].kill()
    eventually(lambda: rate(workers[1]) == 50, seconds=30)
    master.process.terminate()
    result = master.finish()
    row = told(result)["arrivals of Visitor"]
    assert int(row["offered"]) > 0 and row["running"] == "0"
    assert workers[1].finish().complaints == ""


def test_the_rate_of_the_command_line_and_of_the_form(start: Start, server: Server) -> None:
    port = unused_port()
    locust = start(
        """
        from locust_ws_async.pacing import snapshot

        class Visitor(AsyncUser):
            arrivals = 0.001

            @task
            async def come(self):
                note("came")
        """,
        *("--autostart", "--users", "1", "--web-host", "127.0.0.1", "--web-port", str(port), "--arrivals", "0.002"),
    )

    def page(path: str, data: bytes | None = None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data)
        with urllib.request.urlopen(request, timeout=10 * SCALE) as response:
            return response.read().decode()

    def running() -> bool:
        try:
            return bool(json.loads(page("/stats/requests"))["user_count"] == 1)
        except URLError:  # not up yet
            return False

    eventually(running, seconds=30)
    form = re.search(r"window.templateArgs = (.*)", page("/"))
    assert form is not None
    assert "arrivals" in form[1] and "New virtual users a second" in form[1]

    def change(text: str) -> None:
        page("/swarm", urllib.parse.urlencode({"user_count": 1, "spawn_rate": 1, "arrivals": text}).encode())

    change("many")
    eventually(lambda: "is no rate" in page("/logs"), seconds=30)
    assert locust.process.poll() is None and running()
    change("Visitor=100")
    eventually(lambda: ["came"] in locust.notes(), seconds=30)
    locust.process.terminate()
    result = locust.finish()
    assert result.complaints.count("'many' is no rate") == 1
    assert int(told(result)["arrivals of Visitor"]["started"]) >= 1


@pytest.mark.parametrize("text", ["0", "-1", "nan", "fast", "Nobody=1", "Visitor="])
def test_a_wrong_option_is_refused(run: Run, text: str) -> None:
    result = run(
        """
        class Visitor(AsyncUser):
            arrivals = 1

            @task
            async def come(self): ...
        """,
        "--arrivals",
        text,
    )
    assert result.code == 2
    assert "--arrivals" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "setting",
    [
        "arrivals = 0",
        "arrivals = -1",
        "arrivals = '20'",
        "arrivals = 1; arrivals_law = 'x'",
        "arrivals = 1; arrivals_limit = 0",
    ],
)
def test_a_wrong_setting_is_refused_as_the_class_is_made(run: Run, setting: str) -> None:
    result = run(f"class Visitor(AsyncUser):\n    {setting}\n\n    @task\n    async def come(self): ...\n")
    assert result.code == 1
    assert re.search(r"(ValueError|TypeError): .*(arrivals|law)", result.stderr)


def test_there_is_no_option_where_there_are_no_arrivals(run: Run) -> None:
    result = run("class Plain(AsyncUser):\n    @task\n    async def come(self): ...\n", "--arrivals", "1")
    assert result.code == 2
    assert "unrecognized arguments: --arrivals" in result.stderr
