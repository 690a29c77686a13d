"""One measurement: start a competitor, wait until every user is connected, then watch a steady window."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import trustme

from .competitors import Competitor
from .hosts import Percentiles
from .machine import Cores, commit, machine, python
from .scenarios import Scenario
from .server import Snapshot

ROOT = Path(__file__).parent.parent
CONNECT_TIMEOUT = 120.0


class MeasurementFailed(Exception):
    """The competitor did not do what it should; the text says what it said."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Of one competitor in one scenario and round. Rates are per second, CPU in seconds per second (1.0: one core).

    ``reported_*`` is the latency that the tool itself reports; ``cycle_*`` is what the server knows: the time between
    two messages of the same connection.
    """

    scenario: str
    competitor: str
    name: str
    version: str
    round: int
    users: int
    echoes: float = 0.0
    connects: float = 0.0
    cpu: float = 0.0
    cpu_system: float = 0.0
    server_cpu: float = 0.0
    rss_kib: float = 0.0
    fds: int = 0
    reported_p50_ms: float | None = None
    reported_p95_ms: float | None = None
    reported_p99_ms: float | None = None
    cycle_p50_ms: float | None = None
    cycle_p95_ms: float | None = None
    cycle_p99_ms: float | None = None
    failure: str = ""
    python: str = ""
    machine: str = ""
    commit: str = ""
    date: str = ""

    @property
    def done(self) -> float:
        return self.connects if self.scenario.startswith("connect") else self.echoes

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU for each echo, or connection."""
        return self.cpu / self.done * 1e6 if self.done else 0.0

    @property
    def cycle_ms(self) -> float:
        """How long a user's echo takes by the server's count: users / echoes per second."""
        return self.users / self.done * 1e3 if self.done else 0.0


