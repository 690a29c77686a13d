"""Runs Locust as an author does, as a command, and reads what it left: rows, failures, exit code, logs.

A locustfile is a text in the test, so that what users do and what must come of it are read together. It begins with
``from tests.users.scenario import *``.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import SCALE

__all__ = ["LocustProcess", "LocustRun", "Row", "locust"]

ROOT = Path(__file__).parents[2]

# [2026-01-31 12:00:00,123] host/INFO/locust.main: Shutting down (exit code 0)
_LOG_LINE = re.compile(r"\[\d{4}-[\d: ,-]+\] [^/]+/(?P<level>[A-Z]+)/(?P<logger>[\w.]+): (?P<text>.*)")


@dataclass(frozen=True)
class Row:
    """A line of Locust's statistics table."""

    requests: int
    failures: int
    average: float
    minimum: float
    maximum: float
    size: float
    """Mean of ``response_length``, bytes."""


@dataclass
class LocustRun:
    """What a run of Locust left."""

    code: int
    stdout: str
    stderr: str
    rows: dict[str, Row] = field(default_factory=dict)
    """By ``"<type> <name>"``; the last one is ``Aggregated``."""
    failures: dict[str, dict[str, int]] = field(default_factory=dict)
    """Occurrences by row and by the text of the error."""
    exceptions: dict[str, int] = field(default_factory=dict)
    """Occurrences in Locust's "Exceptions" by message."""
    tracebacks: list[str] = field(default_factory=list)
    """That of each entry of Locust's "Exceptions"."""
    notes: list[list[Any]] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Successful requests by row."""
        return {name: row.requests - row.failures for name, row in self.rows.items() if name != "Aggregated"}

    def noted(self, *start: Any) -> list[Any]:
        """The rest of each note that begins with these values; the value itself where one is left."""
        rests = [note[len(start) :] for note in self.notes if note[: len(start)] == list(start)]
        return [rest[0] if len(rest) == 1 else rest for rest in rests]

    @property
    def complaints(self) -> str:
        """What of stderr is not Locust's own log at level INFO."""
        lines = self.stderr.splitlines()
        return "\n".join(line for line in lines if not ((log := _LOG_LINE.fullmatch(line)) and log["level"] == "INFO"))


class LocustProcess:
    """A Locust that runs, with these arguments. Use :func:`locust` unless the test meets it on the way."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        python: tuple[str, ...] = ("-W", "error"),
        prefix: tuple[str, ...] = (),
        **env: str,
    ) -> None:
        """*prefix*: a command that runs it."""
        self._csv = folder / "run"
        self._notes = folder / "notes"
        command = [*prefix, sys.executable, *python, "-m", "locust", "--csv", str(self._csv), *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            start_new_session=True,  # a group of its own, with the children of --processes
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
                "LOCUST_NOTES": str(self._notes),
                **env,
            },
        )

    def notes(self) -> list[list[Any]]:
        """What the locustfile has noted so far."""
        if not self._notes.exists():
            return []
        return [json.loads(line) for line in self._notes.read_text().splitlines()]

    def kill(self) -> str:
        """End it and its children, those that are left; returns its stderr."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # its group outlives it as long as a child does
        else:
            self.process.kill()
        if self.process.stderr is None or self.process.stderr.closed:
            return ""
        return str(self.process.communicate()[1])

    def finish(self, *, seconds: float = 60) -> LocustRun:
        """Wait for the end, for at most these seconds (times the scale of slow machines)."""
        try:
            stdout, stderr = self.process.communicate(timeout=seconds * SCALE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"Locust did not end within {seconds * SCALE} s:\n{self.kill()}") from None
        run = LocustRun(self.process.returncode, stdout, stderr, notes=self.notes())
        for line in self._table("stats"):
            run.rows[f"{line['Type']} {line['Name']}".strip()] = Row(
                requests=int(line["Request Count"]),
                failures=int(line["Failure Count"]),
                average=float(line["Average Response Time"]),
                minimum=float(line["Min Response Time"]),
                maximum=float(line["Max Response Time"]),
                size=float(line["Average Content Size"]),
            )
        for line in self._table("failures"):
            row = run.failures.setdefault(f"{line['Method']} {line['Name']}", {})
            row[line["Error"]] = int(line["Occurrences"])
        for line in self._table("exceptions"):
            run.tracebacks.append(line["Traceback"])
            run.exceptions[line["Message"]] = run.exceptions.get(line["Message"], 0) + int(line["Count"])
        return run

    def _table(self, name: str) -> list[dict[str, str]]:
        path = self._csv.with_name(f"{self._csv.name}_{name}.csv")
        if not path.exists():
            return []
        with path.open(newline="") as lines:
            return list(csv.DictReader(lines))


def locustfile(folder: Path, source: str) -> str:
    """Write a locustfile; returns its path."""
    path = folder / "locustfile.py"
    path.write_text("from tests.users.scenario import *\n" + textwrap.dedent(source))
    return str(path)


def locust(folder: Path, source: str, *arguments: str, **options: Any) -> LocustRun:
    """Run this locustfile headless, for a minute unless the arguments or the locustfile end it before."""
    fixed = ["--headless", "--only-summary", "--run-time", f"{60 * SCALE:.0f}s", "--spawn-rate", "100"]
    return LocustProcess(folder, "-f", locustfile(folder, source), *fixed, *arguments, **options).finish(seconds=90)
