"""What every locustfile of the tests begins with: the usual imports, and helpers.

It also makes Locust's files complete: Locust writes ``--csv`` once a second and not at the end, so that the rows of the
last second, all sessions for instance, would be missing. And it moves Locust's tables from stderr to stdout, so that
nothing is left on stderr but log lines.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import gevent
import locust.stats
from locust import (
    FastHttpUser,
    HttpUser,
    LoadTestShape,
    MarkovTaskSet,
    SequentialTaskSet,
    TaskSet,
    User,
    between,
    constant,
    constant_pacing,
    constant_throughput,
    tag,
    task,
    transition,
)
from locust.exception import InterruptTaskSet, RescheduleTask, RescheduleTaskImmediately, StopTest, StopUser
from locust.runners import STATE_RUNNING

from locust_ws_async import AsyncUser, AsyncWebSocketUser

__all__ = [
    "ENGINES",
    "AsyncUser",
    "AsyncWebSocketUser",
    "FastHttpUser",
    "HttpUser",
    "InterruptTaskSet",
    "LoadTestShape",
    "MarkovTaskSet",
    "RescheduleTask",
    "RescheduleTaskImmediately",
    "SequentialTaskSet",
    "StopTest",
    "StopUser",
    "TaskSet",
    "User",
    "asyncio",
    "between",
    "constant",
    "constant_pacing",
    "constant_throughput",
    "events",
    "gevent",
    "itertools",
    "note",
    "os",
    "quit_when",
    "quit_when_done",
    "tag",
    "task",
    "time",
    "transition",
]

events: Any = locust.events  # which has no types

stats: Any = locust.stats
stats.CSV_STATS_INTERVAL_SEC = 0.05
stats.CSV_STATS_FLUSH_INTERVAL_SEC = 0


def note(*values: Any) -> None:
    """Hand these values, of JSON, to the test."""
    with open(os.environ["LOCUST_NOTES"], "a") as notes:
        notes.write(json.dumps(values) + "\n")  # in one write: lines of several processes do not mix


def quit_when(condition: Callable[[], Any]) -> None:
    """End the run when this holds, however long that takes on a busy machine."""

    def watch() -> None:
        while not condition():
            gevent.sleep(0.02)
        _environment.runner.quit()

    events.test_start.add_listener(lambda **_: gevent.spawn(watch))


def quit_when_done() -> None:
    """End the run when all its users have been spawned and have stopped by themselves."""
    quit_when(lambda: _environment.runner.state == STATE_RUNNING and not _environment.runner.user_count)


ENGINES = itertools.cycle(["websockets", "picows"])
"""Each engine in turn, for users that take the next: ``self.engine = next(ENGINES)`` before ``super().__init__()``."""

_environment: Any = None


def _init(environment: Any, **_: Any) -> None:
    global _environment
    _environment = environment
    for handler in logging.getLogger("locust.stats_logger").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stdout)


def _write_files(**_: Any) -> None:
    interval, stats.CSV_STATS_INTERVAL_SEC = stats.CSV_STATS_INTERVAL_SEC, 3600
    gevent.sleep(2 * interval)  # the writer wakes up, writes, and then no more: Locust closes the files under it


events.init.add_listener(_init)
events.quit.add_listener(_write_files)
