"""How a competitor's file is run. A host gives the command line, and afterwards what the tool itself reported."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from .workload import Workload

Percentiles = dict[str, float]
"""``{"p50": ..., "p95": ..., "p99": ...}`` in milliseconds."""


class Host(Protocol):
    restarts_statistics: bool
    """Whether SIGUSR1 makes it forget what it reported so far, so that its latency covers the window alone."""

    reports: bool
    """Whether it says something about latency when it is terminated. One that does not is killed at once."""

    def command(self, file: Path, workload: Workload, scratch: Path) -> list[str]: ...
    def latency(self, scratch: Path) -> Percentiles: ...


class PythonHost:
    """The competitor's module is a program of its own. It reports no latency."""

    restarts_statistics = False
    reports = False

    def command(self, file: Path, workload: Workload, scratch: Path) -> list[str]:
        return [sys.executable, "-m", f"benchmarks.competitors.{file.stem}"]

    def latency(self, scratch: Path) -> Percentiles:
        return {}


class LocustHost:
    """The competitor's module is a locustfile, run by the ordinary ``locust`` command with its statistics on."""

    restarts_statistics = hasattr(signal, "SIGUSR1")
    reports = True

    def command(self, file: Path, workload: Workload, scratch: Path) -> list[str]:
        return [
            *(sys.executable, "-m", "locust", "--locustfile", str(file), "--headless", "--skip-log"),
            *("--host", workload.url.rstrip("/")),
            *("--users", str(workload.users), "--spawn-rate", str(workload.users_per_second)),
            *("--json-file", str(scratch / "statistics"), "--exit-code-on-error", "0"),
        ]

    def latency(self, scratch: Path) -> Percentiles:
        """Of the row in which the user waits for its echo."""
        file = scratch / "statistics.json"  # Locust adds the suffix
        rows = json.loads(file.read_text()) if file.exists() else []
        return percentiles_of(next((row["response_times"] for row in rows if row["method"] == "WS RECV"), {}))


def percentiles_of(histogram: dict[str, int]) -> Percentiles:
    """From how often each time occurred, as Locust keeps it (milliseconds, rounded)."""
    total = sum(histogram.values())
    found: Percentiles = {}
    seen = 0
    for time in sorted(histogram, key=float):
        seen += histogram[time]
        for percent in (50, 95, 99):
            if seen >= total * percent / 100:
                found.setdefault(f"p{percent}", float(time))
    return found


async def run_users(workload: Workload, connect: Callable[[], Awaitable[Any]]) -> None:
    """Start the users at Locust's pace and wait for them all."""
    async with asyncio.TaskGroup() as users:
        for started in range(1, workload.users + 1):
            users.create_task(workload.live(connect))
            if started % 10 == 0:
                await asyncio.sleep(10 / workload.users_per_second)


def restart_statistics_on_signal() -> None:
    """In a locustfile: forget the statistics on SIGUSR1, which the runner sends when its window begins."""
    from locust import events

    @events.init.add_listener
    def _(environment: Any, **_: Any) -> None:
        import gevent

        if hasattr(signal, "SIGUSR1"):
            gevent.signal_handler(signal.SIGUSR1, environment.stats.reset_all)


def leave_out_what_seconds_cost() -> None:
    """In a locustfile: where instructions are counted, do without what runs so often a second, whatever is sent.

    Under valgrind an echo takes thirty times as long, on a busy machine longer. What a second costs is measured by the
    CPU of idle users.
    """
    if "BENCHMARK_COUNTS_INSTRUCTIONS" in os.environ:
        from locust_ws_async.fleet import generator, transport

        generator.enter = generator.leave = lambda *_: None  # type: ignore[assignment]
        transport._INTERVAL = 3600.0


_ended = count(1)


def end_of_user(user: Any) -> None:
    """In a locustfile: a user that made all its echoes ends, and the last one ends the run."""
    from gevent import spawn
    from locust.exception import StopUser

    if next(_ended) == Workload.of_this_process().users:
        spawn(user.environment.runner.quit)
    raise StopUser
