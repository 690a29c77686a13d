"""What the fleet was like, second by second, over the whole test: for charts, and for a file.

A line a second. When four hours are full, each two lines become one, and from then on a line stands for two seconds,
then for four: the history of a week takes as much memory as that of a night.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from math import isnan, nan
from time import time
from typing import Any

from locust.env import Environment

from . import transport
from .numbers import Numbers, table

__all__ = ["GAUGES", "RATES", "Line", "as_json", "last_line", "lines", "peak_open", "record"]

GAUGES = ("open", "connecting", "reconnecting")
RATES = ("messages_in", "messages_out", "bytes_in", "bytes_out", "opened", "ended", "recoveries")
_MOST_LINES = 14_400

Line = dict[str, float | None]
"""Gauges, rates per second, and times in milliseconds, by the names of the columns."""


class _History:
    def __init__(self) -> None:
        self.columns: dict[str, array[float]] = {"time": array("d")}
        self.seconds = 1
        """For how many a line stands."""
        self.peak_open = 0
        self.last: Line = {}
        self._pending: list[Line] = []

    def add(self, line: Line) -> None:
        self.last = line
        self.peak_open = max(self.peak_open, int(line["open"] or 0))
        self._pending.append(line)
        if len(self._pending) < self.seconds:
            return
        names = dict.fromkeys(name for line in self._pending for name in line)
        joined = {name: _join(name, (line.get(name) for line in self._pending)) for name in names}
        self._pending.clear()
        length = len(self.columns["time"])
        for name in names:
            if name not in self.columns:  # the first close with this code, say
                self.columns[name] = array("d", [0.0]) * length
        for name, column in self.columns.items():
            column.append(joined.get(name, 0.0))
        if length + 1 >= _MOST_LINES:
            self._halve()

    def _halve(self) -> None:
        for name, column in self.columns.items():
            self.columns[name] = array(
                "d", (_join(name, column[index : index + 2]) for index in range(0, len(column) - 1, 2))
            )
        self.seconds *= 2


def _join(name: str, values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None and not isnan(value)]
    if not known:
        return nan
    return max(known) if name == "time" or name.endswith("_ms") else sum(known) / len(known)


_history = _History()


def record(environment: Environment) -> None:
    """Add the line of this second. Called once a second while a test runs."""
    _history.add(_line(transport.total()))


def _line(numbers: Numbers) -> Line:
    lags = [
        sample["hub_lag_p99_ms"]
        for sample in transport.contributions("generator").values()
        if "hub_lag_p99_ms" in sample
    ]
    return {
        "time": round(time(), 3),
        "users": numbers.users,
        **{name: numbers.gauges[name] for name in GAUGES},
        **{name: numbers.rates[name] for name in RATES},
        **{f"closes/{code}": rate for code, rate in table(numbers.rates, "closes").items()},
        "queue_wait_ms": numbers.recent_queue_wait,
        "hub_lag_ms": max(lags, default=None),
    }


def peak_open() -> int:
    """The most connections that were open at a time, as far as it was looked at."""
    return _history.peak_open


def last_line() -> Line:
    """The line of the last second."""
    return _history.last


def lines() -> Iterator[Line]:
    """All lines, of which the later ones may stand for several seconds."""
    for values in zip(*_history.columns.values(), strict=True):
        yield {name: None if isnan(value) else value for name, value in zip(_history.columns, values, strict=True)}


def as_json(since: float = 0.0) -> dict[str, Any]:
    """
    What ``/websocket/history`` answers.

    Args:
        since: seconds of the epoch; only later lines.
    """
    columns = _history.columns
    first = sum(1 for each in columns["time"] if each <= since) if since else 0
    shown: dict[str, Any] = {"closes": {}}
    for name, column in columns.items():
        values = [None if isnan(value) else value for value in column[first:]]
        if name.startswith("closes/"):
            shown["closes"][name.removeprefix("closes/")] = values
        else:
            shown[name] = values
    generator = transport.published("generator")
    return shown | {
        "first": columns["time"][0] if columns["time"] else None,  # who has earlier lines: they are another test's
        "spans": [] if generator is None else generator["spans"],
    }


def on_test_start(**_: Any) -> None:
    global _history
    _history = _History()


def on_reset_stats(**_: Any) -> None:
    on_test_start()
