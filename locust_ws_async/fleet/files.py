"""The history as a CSV file: written beside Locust's with ``--csv``, and under *Download Data* in the web UI."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO

from locust.env import Environment

from . import history

__all__ = ["as_csv", "write_line"]

_COLUMNS = {
    "time": "Timestamp",
    "users": "Users",
    **{name: name.capitalize() for name in history.GAUGES},
    **{name: f"{name.replace('_', ' ').capitalize()}/s" for name in history.RATES},
    "queue_wait_ms": "Queue wait ms",
    "hub_lag_ms": "Hub lag ms",
}
_CLOSES = "Closes/s"

_begun: set[str] = set()


def write_line(environment: Environment) -> None:
    """Add the line of this second to the file, where there is one. Called once a second while a test runs."""
    prefix = getattr(environment.parsed_options, "csv_prefix", None)
    if not prefix:
        return
    path = f"{prefix}_websocket_history.csv"
    is_new = path not in _begun  # a second test of this process goes on in the file, as in Locust's own
    with open(path, "w" if is_new else "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            _begun.add(path)
            writer.writerow(_header())
        writer.writerows(_rows([history.last_line()]))


def as_csv() -> str:
    """The whole history."""
    text = StringIO()
    writer = csv.writer(text)
    writer.writerow(_header())
    writer.writerows(_rows(history.lines()))
    return text.getvalue()


def _header() -> list[str]:
    return [*_COLUMNS.values(), _CLOSES]


def _rows(lines: Iterable[history.Line]) -> Iterator[Sequence[str]]:
    for line in lines:
        closes = {name: rate for name, rate in line.items() if name.startswith("closes/") and rate}
        yield [
            *(_text(line.get(name)) for name in _COLUMNS),
            " ".join(f"{name.removeprefix('closes/')}={_text(rate)}" for name, rate in closes.items()),
        ]


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}".rstrip("0").rstrip(".")
