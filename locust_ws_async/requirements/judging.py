"""Judges a run: at its end, and on the way where a requirement says when a hopeless run ends.

The order at the end, in a local run or on a master: users stop; the workers send their last reports; then the listener
of ``quitting`` here is the last one, since Locust fires that event in reverse and this listener was the first. It sets
the exit code, over whatever others have set. After that Locust prints its tables, and ours below.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import gevent
from gevent import Greenlet
from locust import events, runners
from locust.env import Environment
from locust.stats import RequestStats, StatsEntry, sort_stats

from .generator import saturated
from .options import junit_file, required
from .requirement import GENERATOR, Requirement, require
from .window import Baseline, since
from .written import Result, Verdict, as_junit, as_markdown, as_table, rows_there_were

__all__ = ["lines", "register"]

FAILED = 3
"""Locust's exit code when a requirement is not met. Locust's own are 1 and 2."""

_FAIL_WHEN_SATURATED = "ws_fail_when_saturated"  # an option of the command line

_logger = logging.getLogger("locust_ws_async.requirements")

_judge: _Judge | None = None


def register() -> None:
    """Listen to Locust's events. Called when the user classes are imported, and before any runner listens."""
    hooks: Any = events  # which have no types
    hooks.init.add_listener(_on_init)
    hooks.quitting.add_listener(_on_quitting)
    hooks.test_start.add_listener(_on_test_start)


def lines(environment: Environment) -> list[str]:
    """The table, for the end of the run."""
    if _judge is None or _judge.verdict is None:
        return []
    return as_table(_judge.verdict)


def _on_init(environment: Environment, **_: Any) -> None:
    global _judge
    if environment.runner is None or isinstance(environment.runner, runners.WorkerRunner):
        return
    file = junit_file(environment)
    if file:
        try:
            os.makedirs(os.path.dirname(file) or ".", exist_ok=True)
            open(file, "ab").close()
        except OSError as exc:  # better now than after a night
            _logger.error("--ws-junit: %s cannot be written: %s", file, exc)
            sys.exit(2)
    _judge = _Judge(environment)
    hooks: Any = environment.events
    hooks.test_stopping.add_listener(_judge.stopping)
    hooks.reset_stats.add_listener(_judge.forget)
    if environment.reset_stats:
        hooks.spawning_complete.add_listener(_judge.forget)


def _on_test_start(environment: Environment, **_: Any) -> None:
    require.closed = True
    if _judge is not None:
        _judge.begin()


def _on_quitting(environment: Environment, **_: Any) -> None:
    if _judge is not None:
        _judge.end()


