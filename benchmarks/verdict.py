"""Does the generator know when it is saturated, and before its numbers are wrong?

    python -m benchmarks.verdict             about an hour; writes the end of docs/generator.md, and its figure
    python -m benchmarks.verdict --small     two runs of each, few and short steps: does it work?

A server that knows its own delays answers the users of one Locust process, which has a core of its own: half of them
after 20 ms, half after a time that varies (median 20 ms, one in a hundred over 100 ms). A task parses a JSON document
with each answer, so that the client is busy long before the server is. Three questions:

1. What can one core do? All users ask as fast as they get answers.
2. At half of that, is there no verdict? At saturation, does one come within 5 s? 20 runs each.
3. From idle to saturated in steps: how late is the hub, and how far are the reported p50, p95 and p99 from the server's
   own? A percentile is off when it differs by more than 1 ms and more than 2 %. The limit of the verdict must lie below
   the lag at which that begins. This is asked of both engines: times of arrival are the kernel's with one of them only.
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
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from locust_ws_async.fleet.generator.limits import LAG_READ, LAG_STAMPED

from .machine import Cores, machine, python
from .measuring import ROOT
from .report import table

CONSTANT = 0.020  # seconds
SPREAD = (-3.9, 0.69)  # of the logarithm of the seconds: median 20 ms, p99 100 ms
DOCUMENT = ROOT / "docs" / "generator.md"
USERS, WORK = 200, 60
ENGINES = {"websockets": "the kernel's times of arrival", "picows": "times of reading"}
STEPS = (0.05, 0.2, 0.35, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1)
LIMITS = {"websockets": LAG_STAMPED, "picows": LAG_READ}
TOO_MUCH = 1e5  # requests a second: each user asks as soon as it has its answer
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
    """When each came, in seconds from the beginning of the load."""
    spans: list[dict[str, Any]]
    """Those that last, or end, after that."""

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


async def run(cores: Cores, url: str, rate: float, seconds: float, engine: str = "websockets") -> Outcome:
    """Run Locust with so many requests a second in all."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        plan = {
            "rate": rate,
            "users": USERS,
            "seconds": seconds,
            "settle": 2.0,
            "warm_up": 2.0,
            "work": WORK,
            "engine": engine,
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


def told(engine: str, outcomes: list[Outcome]) -> str:
    """From which lag on some percentile is off, between the steps by a straight line."""
    steps = sorted(outcomes, key=lambda each: each.lag_p99)
    text = f"The limit of the verdict is {LIMITS[engine]:g} ms. "
    if steps[0].worst > 1.0:
        return text + "Percentiles are off at the lowest lag already."
    for before, after in pairwise(steps):
        if after.worst > 1.0:
            part = (1.0 - before.worst) / (after.worst - before.worst)
            lag = before.lag_p99 + part * (after.lag_p99 - before.lag_p99)
            return text + f"Percentiles are off from a lag of {lag:.1f} ms on."
    return text + "No percentile was off."


def plot(curves: dict[str, list[Outcome]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    for color, (engine, outcomes) in zip(("#2a7f62", "#b3362b"), curves.items(), strict=False):
        steps = sorted(outcomes, key=lambda each: each.lag_p99)
        lags = [each.lag_p99 for each in steps]
        for name in steps[0].off():
            axes.plot(lags, [each.off()[name] for each in steps], "-", color=color, lw=0.7, alpha=0.35)
        axes.plot(lags, [each.worst for each in steps], "-o", ms=4, color=color, label=f"{engine}: {ENGINES[engine]}")
        axes.axvline(LIMITS[engine], color=color, lw=1, ls="--", label=f"limit of the verdict, {LIMITS[engine]:g} ms")
    axes.axhline(1.0, color="grey", lw=1, label="off by 1 ms or 2 %, whichever is more")
    axes.set_xscale("symlog", linthresh=1.0)
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_xlabel("hub lag p99, ms")
    axes.set_ylabel("error of the worst percentile, of what is allowed")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, bbox_inches="tight")


def curve_table(outcomes: list[Outcome]) -> str:
    names = [f"{p}, {kind}" for kind, row in sorted(outcomes[0].rows.items()) for p in row]
    head = ["requests/s", "CPU", "hub lag p50", "p99", *names, "verdict"]
    rows = [
        [
            f"{each.rate:,.0f}",
            f"{each.cpu:.0%}",
            f"{each.lag_p50:.1f}",
            f"{each.lag_p99:.1f}",
            *(f"{reported - true:+.1f}" for _, row in sorted(each.rows.items()) for reported, true in row.values()),
            "yes" if each.spans else "no",
        ]
        for each in outcomes
    ]
    return table(head, rows)


async def measured(small: bool, figure: Path) -> str:
    cores = Cores()
    if cores.server is not None:
        os.sched_setaffinity(0, {cores.server})
    runs = 2 if small else 20
    seconds = 9.0 if small else 21.0
    engines = [engine for engine in ENGINES if find_spec(engine)]
    curves: dict[str, list[Outcome]] = {}
    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        most = (await run(cores, url, TOO_MUCH, seconds)).rate
        print(f"{cores}; one core answers {most:,.0f} requests a second", flush=True)
        text = [f"{machine()}, {python()}. One core answers {most:,.0f} requests a second.", ""]

        calm = in_time = 0
        latest = 0.0
        for number in range(runs):
            half = await run(cores, url, most / 2, seconds)
            full = await run(cores, url, TOO_MUCH, seconds)
            when = min(full.verdicts, default=float("inf"))
            calm += not half.spans
            in_time += when <= IN_TIME
            latest = max(latest, when)
            print(
                f"{number + 1}: at half: lag p99 {half.lag_p99:.1f} ms, CPU {half.cpu:.0%}, verdicts {half.spans}; "
                f"saturated: lag p99 {full.lag_p99:.1f} ms, verdict after {when:.1f} s",
                flush=True,
            )
        text += [
            f"At half of that: no verdict in {calm} of {runs} runs. Saturated: a verdict within {IN_TIME:.0f} s in "
            f"{in_time} of {runs} runs, the latest after {latest:.1f} s.",
        ]

        for engine in engines:
            most = (await run(cores, url, TOO_MUCH, seconds, engine)).rate
            curves[engine] = []
            for step in STEPS[::3] if small else STEPS:
                curves[engine].append(await run(cores, url, most * step, seconds, engine))
                print(f"{engine} {step:.0%}: {curves[engine][-1]}", flush=True)
    plot(curves, figure)
    for engine, outcomes in curves.items():
        text += [
            "",
            f"{engine}, {ENGINES[engine]}: milliseconds by which each reported percentile is above the server's. "
            + told(engine, outcomes),
            "",
            curve_table(outcomes),
        ]
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdict", description="Is the verdict right?")
    parser.add_argument("--small", action="store_true", help="two runs of each, few and short steps")
    small = parser.parse_args().small
    folder = Path(tempfile.mkdtemp()) if small else ROOT / "docs" / "images"
    text = asyncio.run(measured(small, folder / "generator.svg"))
    print(f"\n{text}\nthe figure is {folder / 'generator.svg'}")
    if not small:
        page = DOCUMENT.read_text()
        before, begin, rest = page.partition("<!-- measured: verdict -->\n")
        _, end, after = rest.partition("<!-- end -->")
        DOCUMENT.write_text(
            f"{before}{begin}![Error of percentiles over hub lag](images/generator.svg)\n\n{text}{end}{after}"
        )


if __name__ == "__main__":
    main()
