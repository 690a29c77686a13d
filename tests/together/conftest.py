from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.support import SCALE, eventually, unused_port
from tests.users.running import ROOT, LocustProcess, locustfile

PREAMBLE = """
from locust import runners
from locust_ws_async.client import Backoff
from locust_ws_async.together import Fanout, snapshot, storm

runners.WORKER_REPORT_INTERVAL = 0.2  # seconds; 3 as shipped
runners.HEARTBEAT_LIVENESS = 60  # seconds for which a busy worker is not missed; 3 as shipped

def on_master(function):
    '''Run it beside the test, where all workers are known.'''
    def started(environment, **_):
        if not isinstance(environment.runner, runners.WorkerRunner):
            gevent.spawn(function, environment)
    events.test_start.add_listener(started)

def until(condition):
    while not condition():
        gevent.sleep(0.02)
"""


class Rooms:
    """``benchmarks/room_server.py``, in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "benchmarks.room_server", *arguments]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        self._open = ExitStack()
        self._control = self._open.enter_context(connect(f"{self.url}/control"))

    def order(self, do: str, **fields: Any) -> dict[str, Any]:
        self._control.send(json.dumps({"do": do, **fields}))
        answer: dict[str, Any] = json.loads(self._control.recv(timeout=30 * SCALE))
        return answer

    def state(self) -> dict[str, Any]:
        return self.order("state")

    def meet(self, members: int) -> None:
        """Wait until so many members are there, and each has said that it is ready."""
        eventually(lambda: (now := self.state())["members"] == members and now["messages"] >= members, seconds=60)

    def publish(self, number: Any, **faults: Any) -> dict[str, Any]:
        return self.order("publish", id=number, **faults)

    def stop(self) -> None:
        self._open.close()
        self._process.communicate(timeout=20 * SCALE)  # which also closes the pipes
        assert self._process.returncode == 0


@pytest.fixture
def rooms() -> Iterator[Rooms]:
    """A server that broadcasts."""
    server = Rooms()
    yield server
    server.stop()


class Fleet:
    """Locust in one process, or as a master with workers, that have one locustfile."""

    def __init__(
        self,
        folder: Path,
        url: str,
        source: str,
        users: int,
        workers: int,
        *arguments: str,
        prefix: tuple[str, ...] = (),
        headless: bool = True,
    ) -> None:
        self.folder = folder
        file = locustfile(folder, PREAMBLE + source)
        load = ["--users", str(users), "--spawn-rate", "100", *(["--headless", "--only-summary"] if headless else [])]
        self._all: list[LocustProcess] = []
        if not workers:
            self.main = self._start(folder, file, url, *load, *arguments)
            self.workers = []
            return
        port = str(unused_port())
        master = ("--master", "--expect-workers", str(workers), "--master-bind-port", port)
        self.main = self._start(folder, file, url, *master, *load, *arguments)
        folders = [folder / f"worker-{number}" for number in range(workers)]
        self.workers = [self._start(each, file, url, "--worker", "--master-port", port) for each in folders[1:]]
        first = self._start(folders[0], file, url, "--worker", "--master-port", port, prefix=prefix)
        self.workers.insert(0, first)

    def _start(self, folder: Path, file: str, url: str, *arguments: str, prefix: tuple[str, ...] = ()) -> LocustProcess:
        folder.mkdir(exist_ok=True)
        notes = str(Path(file).parent / "notes")
        process = LocustProcess(folder, "-f", file, "--host", url, *arguments, prefix=prefix, LOCUST_NOTES=notes)
        self._all.append(process)
        return process

    def noted(self, kind: str) -> list[Any]:
        return [note[1] if len(note) == 2 else note[1:] for note in self.main.notes() if note[0] == kind]

    def kill(self) -> None:
        for each in self._all:
            each.kill()
            each.process.wait()
            for pipe in (each.process.stdout, each.process.stderr):
                assert pipe is not None
                pipe.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Starts a Locust with this locustfile, which is met while it runs."""
    started: list[Fleet] = []

    def start(url: str, source: str, *arguments: str, users: int, workers: int = 0, **options: Any) -> Fleet:
        """*prefix*: a command that runs the first worker."""
        started.append(Fleet(tmp_path, url, source, users, workers, *arguments, **options))
        return started[-1]

    yield start
    for each in started:
        each.kill()
