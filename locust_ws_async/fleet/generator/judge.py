"""What the processes have found, where the results are shown: the master, or the only process.

Each process judges itself, second by second, and says so at once. Here it is logged, kept until the next run, and told
in the JSON, at the end of the run and by the exit code.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import localtime, strftime, time
from typing import Any

from locust.env import Environment
from locust.rpc import Message
from locust.runners import MasterRunner

from ...pacing.clock import run_id
from ..transport import has_left
from .limits import FAIL_OPTION, Limits, limits_of

__all__ = ["MESSAGE", "Found", "as_json", "hear", "lines", "saturated", "settle", "spans"]

MESSAGE = "ws_generator"

Found = dict[str, Any]
"""What a process sends: ``{"run": id, "blocked": [{"where", "ms", "what"}], "spans": [...]}``.

These are its last spans, each with ``number``, ``why``, and with ``began`` and ``ended`` (or None) as seconds ago:
so the clocks of the machines do not matter, and a message that was lost is made good by the next."""

EXIT_CODE = 3
_MOST_LINES = 10  # spans, and places, of the block at the end of a run
_MOST_SPANS = 200  # in the JSON

_HELD = {"hub": "the hub", "loop": "its user's loop"}

_logger = logging.getLogger(__name__)


@dataclass
class _Span:
    worker: str
    where: str
    """" on worker 2", or nothing where there is one process only."""
    began: float
    """By ``time.time()`` of this machine, as is `ended`."""
    ended: float | None
    why: str

    def __str__(self) -> str:
        if self.ended is None:
            when, times = f"since {_clock(self.began)}", "Times from then on"
        else:
            when, times = f"from {_clock(self.began)} to {_clock(self.ended)}", "Times of that span"
        return f"saturated{self.where} {when}: {self.why}. {times} are partly this machine's."


@dataclass
class _Run:
    spans: dict[tuple[str, int], _Span] = field(default_factory=dict)
    blocked: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By worker; a worker that has found nothing has an empty list."""
    since: float = 0.0
    """When the statistics were reset."""

    def counting(self) -> list[_Span]:
        """The spans in which something was measured that the statistics still have."""
        return [span for span in self.spans.values() if span.ended is None or span.ended > self.since]


_run = _Run()


def hear(environment: Environment, worker_id: str, found: Found) -> None:
    """Take what a process has found; "local" is the id of the only one."""
    if found["run"] != run_id():  # of a run before this one
        return
    _run.blocked[worker_id] = found["blocked"]
    now = time()
    for told in found["spans"]:
        key, ended = (worker_id, told["number"]), told["ended"]
        span = _run.spans.get(key)
        if span is None:
            where = _where(environment, worker_id)
            span = _run.spans[key] = _Span(worker_id, where, now - told["began"], None, told["why"])
            if ended is None:
                _logger.warning("Generator %s", span)
        if ended is not None and span.ended is None:
            span.why = told["why"]
            _end(span, now - ended)


def saturated() -> list[str]:
    """A line for each span of time of this run in which a process was saturated."""
    return [str(span) for span in _run.counting()]


def spans() -> list[dict[str, Any]]:
    """The spans of time in which a generator was saturated in this run, oldest first, the last 200.

    Returns:
        ``[{"worker": id, "from": epoch, "to": epoch or None while it lasts, "why": "hub lag p99 64 ms (limit 10)"}]``,
        by the clock of this machine.
    """
    return [
        {"worker": span.worker, "from": span.began, "to": span.ended, "why": span.why}
        for span in sorted(_run.spans.values(), key=lambda span: span.began)[-_MOST_SPANS:]
    ]


def as_json() -> dict[str, Any]:
    """``{"saturated": bool, "spans": [...], "limits": {...}}``; the limits have the keys of a sample."""
    found = spans()
    limits = Limits() if _environment is None else limits_of(_environment)
    return {"saturated": any(span["to"] is None for span in found), "spans": found, "limits": limits.as_json()}


def settle(environment: Environment) -> None:
    """End the spans of workers that have left without a word."""
    for span in _run.spans.values():
        if span.ended is None and has_left(span.worker):
            _end(span, time())


def lines(environment: Environment) -> list[str]:
    """The block at the end of a run."""
    if not _run.blocked:
        return []
    places = [
        f"{place['where']} held {_HELD[place['what']]}{_where(environment, worker)} for {place['ms']} ms"
        for worker, found in _run.blocked.items()
        for place in found
    ]
    found = saturated() or ["not saturated"]
    head = "Generator"
    return [head, "-" * len(head), *_first(found), *_first(places)]


def _first(found: list[str]) -> Iterable[str]:
    more = len(found) - _MOST_LINES
    return found if more <= 0 else [*found[:_MOST_LINES], f"... and {more} more"]


def _end(span: _Span, ended: float) -> None:
    span.ended = ended
    _logger.warning("Generator %s", span)


def _where(environment: Environment, worker_id: str) -> str:
    runner = environment.runner
    if not isinstance(runner, MasterRunner):
        return ""
    return f" on worker {runner.get_worker_index(worker_id)}"  # type: ignore[no-untyped-call] # Locust's has no types


def _clock(epoch: float) -> str:
    return strftime("%H:%M:%S", localtime(epoch))


# Listeners of Locust's events, by their names

_environment: Environment | None = None


def on_init(environment: Environment, **_: Any) -> None:
    global _environment
    _environment = environment
    if isinstance(environment.runner, MasterRunner):
        environment.runner.register_message(MESSAGE, _on_message)


def _on_message(environment: Environment, msg: Message, **_: Any) -> None:
    hear(environment, msg.node_id, msg.data)


def on_test_start(**_: Any) -> None:
    global _run
    _run = _Run()


def on_reset_stats(**_: Any) -> None:
    _run.since = time()


def on_quitting(environment: Environment, **_: Any) -> None:
    if getattr(environment.parsed_options, FAIL_OPTION, False) and _run.counting():
        _logger.error("The generator was saturated: exit code %d (--ws-fail-when-saturated)", EXIT_CODE)
        environment.process_exit_code = EXIT_CODE


def on_quit(**_: Any) -> None:
    """Before the end of the run is printed: a worker that was too busy to say that it has ended has ended now."""
    for span in _run.spans.values():
        if span.ended is None:
            _end(span, time())
