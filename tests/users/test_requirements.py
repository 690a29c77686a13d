"""Pass or fail: the exit code, the table and the files, for each way in which a run may end."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support import eventually, unused_port

from .running import LocustProcess, LocustRun

pytestmark = pytest.mark.once

Run = Callable[..., LocustRun]
Start = Callable[..., LocustProcess]

NO_SIGNALS = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without telling it")

# 1,000 times of 0.1 to 100 ms, of which 10 fail; each user reports once.
TIMES = """
from locust_ws_async import require

def reports():
    with open(os.environ["LOCUST_NOTES"], "a+") as notes:
        notes.seek(0)
        return sum("reported" in line for line in notes)

class Reports(AsyncUser):
    wait_time = constant(1000)

    @task
    async def work(self):
        for number in range(1, 1001):
            self.report("tenths", number / 10, exception=ValueError("no") if number % 100 == 0 else None)
        self.report("timeless", None)
        note("reported")
"""
MET = (
    'require("tenths", "ASYNC", p50=50, p95=95, p99_9=99.9, max=100, avg=51, fail_ratio=0.01, count=1000, rps=0.001)\n'
)
NOT_MET = 'require("tenths", "ASYNC", p50=49.9, p95=95)\n'


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    row: str
    limit: str
    value: str
    verdict: str


def table(run: LocustRun) -> list[Line]:
    """The table of a run, wherever it was printed."""
    _, _, rest = run.stdout.partition("Requirements ")
    lines = [line.split(" | ") for line in rest.split("\n\n")[0].splitlines()[2:] if " | " in line]
    return [Line(*(cell.strip() for cell in line)) for line in lines]


def verdicts(run: LocustRun) -> dict[str, str]:
    return {f"{line.row} {line.limit}": line.verdict for line in table(run)}


def test_all_is_met(run: Run, tmp_path: Path) -> None:
    result = run(TIMES + MET + "quit_when(reports)", "--users", "1", "--ws-junit", str(tmp_path / "new" / "junit.xml"))
    assert result.code == 0  # though ten requests have failed
    assert result.rows["ASYNC tenths"].failures == 10
    assert [(line.limit, line.value, line.verdict) for line in table(result)][:-1] == [
        ("p50 <= 50 ms", "50 ms", "ok"),
        ("p95 <= 95 ms", "95 ms", "ok"),
        ("p99.9 <= 99.9 ms", "99.9 ms", "ok"),
        ("max <= 100 ms", "100 ms", "ok"),
        ("avg <= 51 ms", "50.05 ms", "ok"),
        ("fail_ratio <= 0.01", "0.01 (10 of 1000)", "ok"),
        ("count >= 1000", "1000", "ok"),
    ]
    assert "all 8 requirements are met" in result.stderr
    suite = ElementTree.parse(tmp_path / "new" / "junit.xml").getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("8", "0")


def test_one_is_not_met(run: Run, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    junit = tmp_path / "junit.xml"
    result = run(
        TIMES + NOT_MET + "quit_when(reports)",
        *("--users", "1", "--ws-junit", str(junit)),
        GITHUB_STEP_SUMMARY=str(summary),
    )
    assert result.code == 3
    assert verdicts(result) == {"ASYNC tenths p50 <= 49.9 ms": "FAILED", "ASYNC tenths p95 <= 95 ms": "ok"}
    assert "1 of 2 requirements failed: ASYNC tenths p50 <= 49.9 ms: 50 ms" in result.complaints
    suite = ElementTree.parse(junit).getroot().find("testsuite")
    assert suite is not None
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("2", "1")
    cases = suite.findall("testcase")
    assert [case.attrib["classname"] for case in cases] == ["ASYNC tenths"] * 2
    failure = cases[0].find("failure")
    assert failure is not None and failure.attrib["message"] == "50 ms"
    assert cases[1].find("failure") is None
    markdown = summary.read_text()
    assert markdown.startswith("before\n### Load test: 1 of 2 requirements failed\n")
    assert r"| ASYNC tenths | p50 \<= 49.9 ms | 50 ms | **FAILED** |" in markdown


def test_the_command_line(run: Run) -> None:
    result = run(
        TIMES + MET + "quit_when(reports)",
        *("--users", "1", "--ws-require", "ASYNC tenths p95<95", "--ws-require", "Aggregated p95<=95 count > 1000"),
    )
    assert result.code == 3
    last = dict(list(verdicts(result).items())[-3:])
    assert last == {
        "ASYNC tenths p95 < 95 ms": "FAILED",
        "Aggregated p95 <= 95 ms": "ok",
        "Aggregated count > 1000": "ok",
    }


def test_nothing_is_required(run: Run) -> None:
    """Then the exit code is Locust's."""
    result = run(TIMES + "quit_when(reports)", "--users", "1")
    assert result.code == 1
    assert "Requirements" not in result.stdout


