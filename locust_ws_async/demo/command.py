"""``locust-ws-async server`` runs the demo server, ``locust-ws-async demo`` also runs Locust against it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import Any

from . import server
from .signals import handling_signals

__all__ = ["add_commands", "locustfile"]

REPORT = "demo-report.html"

# Of each minute of `demo --web`, seconds: traffic, an outage, its recovery.
MINUTE, OUTAGE_AT, OUTAGE = 60, 20, 8


def add_commands(commands: Any) -> None:
    """Add ``server`` and ``demo`` to the subcommands of ``locust-ws-async``: what ``add_subparsers()`` returned."""
    serve = commands.add_parser("server", help="run the demo server until interrupted")
    server.add_arguments(serve)
    serve.set_defaults(run=server.run)
    demo = commands.add_parser("demo", help="run the demo server and Locust against it")
    demo.add_argument("--users", type=int, help="how many users (default: 10; with --web: 50)")
    demo.add_argument("--run-time", default="10s", help="as Locust reads it: 20, 30s, 5m (default: %(default)s)")
    demo.add_argument("--web", action="store_true", help="serve Locust's web UI and run until interrupted")
    demo.set_defaults(run=lambda arguments: asyncio.run(run_demo(arguments)))


def locustfile(example: str) -> Path:
    """Return the path of ``keepalive.py`` or ``outage.py``: beside this file in a wheel, else in the checkout."""
    beside = Path(__file__).with_name(example)
    return beside if beside.exists() else Path(__file__).parents[2] / "examples" / example


async def run_demo(arguments: argparse.Namespace) -> int:
    """Run Locust as a child of this process, against a server in this process; return Locust's exit code."""
    report = Path(REPORT).resolve()
    async with server.DemoServer() as demo_server:
        example, number = ("outage.py", 50) if arguments.web else ("keepalive.py", 10)
        locust = [sys.executable, "-m", "locust", "-f", str(locustfile(example)), "--host", demo_server.url]
        number = number if arguments.users is None else arguments.users
        users = ["--users", str(number), "--spawn-rate", str(max(1, number // 3))]
        if arguments.web:
            print(f"The server is away for {OUTAGE} seconds of each minute: see the tab WebSocket.", flush=True)
            mode = ["--autostart", "--web-host", "127.0.0.1", "--exit-code-on-error", "0"]  # what fails is meant to
        else:
            report.unlink(missing_ok=True)
            mode = ["--headless", "--only-summary", "--run-time", arguments.run_time, "--html", str(report)]
        child = await asyncio.create_subprocess_exec(*locust, *users, *mode)

        def pass_on(number: int) -> None:
            if number != signal.SIGINT:  # a terminal sends Ctrl-C to the child too
                with contextlib.suppress(ProcessLookupError):
                    child.terminate()

        outages = asyncio.create_task(go_away_each_minute(demo_server)) if arguments.web else None
        with handling_signals(pass_on):
            code = await child.wait()  # after a signal too: Locust then stops its users and prints its table
        if outages is not None:
            outages.cancel()
        print(summary(demo_server.stats()["total"]))
    if not arguments.web and report.exists():  # Locust writes none when it is terminated
        print(f"Report: {report}")
    return code


async def go_away_each_minute(demo_server: server.DemoServer) -> None:
    while True:
        await asyncio.sleep(OUTAGE_AT)
        await demo_server.outage(OUTAGE)
        await asyncio.sleep(MINUTE - OUTAGE_AT - OUTAGE)


def summary(total: dict[str, Any]) -> str:
    """Return a sentence with what the server counted, to be compared with Locust's table."""
    return (
        f"The server counted {total['opened']} connections ({total['abnormal_closes']} closed abnormally), "
        f"{total['messages_in']} messages received and {total['messages_out']} sent."
    )
