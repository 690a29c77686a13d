"""How long bytes lay unread in each process, told at the end of a run: the load generator's own slowness.

A worker puts its figures into each report to the master, which keeps the last ones of each worker. They count from the
start of the test, also after a reset of the statistics: a generator that was slow then has been slow.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from locust import events
from locust.env import Environment
from locust.runners import WorkerRunner

from ..client.observing import unread
from .end_of_run import add_section

__all__ = ["register"]

Figures = dict[str, Any]

_KEY = "ws_unread"
_of_workers: dict[str, Figures] = {}


def register() -> None:
    """Listen to Locust's events. Called when the user classes are imported."""
    hooks: Any = events  # which have no types
    hooks.test_start.add_listener(_on_test_start)
    hooks.report_to_master.add_listener(_on_report_to_master)
    hooks.worker_report.add_listener(_on_worker_report)
    add_section(_lines)


def _on_test_start(environment: Environment, **_: Any) -> None:
    unread.restart()
    if not isinstance(environment.runner, WorkerRunner):
        _of_workers.clear()


def _own() -> Figures:
    """Empty where no connection was opened."""
    opened = unread.connections
    if not opened.kernel and not opened.read:
        return {}
    lag = unread.total()
    unused = unread.unused()
    return {"kernel": opened.kernel, "read": opened.read, "unused": unused} | ({} if lag is None else asdict(lag))


def _on_report_to_master(data: dict[str, Any], **_: Any) -> None:
    if own := _own():
        data[_KEY] = own


def _on_worker_report(client_id: str, data: dict[str, Any], **_: Any) -> None:
    if _KEY in data:
        _of_workers[client_id] = data[_KEY]


def _lines(environment: Environment) -> list[str]:
    """The block at the end of a run."""
    processes = dict(sorted(_of_workers.items()))
    if own := _own():
        processes["this process"] = own
    if not processes:
        return []
    width = max(len("Unread in the socket"), *map(len, processes))
    line = f"{{:<{width}}}" + " {:>12}" * 6
    head = line.format("Unread in the socket", "reads", "p50", "p99", "max", "unused", "as read")
    table = [head, "-" * len(head)]
    for name, of in processes.items():
        times = [f"{of[key]:.2f} ms" if key in of else "-" for key in ("p50", "p99", "max")]
        table.append(line.format(name, of.get("count", "-"), *times, of["unused"], of["read"]))
    if any(of["read"] for of in processes.values()):
        table.append(
            "as read: connections whose messages arrive when this process reads them, so that its slowness is in their "
            "times"
        )
    return table