def test_what_else_failed_counts_no_more_and_is_printed(run: Run) -> None:
    result = run(
        TIMES
        + MET
        + """
events.quitting.add_listener(lambda environment, **_: setattr(environment, "process_exit_code", 7))
broken = []

class Broken(AsyncUser):
    wait_time = constant(1000)

    @task
    async def fails(self):
        broken.append(self)
        raise KeyError("broken")

quit_when(lambda: reports() and broken)
""",
        "--users",
        "2",
    )
    assert result.code == 0
    assert "'broken'" in result.exceptions
    assert "Error report" in result.stdout


def test_a_row_that_never_occurred(run: Run) -> None:
    result = run(
        TIMES + 'require("tenth", "ASYNC", p95=95)\nrequire("tenths", "WS REQUEST")\nquit_when(reports)', "--users", "1"
    )
    assert result.code == 3
    assert [(line.row, line.limit, line.value) for line in table(result)] == [
        ("ASYNC tenth", "p95 <= 95 ms", "never occurred"),
        ("WS REQUEST tenths", "count >= 1", "never occurred"),
    ]
    assert "The rows that occurred: ASYNC tenths, ASYNC timeless" in result.stdout


def test_too_few_samples(run: Run) -> None:
    result = run(
        TIMES
        + 'require("tenths", "ASYNC", p99_99=1000)\n'
        + 'require("timeless", "ASYNC", p50=1000, avg=1000)\n'
        + "quit_when(reports)",
        "--users",
        "1",
    )
    assert result.code == 3
    assert [(line.limit, line.value) for line in table(result)] == [
        ("p99.99 <= 1000 ms", "too few samples: 1000 times, and it needs 10000"),
        ("p50 <= 1000 ms", "too few samples: 0 times, and it needs 2"),
        ("avg <= 1000 ms", "too few samples: 0 times, and it needs 1"),
    ]


RAMP = """
from locust_ws_async import require

class Ramp(AsyncUser):
    wait_time = constant(0.01)
    began = None

    @task
    async def report_slow_and_then_fast(self):
        Ramp.began = Ramp.began or time.monotonic()
        passed = time.monotonic() - Ramp.began
        self.report("page", 500 if passed < 1 else 5)
        note("fast" if passed > 3 else "slow")

def fast():
    with open(os.environ["LOCUST_NOTES"], "a+") as notes:
        notes.seek(0)
        return sum("fast" in line for line in notes) > 100
quit_when(fast)
"""


def test_the_ramp_is_left_out(run: Run) -> None:
    source = RAMP + 'require("page", "ASYNC", max=499, count=50, after=2)\nrequire("page", "ASYNC", max=499)'
    result = run(source, "--users", "1")
    assert result.code == 3
    assert verdicts(result) == {
        "ASYNC page max <= 499 ms (after 2 s)": "ok",
        "ASYNC page count >= 50 (after 2 s)": "ok",
        "ASYNC page max <= 499 ms": "FAILED",
    }
    (whole, window) = (result.rows["ASYNC page"].requests, int(table(result)[1].value))
    assert 100 <= window < whole


def test_a_ramp_that_was_all(run: Run) -> None:
    result = run(TIMES + 'require("tenths", "ASYNC", p50=50, after=3600)\nquit_when(reports)', "--users", "1")
    assert (result.code, table(result)[0].value) == (3, "the test ended before")


def test_after_a_reset_of_the_statistics(run: Run) -> None:
    """Locust forgets the rows, and so does what was kept of them."""
    result = run(
        """
        from locust_ws_async import require

        require("page", "ASYNC", count=1, after=0.5)

        class Reports(AsyncUser):
            @task
            async def work(self):
                for _ in range(500):
                    self.report("page", 1)
                await asyncio.sleep(2)
                self.environment.events.reset_stats.fire()  # as the web UI does it
                self.environment.runner.stats.reset_all()
                for _ in range(3):
                    self.report("page", 1)
                raise StopUser

        quit_when_done()
        """,
        *("--users", "1"),
    )
    assert (result.code, table(result)[0].value) == (0, "3")


