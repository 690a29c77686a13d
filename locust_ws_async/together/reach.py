"""What becomes of the broadcasts that the workers have seen: one verdict for each message, on the master.

A message is judged when each worker has said what it knows of it: it has sent its record, or has said that no record
of that time is left to come. What a worker has said of its members before counts where none of them got the message.
A worker that dies is left out of what it has not reported.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import gevent

from ..exceptions import NotReached
from ..statistics.buckets import bucket
from .exchange import at_master, exchange, fire
from .ids import is_sampled

__all__ = ["Totals", "finish", "forget", "reset", "totals"]

_LOOK = 0.2  # seconds between two looks at what is not judged
_UNKNOWN = 2.0  # seconds within which a worker that has said nothing of its rooms yet does so, if it has any
_OVERDUE = 30.0  # seconds after which a worker is not waited for that is there but says nothing
_AFTER_END = 10.0  # seconds after the end of a test for the last reports
_REMEMBERED = 60.0  # seconds for which a message that was judged is known

_logger = logging.getLogger(__name__)


@dataclass
class Totals:
    """What has become of the messages of a room."""

    messages: int = 0
    """Judged."""
    expected: int = 0
    """Deliveries that there should have been."""
    received: int = 0
    failed: int = 0
    """Messages that fewer than the expected share got."""
    unfinished: int = 0
    """Messages that the end of the test has cut off, with deliveries missing: not judged."""
    spread: Counter[float] = field(default_factory=Counter)
    """Milliseconds from the first to the last delivery, and how often."""
    longest_spread: float = 0.0
    error: float = 0.0
    """By how many seconds a time of these rows may be wrong, at most."""
    before: Counter[str] = field(default_factory=Counter)
    """Of the counts that workers send, what was there at the last reset."""


class _Membership:
    """How many members of a room a worker has had, and from when on."""

    def __init__(self) -> None:
        self.sizes: deque[tuple[float, int]] = deque(maxlen=2000)

    @property
    def now(self) -> int:
        return self.sizes[-1][1] if self.sizes else 0

    def throughout(self, begin: float, end: float) -> int:
        """How many were there for all of this time."""
        members = 0
        for since, size in self.sizes:
            if since <= begin:
                members = size
            elif since < end:
                members = min(members, size)
        return members


class _Worker:
    """What one worker has said."""

    def __init__(self) -> None:
        self.upto = self.horizon = float("-inf")
        self.final = False
        self.error = 0.0
        self.members: dict[str, _Membership] = {}
        self.counts: dict[str, list[int]] = {}


class _Message:
    """One that is not judged yet."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard_at = perf_counter()
        self.published: tuple[float, str] | None = None  # and by which worker
        self.first: tuple[float, str] | None = None  # and by which worker
        self.last: tuple[float, str] | None = None
        self.records: dict[str, tuple[int, int]] = {}  # received and expected, by worker
        self.cut = False

    @property
    def began(self) -> float:
        """When it was first delivered; where it was not, when it was published."""
        moment = self.published if self.first is None else self.first
        assert moment is not None
        return moment[0]


