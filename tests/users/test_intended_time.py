"""Times that count from when each request was meant to go out, against a server that knows its own delays.

What is expected of each request is arithmetic: the instant of the server's answer, which is in the reply, less the
instant that the schedule intended. How late this machine was to read replies is measured as well, and allowed for.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from math import ceil
from pathlib import Path

import pytest

from tests.support import SCALE, unused_port

from .running import ROOT, LocustProcess, LocustRun, locustfile

pytestmark = pytest.mark.once

LOCUSTFILE = """
import json
from locust import runners

runners.WORKER_REPORT_INTERVAL = 0.2  # seconds; 3 as shipped

class Paced(AsyncWebSocketUser):
    abstract = True
    fixed_count = 1
    path = "/standstill"
    row = None

    async def on_start(self):
        self.feed = await self.ws.connect(self.path)
        self.ticks = []

    @task
    async def ask(self):
        row = f"{self.row or self.path} {self.engine}"
        async for tick in self.pace(10):
            reply = await self.feed.request("?", name=row, **self.since(tick))
            self.ticks.append([tick.intended, float(reply), self.feed.arrived])
            if tick.number == 59:  # after a whole period of the server, and what it left to catch up with
                break
        note(row, self.ticks)
        await asyncio.sleep(1000)

    def since(self, tick):
        return {"since": tick}

class Constant(Paced):
    path = "/constant"

class Sometimes(Paced):
    path = "/sometimes"

class Standstill(Paced):
    pass

class Closed(Paced):
    row = "closed"

    def since(self, tick):
        return {}

def on_picows(users):
    name = users.__name__ + "OnPicows"
    globals()[name] = type(name, (users,), {"engine": "picows"})

for _ in map(on_picows, (Constant, Sometimes, Standstill, Closed)):
    pass

@events.test_start.add_listener
def started(environment, **_):
    if not isinstance(environment.runner, runners.WorkerRunner):
        gevent.spawn(quit_when_all_is_reported, environment.runner)

def quit_when_all_is_reported(runner):
    def asked():  # and reported to the master
        return sum(row.num_requests for (_, kind), row in runner.stats.entries.items() if kind == "WS REQUEST")

    def noted():
        with open(os.environ["LOCUST_NOTES"], "a+") as notes:
            notes.seek(0)
            ticks = [json.loads(line)[1] for line in notes]
        return len(ticks) == 8 and sum(map(len, ticks))

    while not (noted() and asked() == noted()):
        gevent.sleep(0.1)
    runner.quit()
"""


@pytest.fixture(scope="module")
def delaying_server() -> Iterator[str]:
    """Its URL."""
    command = [sys.executable, "-m", "tests.users.delaying_server"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        yield process.stdout.readline().strip()
        process.stdin.close()
        assert process.wait(timeout=10 * SCALE) == 0


def nearest_rank(values: list[float], fraction: float) -> float:
    return sorted(values)[max(1, ceil(fraction * len(values) - 1e-6)) - 1]


def run(folder: Path, url: str, *arguments: str) -> LocustRun:
    fixed = ("--headless", "--only-summary", "--spawn-rate", "100", "--users", "8")
    file = locustfile(folder, LOCUSTFILE)
    return LocustProcess(folder, "-f", file, "--host", url, *fixed, *arguments).finish()


def check(folder: Path, result: LocustRun) -> None:
    assert result.code == 0, result.stderr
    with (folder / "run_ws_percentiles.csv").open(newline="") as lines:
        reported = {row["Name"]: row for row in csv.DictReader(lines) if row["Type"] == "WS REQUEST"}
    notes: dict[str, list[list[float]]] = dict(result.notes)
    assert reported.keys() == notes.keys()
    for engine in ("websockets", "picows"):
        for path in ("/constant", "/sometimes", "/standstill"):
            row, ticks = reported[f"{path} {engine}"], notes[f"{path} {engine}"]
            assert int(row["Count"]) == len(ticks)
            expected = [(answered - intended) * 1000 for intended, answered, _ in ticks]
            read_late = max((arrived - answered) * 1000 for _, answered, arrived in ticks)
            for name, fraction in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 1)):
                right = nearest_rank(expected, fraction)
                assert abs(float(row[name]) - right) <= max(1, 0.02 * right) + read_late, (path, engine, name)
            distances = [later[0] - earlier[0] for earlier, later in pairwise(ticks)]
            assert distances == pytest.approx([0.1] * len(distances))
        # Who asks the same server at the same rate, and counts from the send, does not see that it stood still.
        assert float(reported[f"/standstill {engine}"]["p90"]) > 3 * float(reported[f"closed {engine}"]["p90"])


def test_one_process(tmp_path: Path, delaying_server: str) -> None:
    check(tmp_path, run(tmp_path, delaying_server))


def test_three_workers(tmp_path: Path, delaying_server: str) -> None:
    port = str(unused_port())
    ports = ("--master-bind-port", port, "--master-port", port)
    check(tmp_path, run(tmp_path, delaying_server, "--processes", "3", *ports))