def test_a_hopeless_run_is_ended(run: Run) -> None:
    result = run(
        """
        from locust_ws_async import require

        require("page", "ASYNC", fail_ratio=0.1, abort_after=1)
        require("page", "ASYNC", count=1_000_000, abort_after=1)

        class Fails(AsyncUser):
            wait_time = constant(0.05)

            @task
            async def fail(self):
                self.report("page", 1, exception=ValueError("no"))
        """,
        *("--users", "1"),
    )
    assert result.code == 3
    assert "The run was ended early, after " in result.stdout
    assert "The run is ended. ASYNC page: fail_ratio <= 0.1 is required, and it is: 1 (" in result.complaints


def test_what_may_still_come_ends_nothing(run: Run) -> None:
    result = run(
        TIMES
        + 'require("tenths", "ASYNC", count=1_000_000, p99_99=1, abort_after=2)\n'
        + "quit_when(lambda: reports() and time.monotonic() > began + 6)\nbegan = time.monotonic()",
        "--users",
        "1",
    )
    assert result.code == 3
    assert "ended early" not in result.stdout
    assert len(table(result)) == 2


@NO_SIGNALS
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_what_users_report_as_they_are_stopped_is_judged(how: signal.Signals, start: Start) -> None:
    source = """
    from locust_ws_async import require

    require("/echo", "WS SESSION", count=2)

    class Stays(AsyncWebSocketUser):
        wait_time = constant(1000)

        @task
        async def stay(self):
            await self.ws.connect("/echo")
            note("connected")
    """
    process = start(source, "--headless", "--users", "2", "--spawn-rate", "2")
    eventually(lambda: len(process.notes()) == 2, seconds=60)
    process.process.send_signal(how)
    result = process.finish()
    assert (result.code, table(result)[0].value) == (0, "2")


# Users that take a second to stop: longer than Locust's master waits for its workers.
SLOW_END = """
from locust_ws_async import require

require("stopped", "ASYNC", count=4)
require("started", "ASYNC", count=4, max=5)

class Slow(AsyncUser):
    wait_time = constant(1000)

    @task
    async def work(self):
        self.report("started", 5)
        note("started")

    async def on_stop(self):
        await asyncio.sleep(1)
        self.report("stopped", 1)
"""
FOUR = ("--headless", "--users", "4", "--spawn-rate", "4")


def test_a_master_and_two_workers(start: Start, tmp_path: Path) -> None:
    port = str(unused_port())
    junit = tmp_path / "junit.xml"
    options = ("--master-bind-port", port, "--expect-workers", "2", "--ws-junit", str(junit))
    master = start(SLOW_END, "--master", *options, *FOUR)
    workers = [start(SLOW_END, "--worker", "--master-port", port) for _ in range(2)]
    eventually(lambda: len(master.notes()) == 4, seconds=60)
    master.process.terminate()
    result = master.finish()
    assert [worker.finish().code for worker in workers] == [0, 0]
    assert (result.code, set(verdicts(result).values())) == (0, {"ok"}), result.stdout
    assert result.counts == {"ASYNC started": 4, "ASYNC stopped": 4}
    assert ElementTree.parse(junit).getroot().attrib["failures"] == "0"


@NO_SIGNALS
@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "run time"])
def test_processes(how: str, start: Start) -> None:
    port = str(unused_port())
    options = ["--processes", "2", "--master-bind-port", port, "--master-port", port, *FOUR]
    if how == "run time":
        options += ["--run-time", "8s"]
    process = start(SLOW_END, *options, "--ws-require", "ASYNC stopped p50<1")
    eventually(lambda: len(process.notes()) == 4, seconds=60)
    if how == "Ctrl-C":
        os.killpg(process.process.pid, signal.SIGINT)  # as a terminal does
    elif how == "SIGTERM":
        process.process.terminate()
    result = process.finish()
    assert result.code == 3
    assert verdicts(result) == {
        "ASYNC stopped count >= 4": "ok",
        "ASYNC started count >= 4": "ok",
        "ASYNC started max <= 5 ms": "ok",
        "ASYNC stopped p50 < 1 ms": "FAILED",
    }
    assert result.stdout.count("Requirements ") == 1


