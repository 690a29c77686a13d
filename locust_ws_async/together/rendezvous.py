"""``await self.rendezvous("all in", users=5000)``: users of all workers wait for each other, and go on at one instant.

A worker tells the master how many of its users wait. When they are enough, the master names an instant a little ahead
and how many of each worker go on at it; each worker lets its own go by its own clock.

The counts are those since the test began, of arrivals and of users that gave up, so that a message that is lost or
late does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import gevent
from gevent.event import Event
from locust.exception import StopUser

from ..exceptions import RendezvousTimeout
from .clocks import clock
from .exchange import at_master, at_worker, exchange

__all__ = ["ROW", "Totals", "Wait", "arrive", "checked", "forget", "reset", "totals"]

ROW = "WS RENDEZVOUS"

_GATHER = 0.02  # seconds for which arrivals are gathered before the master is told
_AGAIN = 0.5  # seconds after which it is told again where that failed
_AHEAD = 0.2  # seconds from the order to the instant, in which the order has to reach the workers
_RESUMED = 2.0  # seconds within which released users are to have gone on

_logger = logging.getLogger(__name__)


def checked(name: object, users: object, timeout: object) -> None:
    """Raise ``TypeError`` or ``ValueError`` for arguments that are wrong whatever the test is."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"rendezvous: the name must be a text, not {name!r}")
    if isinstance(users, bool) or not isinstance(users, int) or users < 1:
        raise ValueError(f"rendezvous: users must be a whole number of at least 1, not {users!r}")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
        raise ValueError(f"rendezvous: timeout must be a number of seconds above 0, not {timeout!r}")


class _Release:
    """Users of this process who go on at one instant."""

    def __init__(self, users: int) -> None:
        self._left = users
        self.resumed = 0
        self.first = self.last = 0.0
        self.all_resumed = Event()

    def note(self, now: float) -> None:
        """A user went on."""
        if not self.resumed:
            self.first = now
        self.last = now
        self.resumed += 1
        if self.resumed == self._left:
            self.all_resumed.set()


class Wait:
    """One user who waits at a point."""

    def __init__(self, point: _Point) -> None:
        self._point = point
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[_Release] = self._loop.create_future()
        self._goes_on = False  # whether the master has said so

    async def over(self, timeout: float) -> None:
        """
        Wait until the others are there.

        Raises:
            RendezvousTimeout: they did not come in time.
            ValueError: the master knows that they cannot come.
            StopUser: the user is asked to stop.
        """
        timer = self._loop.call_later(timeout, self._give_up, RendezvousTimeout())
        try:
            release = await self._future
        except BaseException:
            self._point.withdraw(self)
            raise
        finally:
            timer.cancel()
        release.note(perf_counter())

    @property
    def never(self) -> str:
        """What has never happened here, for the log."""
        return "" if self._point.released else "the others never came"

    def wake(self) -> None:
        """The user is asked to stop, by another greenlet."""
        if not self._future.done():
            self._loop.call_soon(self._give_up, StopUser())

    def fail(self, error: Exception) -> None:
        """The others cannot come. Called by another greenlet."""
        if not self._future.done():
            self._loop.call_soon(self._give_up, error)

    def commit(self) -> None:
        """The user will go on at the instant that the master has named, and waits no more for others."""
        self._goes_on = True

    def go(self, release: _Release) -> None:
        """The instant has come."""
        if not self._future.done():
            self._loop.call_soon(_resolve, self._future, release)

    def _give_up(self, error: Exception) -> None:
        if not self._goes_on and not self._future.done():
            self._future.set_exception(error)


def _resolve(future: asyncio.Future[_Release], release: _Release) -> None:
    if not future.done():
        future.set_result(release)


class _Point:
    """One rendezvous in this process."""

    def __init__(self, users: int, tell: Callable[[], None]) -> None:
        self.users = users
        self.arrived = self.withdrawn = 0
        self.released = False
        self.waiting: dict[Wait, None] = {}  # in order
        self._tell = tell

    def arrive(self) -> Wait:
        wait = Wait(self)
        self.waiting[wait] = None
        self.arrived += 1
        self._tell()
        return wait

    def withdraw(self, wait: Wait) -> None:
        if wait in self.waiting:
            del self.waiting[wait]
            self.withdrawn += 1
            self._tell()

    def take(self, count: int) -> list[Wait]:
        """Those who go on: so many, unless some have given up meanwhile."""
        taken = [wait for wait, _ in zip(list(self.waiting), range(count), strict=False)]
        self.released = True
        for wait in taken:
            del self.waiting[wait]
            wait.commit()
        if len(taken) < count:
            self.withdrawn -= count - len(taken)  # the master has counted them among those who went on
            self._tell()
        return taken


class _Here:
    """The points of this process."""

    def __init__(self) -> None:
        self.points: dict[str, _Point] = {}
        self._telling: Any = None

    def arrive(self, name: str, users: int) -> Wait:
        point = self.points.get(name)
        if point is None:
            point = self.points[name] = _Point(users, self.tell)
        elif point.users != users:
            if point.waiting:
                raise ValueError(_differs(name, point.users, users))
            point.users = users
        return point.arrive()

    def tell(self) -> None:
        if not self._telling:
            clock.start()
            self._telling = exchange().spawn(self._tell)

    def _tell(self) -> None:
        gevent.sleep(_GATHER)
        while not clock.wait(1.0):
            pass
        while True:
            data = {name: [point.users, point.arrived, point.withdrawn] for name, point in self.points.items()}
            self._telling = None  # what comes from here on is told anew
            if exchange().to_master("rendezvous", ["here", data]):
                return
            gevent.sleep(_AGAIN)

    def on_order(self, order: str, name: str, *details: Any) -> None:
        point = self.points.get(name)
        if point is None:
            return
        if order == "refused":
            users, text = details
            if point.users == users:
                for wait in list(point.waiting):
                    wait.fail(ValueError(text))
            return
        number, at, count = details
        waits = point.take(count)
        exchange().spawn(self._release, name, number, clock.here(at), waits)

    def _release(self, name: str, number: int, at: float, waits: list[Wait]) -> None:
        release = _Release(len(waits))
        while (delay := at - perf_counter()) > 0:  # gevent wakes up early where its hub was late
            gevent.sleep(delay)
        for wait in waits:
            wait.go(release)
        if waits:
            release.all_resumed.wait(_RESUMED)
        if release.resumed:
            first, last = clock.on_master(release.first), clock.on_master(release.last)
            exchange().to_master("rendezvous", ["gone", name, number, release.resumed, first, last, clock.error])


