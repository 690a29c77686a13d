"""How many voice calls one core holds: 50 audio frames a second up, each at its instant, and 50 a second down.

    python -m benchmarks.voice_calls      250, 500 and 1,000 calls on each engine: writes results/voice-calls.md
    python -m benchmarks.voice_calls --calls 1000 --engine picows

One Locust process, on a core of its own where the system can pin, holds all calls. A frame up is late by the time from
the instant at which it was due to the one at which it was sent. That is the generator's own doing, whatever the server
does, and the figure that decides: a p99 of over 5 ms means that the machine is too small for so many calls. Beside it
stand the gaps between the frames down, which should be 20 ms and contain what the server is late.

The server is `picows` on uvloop (plain asyncio where there is none), on another core. It says how late it was itself.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import IO, Any

import psutil
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from .machine import Cores, machine, python, raise_file_limit
from .measuring import ROOT
from .report import table

FRAME = bytes(640)  # 20 ms: 16 kHz, 16 bit, mono
PERIOD = 0.02
LIMIT = 5.0  # milliseconds
CALLS_PER_SECOND = 50

LOCUSTFILE = f"""
import asyncio, json
from locust import events, task
from locust_ws_async import AsyncWebSocketUser
from locust_ws_async.client import prefix
from locust_ws_async.pacing import snapshot
from locust_ws_async.statistics.percentiles import percentile_of

FRAME = bytes({len(FRAME)})

class Caller(AsyncWebSocketUser):
    reported = {{"WS FIRST", "WS GAP"}}

    @task
    async def call(self):
        async with self.ws.connect("/") as line, asyncio.TaskGroup() as group:
            group.create_task(self.speak(line))
            async with line.stream("respond", end=prefix("done"), name="frames down") as answer:
                async for frame in answer:
                    pass

    async def speak(self, line):
        async for _ in self.pace({1 / PERIOD}):
            await line.send(FRAME)

@events.test_stopping.add_listener
def tell(**_):
    pace = snapshot()["pace"]
    late = {{str(p): percentile_of(pace["late"], p) for p in (0.5, 0.99, 0.999)}}
    with open("late.json", "w") as file:
        json.dump(dict(late, rate=pace["started"] / pace["seconds"], owed=pace["offered"] - pace["started"]), file)
"""


class Line(WSListener):
    """The server's end of one call: as soon as anything comes that is no audio, it speaks, for ever."""

    late = array("f")
    """Seconds, of all frames of all calls since the last ``reset``."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.timer: asyncio.TimerHandle | None = None

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.speak(asyncio.get_running_loop().time())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()

    def speak(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        self.late.append(loop.time() - due)
        self.transport.send(WSMsgType.BINARY, FRAME)
        self.timer = loop.call_at(due + PERIOD, self.speak, due + PERIOD)


def accept(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(), Line())


async def serve() -> None:
    """Print the port, then answer each line of standard input: how late the frames since the line before were."""
    server = await ws_create_server(accept, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        late = sorted(Line.late)
        del Line.late[:]
        print(late[len(late) * 99 // 100] * 1000 if late else 0.0, flush=True)
    server.close()


def ask(server: subprocess.Popen[str]) -> float:
    """The p99 of how late the server's frames were since the last question, in milliseconds."""
    stdin, stdout = _pipes(server)
    print(file=stdin, flush=True)
    return float(stdout.readline())


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None and process.stdout is not None
    return process.stdin, process.stdout


def measure(
    calls: int, engine: str, seconds: float, server: subprocess.Popen[str], url: str, cores: Cores
) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "locustfile.py").write_text(
            LOCUSTFILE.replace("reported =", f'engine = "{engine}"\n    reported =')
        )
        spawning = calls / CALLS_PER_SECOND
        options = f"--headless -u {calls} -r {CALLS_PER_SECOND} --reset-stats --run-time {spawning + seconds:.0f}s"
        command = [sys.executable, "-m", "locust", *options.split(), "--host", url, "--csv", "run"]
        with cores.only(cores.client), open(Path(folder) / "log", "w") as log:
            locust = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        time.sleep(spawning + 0.2 * seconds)
        process = psutil.Process(locust.pid)
        before, began = process.cpu_times(), time.monotonic()
        ask(server)
        time.sleep(0.6 * seconds)
        after, elapsed = process.cpu_times(), time.monotonic() - began
        server_late = ask(server)
        if locust.wait(60 + seconds):
            raise SystemExit((Path(folder) / "log").read_text()[-3000:])
        late = json.loads((Path(folder) / "late.json").read_text())
        with (Path(folder) / "run_ws_percentiles.csv").open(newline="") as lines:
            gaps = next(row for row in csv.DictReader(lines) if row["Type"] == "WS GAP")
    cpu = (after.user + after.system - before.user - before.system) / elapsed
    p99 = float(late["0.99"])
    return [
        f"{calls:,}",
        engine,
        f"{late['rate']:,.0f} of {calls / PERIOD:,.0f}",
        f"{late['0.5']:.2f}",
        f"{p99:.2f}",
        f"{late['0.999']:.2f}",
        gaps["p50"],
        gaps["p99"],
        f"{server_late:.2f}",
        f"{cpu:.0%}",
        "yes" if p99 < LIMIT else "no: the machine is too small",
    ]


HEADS = [
    "calls",
    "engine",
    "frames up a second",
    "late p50, ms",
    "p99",
    "p99.9",
    "gap down p50, ms",
    "p99",
    "server late p99, ms",
    "CPU of a core",
    f"p99 below {LIMIT:.0f} ms",
]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.voice_calls",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--calls", default="250,500,1000", metavar="N,N")
    parser.add_argument("--engine", default="websockets,picows", metavar="A,B")
    parser.add_argument("--seconds", type=float, default=20.0, help="at the full number of calls (default: 20)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        _run(serve())
        return
    raise_file_limit()
    cores = Cores()
    with cores.only(cores.server):
        command = [sys.executable, "-m", "benchmarks.voice_calls", "--serve"]
        server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stdin, stdout = _pipes(server)
    rows = []
    try:
        url = f"ws://127.0.0.1:{stdout.readline().strip()}"
        for engine in arguments.engine.split(","):
            for calls in map(int, arguments.calls.split(",")):
                rows.append(measure(calls, engine, arguments.seconds, server, url, cores))
                print(rows[-1], flush=True)
    finally:
        stdin.close()
        server.wait(10)
    text = f"{machine()}; {python()}; {cores}.\n\n{table(HEADS, rows)}"
    (ROOT / "benchmarks" / "results" / "voice-calls.md").write_text(text)
    print(text)


def _run(coroutine: Any) -> None:
    try:
        from uvloop import run
    except ImportError:  # Windows
        from asyncio import run
    run(coroutine)


if __name__ == "__main__":
    main()