def test_a_worker_that_died_is_not_waited_for(start: Start) -> None:
    port = str(unused_port())
    master = start(SLOW_END, "--master", "--master-bind-port", port, "--expect-workers", "2", *FOUR)
    workers = [start(SLOW_END, "--worker", "--master-port", port) for _ in range(2)]
    eventually(lambda: len(master.notes()) == 4, seconds=60)
    workers[0].kill()
    master.process.terminate()
    result = master.finish(seconds=30)
    workers[1].finish()
    assert (result.code, table(result)[0].value) == (3, "2")


@pytest.mark.parametrize("option", ["--json", "--json-file"])
def test_json_stays_json(option: str, start: Start, tmp_path: Path) -> None:
    """On standard output there is nothing else; the log says the verdict."""
    source = TIMES + NOT_MET + "quit_when(reports)\nimport logging\nevents.init.add_listener(lambda **_: to_stderr())\n"
    source += (
        "def to_stderr():\n    import sys\n    for handler in logging.getLogger('locust.stats_logger').handlers:\n"
        "        hasattr(handler, 'setStream') and handler.setStream(sys.stderr)\n"
    )
    arguments = [option] if option == "--json" else [option, str(tmp_path / "stats")]
    result = start(source, "--headless", "--users", "1", "--only-summary", *arguments).finish()
    assert result.code == 3
    if option == "--json":
        assert {row["name"] for row in json.loads(result.stdout)} == {"tenths", "timeless"}
    else:
        assert result.stdout == ""
    assert "1 of 2 requirements failed" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ws-require", "ASYNC tenths"], "has no limit"),
        (["--ws-require", "ASYNC tenths p95<fast"], "'fast' is no number"),
        (["--ws-require", "ASYNC tenths p100<3"], "cannot be required; there are: p50"),
        (["--ws-require", "ASYNC tenths p95=3"], "compare by one of"),
        (["--ws-require", "ASYNC tenths fail_ratio<2"], "from 0 to 1"),
        (["--ws-require", "ASYNC tenths p95<2 after=3 abort_after=2"], "must be more than after"),
        (["--ws-junit", "/dev/null/junit.xml"], "cannot be written"),
    ],
)
def test_what_cannot_be_required_is_told_at_once(arguments: list[str], words: str, run: Run) -> None:
    result = run(TIMES, "--users", "1", *arguments, python=())
    assert result.code == 2
    assert words in result.stderr
    assert not result.notes


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ('require("a", "b", p95="fast")', "TypeError: p95 must be a number"),
        ('require("a", "b", p95=float("nan"))', "ValueError: p95 must be a number from 0 on"),
        ('require("a", "b", p95s=3)', "ValueError: 'p95s' cannot be required"),
        ('require("", "b")', "ValueError: require: the row needs a name"),
        ('require("a", None)', "TypeError: require: request_type must be a text"),
        ('require("a", "b", after=-1)', "ValueError: after must be a number of seconds"),
        ("require.generator(saturated=True)", "ValueError: require.generator: only saturated=False"),
    ],
)
def test_a_mistake_in_the_locustfile(call: str, error: str, run: Run) -> None:
    result = run(TIMES + call, "--users", "1", python=())
    assert result.code != 0
    assert error in result.stderr
    assert not result.notes


def test_requiring_while_the_test_runs(run: Run) -> None:
    result = run(
        TIMES.replace('note("reported")', 'note("reported"); require("late", "ASYNC")') + MET + "quit_when(reports)",
        "--users",
        "1",
    )
    assert any("at the top of the locustfile" in text for text in result.exceptions)
    assert len(table(result)) == 8


def test_the_generator_is_judged_by_its_own_verdict(run: Run) -> None:
    result = run(TIMES + "require.generator(saturated=False)\nquit_when(reports)", "--users", "1")
    assert result.code == 0
    assert re.search(r"the load generator +\| not saturated +\| not saturated +\| ok", result.stdout)


@pytest.mark.parametrize(("spans", "code"), [([], 0), (["worker a from 12:00:01 to 12:00:05: hub lag p99 64 ms"], 3)])
def test_the_generator_that_is_watched(spans: list[str], code: int, run: Run) -> None:
    result = run(
        TIMES
        + f"""
from locust_ws_async.requirements import judge_generator_by
judge_generator_by(lambda: {spans!r})
require.generator(saturated=False)
quit_when(reports)
""",
        "--users",
        "1",
    )
    assert result.code == code
    assert all(span in result.stdout for span in spans)
