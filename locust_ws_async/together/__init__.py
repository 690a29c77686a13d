"""What users do together, over all workers.

exchange    messages of ours between master and workers
clocks      the clocks of the workers against the master's
ids         what stands for the id of a broadcast, and which are looked at
fanout      ``Fanout``: who of a room got a message, and when, as each worker sees it
reach       and what becomes of it on the master
rendezvous  ``self.rendezvous(...)``: users wait for each other
storm       ``storm(...)``: many connections are lost at once
numbers     what is told of all this, at the end and to whoever asks
"""

from typing import Any

from locust import events
from locust.env import Environment
from locust.runners import WorkerRunner

from ..statistics.end_of_run import add_section
from . import fanout, numbers, reach, rendezvous
from . import storm as storms
from .clocks import clock
from .exchange import open_exchange
from .fanout import Fanout
from .numbers import snapshot
from .storm import Storm, storm

__all__ = ["Fanout", "Storm", "register", "snapshot", "storm"]


def register() -> None:
    """Listen to Locust's events. Called when the user classes are imported."""
    hooks: Any = events  # which have no types
    for name, listener in _LISTENERS.items():
        getattr(hooks, name).add_listener(listener)
    add_section(numbers.lines)


def _on_init(environment: Environment, web_ui: Any = None, **_: Any) -> None:
    open_exchange(environment)
    if web_ui is not None:
        storms.add_route(environment, web_ui)

    def on_spawning_complete(**_: Any) -> None:
        if environment.reset_stats and not isinstance(environment.runner, WorkerRunner):  # as the runner itself does
            _on_reset_stats()

    environment.events.spawning_complete.add_listener(on_spawning_complete)  # type: ignore[no-untyped-call]


def _on_test_start(**_: Any) -> None:
    for part in (fanout, reach, rendezvous, storms):
        part.forget()


def _on_test_stopping(**_: Any) -> None:
    storms.end()
    fanout.flush()
    clock.stop()


def _on_test_stop(**_: Any) -> None:
    reach.end()


def _on_quitting(**_: Any) -> None:
    # Registered before there was a runner, so it is called after the master's own listener, which has waited for the
    # last reports of its workers.
    reach.finish()


def _on_reset_stats(**_: Any) -> None:
    reach.reset()
    rendezvous.reset()


_LISTENERS = {
    "init": _on_init,
    "test_start": _on_test_start,
    "test_stopping": _on_test_stopping,
    "test_stop": _on_test_stop,
    "quitting": _on_quitting,
    "reset_stats": _on_reset_stats,
}
