"""What is printed below Locust's tables, and written beside its CSV files, when Locust ends.

Locust's own percentiles are cut to whole milliseconds. Here they have hundredths.

The order at the end: users stop; ``quitting`` is fired, last registered first; the master tells its workers to quit and
takes their last reports; Locust prints its tables; ``quit`` is fired (``locust.main``, ``shutdown``). Whatever is to be
known is known by then.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from typing import Any

from locust import events
from locust.env import Environment
from locust.runners import WorkerRunner
from locust.stats import StatsEntry, sort_stats

from .percentiles import percentile

__all__ = ["add_section", "register"]

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}

_console = logging.getLogger("locust.stats_logger")  # where Locust's tables go
_sections: list[Callable[[Environment], list[str]]] = []


def register() -> None:
    """Listen for the end of the process. Called when the user classes are imported."""
    events.init.add_listener(_on_init)  # type: ignore[no-untyped-call] # Locust's has no types


def add_section(lines: Callable[[Environment], list[str]]) -> None:
    """Print the lines that this returns, if there are any, at the end of a run; not on workers."""
    _sections.append(lines)


def _on_init(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return  # the master has its numbers

    def on_quit(**_: Any) -> None:
        options = environment.parsed_options
        prefix = getattr(options, "csv_prefix", None)
        if prefix and _rows(environment):
            _write_csv(environment, f"{prefix}_ws_percentiles.csv")
        if not getattr(options, "json_file", None):  # with which Locust prints no tables either
            for lines in (each(environment) for each in _sections):
                for line in [*lines, ""] if lines else []:
                    _console.info(line)

    environment.events.quit.add_listener(on_quit)  # type: ignore[no-untyped-call] # Locust's has no types


def _rows(environment: Environment) -> list[StatsEntry]:
    """The rows that have times; none where none of them is ours."""
    rows = sort_stats(environment.stats.entries)
    if not any(row.method == "ASYNC" or row.method.startswith("WS ") for row in rows):
        return []
    return [row for row in rows if row.response_times]


def _percentiles(row: StatsEntry) -> list[str]:
    return [f"{percentile(row, fraction):.2f}" for fraction in PERCENTILES.values()]


def _table(environment: Environment) -> list[str]:
    rows = _rows(environment)
    if not rows:
        return []
    names = [f"{row.method} {row.name}" for row in rows]
    width = max(map(len, names))
    line = f"{{:<{width}}} {{:>10}}" + " {:>10}" * len(PERCENTILES)
    head = line.format("", "# times", *PERCENTILES)
    return [
        "Response time percentiles (milliseconds)",
        head,
        "-" * len(head),
        *(
            line.format(name, sum(row.response_times.values()), *_percentiles(row))
            for name, row in zip(names, rows, strict=True)
        ),
    ]


_sections.append(_table)


def _write_csv(environment: Environment, path: str) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["Type", "Name", "Count", *PERCENTILES])
        for row in _rows(environment):
            writer.writerow([row.method, row.name, sum(row.response_times.values()), *_percentiles(row)])
