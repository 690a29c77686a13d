"""The generator judges itself: what holds it up is named, and a saturated one says so, wherever the results are.

What saturates computes for 0.6 s at a time, and the limits lie below that and far above what a busy machine does.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from tests.support import SCALE, eventually, unused_port

from .running import LocustProcess, LocustRun

pytestmark = pytest.mark.once

Start = Callable[..., LocustProcess]
Run = Callable[..., LocustRun]

LIMIT = ("--ws-hub-lag-limit", "300")

COMPUTING = """
from locust_ws_async.fleet import generator

def compute(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        sum(range(1000))

class Computing(AsyncWebSocketUser):
    wait_time = constant(0)

    async def on_start(self):
        self.connection = await self.ws.connect("/echo")
        note("connected")

    @task
    async def work(self):
        if is_busy():
            compute(0.6)
        await asyncio.sleep(0.01)
"""

SPAN = (
    r"saturated{where} from \d\d:\d\d:\d\d to \d\d:\d\d:\d\d: hub lag p99 \d+ ms \(limit 300\)\. "
    r"Times of that span are partly this machine's\."
)
BEGIN = (
    r"Generator saturated{where} since \d\d:\d\d:\d\d: hub lag p99 \d+ ms \(limit 300\)\. "
    r"Times from then on are partly this machine's\."
)


def line_of(source: str, text: str) -> int:
    """The line in the locustfile, which begins with an import."""
    return 2 + source[: source.index(text)].count("\n")


def test_a_task_that_blocks_its_loop_is_named_with_its_line_once(run: Run) -> None:
    source = """
        class Sleeping(AsyncWebSocketUser):
            @task
            async def work(self):
                for _ in range(2):
                    await asyncio.create_task(self.nap())
                await asyncio.sleep(0)
                raise StopUser

            async def nap(self):
                time.sleep(0.01)
                time.sleep(1)  # here

        quit_when_done()
        """
    result = run(source, "-u", "3", "--ws-blocked-limit", "500")
    told = [line for line in result.complaints.splitlines() if "Sleeping" in line]
    assert len(told) == 1
    place = f"Sleeping.nap (locustfile.py:{line_of(source, 'time.sleep(1)')})"
    assert re.search(rf"{re.escape(place)} blocked its user's loop for \d\.\d\d s: ", told[0])
    assert f"{place} held its user's loop for 1" in result.stdout
    assert result.code == 0


def test_a_plain_task_and_a_thread_block_nobody(run: Run) -> None:
    result = run(
        """
        class Plain(AsyncWebSocketUser):
            @task
            def work(self):
                time.sleep(1)

            @task
            async def beside(self):
                await asyncio.to_thread(time.sleep, 1)
                await asyncio.sleep(1)
                raise StopUser

        quit_when_done()
        """,
        *("-u", "1", "--ws-blocked-limit", "500"),
    )
    assert "Plain" not in result.complaints
    assert result.code == 0


@pytest.mark.parametrize(
    "computing",
    [
        pytest.param("sum(range(1000)) if time.perf_counter() < until else 1", id="in Python"),
        pytest.param("sum(range(10**8)) and 1", id="in C, with the interpreter's lock"),
        pytest.param("sleep_in_c(1) or 1", id="asleep in C, where gevent knows nothing of it"),
    ],
)
def test_a_task_that_holds_the_hub_is_named_with_its_line(run: Run, computing: str) -> None:
    source = f"""
        from gevent.monkey import get_original
        sleep_in_c = get_original("time", "sleep")

        class Computing(AsyncWebSocketUser):
            @task
            async def work(self):
                await asyncio.sleep(0.2)
                helper()
                raise StopUser

        def helper():
            until = time.perf_counter() + 1
            while ({computing}) != 1: pass

        quit_when_done()
        """
    result = run(source, "-u", "1", "--ws-blocked-limit", "500")
    place = f"Computing.work (locustfile.py:{line_of(source, 'while (')})"
    assert re.search(rf"{re.escape(place)} held the hub for \d+\.\d\d s: no user of this process", result.complaints)
    assert re.search(rf"{re.escape(place)} held the hub for \d+ ms", result.stdout)


def test_an_endless_loop_is_named_while_it_runs(start: Start, tmp_path: Path) -> None:
    source = """
        class Endless(AsyncWebSocketUser):
            @task
            async def work(self):
                while True: pass
        """
    log = tmp_path / "log"
    start(source, "--headless", "-u", "1", "--ws-blocked-limit", "200", "--logfile", str(log))
    place = f"Endless.work (locustfile.py:{line_of(source, 'while True')})"
    told = rf"{re.escape(place)} has held the hub for \d+\.\d s, and goes on: all users of this process wait"
    eventually(lambda: log.exists() and re.search(told, log.read_text()), seconds=30)


@pytest.mark.parametrize("option", [[], ["--ws-fail-when-saturated"]])
def test_a_verdict_begins_ends_and_is_told(run: Run, option: list[str]) -> None:
    result = run(
        COMPUTING
        + """
def is_busy():
    return not generator.spans()

def ended():
    return generator.spans() and generator.spans()[-1]["to"]

@events.quitting.add_listener
def quitting(**_):
    note("json", generator.as_json())

quit_when(ended)
""",
        *("-u", "1", *LIMIT, *option),
    )
    begin, *rest = result.complaints.splitlines()
    assert re.search(BEGIN.format(where=""), begin)
    assert re.search(SPAN.format(where=""), rest[0])
    assert re.search(f"^{SPAN.format(where='')}$", result.stdout, re.MULTILINE)
    assert result.code == (3 if option else 0)
    assert len(rest) == 1 + len(option)
    (json,) = result.noted("json")
    (span,) = json["spans"]
    assert span["worker"] == "local" and re.fullmatch(r"hub lag p99 \d+ ms \(limit 300\)", span["why"])
    assert span["to"] - span["from"] >= 3
    assert json["saturated"] is False
    assert json["limits"]["hub_lag_p99_ms"] == 300 and json["limits"]["cpu"] is None


def test_no_verdict_while_it_idles(run: Run) -> None:
    result = run(
        COMPUTING
        + """
began = time.monotonic()

def is_busy():
    return False

quit_when(lambda: time.monotonic() > began + 6)
""",
        *("-u", "3", *LIMIT, "--ws-fail-when-saturated"),
    )
    assert result.complaints == ""
    assert result.code == 0
    assert "\nGenerator\n---------\nnot saturated\n" in result.stdout


def test_a_run_that_ends_meanwhile_ends_the_span_and_the_next_begins_anew(run: Run) -> None:
    result = run(
        COMPUTING
        + """
def is_busy():
    return runs == 1

runs = 1

@events.test_start.add_listener
def start(environment, **_):
    if runs == 1:
        gevent.spawn(two_runs, environment.runner)

def two_runs(runner):
    global runs
    while not generator.spans():
        gevent.sleep(0.05)
    runner.stop()
    note("first", generator.spans())
    runs = 2
    runner.start(1, 1)
    while not (sample := generator.sample()):
        gevent.sleep(0.05)
    note("second", generator.spans(), sample)
    runner.quit()
""",
        *("-u", "1", *LIMIT, "--ws-blocked-limit", "500"),
    )
    ((span,),) = result.noted("first")
    assert span["from"] < span["to"]
    ((spans, sample),) = result.noted("second")
    assert spans == []
    assert sample["blocked"] == []
    assert 0 <= sample["hub_lag_p50_ms"] <= sample["hub_lag_p99_ms"] <= sample["hub_lag_max_ms"]
    assert 0 <= sample["cpu"] <= 1
    assert "\nGenerator\n---------\nnot saturated\n" in result.stdout


def test_it_leaves_nothing_behind(run: Run) -> None:
    result = run(
        """
        from gevent.monkey import get_original
        from locust_ws_async.bridge import isolation
        from locust_ws_async.fleet import generator

        threads = get_original("_thread", "_count")  # those of the operating system

        class Short(AsyncWebSocketUser):
            @task
            async def work(self):
                while not seen:
                    await asyncio.sleep(0.05)
                raise StopUser

        seen = False

        def watch(environment):
            global seen
            runner = environment.runner
            before = threads()
            for _ in range(3):
                seen = False
                runner.start(2, 100)
                while not generator.sample():
                    gevent.sleep(0.01)
                note("running", threads() - before)
                seen = True
                while runner.user_count:
                    gevent.sleep(0.01)
                note("over", threads() - before, generator.sample(), isolation._watch)
                runner.stop()
            runner.quit()

        began = False

        @events.test_start.add_listener
        def start(environment, **_):
            global began
            if not began:
                began = True
                gevent.spawn(watch, environment)
        """,
        *("-u", "2", *LIMIT),
    )
    assert result.complaints == ""
    assert result.noted("running") == [1, 1, 1]
    assert result.noted("over") == [[0, None, None]] * 3


@pytest.mark.parametrize("value", ["0", "-1", "nan", "much"])
def test_a_limit_that_is_none_is_refused(run: Run, value: str) -> None:
    result = run("class Idle(AsyncWebSocketUser): pass", f"--ws-cpu-limit={value}")
    assert result.code == 2
    assert f"argument --ws-cpu-limit: '{value}' is no limit: give a number above 0, or inf for none" in result.stderr


DISTRIBUTED = (
    COMPUTING
    + """
from locust import runners

runners.WORKER_REPORT_INTERVAL = 0.2  # seconds; 3 as shipped

def is_busy():
    return "BUSY" in os.environ

@events.spawning_complete.add_listener
def spawned(**_):
    if is_busy():
        note("busy", generator_environment.runner.client_id)

@events.init.add_listener
def init(environment, **_):
    global generator_environment
    generator_environment = environment

@events.quitting.add_listener
def quitting(environment, **_):
    if isinstance(environment.runner, runners.MasterRunner):
        note("spans", generator.spans(), environment.runner.worker_indexes)
"""
)


def test_the_master_tells_which_worker_is_saturated(start: Start) -> None:
    port, web_port = str(unused_port()), str(unused_port())
    master = start(
        DISTRIBUTED,
        *("--master", "--autostart", "--expect-workers", "2", "--master-bind-port", port, "-u", "2", "-r", "2"),
        *("--web-host", "127.0.0.1", "--web-port", web_port, "--ws-fail-when-saturated", *LIMIT),
    )
    busy = start(DISTRIBUTED, "--worker", "--master-port", port, BUSY="1")
    idle = start(DISTRIBUTED, "--worker", "--master-port", port)

    def stats() -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{web_port}/websocket/stats", timeout=10 * SCALE) as answer:
                return json.load(answer)
        except URLError:  # not up yet
            return {}

    found = eventually(lambda: (found := stats()) and found["generator"]["spans"] and found, seconds=60)
    eventually(lambda: len([note for note in master.notes() if note == ["connected"]]) == 2, seconds=60)
    master.process.terminate()
    result = master.finish()
    assert idle.finish().complaints == busy.finish().complaints == ""
    assert found["generator"]["saturated"] is True
    assert found["generator"]["limits"]["hub_lag_p99_ms"] == 300  # the workers have it from the master
    (worker,) = set(result.noted("busy"))
    assert {span["worker"] for span in found["generator"]["spans"]} == {worker}
    assert found["workers"][worker]["generator"]["hub_lag_p99_ms"] > 300

    ((spans, indexes),) = result.noted("spans")
    assert [span["worker"] for span in spans] == [worker]
    where = rf" on worker {indexes[worker]}"
    assert re.search(BEGIN.format(where=where), result.stderr)
    assert re.search(f"Generator {SPAN.format(where=where)}", result.stderr)
    assert re.search(f"^{SPAN.format(where=where)}$", result.stdout, re.MULTILINE)
    assert result.code == 3


def test_the_span_of_a_worker_that_is_killed_ends(start: Start) -> None:
    port = str(unused_port())
    source = (
        "from locust import runners\nrunners.HEARTBEAT_INTERVAL = 0.2\nrunners.HEARTBEAT_LIVENESS = 10\n" + DISTRIBUTED
    )
    master = start(
        source,
        *("--master", "--headless", "--expect-workers", "2", "--master-bind-port", port, "-u", "2", "-r", "2"),
        *("--run-time", f"{60 * SCALE:.0f}s", *LIMIT),
    )
    busy = start(source, "--worker", "--master-port", port, BUSY="1")
    start(source, "--worker", "--master-port", port)
    log: list[str] = []
    assert master.process.stderr is not None
    for line in master.process.stderr:
        log.append(line)
        if "saturated on worker" in line and "since" in line:
            busy.kill()
        if "saturated on worker" in line and " to " in line:
            break
    assert re.search(f"Generator {SPAN.format(where=r' on worker [01]')}", log[-1])
