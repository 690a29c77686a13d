"""The last report of each worker reaches the master before the master ends.

A worker reports once more when the master tells it to quit, as soon as its users have stopped. Locust's master waits
half a second for that (``MasterRunner.quit``), which is too short where users take their time to stop, with
``--stop-timeout`` or with closing handshakes: what came of the last seconds, all sessions for instance, would be in no
number. So here the master waits until each worker has reported that it has no users any more, as long as Locust waits
for workers that it stops. And a worker that ends by itself, as by Ctrl-C with ``--processes``, reports before it goes.
"""

from __future__ import annotations

import logging
from time import perf_counter
from typing import Any

import gevent
from locust import events, runners
from locust.env import Environment

from ..internals.locust import before_quit, send_report

__all__ = ["register"]

_logger = logging.getLogger(__name__)

_PATIENCE = 60.0  # seconds, besides the stop timeout: those of MasterRunner.stop()


def register() -> None:
    """Listen to Locust's events. Called when the user classes are imported."""
    events.init.add_listener(_on_init)  # type: ignore[no-untyped-call] # Locust's has no types


def _on_init(environment: Environment, **_: Any) -> None:
    runner = environment.runner
    hooks: Any = environment.events  # which have no types
    if isinstance(runner, runners.MasterRunner):
        last_reports = _LastReports(runner)
        hooks.worker_report.add_listener(last_reports.on_report)
        before_quit(runner, last_reports.wait)
    elif isinstance(runner, runners.WorkerRunner):
        # Registered after the runner's own, and called before it, since Locust fires this event in reverse.
        hooks.quitting.add_listener(_report_and_quit)


def _report_and_quit(environment: Environment, **_: Any) -> None:
    runner = environment.runner
    assert isinstance(runner, runners.WorkerRunner)
    runner.stop()
    send_report(runner)


class _LastReports:
    """What the master knows of the reports of its workers."""

    def __init__(self, runner: runners.MasterRunner) -> None:
        self._runner = runner
        self._last: dict[str, tuple[float, int]] = {}
        """By worker: when its last report came, and how many users it then had."""
        self._waits = False

    def on_report(self, client_id: str, data: dict[str, Any]) -> None:
        self._last[client_id] = (perf_counter(), data.get("user_count", 0))

    def wait(self) -> None:
        """Let all workers quit, and wait until they have reported for the last time. Called before the master quits."""
        runner = self._runner
        if self._waits or runner.state == runners.STATE_INIT:  # it is being done, or there was no test
            return
        self._waits = True
        runner.stop(send_stop_to_client=False)
        began = perf_counter()
        stop_timeout = runner.environment.stop_timeout or 0.0
        # One that was stopped a moment ago is not among the clients until it is ready again.
        away = stop_timeout + 2 * runners.WORKER_REPORT_INTERVAL
        workers = {client.id for client in runner.clients.all}
        workers |= {worker for worker, (at, _) in self._last.items() if began - at < away}
        for worker in workers:
            runner.send_message("quit", client_id=worker)
        while workers := {worker for worker in workers if self._is_awaited(worker, began, away)}:
            if perf_counter() - began > stop_timeout + _PATIENCE:
                _logger.warning(
                    "%d workers have not sent their last report: what they did at the end is missing in all numbers",
                    len(workers),
                )
                return
            gevent.sleep(0.02)

    def _is_awaited(self, worker: str, began: float, away: float) -> bool:
        at, users = self._last.get(worker, (0.0, 0))
        if at > began and not users:
            return False
        client = self._runner.clients.get(worker)
        if client is None:
            return perf_counter() - began < away
        return bool(client.state != runners.STATE_MISSING)