@dataclass
class Totals:
    """What has become of a rendezvous."""

    releases: int = 0
    users: int = 0
    """Who went on, in all releases."""
    spread: float = 0.0
    """Seconds from the first to the last user who went on, at most."""
    error: float = 0.0
    """By how many seconds that may be wrong, at most."""


class _Meeting:
    """One rendezvous, on the master."""

    def __init__(self, users: int) -> None:
        self.users = users
        self.counts: dict[str, tuple[int, int]] = {}  # arrived and withdrawn, by worker
        self.gone: dict[str, int] = defaultdict(int)  # ordered to go on

    def waiting(self, worker_id: str) -> int:
        arrived, withdrawn = self.counts.get(worker_id, (0, 0))
        return arrived - withdrawn - self.gone[worker_id]


class _Everywhere:
    """All rendezvous of one run, on the master."""

    def __init__(self) -> None:
        self.totals: dict[str, Totals] = {}
        self._meetings: dict[str, _Meeting] = {}
        self._releases: deque[tuple[int, list[tuple[float, float, float]]]] = deque(maxlen=100)
        self._number = 0

    def on_message(self, worker_id: str, kind: str, *details: Any) -> None:
        if kind == "here":
            for name, (users, arrived, withdrawn) in details[0].items():
                self._on_counts(worker_id, name, users, (arrived, withdrawn))
        else:
            self._on_gone(*details)

    def _on_counts(self, worker_id: str, name: str, users: int, counts: tuple[int, int]) -> None:
        meeting = self._meetings.setdefault(name, _Meeting(users))
        others = sum(meeting.waiting(each) for each in exchange().workers() if each != worker_id)
        if meeting.users != users and others:
            self._refuse(worker_id, name, users, _differs(name, meeting.users, users))
            return
        there_are = _users()
        if there_are is not None and users > there_are:
            text = f"rendezvous {name!r} is for {users} users, but the test has {there_are}: they would wait in vain"
            self._refuse(worker_id, name, users, text)
            return
        meeting.users = users
        meeting.counts[worker_id] = counts
        self._release(name, meeting)

    def _refuse(self, worker_id: str, name: str, users: int, text: str) -> None:
        exchange().to_worker("rendezvous", ["refused", name, users, text], worker_id)

    def _release(self, name: str, meeting: _Meeting) -> None:
        while True:
            waiting = {each: number for each in exchange().workers() if (number := meeting.waiting(each)) > 0}
            if sum(waiting.values()) < meeting.users:
                return
            at = perf_counter() + _AHEAD
            self._number += 1
            self._releases.append((self._number, []))
            self.totals.setdefault(name, Totals()).releases += 1
            missing = meeting.users
            for worker_id, number in waiting.items():
                count = min(number, missing)
                missing -= count
                if count:
                    meeting.gone[worker_id] += count
                    exchange().to_worker("rendezvous", ["go", name, self._number, at, count], worker_id)

    def _on_gone(self, name: str, number: int, users: int, first: float, last: float, error: float) -> None:
        totals = self.totals.setdefault(name, Totals())
        totals.users += users
        for known, parts in self._releases:
            if known == number:
                parts.append((first, last, error))
                totals.spread = max(totals.spread, max(part[1] for part in parts) - min(part[0] for part in parts))
                if len(parts) > 1:
                    totals.error = max(totals.error, sum(sorted(part[2] for part in parts)[-2:]))

    def reset(self) -> None:
        self.totals = {name: Totals() for name in self.totals}


def _differs(name: str, one: int, other: int) -> str:
    return f"rendezvous {name!r}: users wait there for {one} users, so that nobody can wait for {other}"


def _users() -> int | None:
    """How many users the test has; None where that is not known: a shape may want more later, arrivals come and go."""
    environment = exchange().environment
    runner = environment.runner
    if runner is None:
        return 1  # run_single_user
    if environment.shape_class is not None:
        return None
    if any(getattr(each, "arrivals", None) is not None for each in environment.user_classes):
        return None
    return int(max(runner.target_user_count, runner.user_count))


_here = _Here()
_everywhere = _Everywhere()


def arrive(name: str, users: int) -> Wait:
    """
    The user whose loop this is waits there.

    Raises:
        ValueError: others wait there for another number of users.
    """
    return _here.arrive(name, users)


def forget() -> None:
    """A test starts: begin anew."""
    global _here, _everywhere
    _here, _everywhere = _Here(), _Everywhere()


def reset() -> None:
    """The statistics are reset."""
    _everywhere.reset()


def totals() -> dict[str, Totals]:
    """What has become of each rendezvous since the test began, or the statistics were reset; on the master."""
    return _everywhere.totals


at_master("rendezvous", lambda worker_id, message: _everywhere.on_message(worker_id, *message))
at_worker("rendezvous", lambda message: _here.on_order(*message))
