"""Hours of faults: are the rows still the truth, and is everything given back?

    python -m benchmarks.soak --users 200 --minutes 30 --engine picows

Locust runs users against a server of this file that does to each message what the message says: it answers, or answers
late or never, cuts the connection, closes it, sends garbage. The server counts what it saw, the tasks what they got.
Each row of Locust must have both numbers. Nothing is equal by chance: a user sends its next message when it knows what
became of the last one.

It ends with code 1, and names the difference, if a row differs, a user hangs, a descriptor is left or Locust complains.
The memory is only told, as its slope over the second half of the run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

FAILED = ("reset", "close", "malformed")
"""The messages after which the session has failed."""

REFUSED = ("reject", "cut")
"""What happens in the opening handshake of the path of this name."""

FAULTS = (*FAILED, *REFUSED, "late", "silence", "push", "fragments")

LIMITS = ("HUB_LAG", "UNREAD", "CPU", "THROTTLED", "STEAL", "BLOCKED")
"""What the generator judges itself by."""

_UNANSWERED = (*FAILED, "late", "silence")


class Server:
    """Does what the messages say, and counts them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._later: set[asyncio.Task[None]] = set()

    async def process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """The opening handshake."""
        kind = request.path.lstrip("/")
        if kind not in REFUSED:
            return None
        self.counts[kind] += 1
        if kind == "cut":
            connection.transport.abort()
        return connection.respond(503, "")

    async def serve(self, connection: ServerConnection) -> None:
        """One connection."""
        self.counts["opened"] += 1
        async for message in connection:
            assert isinstance(message, str)
            fault = json.loads(message)["do"]
            self.counts[fault] += 1
            match fault:
                case "reset":
                    connection.transport.abort()
                case "close":
                    await connection.close(1011)
                case "malformed":
                    connection.transport.write(b"\xff" * 20)
                case "silence":
                    pass
                case "late":
                    task = asyncio.create_task(self._answer_late(connection, message))
                    self._later.add(task)
                    task.add_done_callback(self._later.discard)
                case "fragments":
                    await connection.send([message[:1], message[1:2], message[2:]])
                case _:
                    await connection.send(message)
                    for number in range(10 if fault == "push" else 0):
                        await connection.send(f'{{"push": {number}}}')

    async def _answer_late(self, connection: ServerConnection, message: str) -> None:
        await asyncio.sleep(1)
        await connection.send(message)


def differences(result: dict[str, Any], server: Counter[str]) -> list[str]:
    """Where the rows of Locust, the counts of the tasks and those of the server are not the same."""
    rows = {row: tuple(numbers) for row, numbers in result["rows"].items()}
    tasks: dict[str, tuple[int, int]] = {}
    for key, number in result["tasks"].items():
        row, _, outcome = key.rpartition(" ")
        ok, failed = tasks.get(row, (0, 0))
        tasks[row] = (ok + number, failed) if outcome == "ok" else (ok, failed + number)
    seen = {f"WS CONNECT /{kind}": (0, server[kind]) for kind in REFUSED}
    seen["WS CONNECT /soak"] = (server["opened"], 0)
    ended = sum(server[kind] for kind in FAILED)
    seen["WS SESSION /soak"] = (server["opened"] - ended, ended)
    for kind in ("echo", *(fault for fault in FAULTS if fault not in REFUSED)):
        seen[f"WS REQUEST {kind}"] = (0, server[kind]) if kind in _UNANSWERED else (server[kind], 0)
    # A loop that is held up for half a second sees the late answer in time.
    in_time = tasks.get("WS REQUEST late", (0, 0))[0]
    seen["WS REQUEST late"] = (in_time, server["late"] - in_time)
    seen["WS REQUEST late (late)"] = (server["late"] - in_time, 0)
    seen["WS RECV /soak"] = (10 * server["push"], 0)
    none = (0, 0)
    return [
        f"{row}: Locust has {rows.get(row, none)} (successes, failures), the tasks {tasks.get(row, none)}, "
        f"the server {seen.get(row, none)}"
        for row in sorted(rows.keys() | tasks.keys() | seen.keys())
        if not rows.get(row, none) == tasks.get(row, none) == seen.get(row, none)
    ]