class _Judge:
    """Knows what is required, and what the rows were when each ``after`` had passed."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.verdict: Verdict | None = None
        self._from_command_line = required(environment)
        self._baselines: dict[float, Baseline | None] = {}
        """By ``after``, once that has passed. None: since the statistics were reset."""
        self._began = self._ended = perf_counter()
        self._watching: Greenlet[..., Any] | None = None
        self._ended_early: list[str] = []

    @property
    def requirements(self) -> list[Requirement]:
        wanted = require.all + self._from_command_line
        # Who lets a saturated generator fail requires that it is not: requirements alone decide, once there are any.
        if wanted and getattr(self.environment.parsed_options, _FAIL_WHEN_SATURATED, False):
            return wanted + [each for each in [Requirement(GENERATOR, ())] if each not in wanted]
        return wanted

    # While the run goes on

    def begin(self) -> None:
        """A test begins."""
        self._began = self._ended = perf_counter()
        self._baselines = {0.0: None}
        self._ended_early = []
        if any(wanted.after or wanted.abort_after is not None for wanted in self.requirements):
            self._watching = gevent.spawn(self._watch)

    def stopping(self, **_: Any) -> None:
        """The test ends."""
        self._ended = perf_counter()
        watching, self._watching = self._watching, None
        if watching is not None and watching is not gevent.getcurrent():
            watching.kill()

    def forget(self, **_: Any) -> None:
        """The statistics were reset: the rows begin now."""
        self._baselines = dict.fromkeys(self._baselines)

    def _watch(self) -> None:
        """Keep the rows of each ``after``, and end the run when a requirement says that it is hopeless."""
        afters = sorted({wanted.after for wanted in self.requirements if wanted.after})
        aborting = [wanted for wanted in self.requirements if wanted.abort_after is not None]
        # What a worker did before an instant is known to the master an interval later, at most.
        is_master = isinstance(self.environment.runner, runners.MasterRunner)
        late = runners.WORKER_REPORT_INTERVAL if is_master else 0.0
        while afters or aborting:
            passed = perf_counter() - self._began - late
            while afters and afters[0] <= passed:
                self._baselines[afters.pop(0)] = Baseline(self.environment.stats)
            due = [wanted for wanted in aborting if (wanted.abort_after or 0.0) <= passed]
            if hopeless := [result for wanted in due for result in self._results(wanted) if result.hopeless]:
                self._end_early(hopeless[0])
                return
            gevent.sleep(min([1.0, *(instant - passed for instant in self._instants() if instant > passed)]))

    def _instants(self) -> Iterator[float]:
        for wanted in self.requirements:
            yield wanted.after
            yield wanted.abort_after or 0.0

    def _end_early(self, result: Result) -> None:
        seconds = perf_counter() - self._began
        why = f"{result.row}: {result.limit} is required, and it is: {result.value}"
        self._ended_early = [f"The run was ended early, after {seconds:.0f} s. {why}"]
        _logger.error("The run is ended. %s", why)
        runner = self.environment.runner
        assert runner is not None
        if self.environment.web_ui is None:
            runner.quit()
        else:
            runner.stop()

    # At the end

    def end(self) -> None:
        """Judge, set the exit code, and write the files."""
        environment = self.environment
        if isinstance(environment.runner, runners.LocalRunner):
            environment.runner.stop()  # as Locust does a moment later: after Ctrl-C the users still run
        wanted = self.requirements
        file = junit_file(environment)
        if not wanted and not file:
            return
        results = [result for each in wanted for result in self._results(each)]
        verdict = Verdict(results, self._ended - self._began, [*self._ended_early, *self._notes(wanted, results)])
        if file:
            with _errors_told(file), open(file, "wb") as xml:
                xml.write(as_junit(verdict))
        if not wanted:
            _logger.warning("--ws-junit: nothing is required, so that the file has no verdict")
            return
        self.verdict = verdict
        environment.process_exit_code = FAILED if verdict.failed else 0
        if verdict.failed:
            failed = "; ".join(f"{result.row} {result.limit}: {result.value}" for result in verdict.failed)
            _logger.error("%s: %s", verdict.summary, failed)
        else:
            _logger.info("%s", verdict.summary)
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with _errors_told(summary), open(summary, "a", encoding="utf-8") as markdown:
                markdown.write(as_markdown(verdict))

    def _results(self, wanted: Requirement) -> list[Result]:
        if wanted.row == GENERATOR:
            return [_judged_generator()]
        after = f" (after {wanted.after:g} s)" if wanted.after else ""
        stats = self._window(wanted.after)
        row = None if stats is None else _row(stats, wanted.row)
        results = []
        for limit in wanted.limits:
            text = f"{limit}{after}"
            if stats is None:
                results.append(Result(wanted.row, text, "the test ended before", ok=False))
            elif row is None:
                results.append(Result(wanted.row, text, _NO_ROW, ok=False, hopeless=True))
            else:
                value = limit.value_in(row)
                ok = limit.is_kept_by(value)
                results.append(Result(wanted.row, text, value.text, ok, not ok and not limit.may_still_be_kept(value)))
        return results

    def _window(self, after: float) -> RequestStats | None:
        """The rows of what came after that; None if the test ended before."""
        stats = self.environment.stats
        if after not in self._baselines and after:
            return None
        baseline = self._baselines.get(after)
        return stats if baseline is None else since(baseline, stats)

    def _notes(self, wanted: list[Requirement], results: list[Result]) -> Iterator[str]:
        if any(result.value == _NO_ROW for result in results):
            rows = [_label(row) for row in sort_stats(self.environment.stats.entries) if row.num_requests]
            yield rows_there_were(rows)
        if any(each.row == GENERATOR for each in wanted):
            yield from saturated() or ()


_NO_ROW = "never occurred"


def _row(stats: RequestStats, label: str) -> StatsEntry | None:
    rows = (stats.total, *stats.entries.values())
    return next((row for row in rows if row.num_requests and _label(row) == label), None)


def _label(row: StatsEntry) -> str:
    return f"{row.method} {row.name}".strip()


def _judged_generator() -> Result:
    spans = saturated()
    if spans is None:
        return Result(GENERATOR, "not saturated", "not known: nothing has watched it", ok=False)
    value = f"saturated {len(spans)} times" if spans else "not saturated"
    return Result(GENERATOR, "not saturated", value, ok=not spans)


@contextmanager
def _errors_told(file: str) -> Iterator[None]:
    """Log what keeps a file from being written: the verdict itself stands."""
    try:
        yield
    except OSError as exc:
        _logger.error("%s cannot be written: %s", file, exc)
