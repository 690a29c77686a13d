"""The percentiles at the end of a run: printed, and in a file beside Locust's."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import unused_port

from .running import LocustProcess, LocustRun

pytestmark = pytest.mark.once

Run = Callable[..., LocustRun]
Start = Callable[..., LocustProcess]

TIMES = """
def reports():
    with open(os.environ["LOCUST_NOTES"], "a+") as notes:
        notes.seek(0)
        return len(notes.readlines())

class Reports(AsyncUser):
    wait_time = constant(1000)

    @task
    async def report(self):
        for number in range(1, 1001):
            self._report("ASYNC", "tenths", number / 10, 0, None, time.perf_counter(), "", None)
        self._report("ASYNC", "short", 0.123, 0, None, time.perf_counter(), "", None)
        self._report("ASYNC", "none", None, 0, None, time.perf_counter(), "", None)
        note("reported")
"""

HEAD = "Response time percentiles (milliseconds)"


def table(run: LocustRun) -> dict[str, list[str]]:
    """The block, by row."""
    _, _, rest = run.stdout.partition(HEAD)
    lines = rest.split("\n\n")[0].splitlines()[3:]
    return {" ".join(line.split()[:2]): line.split()[2:] for line in lines}


def file(folder: Path) -> dict[str, list[str]]:
    with (folder / "run_ws_percentiles.csv").open(newline="") as lines:
        head, *rows = csv.reader(lines)
    assert head == ["Type", "Name", "Count", "p50", "p90", "p99", "p99.9", "p99.99"]
    return {f"{kind} {name}": rest for kind, name, *rest in rows}


def test_one_process(run: Run, tmp_path: Path) -> None:
    result = run(TIMES + "quit_when(reports)", "--users", "1")
    assert table(result) == file(tmp_path)
    assert file(tmp_path) == {
        "ASYNC short": ["1", *["0.12"] * 5],
        "ASYNC tenths": ["1000", "50.00", "90.00", "99.00", "99.90", "100.00"],
    }


def test_master_and_workers(start: Start, tmp_path: Path) -> None:
    port = str(unused_port())
    source = TIMES + (
        "from locust import runners\nrunners.WORKER_REPORT_INTERVAL = 0.2\nquit_when(lambda: reports() == 4)\n"
    )
    ports = ("--master-bind-port", port, "--master-port", port)
    result = start(source, "--processes", "2", "--headless", *ports, "--users", "4", "--spawn-rate", "4").finish()
    assert result.stdout.count(HEAD) == 1
    assert table(result) == file(tmp_path)
    assert file(tmp_path)["ASYNC tenths"] == ["4000", "50.00", "90.00", "99.00", "99.90", "100.00"]


def test_nothing_where_no_row_is_ours(run: Run, tmp_path: Path) -> None:
    result = run(
        """
        class Silent(AsyncUser):
            @task
            def report(self):
                self.environment.events.request.fire(
                    request_type="GET", name="page", response_time=1, response_length=0, exception=None, context={}
                )
                raise StopUser()

        quit_when_done()
        """,
        "--users",
        "1",
    )
    assert HEAD not in result.stdout
    assert not (tmp_path / "run_ws_percentiles.csv").exists()