def slope(samples: list[dict[str, float]]) -> float:
    """MiB of memory an hour, over the second half of the samples (least squares)."""
    half = samples[len(samples) // 2 :]
    if len(half) < 2:
        return 0.0
    times, sizes = [each["time"] for each in half], [each["memory"] / 2**20 for each in half]
    mean_time, mean_size = sum(times) / len(times), sum(sizes) / len(sizes)
    return (
        3600
        * sum((t - mean_time) * (s - mean_size) for t, s in zip(times, sizes, strict=True))
        / sum((t - mean_time) ** 2 for t in times)
    )


async def soak(engine: str, users: int, seconds: float, faults: list[str]) -> int:
    """Run it, and print what came of it."""
    server = Server()
    silent = logging.getLogger("benchmarks.soak.server")
    silent.setLevel(logging.CRITICAL + 1)  # each fault would be a traceback
    with tempfile.TemporaryDirectory() as folder:
        async with serve(
            server.serve, "127.0.0.1", 0, process_request=server.process_request, compression=None, logger=silent
        ) as listening:
            port = next(iter(listening.sockets)).getsockname()[1]
            path = Path(folder) / "result.json"
            locust = await asyncio.create_subprocess_exec(
                *(sys.executable, "-W", "error", "-m", "locust", "-f", str(Path(__file__).with_name("soak_user.py"))),
                *("--headless", "--only-summary", "--host", f"ws://127.0.0.1:{port}", "--exit-code-on-error", "0"),
                *("--users", str(users), "--spawn-rate", "50"),
                env={
                    **os.environ,
                    # A busy machine is no finding here.
                    **{f"LOCUST_WS_{name}_LIMIT": "inf" for name in LIMITS},
                    "PYTHONPATH": os.pathsep.join(filter(None, (os.getcwd(), os.environ.get("PYTHONPATH")))),
                    "SOAK_ENGINE": engine,
                    "SOAK_FAULTS": " ".join(faults),
                    "SOAK_INTERVAL": str(max(0.5, seconds / 240)),
                    "SOAK_RESULT": str(path),
                    "SOAK_SECONDS": str(seconds),
                },
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            _, errors = await locust.communicate()
        complaints = [
            line
            for line in errors.decode(errors="replace").splitlines()
            if line.strip() and not re.match(r"\[[^\]]*\] [^/]+/INFO/", line)
        ]
        if locust.returncode or not path.exists():
            print("\n".join(complaints))
            return 1
        result = json.loads(path.read_text())
    samples = result["samples"]
    problems = differences(result, server.counts)
    if hung := max((each["hung"] for each in samples), default=0):
        problems.append(f"{hung:.0f} users were stuck for a minute")
    problems += [f"{number} {what} are left" for what, number in result["left"].items() if number > 0]
    problems += complaints
    operations = sum(sum(numbers) for numbers in result["rows"].values())
    most, last = max(each["memory"] for each in samples), samples[-1]["memory"]
    print(
        f"{engine}: {users} users, {seconds / 60:g} minutes, {operations} operations in {len(result['rows'])} rows; "
        f"memory {last / 2**20:.1f} MiB at the end, {most / 2**20:.1f} MiB at most, "
        f"{slope(samples):+.1f} MiB an hour over the second half; {len(problems)} problems"
    )
    print("\n".join(problems))
    return 1 if problems else 0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--engine", choices=("websockets", "picows"), default="websockets")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--faults", default=",".join(FAULTS), help="a list with commas; default: %(default)s")
    arguments = parser.parse_args()
    faults = arguments.faults.split(",") if arguments.faults else []
    if unknown := set(faults) - set(FAULTS):
        parser.error(f"unknown fault {sorted(unknown)[0]!r}; there are: {', '.join(FAULTS)}")
    return asyncio.run(soak(arguments.engine, arguments.users, arguments.minutes * 60, faults))


if __name__ == "__main__":
    sys.exit(main())
