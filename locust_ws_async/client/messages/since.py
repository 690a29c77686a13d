"""``since=``: the instant from which the time of an operation counts, where that is not its call."""

from __future__ import annotations

from time import perf_counter
from typing import SupportsFloat

__all__ = ["checked_since"]


def checked_since(since: SupportsFloat) -> float:
    """
    The instant as a number of ``time.perf_counter()``.

    Raises:
        TypeError: it is neither a number nor something that gives one.
        ValueError: it lies in the future, or is no instant at all (NaN).
    """
    if not hasattr(type(since), "__float__"):
        raise TypeError(f"since must be a time.perf_counter() or a connection.arrived, not {since!r}")
    instant = float(since)
    if not instant <= perf_counter():
        raise ValueError(
            "since is in the future, or no time at all: give an instant that has passed, on the clock of "
            "time.perf_counter() (time.time() is another one)"
        )
    return instant
