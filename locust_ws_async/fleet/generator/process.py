"""This process as a generator: what is measured while its users run, what is found, and how the master hears of it.

It begins with the first user that runs in the process, and ends with the last one. A process that has found something
sends all that the master has to know of it, which is little: so a message that was lost is made good by the next. Times
are sent as ages, so that the clocks of the machines do not matter.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import gevent
from gevent.hub import get_hub
from locust.env import Environment
from locust.exception import RPCError
from locust.runners import WorkerRunner

from ...bridge import watch_blocking
from ...client.observing.unread import Unread
from ...internals.cpython import get_frame
from ...pacing.clock import run_id
from ...statistics.percentiles import percentile_of
from . import judge
from .judge import MESSAGE, Found
from .limits import Limits, limits_of
from .meter import TICK, Meter, Second
from .places import place_of
from .verdict import Verdict
from .watchdog import Watchdog

__all__ = ["enter", "leave", "sample"]

_SAMPLED = 3  # seconds that a sample tells of: as long as Locust's workers take from one report to the next
_MOST_PLACES = 5  # that a sample names
_MOST_TOLD = 100  # places that are told of in a run

HELD = (
    "%s held the hub for %.2f s: no user of this process could go on meanwhile. Give what computes, or blocks in a C "
    "library, to gevent's threads (gevent.get_hub().threadpool). (Told once for each line.)"
)
BLOCKED = (
    "%s blocked its user's loop for %.2f s: the messages, pings and timeouts of this user waited meanwhile. Call it by "
    "`await asyncio.to_thread(...)`, or use what asyncio has in its place. (Told once for each line.)"
)

_logger = logging.getLogger(__name__)


class Generator:
    """What is known of this process, from when this is made until `stop`."""

    def __init__(self, limits: Limits, tell_master: Callable[[Found], None]) -> None:
        self._limits, self._tell_master = limits, tell_master
        self._verdict = Verdict(limits)
        self._seconds: deque[Second] = deque(maxlen=_SAMPLED)
        self._places: dict[tuple[str, str], float] = {}  # the longest, in seconds
        self._untold: deque[tuple[str, str, float]] = deque()
        self._master_knows = False
        self._teller: Any = None
        self._meter = Meter(get_hub(), self._on_second, self._on_turn)
        self._watchdog = Watchdog(lambda: self._meter.turned, limits.blocked / 1000)
        watch_blocking(self)

    def stop(self) -> None:
        """Measure no more, leave nothing behind, and tell the master."""
        watch_blocking(None)
        self._watchdog.stop()
        self._meter.stop()
        if self._verdict.finish():
            self._master_knows = False
        self._tell()

    # In the hub, where nothing may block

    def _on_turn(self, before: float, now: float) -> None:
        if (now - before) * 1000 > self._limits.blocked:
            for place, seconds in self._watchdog.take(before, now).items():
                self._note(HELD, place, seconds)

    def _on_second(self, second: Second) -> None:
        self._seconds.append(second)
        if self._verdict.take(second):
            self._master_knows = False
        if (self._untold or not self._master_knows) and (self._teller is None or self._teller.ready()):
            self._teller = gevent.spawn(self._tell)

    # Called by the bridge, in the greenlet of a user whose coroutine blocks

    def on_block(self) -> tuple[int, float]:
        return self._meter.turns, perf_counter()

    def on_unblock(self, before: tuple[int, float]) -> None:
        turns, started = before
        # Only what passed while the hub turned is this user's own. The rest is that of whoever held the hub.
        own = (self._meter.turns - turns) * TICK * 1000
        if own >= self._limits.blocked and (place := place_of(get_frame(1))) is not None:
            self._note(BLOCKED, place.text, perf_counter() - started)

    def _note(self, what: str, place: str, seconds: float) -> None:
        longest = self._places.get((what, place))
        if longest is None:
            if len(self._places) >= _MOST_TOLD:
                return
            self._untold.append((what, place, seconds))
            self._master_knows = False
        self._places[what, place] = max(seconds, longest or 0.0)

    # In a greenlet that may block

    def _tell(self) -> None:
        while self._untold:
            what, place, seconds = self._untold.popleft()
            _logger.warning(what, place, seconds)
        if not self._master_knows:
            self._master_knows = True
            try:
                self._tell_master(self._found())
            except RPCError:  # the master is away: the next second tries again
                self._master_knows = False

    def _found(self) -> Found:
        now = perf_counter()
        spans = [
            {
                "number": span.number,
                "began": now - span.began,
                "ended": None if span.ended is None else now - span.ended,
                "why": span.why,
            }
            for span in self._verdict.spans
        ]
        return {"run": run_id(), "blocked": self._blocked(), "spans": spans}

    def _blocked(self) -> list[dict[str, Any]]:
        longest = sorted(self._places.items(), key=lambda item: item[1], reverse=True)[:_MOST_PLACES]
        what = {HELD: "hub", BLOCKED: "loop"}
        return [{"where": place, "ms": round(seconds * 1000), "what": what[kind]} for (kind, place), seconds in longest]

    def sample(self) -> dict[str, Any] | None:
        """How the last three seconds were; see :func:`sample`."""
        seconds = list(self._seconds)
        if not seconds:
            return None
        lags = Counter(lag for second in seconds for lag in second.lags)
        lengths = [second.ended - second.began for second in seconds]

        def mean(name: str) -> float:
            taken = sum(each.shares.get(name, 0.0) * length for each, length in zip(seconds, lengths, strict=True))
            return round(taken / sum(lengths), 4)

        return {
            "hub_lag_p50_ms": round(percentile_of(lags, 0.5) or 0.0, 2),
            "hub_lag_p99_ms": round(percentile_of(lags, 0.99) or 0.0, 2),
            "hub_lag_max_ms": round(max(lags), 2),
            **{name: mean(name) for name in seconds[-1].shares},
            **_unread([each.unread for each in seconds if each.unread is not None]),
            "blocked": self._blocked(),
        }


def _unread(seconds: list[Unread]) -> dict[str, float]:
    """Of the three seconds the one in which bytes lay unread for longest."""
    if not seconds:
        return {}
    return {
        f"unread_{name}_ms": round(max(getattr(each, name) for each in seconds), 2) for name in ("p50", "p99", "max")
    }


_users = 0
_generator: Generator | None = None


def enter(environment: Environment) -> None:
    """A user begins to run in this process. With the first one the measuring begins."""
    global _users, _generator
    _users += 1
    if _generator is None:
        runner = environment.runner
        if isinstance(runner, WorkerRunner):
            tell_master: Callable[[Found], None] = partial(runner.send_message, MESSAGE)
        else:
            tell_master = partial(judge.hear, environment, "local")
        _generator = Generator(limits_of(environment), tell_master)


def leave() -> None:
    """A user has ended. With the last one all that `enter` began has ended too."""
    global _users, _generator
    _users -= 1
    if not _users and _generator is not None:
        generator, _generator = _generator, None
        generator.stop()


def sample() -> dict[str, Any] | None:
    """How this process was in the last three seconds.

    Returns:
        ``hub_lag_p50_ms``, ``hub_lag_p99_ms``, ``hub_lag_max_ms``; the shares ``cpu`` of one core, ``throttled`` and
        ``steal`` of the time, from 0 to 1, where the system tells them; ``unread_p50_ms``, ``unread_p99_ms`` and
        ``unread_max_ms``, how long bytes lay unread, where the kernel tells it; ``blocked``, the five places that held
        the hub or a user's loop for longest in this run: ``[{"where": "Echo.work (locustfile.py:12)", "ms": 1003,
        "what": "hub" or "loop"}]``. None while no users run, and in their first second.
    """
    return None if _generator is None else _generator.sample()
