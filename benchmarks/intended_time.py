"""What a server that stands still looks like, counted from the send and counted from the intended instant.

    python -m benchmarks.intended_time      makes benchmarks/results/intended-time.md and .png

The server answers after 20 ms, and stands still for 1 s of every 5. 20 users ask it 10 times a second each, on a closed
loop: half of them count from the send, half from the tick. Beside them stands the arithmetic of the schedule alone: a
request goes out when it is due, or when the reply before it has come.
"""

from __future__ import annotations

import asyncio
import csv
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from time import perf_counter

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from .measuring import ROOT
from .report import table

DELAY, PERIOD, STANDSTILL, RATE, USERS, SECONDS = 0.02, 5.0, 1.0, 10, 20, 30
PERCENTILES = ("p50", "p90", "p99", "p99.9")

LOCUSTFILE = f"""
from locust import task
from locust_ws_async import AsyncWebSocketUser

class Send(AsyncWebSocketUser):
    @task
    async def ask(self):
        async with self.ws.connect("/") as server:
            async for tick in self.pace({RATE}):
                await server.request("?", name="counted from the send")

class Intended(AsyncWebSocketUser):
    @task
    async def ask(self):
        async with self.ws.connect("/") as server:
            async for tick in self.pace({RATE}):
                await server.request("?", name="counted from the tick", since=tick)
"""


def answered(asked: float) -> float:
    """When the server answers what was asked at this instant; it stands still at the beginning of each period."""
    ready = asked + DELAY
    return max(ready, ready - ready % PERIOD + STANDSTILL)


async def answer(connection: ServerConnection) -> None:
    with suppress(ConnectionClosed):  # the end of the run, in the midst of an answer
        async for message in connection:
            await asyncio.sleep(max(0.0, answered(perf_counter()) - perf_counter()))
            await connection.send(message)


async def measured(folder: Path) -> dict[str, dict[str, float]]:
    """Each row's percentiles, in milliseconds."""
    (folder / "locustfile.py").write_text(LOCUSTFILE)
    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        options = f"--headless -u {USERS} -r {USERS} --run-time {SECONDS}s --host ws://127.0.0.1:{port} --csv run"
        command = [sys.executable, "-m", "locust", *options.split()]
        process = await asyncio.create_subprocess_exec(*command, cwd=folder, stderr=subprocess.DEVNULL)
        if await process.wait():
            raise SystemExit("Locust failed")
    with (folder / "run_ws_percentiles.csv").open(newline="") as lines:
        return {
            row["Name"]: {p: float(row[p]) for p in PERCENTILES}
            for row in csv.DictReader(lines)
            if row["Type"] == "WS REQUEST"
        }


def arithmetic() -> dict[str, dict[str, float]]:
    from_send, from_tick = [], []
    for user in range(100):
        free = 0.0
        for number in range(int(PERIOD * RATE) * 10):
            due = (number + user / 100) / RATE
            sent = max(due, free)
            free = answered(sent)
            from_send.append((free - sent) * 1000)
            from_tick.append((free - due) * 1000)
    return {
        "the schedule's arithmetic, from the send": _percentiles(from_send),
        "the schedule's arithmetic, from the tick": _percentiles(from_tick),
    }


def _percentiles(times: list[float]) -> dict[str, float]:
    times.sort()
    return {p: times[round(float(p[1:]) / 100 * len(times)) - 1] for p in PERCENTILES}


def plot(rows: dict[str, dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name, row in rows.items():
        style = {"linestyle": "--", "color": "grey"} if "arithmetic" in name else {"marker": "o"}
        axes.plot(PERCENTILES, [row[p] for p in PERCENTILES], label=name, **style)
    axes.set_ylabel("response time, ms")
    axes.set_title(f"A server that stands still for {STANDSTILL:.0f} s of every {PERIOD:.0f} s")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(measured(Path(folder))) | arithmetic()
    text = table(["", *PERCENTILES], [[name, *(f"{row[p]:.1f}" for p in PERCENTILES)] for name, row in rows.items()])
    results = ROOT / "benchmarks" / "results"
    (results / "intended-time.md").write_text(text)
    plot(rows, results / "intended-time.png")
    print(text)


if __name__ == "__main__":
    main()
