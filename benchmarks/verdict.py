"""Does the generator know when it is saturated, and before its numbers are wrong?

    python -m benchmarks.verdict             everything, about an hour; makes benchmarks/results/verdict.md and .svg
    python -m benchmarks.verdict --small     two runs of each, few and short steps: does it work?

A server that knows its own delays answers the users of one Locust process, which has a core of its own: half of them
after 20 ms, half after a time that varies (median 20 ms, one in a hundred over 100 ms). A task parses a JSON document
with each answer, so that the client is busy long before the server is. Three questions:

1. What can one core do? All users ask as fast as they get answers.
2. At half of that, is there no verdict? At saturation, does one come within 5 s? 20 runs each.
3. From idle to saturated in steps: how late is the hub, and how far are the reported p50, p95 and p99 from the server's
   own? A percentile is off when it differs by more than 1 ms and more than 2 %. The limit of the verdict must lie below
   the lag at which that begins.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from locust_ws_async.fleet.generator.limits import Limits

from .machine import Cores, machine, python
from .measuring import ROOT
from .report import table

CONSTANT = 0.020  # seconds
SPREAD = (-3.9, 0.69)  # of the logarithm of the seconds: median 20 ms, p99 100 ms
USERS, WORK = 200, 200
STEPS = (0.05, 0.2, 0.35, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1)
IN_TIME = 5.0  # seconds in which a verdict must come

_random = random.Random(1)


def delay_of(path: str) -> float:
    return CONSTANT if path == "/constant" else _random.lognormvariate(*SPREAD)


async def answer(connection: ServerConnection) -> None:
    """Answer each message after its delay with how many milliseconds that really took."""
    assert connection.request is not None
    path = connection.request.path
    with suppress(ConnectionClosed):  # the end of a run
        async for _ in connection:
            asked = perf_counter()
            await asyncio.sleep(delay_of(path))
            await connection.send(repr((perf_counter() - asked) * 1000))


@dataclass(frozen=True)
class Outcome:
    """Of one run of Locust."""

    rate: float
    lag_p50: float
    lag_p99: float
    """Medians of what its samples of three seconds say, in milliseconds."""
    cpu: float
    rows: dict[str, dict[str, tuple[float, float]]]
    """By kind and percentile: reported, and by the server."""
    verdicts: list[float]
    spans: list[dict[str, Any]]

    def off(self) -> dict[str, float]:
        """By how much each reported percentile is off, in units of what is allowed: 1 ms or 2 %, whichever is more."""
        return {
            f"{p}, {kind} delay": abs(reported - true) / max(1.0, 0.02 * true)
            for kind, row in sorted(self.rows.items())
            for p, (reported, true) in row.items()
        }

    @property
    def worst(self) -> float:
        return max(self.off().values())


async def run(cores: Cores, url: str, rate: float, seconds: float, warm_up: float = 2.0) -> Outcome:
    """Run Locust with so many requests a second in all."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        plan = {
            "rate": rate,
            "users": USERS,
            "seconds": seconds,
            "settle": 2.0,
            "warm_up": warm_up,
            "work": WORK,
            "engine": "websockets",
            "result": str(result),
        }
        command = [sys.executable, "-m", "locust", "-f", str(ROOT / "benchmarks" / "verdict_user.py")]
        command += f"--headless --only-summary -u {USERS} -r {USERS} --host {url}".split()
        with cores.only(cores.client):
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=ROOT,
                env={**os.environ, "BENCHMARK_PLAN": json.dumps(plan)},
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        _, errors = await process.communicate()
        if not result.exists():
            raise SystemExit(f"Locust failed:\n{errors.decode()}")
        found = json.loads(result.read_text())
    samples = [each for each in found["samples"] if each]

    def median(key: str) -> float:
        return statistics.median(each[key] for each in samples)

    return Outcome(
        found["rate"],
        median("hub_lag_p50_ms"),
        median("hub_lag_p99_ms"),
        median("cpu"),
        found["rows"],
        found["verdicts"],
        found["spans"],
    )


