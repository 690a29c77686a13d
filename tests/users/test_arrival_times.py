"""Reported times stay the server's while a user holds up the whole process; and how long that lasted is told."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from math import ceil
from pathlib import Path

import pytest

from locust_ws_async.client.wire.stamps import AVAILABLE
from tests.support import SCALE, unused_port

from .running import ROOT, LocustRun, locust

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="this system does not tell when bytes arrived")

LOCUSTFILE = """
import time
from locust import runners

runners.WORKER_REPORT_INTERVAL = 0.2  # seconds; 3 as shipped

class Asks(AsyncWebSocketUser):
    abstract = True

    async def on_start(self):
        self.feed = await self.ws.connect("/constant")
        self.lags = []

    @task
    async def ask(self):
        answered = float(await self.feed.request("?", name=self.arrival))
        self.lags.append(self.feed.arrived - answered)
        if len(self.lags) == 50:
            note(self.arrival, self.lags)
            await asyncio.sleep(1000)

class ByKernel(Asks):
    fixed_count = 10

class ByRead(Asks):
    fixed_count = 10
    arrival = "read"

class Computes(AsyncUser):
    fixed_count = 2

    @task
    def compute(self):
        until = time.perf_counter() + 0.2
        while time.perf_counter() < until:
            pass

    def wait_time(self):
        return 0.3

@events.test_start.add_listener
def started(environment, **_):
    if not isinstance(environment.runner, runners.WorkerRunner):
        gevent.spawn(quit_when_all_is_noted, environment.runner)

def quit_when_all_is_noted(runner):
    def reported():
        return sum(row.num_requests for (_, kind), row in runner.stats.entries.items() if kind == "WS REQUEST")

    while reported() < 20 * 50:
        gevent.sleep(0.1)
    gevent.sleep(0.5)  # two more reports, with the figures of the last reads
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


def check(result: LocustRun, processes: int) -> None:
    assert result.code == 0, result.stderr
    lags = {arrival: [lag for lags in result.noted(arrival) for lag in lags] for arrival in ("kernel", "read")}
    assert [len(each) for each in lags.values()] == [500, 500]
    # What the kernel says comes after what the server says, whose own delay it may have on a busy machine; it does not
    # have that of this process. At least one read of twenty is held up, by 0.1 s on average.
    assert min(lags["kernel"]) > -0.001
    assert nearest_rank(lags["read"], 0.98) > 0.1
    assert nearest_rank(lags["kernel"], 0.98) < nearest_rank(lags["read"], 0.98) / 3
    assert result.rows["WS REQUEST kernel"].average < result.rows["WS REQUEST read"].average - 3
    # The block at the end.
    block = result.stdout[result.stdout.index("Unread in the socket") :].splitlines()
    lines = [line.split() for line in block if re.search(r"\d ms .* ms .* ms", line)]
    assert len(lines) == processes, block
    assert sum(int(line[-1]) for line in lines) == 10  # connections with times as read
    for line in lines:
        *_, longest, unit, unused, _ = line
        assert unit == "ms" and float(longest) > 100, line
        assert int(unused) < 50


def test_one_process(tmp_path: Path, delaying_server: str) -> None:
    check(locust(tmp_path, LOCUSTFILE, "--host", delaying_server, "--users", "22"), 1)


def test_two_workers(tmp_path: Path, delaying_server: str) -> None:
    port = str(unused_port())
    ports = ("--master-bind-port", port, "--master-port", port, "--processes", "2")
    check(locust(tmp_path, LOCUSTFILE, "--host", delaying_server, "--users", "22", *ports), 2)