class _Judge:
    """All messages of one run."""

    def __init__(self) -> None:
        self.settings: dict[str, tuple[float, float, float]] = {}  # share, timeout and settle, by room
        self.workers: dict[str, _Worker] = {}
        self.messages: dict[tuple[str, bytes], _Message] = {}
        self.judged: dict[tuple[str, bytes], float] = {}
        self.totals: dict[str, Totals] = {}
        self.level = 0
        self.late = Counter[str]()
        self._looking: Any = None
        self._ended: float | None = None

    def on_report(self, worker_id: str, report: Any) -> None:
        worker = self.workers.setdefault(worker_id, _Worker())
        if report is None:  # the first will come soon
            return
        worker.upto, worker.horizon = report["upto"], max(worker.horizon, report["horizon"])
        worker.final = worker.final or report["final"]
        worker.error = report["error"]
        for name, (share, timeout, settle, sizes, counts, records, published) in report["rooms"].items():
            self.settings[name] = share, timeout, settle
            self.totals.setdefault(name, Totals())
            worker.members.setdefault(name, _Membership()).sizes.extend(map(tuple, sizes))
            worker.counts[name] = counts
            for digested, at in published:
                if message := self._message(name, digested):
                    message.published = at, worker_id
            for record in records:
                self._on_record(worker_id, name, record)
        self._agree(worker_id, report["level"])
        self.look()
        if not self._looking and self.messages:
            self._looking = exchange().spawn(self._look_on)

    def _on_record(self, worker_id: str, name: str, record: Any) -> None:
        digested, first, spread, count, expected, cut = record
        message = self._message(name, digested)
        if message is None:
            if (name, digested) in self.judged:
                self.late[name] += count
            return
        last = first + spread / 1e6
        message.records[worker_id] = count, expected
        message.cut = message.cut or cut
        if message.first is None or first < message.first[0]:
            message.first = first, worker_id
        if message.last is None or last > message.last[0]:
            message.last = last, worker_id

    def _message(self, name: str, digested: bytes) -> _Message | None:
        key = name, digested
        if key in self.judged or not is_sampled(digested, self.level):
            return None
        message = self.messages.get(key)
        if message is None:
            message = self.messages[key] = _Message(name)
        return message

    def _agree(self, worker_id: str, level: int) -> None:
        """Let all workers look at the same ids."""
        if level > self.level:
            self.level = level
            self.messages = {key: each for key, each in self.messages.items() if is_sampled(key[1], level)}
            _logger.info("Broadcasts: there are very many ids, so that one of %d is looked at.", 2**level)
            for other in exchange().workers():
                exchange().to_worker("fanout", level, other)
        elif level < self.level:
            exchange().to_worker("fanout", self.level, worker_id)

    def _look_on(self) -> None:
        while self._ended is None or (self.messages and perf_counter() < self._ended + _AFTER_END):
            gevent.sleep(_LOOK)
            self.look()

    def look(self) -> None:
        """Judge what is known."""
        present = set(exchange().workers())
        now = perf_counter()
        told = {worker_id for worker_id in self.workers if worker_id in present or self.workers[worker_id].final}
        some_are_silent = not present <= self.workers.keys()
        for key, message in list(self.messages.items()):
            waited = now - message.heard_at
            timeout = self.settings[message.name][1]
            may_be_more = some_are_silent and waited < _UNKNOWN
            is_known = not may_be_more and not any(self._waits_for(each, message) for each in told)
            if is_known or waited > timeout + _OVERDUE:
                self._judge(key, message)
        for key, judged_at in list(self.judged.items()):
            if judged_at + _REMEMBERED > now:
                break
            del self.judged[key]

    def _waits_for(self, worker_id: str, message: _Message) -> bool:
        worker = self.workers[worker_id]
        if worker.final or worker_id in message.records:
            return False
        if worker.upto < message.began:
            return True
        timeout = self.settings[message.name][1]
        return bool(self._members(worker, message) and worker.horizon < message.began + timeout)

    def _members(self, worker: _Worker, message: _Message) -> int:
        """How many members of a worker without a record have missed a message."""
        membership = worker.members.get(message.name)
        if membership is None:
            return 0
        _, timeout, settle = self.settings[message.name]
        return membership.throughout(message.began - settle, message.began + timeout)

    def _judge(self, key: tuple[str, bytes], message: _Message) -> None:
        del self.messages[key]
        self.judged[key] = perf_counter()
        share, timeout, _ = self.settings[message.name]
        received = sum(count for count, _ in message.records.values())
        expected = sum(number for _, number in message.records.values())
        present = set(exchange().workers())
        for worker_id, worker in self.workers.items():
            missed = 0 if worker_id in message.records else self._members(worker, message)
            if missed and (worker.final or worker_id in present):
                expected += missed
                message.cut = message.cut or (worker.final and worker.upto < message.began + timeout)
        if not expected:
            return
        totals = self.totals.setdefault(message.name, Totals())
        if message.cut and received < expected:
            totals.unfinished += 1
            return
        reached = received >= share * expected - 1e-9
        totals.messages += 1
        totals.expected += expected
        totals.received += received
        totals.failed += not reached
        from_published: float | None = None
        if message.first is not None and message.last is not None:
            spread = (message.last[0] - message.first[0]) * 1000
            totals.spread[bucket(spread)] += 1
            totals.longest_spread = max(totals.longest_spread, spread)
            totals.error = max(totals.error, self._error(message.first[1], message.last[1]))
            fire("WS SPREAD", message.name, spread, None)
            if message.published is not None:
                from_published = (message.last[0] - message.published[0]) * 1000
                totals.error = max(totals.error, self._error(message.published[1], message.last[1]))
        fire("WS REACH", message.name, from_published, None if reached else NotReached(share))

    def _error(self, one: str, other: str) -> float:
        """By how many seconds the time from an instant of one worker to one of another may be wrong."""
        return 0.0 if one == other else self.workers[one].error + self.workers[other].error

    def counts(self, name: str) -> Counter[str]:
        """What the workers have counted since the test began."""
        sums = Counter[str]({"late": self.late[name]})
        for worker in self.workers.values():
            for which, count in zip(("duplicates", "late", "without_id"), worker.counts.get(name, ()), strict=False):
                sums[which] += count
        return sums

    def members(self, name: str) -> int:
        present = exchange().workers()
        return sum(self.workers[each].members[name].now for each in present if name in self._rooms_of(each))

    def _rooms_of(self, worker_id: str) -> dict[str, _Membership]:
        worker = self.workers.get(worker_id)
        return {} if worker is None else worker.members

    def end(self) -> None:
        """The test is over: wait no longer than that for reports."""
        self._ended = perf_counter()

    def finish(self) -> None:
        """Judge what is left: no more will come."""
        for key, message in list(self.messages.items()):
            self._judge(key, message)


_judge = _Judge()


def forget() -> None:
    """A test starts."""
    global _judge
    _judge.end()
    _judge.messages.clear()
    _judge = _Judge()


def end() -> None:
    """A test has stopped."""
    _judge.end()


def finish() -> None:
    """The process ends: judge what is left."""
    _judge.finish()


def reset() -> None:
    """The statistics are reset: what was told until now counts no more."""
    for name in _judge.totals:
        _judge.totals[name] = Totals(before=_judge.counts(name))


def totals() -> dict[str, tuple[Totals, Counter[str], int, int]]:
    """By room: its totals, the workers' counts, its members now, and of how many ids one is looked at."""
    return {
        name: (each, _judge.counts(name) - each.before, _judge.members(name), 2**_judge.level)
        for name, each in _judge.totals.items()
    }


at_master("fanout", lambda worker_id, report: _judge.on_report(worker_id, report))
