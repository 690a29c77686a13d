"""Is what ``Fanout`` tells of broadcasts what the server did? 3 workers, 3,000 members, one faulty server.

    python -m benchmarks.broadcast                       makes benchmarks/results/broadcast.md
    python -m benchmarks.broadcast --members 30 --messages 5

The server withholds each message from 1 % of the members, others each time, and delays it by 300 ms for 5 %. It knows
when it has written the first and the last frame of a message. Beside the truth, this looks at the size of the reports
to the master, and lets 30 % of the connections be lost at once, which the server counts.

Ends with 1 if something is not as it must be.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from websockets.sync.client import connect

from .measuring import ROOT
from .report import table

WORKERS = 3
WITHHELD, DELAYED, DELAY = 1, 5, 0.3  # of a hundred; seconds
TOLERANCE = 2.0  # milliseconds between the spread as the server knows it and as it is measured
LARGEST_REPORT = 20_000  # bytes
STORM = 0.3

LOCUSTFILE = """
import asyncio, json, os
import gevent, msgpack
from locust import events, runners, task
from locust.runners import MasterRunner, WorkerRunner
from locust_ws_async import AsyncWebSocketUser
from locust_ws_async.client import Backoff
from locust_ws_async.together import Fanout, snapshot, storm

runners.HEARTBEAT_LIVENESS = 60  # seconds for which a worker may be busy; 3 as shipped

room = Fanout("room 42", id="id", settle=0)  # the server has all members when it begins

class Member(AsyncWebSocketUser):
    reported = {"WS CONNECT", "WS RECOVERY"}
    reconnect = Backoff(initial=0.5, jitter=1)

    async def on_start(self):
        self.line = await self.ws.connect("/member", name="line")
        room.join(self.line)
        await self.line.send("ready")

    @task
    async def stay(self):
        await self.line.wait_closed()

def write(name, value):
    with open(name + ".new", "w") as file:
        json.dump(value, file)
    os.rename(name + ".new", name)

def watch(environment):
    spreads = []
    environment.events.request.add_listener(
        lambda request_type, response_time, **_: request_type == "WS SPREAD" and spreads.append(response_time))
    while not os.path.exists("storm"):
        gevent.sleep(0.2)
        write("told", {"spreads": spreads, **snapshot()["broadcasts"].get("room 42", {"messages": 0})})
    raging = storm(environment, float(open("storm").read()))
    row = environment.stats.get("line", "WS RECOVERY")
    while True:
        gevent.sleep(0.2)
        write("raged", {"chosen": raging.chosen, "dropped": raging.dropped, "recovered": row.num_requests})

@events.init.add_listener
def on_init(environment, **_):
    runner = environment.runner
    if isinstance(runner, MasterRunner):
        gevent.spawn(watch, environment)
    if isinstance(runner, WorkerRunner):
        send = runner.send_message
        largest = 0

        def measured(message_type, data=None, client_id=None):
            nonlocal largest
            if message_type == "ws_together_up":
                largest = max(largest, len(msgpack.packb(data)))
                write(f"largest-{os.getpid()}", largest)
            send(message_type, data, client_id)

        runner.send_message = measured
"""


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds} s: {what}")
        time.sleep(0.1)
    return result


def read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def measured(folder: Path, members: int, messages: int, pause: float) -> dict[str, Any]:
    (folder / "locustfile.py").write_text(LOCUSTFILE)
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.room_server"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = str(sock.getsockname()[1])
    locust = [sys.executable, "-m", "locust", "-f", "locustfile.py", "--host", url, "--loglevel", "WARNING"]
    load = ["--headless", "--only-summary", "-u", str(members), "-r", "100"]
    master = [*locust, "--master", "--expect-workers", str(WORKERS), "--master-bind-port", port, *load]
    worker = [*locust, "--worker", "--master-port", port]
    processes = [subprocess.Popen(command, cwd=folder) for command in [master, *[worker] * WORKERS]]
    try:
        with connect(f"{url}/control") as control:

            def order(do: str, **fields: Any) -> dict[str, Any]:
                control.send(json.dumps({"do": do, **fields}))
                answer: dict[str, Any] = json.loads(control.recv(timeout=60))
                return answer

            until(lambda: order("state")["messages"] >= members, 120 + members / 50, "all are there")
            done = []
            for number in range(messages):
                faults = {"withhold": [100, list(range(WITHHELD))], "delay": [100, list(range(50, 50 + DELAYED))]}
                done.append(order("publish", id=f"message {number}", shift=7 * number, seconds=DELAY, **faults))
                time.sleep(pause)
            told = folder / "told"
            until(lambda: read(told)["messages"] == messages, 60, "all messages are judged")
            (folder / "storm").write_text(str(STORM))
            chosen = round(STORM * members)
            raged = folder / "raged"
            until(lambda: (now := read(raged)) and now["recovered"] >= chosen, 120, "the lost ones are there again")
            until(lambda: order("state")["members"] == members, 60, "the server has all again")
            time.sleep(1)  # for what should not come
            return {
                "done": done,
                "told": read(told),
                "raged": read(raged),
                "lost": order("state")["lost"],
                "largest": max(read(path) for path in folder.glob("largest-*[0-9]")),
            }
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=120)
        server.communicate(timeout=30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=3000)
    parser.add_argument("--messages", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two messages")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measured(Path(folder), arguments.members, arguments.messages, arguments.pause)
    told, done, raged = result["told"], result["done"], result["raged"]
    expected = sum(each["members"] for each in done)
    received = expected - sum(each["left_out"] for each in done)
    true = [(each["last"] - each["first"]) * 1000 for each in done]
    apart = sorted(abs(measured - right) for measured, right in zip(told["spreads"], true, strict=True))
    chosen = round(STORM * arguments.members)
    rows = [
        ["deliveries that there should have been", expected, told["expected"]],
        ["deliveries", received, told["received"]],
        ["reach", f"{received / expected:.6f}", f"{told['reach']:.6f}"],
        ["spread, median", f"{median(true):.2f} ms", f"{median(told['spreads']):.2f} ms"],
        ["difference of the spreads, median", f"within {TOLERANCE} ms", f"{median(apart):.2f} ms"],
        ["difference of the spreads, largest", "", f"{apart[-1]:.2f} ms"],
        ["bound of the clocks' error", "", f"{told['clock_error_ms']:.2f} ms"],
        ["largest report of a worker", f"below {LARGEST_REPORT} bytes", f"{result['largest']} bytes"],
        ["connections that a storm dropped", chosen, raged["dropped"]],
        ["losses at the server", chosen, result["lost"]],
        ["recoveries", chosen, raged["recovered"]],
    ]
    head = f"{WORKERS} workers, {arguments.members} members, {arguments.messages} messages"
    text = table([head, "server", "told"], [[str(cell) for cell in row] for row in rows])
    print(text)
    (ROOT / "benchmarks" / "results" / "broadcast.md").write_text(text)
    right = (
        (told["expected"], told["received"]) == (expected, received)
        and median(apart) <= TOLERANCE
        and result["largest"] < LARGEST_REPORT
        and raged["dropped"] == result["lost"] == raged["recovered"] == chosen
    )
    if not right:
        raise SystemExit("not as it must be")


if __name__ == "__main__":
    main()
