"""What a busy load generator reports: by the kernel's stamps, and by when it read; beside what the server knows.

    python -m benchmarks.arrival      makes benchmarks/results/arrival.md and docs/images/arrival.svg

Two scenarios, each run twice, with the setting arrival = "kernel" and "read":

- held up: 50 users ask a server that answers after 20 ms, while another user computes for 200 ms twice a second, which
  holds the whole process;
- saturated: 1,000 users ask it as fast as one core can.

The server is a process of its own. It says in each answer when it sent that, by the clock that both share; a request is
known to have been sent by this side. So what the server took is the difference, of each request that counts.
"""

from __future__ import annotations

import asyncio
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .measuring import ROOT
from .report import table

DELAY = 0.02
SECONDS = 20
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
SCENARIOS = {"held up": (50, 2.0), "saturated": (1000, 0.0)}
"""Users, and how often a second another one computes."""

SERVER = f"""
import asyncio, contextlib, sys
from time import perf_counter
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

async def answer(connection):
    with contextlib.suppress(ConnectionClosed):  # the end of the run, in the midst of an answer
        async for message in connection:
            await asyncio.sleep({DELAY})
            await connection.send(repr(perf_counter()))

async def main():
    async with serve(answer, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""

LOCUSTFILE = """
import json
from time import perf_counter
from locust import events, task
from locust_ws_async import AsyncWebSocketUser

OWN, BLOCKS = [], {blocks}

class Asks(AsyncWebSocketUser):
    arrival = "{arrival}"

    @task
    async def ask(self):
        async with self.ws.connect("/") as server:
            while True:
                sent = perf_counter()
                answered = float(await server.request("?", name="ask"))
                OWN.append((answered - sent) * 1000)

class Computes(AsyncWebSocketUser):
    fixed_count = 1 if BLOCKS else 0
    weight = 1 if BLOCKS else 0

    @task
    def compute(self):
        until = perf_counter() + 0.2
        while perf_counter() < until:
            pass

    def wait_time(self):
        return 1 / BLOCKS - 0.2

@events.spawning_complete.add_listener
def restart(**_):  # with --reset-stats Locust does the same
    OWN.clear()

@events.quitting.add_listener
def write(environment, **_):
    with open("own.json", "w") as file:
        json.dump(OWN, file)
"""


@contextmanager
def server() -> Iterator[str]:
    """Its URL."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        yield f"ws://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


async def measured(scenario: str, arrival: str, url: str, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """The quantiles of what was reported, and of what the server took."""
    users, blocks = SCENARIOS[scenario]
    (folder / "locustfile.py").write_text(LOCUSTFILE.format(arrival=arrival, blocks=blocks))
    count = users + bool(blocks)
    options = f"--headless -u {count} -r {count} --run-time {SECONDS}s --host {url} --csv run --reset-stats"
    options += " --exit-code-on-error 0"
    command = [sys.executable, "-m", "locust", *options.split()]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stderr=subprocess.DEVNULL)
    if await process.wait():
        raise SystemExit("Locust failed")
    own = sorted(json.loads((folder / "own.json").read_text()))
    server_side = {name: own[max(0, round(fraction * len(own)) - 1)] for name, fraction in QUANTILES.items()}
    return reported(folder), server_side


def reported(folder: Path) -> dict[str, float]:
    with (folder / "run_stats.csv").open(newline="") as lines:
        row = next(row for row in csv.DictReader(lines) if row["Type"] == "WS REQUEST")
    return {
        "p50": float(row["50%"]),
        "p95": float(row["95%"]),
        "p99": float(row["99%"]),
        "max": float(row["Max Response Time"]),
    }


def bars(rows: list[tuple[str, dict[str, float]]]) -> str:
    """The table of the first scenario as an SVG."""
    names = list(QUANTILES)
    most = max(row[name] for _, row in rows for name in names)
    colours = ("#9aa5b1", "#c0563b", "#2a7f62")
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 300" font-family="sans-serif" font-size="12">',
        '<rect width="640" height="300" fill="white"/>',
        '<text x="20" y="24" font-size="13">50 users ask a server that takes 20 ms; the process is held up for 200 ms, '
        "twice a second</text>",
    ]
    for number, (label, row) in enumerate(rows):
        parts.append(f'<rect x="20" y="{38 + 18 * number}" width="12" height="12" fill="{colours[number]}"/>')
        parts.append(f'<text x="38" y="{48 + 18 * number}">{label}</text>')
        for place, name in enumerate(names):
            height = 150 * row[name] / most
            x, y = 30 + 155 * place + 40 * number, 270 - height
            parts.append(f'<rect x="{x}" y="{y:.1f}" width="34" height="{height:.1f}" fill="{colours[number]}"/>')
            parts.append(f'<text x="{x + 17}" y="{y - 4:.1f}" text-anchor="middle">{row[name]:.0f}</text>')
    parts += [
        f'<text x="{87 + 155 * place}" y="290" text-anchor="middle">{name}, ms</text>'
        for place, name in enumerate(names)
    ]
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    text = []
    for scenario in SCENARIOS:
        rows: list[tuple[str, dict[str, float]]] = []
        for arrival in ("read", "kernel"):
            with tempfile.TemporaryDirectory() as folder, server() as url:
                times, own = asyncio.run(measured(scenario, arrival, url, Path(folder)))
            rows.append((f'reported, arrival = "{arrival}"', times))
            rows.append((f'the server\'s own, with "{arrival}"', own))
        shown = [[name, *(f"{row[quantile]:.1f}" for quantile in QUANTILES)] for name, row in rows]
        text.append(f"**{scenario}**\n\n" + table([scenario, *QUANTILES], shown))
        print(text[-1], flush=True)
        if scenario == "held up":
            figure = bars([("the server's own", rows[3][1]), rows[0], rows[2]])
    (ROOT / "benchmarks" / "results" / "arrival.md").write_text("\n".join(text))
    (ROOT / "docs" / "images" / "arrival.svg").write_text(figure)


if __name__ == "__main__":
    main()