class Server:
    """The echo server's process and its control port."""

    def __init__(self, cores: Cores, scratch: Path) -> None:
        authority = trustme.CA()
        certificate = scratch / "server.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        self.ca_file = scratch / "ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        with cores.only(cores.server):
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.server", "--certificate", str(certificate)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        assert self.process.stdout is not None
        self.ports = json.loads(self.process.stdout.readline())
        connection = socket.create_connection(("127.0.0.1", self.ports["control"]))
        self.control = connection.makefile("rw")
        connection.close()

    def url(self, secure: bool) -> str:
        scheme = "wss" if secure else "ws"
        return f"{scheme}://127.0.0.1:{self.ports[scheme]}/"

    def ask(self, question: str) -> str:
        self.control.write(question + "\n")
        self.control.flush()
        return self.control.readline()

    def snapshot(self) -> Snapshot:
        return Snapshot(**json.loads(self.ask("snapshot")))

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.control.close()
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Tree:
    """A process and those that it started."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)

    def processes(self) -> list[psutil.Process]:
        return [self.root, *self.root.children(recursive=True)]

    def cpu(self) -> tuple[float, float]:
        """Seconds of CPU so far, and those of them in the kernel."""
        cpu = system = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                precise = cpu_clock(process.pid)
                cpu += times.user + times.system if precise is None else precise
                system += times.system
        return cpu, system

    def rss_kib(self) -> float:
        return sum(process.memory_info().rss for process in self.processes()) / 1024

    def fds(self) -> int:
        """Open file descriptors (handles on Windows)."""
        count = "num_fds" if os.name == "posix" else "num_handles"
        return sum(getattr(process, count)() for process in self.processes())


def cpu_clock(pid: int) -> float | None:
    """Seconds of CPU of a process and all its threads, in nanoseconds: what an idle client needs would be a handful of
    the 10 ms ticks that user and system time are counted in. Linux only (clock_getcpuclockid(3), and its source for
    how the clock's number is made).
    """
    if sys.platform != "linux":
        return None
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:  # the process is gone
        return None


def measure(competitor: Competitor, scenario: Scenario, round_number: int, server: Server, cores: Cores) -> Measurement:
    workload = dataclasses.replace(
        scenario.workload,
        url=server.url(scenario.secure),
        ca_file=str(server.ca_file) if scenario.secure else "",
    )
    scratch = Path(tempfile.mkdtemp())
    empty = Measurement(
        scenario.name,
        competitor.key,
        competitor.name,
        competitor.version,
        round_number,
        workload.users,
        python=python(),
        machine=machine(),
        commit=commit(ROOT),
        date=time.strftime("%Y-%m-%d"),
    )
    server.ask(f"hold {workload.users if workload.activity == 'echo' else 0}")
    with (scratch / "output").open("wb") as output, cores.only(cores.client):
        process = subprocess.Popen(
            competitor.host.command(competitor.file, workload, scratch),
            cwd=ROOT,
            env=os.environ | workload.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        tree = Tree(process.pid)
        wait_until_connected(process, server, competitor, scenario)
        time.sleep(scenario.settle)
        if competitor.host.restarts_statistics:
            process.send_signal(signal.SIGUSR1)
        server.ask("watch")
        first, (cpu, system) = server.snapshot(), tree.cpu()
        time.sleep(scenario.seconds)
        last, (cpu_then, system_then) = server.snapshot(), tree.cpu()
        server.ask("mute")
        rss_kib, fds = tree.rss_kib(), tree.fds()
        if process.poll() is not None:
            raise MeasurementFailed("it ended within the window")
        stop(tree, patience=60 if competitor.host.reports else 0)
        reported = competitor.host.latency(scratch)
        cycles: Percentiles = json.loads(server.ask("cycles"))
        seconds = last.time - first.time
        return dataclasses.replace(
            empty,
            echoes=(last.echoes - first.echoes) / seconds,
            connects=(last.connects - first.connects) / seconds,
            cpu=(cpu_then - cpu) / seconds,
            cpu_system=(system_then - system) / seconds,
            server_cpu=(last.cpu - first.cpu) / seconds,
            rss_kib=rss_kib,
            fds=fds,
            reported_p50_ms=reported.get("p50"),
            reported_p95_ms=reported.get("p95"),
            reported_p99_ms=reported.get("p99"),
            cycle_p50_ms=cycles.get("p50"),
            cycle_p95_ms=cycles.get("p95"),
            cycle_p99_ms=cycles.get("p99"),
        )
    except (MeasurementFailed, psutil.NoSuchProcess) as failure:
        said = (scratch / "output").read_text(errors="replace").strip()[-500:]
        return dataclasses.replace(empty, failure=f"{failure}: {said}")
    finally:
        if process.poll() is None:
            stop(tree, patience=0)
        wait_until_empty(server)
        shutil.rmtree(scratch)


def wait_until_connected(
    process: subprocess.Popen[bytes], server: Server, competitor: Competitor, scenario: Scenario
) -> None:
    workload = scenario.workload
    if not competitor.connects:
        time.sleep(3 + workload.users / workload.users_per_second)
        return
    before = server.snapshot().connects
    deadline = time.monotonic() + CONNECT_TIMEOUT
    while True:
        now = server.snapshot()
        if workload.activity == "connect":
            complete = now.connects - before > workload.users
        else:
            complete = now.open >= workload.users
        if complete:
            return
        if process.poll() is not None:
            raise MeasurementFailed(f"it ended with {now.open} of {workload.users} users connected")
        if time.monotonic() > deadline:
            raise MeasurementFailed(f"{now.open} of {workload.users} users connected in {CONNECT_TIMEOUT:.0f} s")
        time.sleep(0.05)


def stop(tree: Tree, patience: float) -> None:
    """A tool that takes longer than this, or leaves processes behind, is killed."""
    processes = tree.processes()
    if patience:
        tree.root.terminate()
        _, processes = psutil.wait_procs(processes, timeout=patience)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes)


def wait_until_empty(server: Server) -> None:
    """Nothing of one measurement may be left on the server when the next begins."""
    deadline = time.monotonic() + CONNECT_TIMEOUT
    while server.snapshot().open:
        if time.monotonic() > deadline:
            raise RuntimeError("connections of the last competitor stay open; the next would be measured with them")
        time.sleep(0.05)
