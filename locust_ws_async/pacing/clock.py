"""When the test began, for all processes of a run.

Rates that are functions are functions of the seconds since then. The master notes its wall clock as it starts the test,
and hands that to its workers with each order to spawn users, as Locust does with options of the command line. So a
worker that joins later knows it as well. Workers on other machines agree as well as the clocks of the machines do. A
process that nobody has told, because Locust is used as a library, begins when it first asks.
"""

from __future__ import annotations

import time
from time import perf_counter
from typing import Any

from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner

__all__ = ["began", "on_test_start", "run_id"]

_OPTION = "ws_test_began"  # of the parsed options, of which the master sends all to its workers

_began: float | None = None
_run_id = 0.0


def began() -> float:
    """The instant at which the test began, on this process's ``time.perf_counter()``."""
    global _began
    if _began is None:
        _began = perf_counter()
    return _began


def run_id() -> float:
    """Tells this test run from those before it; the same on the master and its workers."""
    return _run_id


def on_test_start(environment: Environment, **_: Any) -> None:
    """A listener of ``test_start``, which Locust fires on the master before it orders the first user."""
    global _began, _run_id
    options = environment.parsed_options
    # A worker that joins while a test runs may be told to start before its runner has been made.
    if isinstance(environment.runner, (LocalRunner, MasterRunner)):
        _run_id = time.time()
        if options is not None:
            setattr(options, _OPTION, _run_id)
    else:
        _run_id = getattr(options, _OPTION, None) or time.time()
    _began = perf_counter() - max(0.0, time.time() - _run_id)
