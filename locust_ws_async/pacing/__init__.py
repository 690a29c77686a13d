"""Load as it is meant: when something is due, whatever the server does.

clock       when the test began, for all processes
schedule    the instants at which something is due: a rate, a law
pace        ``self.pace(...)``: the instants as ticks of one user
background  what ``tick.spawn`` runs
arrivals    ``arrivals = 20``: fresh virtual users at a rate
counters    offered and achieved, for the end of the run and for whoever asks
"""

from typing import Any

from locust import events

from ..statistics.end_of_run import add_section
from . import arrivals, clock, counters
from .counters import snapshot
from .pace import Pace, Tick

__all__ = ["Pace", "Tick", "register", "snapshot"]


def register() -> None:
    """Listen to Locust's events. Called when the user classes are imported."""
    hooks: Any = events  # which have no types
    for listeners in (clock, counters, arrivals):
        for name, listener in vars(listeners).items():
            if name.startswith("on_"):
                getattr(hooks, name.removeprefix("on_")).add_listener(listener)
    add_section(counters.lines)
