"""What this process counts: read from the statistics that its connections keep anyway.

No listener of requests, and nothing for each message. Once a second a *pass* goes through the connections that are not
over and adds up their statistics, a slice at a time, so that a process with many connections serves its sockets in
between. What connections that are over have counted is added up already (:mod:`..client.observing.tally`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from operator import add, attrgetter
from time import perf_counter

import gevent

from ..client.observing.tally import SHELF, SUMMED, Tally

__all__ = [
    "Snapshot",
    "began",
    "gauge",
    "refresh",
    "snapshot",
    "start",
    "take_longest_queue_wait",
    "tally",
]

_logger = logging.getLogger(__name__)

tally = Tally()
"""In which all WebSocket clients of this process count."""

_CONNECTIONS_A_SECOND = 1500  # to go through, as long as that is
_MOST_SECONDS = 3.0  # from pass to pass, as from report to report
_GAUGES = 20  # and
_NAME = 40  # characters: a report to the master has to stay small

_RFC_CODES = frozenset(range(1000, 1016))
_OTHER_CODES = 16  # that a report names besides these

_paused = attrgetter("queue.paused")
_router = attrgetter("_router")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    What this process knew at one instant.

    Args:
        at: the instant, in seconds of this process's own clock (``perf_counter``).
        counts: what only grows while a test runs, and is 0 when it starts. Of a table the keys are ``table/entry``.
        gauges: what goes up and down; likewise.
    """

    at: float
    counts: dict[str, float]
    gauges: dict[str, float]


_last = Snapshot(0.0, {}, {})
_began = 0.0
_at_start: dict[str, float] = {}
_functions: dict[str, Callable[[], float]] = {}
_complained: set[str] = set()
_named_codes: set[int] = set()


def gauge(name: str, function: Callable[[], float]) -> None:
    """
    Show a number of your own beside those of the connections: ``gauge("matches running", lambda: len(matches))``.

    The numbers of all workers are added up. The function is called about once a second in each process that runs users;
    another function of the same name replaces it.

    Args:
        name: what to call it; at most 40 characters, and 20 names in all.
        function: gives the number now. What it raises is logged once, and the number is left out.

    Raises:
        TypeError: the name is no text, or the function cannot be called.
        ValueError: the name is too long, or there are too many.
    """
    if not isinstance(name, str) or not callable(function):
        raise TypeError(f"gauge needs a name and a function that gives a number, not {name!r} and {function!r}")
    if not 0 < len(name) <= _NAME:
        raise ValueError(f"gauge: a name has 1 to {_NAME} characters, not {len(name)}: {name!r}")
    if name not in _functions and len(_functions) >= _GAUGES:
        raise ValueError(f"gauge: there are {_GAUGES} gauges already, which is as many as a report holds")
    _functions[name] = function
    _complained.discard(name)


def snapshot() -> Snapshot:
    """What this process has counted since the test started; with many connections as of the last pass."""
    return _last if tally.live > SHELF else _pass()


def refresh() -> None:
    """Have the counts that :func:`snapshot` shows of many connections fresh. Call it once a second."""
    # A pass takes up to two microseconds a connection. Where there are thousands, it comes each two or three seconds.
    seconds = min(_MOST_SECONDS, tally.live / _CONNECTIONS_A_SECOND)
    if tally.live > SHELF and perf_counter() - _last.at > seconds - 0.5:
        _pass()


def _pass() -> Snapshot:
    global _last
    began = perf_counter()
    sums = [0] * len(SUMMED)
    paused = 0
    for shelf in list(tally.shelves):
        if tally.live > SHELF:
            gevent.sleep(0)
        sums = list(map(add, sums, shelf.sums()))
        connections = list(shelf.live)
        paused += sum(map(_paused, connections))
        routers = [router for router in map(_router, connections) if router is not None]
        paused += sum(router.subscriptions.waiting.paused for router in routers)
    if began < _last.at:
        return _last  # another pass has begun later, and was faster
    counts = {name: count - _at_start.get(name, 0) for name, count in _counts(sums).items()}
    gauges: dict[str, float] = {
        "open": tally.open,
        "connecting": tally.connecting,
        "reconnecting": tally.reconnecting,
        "paused": paused,
    }
    gauges |= {f"gauges/{name}": value for name in list(_functions) if (value := _value(name)) is not None}
    # What earlier tests have brought into a table is not in that of this one.
    shown = {name: count for name, count in counts.items() if count or "/" not in name}
    _last = Snapshot(perf_counter(), shown, gauges)
    return _last


def take_longest_queue_wait() -> float:
    """The longest time, in seconds, that a message has waited for ``recv`` since this was called last."""
    longest, tally.longest_queue_wait = tally.longest_queue_wait, 0.0
    return longest


def began() -> float:
    """When the test began, in seconds of this process's own clock."""
    return _began


def start() -> None:
    """Count from here: a test starts."""
    global _at_start, _began, _last
    each = [shelf.sums() for shelf in tally.shelves]  # as a rule no connection is left
    _at_start = _counts([sum(column) for column in zip(*each, strict=True)])
    _began = perf_counter()
    _last = Snapshot(_began, {}, {})
    take_longest_queue_wait()


def _counts(summed: list[int]) -> dict[str, float]:
    """What has been counted since the process began."""
    sums = dict(zip(SUMMED, summed, strict=True))
    counts: dict[str, float] = {
        "opened": tally.opened,
        "ended": tally.ended,
        "recoveries": tally.recoveries,
        "messages_in": sums["texts_received"] + sums["binaries_received"],
        "messages_out": sums["texts_sent"] + sums["binaries_sent"],
        "bytes_in": sums["text_bytes_received"] + sums["binary_bytes_received"],
        "bytes_out": sums["text_bytes_sent"] + sums["binary_bytes_sent"],
        "late": sums["late_replies"],
        "dropped": sums["messages_dropped"],
        "cancelled_waits": tally.cancelled_waits,
        "queue_waits": tally.queue_waits,
        "queue_wait": tally.queue_wait,
    }
    for by, count in tally.closed_by.items():
        counts[f"closed_by/{by}"] = count
    for code, count in tally.closes.items():
        key = f"closes/{_shown(code)}"
        counts[key] = counts.get(key, 0) + count
    return counts


def _shown(code: int) -> str:
    # A hostile server may close with thousands of codes. Those of RFC 6455 and the first others have their own line.
    if code in _RFC_CODES or code in _named_codes:
        return str(code)
    if len(_named_codes) < _OTHER_CODES:
        _named_codes.add(code)
        return str(code)
    return "other"


def _value(name: str) -> float | None:
    try:
        value = _functions[name]()
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
            raise TypeError(f"it gave {value!r}, which is no finite number")
    except Exception as exc:
        if name not in _complained:
            _complained.add(name)
            _logger.error("gauge %r is left out: %s: %s", name, type(exc).__name__, exc)
        return None
    return value
