"""What master and workers know together, about all connections of a test.

counters   what this process counts
numbers    the numbers of one process, or of all together
transport  from the workers to the master
history    second by second
files      that as a CSV file
summary    the block at the end of a run
web        pages in Locust's web UI
metrics    the numbers as metrics: for prometheus and opentelemetry, as they are called
generator  how late each process is, and whether its times are partly its own
"""

from typing import Any

from locust import events
from locust.env import Environment
from locust.runners import WorkerRunner

from ..statistics.end_of_run import add_section
from . import files, generator, history, opentelemetry, prometheus, summary, transport, web
from .counters import gauge, tally

__all__ = ["gauge", "register", "tally"]

_PARTS: tuple[Any, ...] = (transport, history, web, prometheus, opentelemetry, generator.judge)


def register() -> None:
    """Listen to Locust's events. Called when the user classes are imported."""
    hooks: Any = events  # which have no types
    for listeners in _PARTS:
        for name, listener in vars(listeners).items():
            if name.startswith("on_"):
                getattr(hooks, name.removeprefix("on_")).add_listener(listener)
    hooks.init.add_listener(_reset_as_the_runner_does)
    transport.each_second(history.record)
    transport.each_second(files.write_line)
    add_section(summary.lines)
    generator.register()


def _reset_as_the_runner_does(environment: Environment, **_: Any) -> None:
    def on_spawning_complete(**_: Any) -> None:
        if environment.reset_stats and not isinstance(environment.runner, WorkerRunner):
            for part in _PARTS:
                if reset := getattr(part, "on_reset_stats", None):
                    reset()

    environment.events.spawning_complete.add_listener(on_spawning_complete)  # type: ignore[no-untyped-call]