def crossing(outcomes: list[Outcome]) -> float | None:
    """The hub lag p99 from which on some percentile is off, between the steps by a straight line."""
    steps = sorted(outcomes, key=lambda each: each.lag_p99)
    for before, after in pairwise(steps):
        if before.worst <= 1.0 < after.worst:
            part = (1.0 - before.worst) / (after.worst - before.worst)
            return before.lag_p99 + part * (after.lag_p99 - before.lag_p99)
    return None


def plot(outcomes: list[Outcome], limit: float, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps = sorted(outcomes, key=lambda each: each.lag_p99)
    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    for name in steps[0].off():
        style = "-o" if "constant" in name else "--s"
        axes.plot([each.lag_p99 for each in steps], [each.off()[name] for each in steps], style, ms=4, label=name)
    axes.axhline(1.0, color="grey", lw=1)
    axes.text(steps[0].lag_p99, 1.1, "off by 1 ms or 2 %", color="grey", fontsize=8)
    axes.axvline(limit, color="#b3362b", lw=1.5, label=f"limit of the verdict, {limit:g} ms")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("hub lag p99, ms")
    axes.set_ylabel("error of the reported percentile,\nin units of what is allowed")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, bbox_inches="tight")


async def measured(small: bool) -> str:
    cores = Cores()
    if cores.server is not None:
        os.sched_setaffinity(0, {cores.server})
    runs = 2 if small else 20
    seconds = 9.0 if small else 21.0
    limit = Limits().hub_lag
    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        most = (await run(cores, url, 1e5, seconds)).rate
        print(f"{cores}; one core answers {most:,.0f} requests a second", flush=True)
        text = [f"{machine()}, {python()}. One core answers {most:,.0f} requests a second.", ""]

        calm = saturated = 0
        latest = 0.0
        for number in range(runs):
            half = await run(cores, url, most / 2, seconds)
            full = await run(cores, url, 1e5, 9.0)
            calm += not half.verdicts
            when = min(full.verdicts, default=float("inf"))
            saturated += 0 <= when <= IN_TIME
            latest = max(latest, when)
            print(
                f"{number + 1}: at half: lag p99 {half.lag_p99:.1f} ms, CPU {half.cpu:.0%}, verdicts {half.spans}; "
                f"saturated: lag p99 {full.lag_p99:.1f} ms, verdict after {when:.1f} s",
                flush=True,
            )
        text += [
            f"At half of that: no verdict in {calm} of {runs} runs. Saturated: a verdict within {IN_TIME:.0f} s in "
            f"{saturated} of {runs} runs, the latest after {latest:.1f} s.",
            "",
        ]

        outcomes = []
        for step in STEPS[::3] if small else STEPS:
            outcomes.append(await run(cores, url, most * step, seconds))
            print(f"{step:.0%}: {outcomes[-1]}", flush=True)
    plot(outcomes, limit, ROOT / "benchmarks" / "results" / "verdict.svg")
    names = list(outcomes[0].off())
    head = ["requests/s", "CPU", "hub lag p50", "p99", *names, "verdict"]
    rows = [
        [
            f"{each.rate:,.0f}",
            f"{each.cpu:.0%}",
            f"{each.lag_p50:.1f} ms",
            f"{each.lag_p99:.1f} ms",
            *(f"{reported - true:+.1f} ms" for _, row in sorted(each.rows.items()) for reported, true in row.values()),
            "yes" if each.spans else "",
        ]
        for each in outcomes
    ]
    text += [table(head, rows)]
    lag = crossing(outcomes)
    text += [
        f"The limit of the verdict is {limit:g} ms. "
        + ("No percentile was off." if lag is None else f"Percentiles are off from a lag of {lag:.1f} ms on.")
    ]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdict", description="Is the verdict right?")
    parser.add_argument("--small", action="store_true", help="two runs of each, few and short steps")
    text = asyncio.run(measured(parser.parse_args().small))
    (ROOT / "benchmarks" / "results" / "verdict.md").write_text(text)
    print("\n" + text)


if __name__ == "__main__":
    main()
