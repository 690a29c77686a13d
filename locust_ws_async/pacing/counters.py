"""What was offered, and what came of it: counted in each process, added up on the master, told at the end.

A worker puts its counters into each report to the master, which keeps the last ones of each worker: those of one that
dies stay in the sum, but for what it had running. They count from the start of the test. Reports of an earlier run that
arrive late are recognized by the run's id. When the statistics are reset, the master keeps what was counted by then and
takes it off.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from time import perf_counter
from typing import Any, Protocol
from weakref import WeakSet

from locust.env import Environment
from locust.runners import WorkerRunner

from ..statistics.buckets import bucket
from ..statistics.percentiles import percentile_of
from . import clock

__all__ = ["Arrived", "Paced", "arrived", "paced", "snapshot"]

Snapshot = dict[str, Any]


class Overdue(Protocol):
    """A pace, as it is counted."""

    def overdue(self) -> int:
        """How many ticks are due and not given yet."""


class Paced:
    """The counters of all paces in this process."""

    def __init__(self) -> None:
        self.live: WeakSet[Overdue] = WeakSet()
        self.reset()

    def reset(self) -> None:
        self.started = self.skipped = self.dropped = self.owed = 0
        self.late: Counter[float] = Counter()

    def given(self, late: float, skipped: int) -> None:
        """A tick was given, this late (seconds), in place of so many before it."""
        self.started += 1
        self.skipped += skipped
        self.late[bucket(late * 1000)] += 1

    def as_dict(self) -> Snapshot:
        owed = self.owed + sum(pace.overdue() for pace in list(self.live))
        return {
            "offered": self.started + self.skipped + owed,
            "started": self.started,
            "skipped": self.skipped,
            "dropped": self.dropped,
            "late": dict(self.late),
        }


class Arrived:
    """Of the arrivals of one user class in this process."""

    def __init__(self) -> None:
        self.offered = self.started = self.dropped = self.running = 0
        self.late: Counter[float] = Counter()

    def as_dict(self) -> Snapshot:
        return {
            "offered": self.offered,
            "started": self.started,
            "running": self.running,
            "dropped": self.dropped,
            "late": dict(self.late),
        }


paced = Paced()
arrived: defaultdict[str, Arrived] = defaultdict(Arrived)
"""By the name of the user class."""


class _Run:
    """What only the process knows that shows the results: the master, or the only one."""

    def __init__(self) -> None:
        self.of_workers: dict[str, Snapshot] = {}
        self.before_reset: Snapshot = {}
        self.since = perf_counter()
        self.until: float | None = None

    def counted(self) -> Snapshot:
        workers = getattr(_environment and _environment.runner, "clients", {})
        reports = [
            report if client_id in workers else _without_running(report)
            for client_id, report in self.of_workers.items()
        ]
        return _sum([_own(), *reports])


_run = _Run()
_environment: Environment | None = None


def snapshot() -> Snapshot:
    """What was offered and achieved since the test started, or the statistics were reset; on the master of all workers.

    Returns:
        ``{"pace": {...}, "arrivals": {"<user class>": {...}}}``, without what was not used. Each has ``offered``: what
        the schedule had due; ``started``: ticks given, or virtual users; ``skipped`` ticks, or the virtual users that
        are ``running``; ``dropped``: what a limit kept from running; ``late``: a dict from milliseconds to how many
        were so late, for ``statistics.percentiles.percentile_of``; ``seconds``: the time in which this was counted.
    """
    counted = _sum([_run.counted(), _negative(_run.before_reset)])
    seconds = (perf_counter() if _run.until is None else _run.until) - _run.since
    for part in _parts(counted).values():
        part["seconds"] = seconds
    return counted


def lines(environment: Environment) -> list[str]:
    """The block at the end of a run."""
    parts = _parts(snapshot())
    if not parts:
        return []
    width = max(len("Offered and achieved"), *map(len, parts))
    line = f"{{:<{width}}}" + " {:>10}" * 8
    columns = ("offered", "started", "skipped", "dropped", "running", "offered/s", "started/s", "late p99")
    head = line.format("Offered and achieved", *columns)
    table = [head, "-" * len(head)]
    for name, part in parts.items():
        late = percentile_of(part["late"], 0.99)
        counts = (part.get(column, "-") for column in columns[:5])
        rates = (f"{part[column] / part['seconds']:.2f}" for column in ("offered", "started"))
        table.append(line.format(name, *counts, *rates, "-" if late is None else f"{late:.2f} ms"))
    return table


def on_test_start(**_: Any) -> None:
    global _run
    paced.reset()
    arrived.clear()
    _run = _Run()


def on_test_stopping(**_: Any) -> None:
    _run.until = perf_counter()


def on_reset_stats(**_: Any) -> None:
    _run.before_reset = _run.counted()
    _run.since = perf_counter()


def on_init(environment: Environment, **_: Any) -> None:
    global _environment
    _environment = environment

    def on_spawning_complete(**_: Any) -> None:
        if environment.reset_stats and not isinstance(environment.runner, WorkerRunner):  # as the runner itself does
            on_reset_stats()

    environment.events.spawning_complete.add_listener(on_spawning_complete)  # type: ignore[no-untyped-call]


def on_report_to_master(data: Snapshot, **_: Any) -> None:
    if own := _own():
        data["ws_pacing"] = {"run": clock.run_id(), "counted": own}


def on_worker_report(client_id: str, data: Snapshot, **_: Any) -> None:
    report = data.get("ws_pacing")
    if report is not None and report["run"] == clock.run_id():
        _run.of_workers[client_id] = report["counted"]


def _own() -> Snapshot:
    own: Snapshot = {}
    pace = paced.as_dict()
    if pace["offered"]:
        own["pace"] = pace
    if arrived:
        own["arrivals"] = {name: counters.as_dict() for name, counters in arrived.items()}
    return own


def _parts(counted: Snapshot) -> dict[str, Snapshot]:
    """The innermost dicts, by what to call them."""
    paces = {"pace": counted["pace"]} if "pace" in counted else {}
    return paces | {f"arrivals of {name}": part for name, part in counted.get("arrivals", {}).items()}


def _sum(snapshots: list[Snapshot]) -> Snapshot:
    total: Snapshot = {}
    for each in snapshots:
        for key, value in each.items():
            if isinstance(value, dict):
                total[key] = _sum([total.get(key, {}), value])
            else:
                total[key] = total.get(key, 0) + value
    return total


def _negative(counted: Snapshot) -> Snapshot:
    """To take it off: all but what is running, which is no sum over time."""
    return {
        key: _negative(value) if isinstance(value, dict) else -value for key, value in _without_running(counted).items()
    }


def _without_running(counted: Snapshot) -> Snapshot:
    return {
        key: _without_running(value) if isinstance(value, dict) else value
        for key, value in counted.items()
        if key != "running"
    }
