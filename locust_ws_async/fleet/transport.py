"""What master and workers know together: each worker's numbers ride on its reports, and the master adds them up.

A report of Locust's (every three seconds, and once more at the end) carries what the worker has counted since the test
began, not what is new: a report that is lost changes nothing. The master keeps the last one of each worker. Rates are
differences of two reports, divided by the worker's own clock. Of a worker that left, by whatever way, the counts stay
and the gauges are dropped. Reports of an earlier test are told by its id. When the statistics are reset, the master
keeps what was counted by then, and takes it off; what a worker has counted since its last report is then still new.

A process without workers reports to itself, once a second, under the name "local".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import monotonic, time
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import (
    STATE_MISSING,
    STATE_RUNNING,
    STATE_SPAWNING,
    STATE_STOPPING,
    LocalRunner,
    MasterRunner,
    WorkerRunner,
)

from ..pacing.clock import run_id
from . import counters
from .numbers import Numbers

__all__ = [
    "LOCAL",
    "as_json",
    "contribute",
    "contributions",
    "each_second",
    "has_left",
    "publish",
    "published",
    "total",
    "workers",
]

LOCAL = "local"
"""The id of the only process, where there are no workers."""

_KEY = "ws_fleet"  # of a report to the master
_INTERVAL = 1.0  # seconds from one look at the counters to the next
_RUNNING = (STATE_SPAWNING, STATE_RUNNING, STATE_STOPPING)

_samples: dict[str, Callable[[], Any]] = {}
_merges: dict[str, Callable[[str, Any], None]] = {}
_published: dict[str, Callable[[], Any]] = {}
_each_second: list[Callable[[Environment], None]] = []


def contribute(key: str, sample: Callable[[], Any], merge: Callable[[str, Any], None]) -> None:
    """
    Send a value of one's own with each report.

    Args:
        key: tells the values apart. In ``/websocket/stats`` the last value stands under it with each worker.
        sample: gives the value, in each process that runs users. It must be small, and of types that msgpack knows.
            None is left out.
        merge: takes it, where the results are shown, with the id of the worker; "local" where there are none.
    """
    _samples[key] = sample
    _merges[key] = merge


def publish(key: str, value: Callable[[], Any]) -> None:
    """Put a value into ``/websocket/stats``, beside the total. It must be of types that JSON knows."""
    _published[key] = value


def published(key: str) -> Any:
    """What is published under this key; None if there is nothing."""
    value = _published.get(key)
    return None if value is None else value()


def each_second(call: Callable[[Environment], None]) -> None:
    """Call this once a second while a test runs, and once more at its end, where the results are shown."""
    _each_second.append(call)


class _Worker:
    """One process that runs users, as its reports tell of it."""

    def __init__(self, began: float) -> None:
        self.at = began
        """The clock of the worker at its last report, at first when its test began."""
        self.users = 0
        self.counts: Counter[str] = Counter()
        self.gauges: Counter[str] = Counter()
        self.rates: Counter[str] = Counter()
        self.longest_queue_wait = 0.0
        self.contributions: dict[str, Any] = {}
        self.before_reset: Counter[str] = Counter()
        self.reported = monotonic()

    def report(self, report: dict[str, Any], users: int) -> None:
        counts = Counter(report["counts"])
        if (seconds := report["at"] - self.at) > 0:  # else it is the same look at many connections
            self.rates = Counter({name: (count - self.counts[name]) / seconds for name, count in counts.items()})
        self.at = report["at"]
        self.users = users
        self.counts = counts
        self.gauges = Counter(report["gauges"])
        self.longest_queue_wait = max(self.longest_queue_wait, report["longest_queue_wait"])
        self.contributions = report["contributions"]
        self.reported = monotonic()

    def reset(self) -> None:
        self.before_reset = self.counts.copy()
        self.longest_queue_wait = 0.0

    def numbers(self, *, left: bool) -> Numbers:
        counts = self.counts.copy()
        counts.subtract(self.before_reset)
        if left:
            return Numbers(counts=counts, longest_queue_wait=self.longest_queue_wait)
        return Numbers(self.users, counts, self.gauges, self.rates, self.longest_queue_wait)


_workers: dict[str, _Worker] = {}
_watcher: gevent.Greenlet[..., None] | None = None
_counts_seen: Counter[str] = Counter()
"""Those of the last look."""


def total() -> Numbers:
    """The sum of all workers."""
    numbers = Numbers()
    for each, _ in workers().values():
        numbers.add(each)
    return numbers


def workers() -> dict[str, tuple[Numbers, bool]]:
    """The numbers of each worker, by its id, and whether it has left."""
    return {
        worker_id: (worker.numbers(left=left), left)
        for worker_id, worker in _workers.items()
        for left in (has_left(worker_id),)
    }


def contributions(key: str) -> dict[str, Any]:
    """The last value that each worker has contributed under this key; without workers that left."""
    return {
        worker_id: worker.contributions[key]
        for worker_id, worker in _workers.items()
        if key in worker.contributions and not has_left(worker_id)
    }


def as_json() -> dict[str, Any]:
    """What ``/websocket/stats`` answers."""
    runner = None if _environment is None else _environment.runner
    each_worker = {
        worker_id: {
            **numbers.as_json(),
            **_workers[worker_id].contributions,
            "age": monotonic() - _workers[worker_id].reported,
            "left": left,
        }
        for worker_id, (numbers, left) in workers().items()
    }
    return {
        "time": time(),
        "state": None if runner is None else runner.state,
        "total": total().as_json(),
        "workers": each_worker,
        **{key: value() for key, value in _published.items()},
    }


# Listeners of Locust's events, by their names

_environment: Environment | None = None


def on_init(environment: Environment, **_: Any) -> None:
    global _environment
    _environment = environment


def on_test_start(environment: Environment, **_: Any) -> None:
    global _watcher
    counters.start()
    _workers.clear()
    if _watcher is None and any(hasattr(user_class, "ws") for user_class in environment.user_classes):
        _watcher = gevent.spawn(_watch, environment)


def on_test_stop(environment: Environment, **_: Any) -> None:
    _look(environment)


def on_quit(**_: Any) -> None:
    if _environment is not None and total().counts != _counts_seen:  # the last reports of the workers have come
        _look(_environment)


def on_reset_stats(**_: Any) -> None:
    _report_to_oneself()
    for worker in _workers.values():
        worker.reset()


def on_report_to_master(data: dict[str, Any], **_: Any) -> None:
    if _watcher is not None:
        data[_KEY] = _report()


def on_worker_report(client_id: str, data: dict[str, Any], **_: Any) -> None:
    report = data.get(_KEY)
    if report is not None and report["run"] == run_id():
        _take(client_id, report, data["user_count"])


def _watch(environment: Environment) -> None:
    while True:
        gevent.sleep(_INTERVAL)
        if not isinstance(environment.runner, MasterRunner):
            counters.refresh()
        if environment.runner is not None and environment.runner.state in _RUNNING:
            _look(environment)


def _look(environment: Environment) -> None:
    global _counts_seen
    if _watcher is None or isinstance(environment.runner, WorkerRunner):
        return
    _report_to_oneself()
    _counts_seen = total().counts
    for call in _each_second:
        call(environment)


def _report_to_oneself() -> None:
    runner = None if _environment is None else _environment.runner
    if isinstance(runner, LocalRunner):
        _take(LOCAL, _report(), runner.user_count)


def _report() -> dict[str, Any]:
    snapshot = counters.snapshot()
    return {
        "run": run_id(),
        "began": counters.began(),
        "at": snapshot.at,
        "counts": snapshot.counts,
        "gauges": snapshot.gauges,
        "longest_queue_wait": counters.take_longest_queue_wait(),
        "contributions": {key: value for key, sample in _samples.items() if (value := sample()) is not None},
    }


def _take(worker_id: str, report: dict[str, Any], users: int) -> None:
    worker = _workers.get(worker_id)
    if worker is None:
        worker = _workers[worker_id] = _Worker(report["began"])
    worker.report(report, users)
    for key, value in report["contributions"].items():
        if key in _merges:
            _merges[key](worker_id, value)


def has_left(worker_id: str) -> bool:
    """Whether the master knows this worker no more, or misses it."""
    runner = None if _environment is None else _environment.runner
    if not isinstance(runner, MasterRunner):
        return False
    return worker_id not in runner.clients or runner.clients[worker_id].state == STATE_MISSING
