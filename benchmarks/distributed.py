"""What Locust's master costs, by the number of workers.

    python -m benchmarks.distributed --workers 2,4,8

Writes ``results/distributed.md``. The master does not move messages: every worker sends it its statistics each three
seconds. So the load is the same small one for each worker, and the figure is the master's CPU and memory over a steady
window.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .machine import Cores, machine, python, raise_file_limit
from .measuring import CONNECT_TIMEOUT, ROOT, Server, Tree
from .report import table

USERS_PER_WORKER = 100
LOCUSTFILE = Path(__file__).parent / "paced_user.py"


@contextlib.contextmanager
def locust(output: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), *arguments]
    with output.open("ab") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def measure(workers: int, seconds: float, server: Server, cores: Cores, scratch: Path) -> list[str]:
    users = workers * USERS_PER_WORKER
    host = server.url(secure=False).rstrip("/")
    port = str(free_port())  # not Locust's own, where workers of another test may be knocking
    with contextlib.ExitStack() as running:
        running.enter_context(cores.only(cores.client))
        master = running.enter_context(
            locust(
                scratch / f"log of {workers}",
                *("--master", "--master-bind-port", port, "--headless", "--expect-workers", str(workers)),
                *("--host", host, "--users", str(users), "--spawn-rate", "100"),
            )
        )
        with cores.only(cores.server):
            for _ in range(workers):
                running.enter_context(locust(scratch / f"log of {workers}", "--worker", "--master-port", port))
        deadline = time.monotonic() + CONNECT_TIMEOUT
        while server.snapshot().open < users:
            if master.poll() is not None or time.monotonic() > deadline:
                log = (scratch / f"log of {workers}").read_text(errors="replace")
                raise SystemExit(f"only {server.snapshot().open} of {users} users connected:\n{log[-5000:]}")
            time.sleep(0.1)
        time.sleep(5)
        tree = Tree(master.pid)
        first, before = server.snapshot(), tree.cpu()[0]
        time.sleep(seconds)
        last, after = server.snapshot(), tree.cpu()[0]
        elapsed = last.time - first.time
        return [
            str(workers),
            str(users),
            f"{(last.echoes - first.echoes) / elapsed:,.0f}",
            f"{(after - before) / elapsed:.2%}",
            f"{tree.rss_kib() / 1024:.0f}",
        ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed", description=__doc__)
    parser.add_argument("--workers", default="2,4,8", metavar="N,N")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the window (default: 30)")
    arguments = parser.parse_args()
    raise_file_limit()
    cores = Cores()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        server = Server(cores, Path(scratch))
        try:
            for workers in arguments.workers.split(","):
                rows.append(measure(int(workers), arguments.seconds, server, cores, Path(scratch)))
                print(rows[-1], flush=True)
        finally:
            server.close()
    page = (
        table(["workers", "users", "echoes/s", "master's CPU, of a core", "master's RSS, MiB"], rows)
        + f"\n({machine()}; {python()}; {USERS_PER_WORKER} users for each worker, 2 echoes per second for each user.)\n"
    )
    (Path(__file__).parent / "results" / "distributed.md").write_text(page)
    print(f"\n{page}")


if __name__ == "__main__":
    main()
