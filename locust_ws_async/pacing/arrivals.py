"""New virtual users at a rate, whatever the server does: the open model.

A user class with ``arrivals`` makes of each of its Locust users a *source*. A source runs no task; it starts a fresh
user of its class, in a greenlet of its own, whenever one is due. Such a virtual user is no user of Locust's: the user
count is that of the sources.

Each source has its share of the rate, one by the number of sources on all workers. On a worker only the master knows
that number: it looks at the users that its workers report, a few times a second, and tells each worker that has
sources when the number has changed. Before a source knows it, it starts nobody. So when users or workers come or go,
the rate is right again as soon as the master has noticed: a fraction of a second, but three seconds and more for a
worker that dies without a word (Locust's heartbeat).
"""

from __future__ import annotations

import logging
from collections import Counter
from math import ceil
from time import perf_counter
from typing import Any

import gevent
from gevent.pool import Group
from locust import User
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser
from locust.rpc import Message
from locust.runners import MasterRunner, WorkerRunner
from locust.user.task import DefaultTaskSet

from ..internals.locust import is_running, is_stopping, set_running, set_stopping
from ..statistics.buckets import bucket
from .clock import began
from .counters import arrived
from .schedule import Rate, Schedule, checked_law, checked_rate

__all__ = ["OnceThrough", "Source", "check_class", "virtual_users"]

_MESSAGE = "ws_sources"
_LOOK = 0.2  # seconds between two looks of the master at the users of its workers

_logger = logging.getLogger(__name__)

_classes: dict[str, Any] = {}  # the user classes that have arrivals
_sources: Counter[str] = Counter()  # that run in this process, by class
_running: set[Source] = set()
_everywhere: dict[str, int] = {}  # and on all workers, as the master said last; for a worker only


def check_class(cls: Any) -> None:
    """
    Called for each user class.

    Raises:
        TypeError, ValueError: its ``arrivals``, ``arrivals_law`` or ``arrivals_limit`` is wrong.
    """
    if cls.arrivals is None:
        return
    checked_rate(cls.arrivals, f"{cls.__name__}.arrivals")
    checked_law(cls.arrivals_law)
    limit = cls.arrivals_limit
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError(f"{cls.__name__}.arrivals_limit must be a whole number of at least 1, not {limit!r}")
    _classes[cls.__name__] = cls


class OnceThrough(DefaultTaskSet):
    """The root of a virtual user's tasks: each in the order of the class, as often as its weight says, then the end."""

    def __init__(self, user: User) -> None:
        super().__init__(user)
        self._left = list(user.tasks)

    def get_next_task(self) -> Any:
        if not self._left:
            raise StopUser()
        return self._left.pop(0)

    def wait(self) -> None:
        if not self._left:
            raise StopUser()
        super().wait()  # type: ignore[no-untyped-call] # Locust's has no types


class Source:
    """What a Locust user of a class with ``arrivals`` does. Used in the greenlet of that user."""

    def __init__(self, user: Any) -> None:
        self._user = user
        self._class = type(user)
        self._name = self._class.__name__
        self._counters = arrived[self._name]
        self._visitors = Group()
        self._override = _Override()
        self._warned = False

    def run(self) -> None:
        """Start virtual users until Locust stops this one. Then they have the time that Locust gives it."""
        set_running(self._user)
        _sources[self._name] += 1
        _running.add(self)
        try:
            self._start_visitors()
            for visitor in self.users():
                if is_running(visitor):
                    set_stopping(visitor)
                else:
                    self._visitors.killone(visitor.greenlet, block=False)
            self._visitors.join()
        finally:
            _sources[self._name] -= 1
            self._visitors.kill()
            _running.discard(self)

    def _start_visitors(self) -> None:
        schedule = Schedule(self._rate, self._class.arrivals_law, perf_counter(), began())
        while not is_stopping(self._user):
            due = schedule.next(perf_counter())
            # Both lie within the present step of the schedule, so that neither a stop nor a new rate waits for long.
            moment = schedule.until if due is None else due
            gevent.sleep(0)  # also where one arrival after the other is late
            while (delay := moment - perf_counter()) > 0:  # gevent wakes up early where its hub was late
                gevent.sleep(delay)
            if due is not None:
                self._arrive(perf_counter() - due)

    def _arrive(self, late: float) -> None:
        counters = self._counters
        counters.offered += 1
        counters.late[bucket(late * 1000)] += 1
        limit = ceil(self._class.arrivals_limit * self._share())
        if len(self._visitors) >= limit:
            counters.dropped += 1
            if not self._warned:
                self._warned = True
                _logger.warning(
                    "%s: %s virtual users of this source are running, its share of arrivals_limit, so that one more "
                    "was dropped. (Warned once a source; how many were dropped is told at the end.)",
                    self._name,
                    limit,
                )
            return
        counters.started += 1
        counters.running += 1
        visitor = self._class(self._user.environment)
        visitor._arrived = True
        visitor.start(self._visitors).rawlink(self._gone)

    def _gone(self, greenlet: Any) -> None:
        self._counters.running -= 1

    def users(self) -> list[Any]:
        """Its virtual users that are there now."""
        return [greenlet.args[0] for greenlet in self._visitors if greenlet.args]  # as Locust finds its own

    def _rate(self, elapsed: float) -> float:
        rate: Rate | None = self._override.of(self._name, self._user.environment)
        if rate is None:
            rate = self._class.arrivals
        return (rate(elapsed) if callable(rate) else rate) * self._share()

    def _share(self) -> float:
        here = _sources[self._name]
        if isinstance(self._user.environment.runner, WorkerRunner):
            everywhere = _everywhere.get(self._name)
            return 1 / max(here, everywhere) if everywhere else 0.0
        return 1 / here


def virtual_users() -> list[Any]:
    """All virtual users of this process that are there now."""
    return [user for source in list(_running) for user in source.users()]


class _Override:
    """``--arrivals``, which the form of the web UI may change while the test runs."""

    def __init__(self) -> None:
        self._text = ""
        self._rates: dict[str, float] = {}

    def of(self, name: str, environment: Environment) -> float | None:
        """The rate that is given there for this class."""
        text = str(getattr(environment.parsed_options, "arrivals", None) or "")
        if text != self._text:
            self._text = text
            try:
                self._rates = _parse(text)
            except ValueError as exc:
                _logger.error("%s. The rate of %s stays as it was.", exc, name)
        return self._rates.get(name, self._rates.get(""))


def _parse(text: str) -> dict[str, float]:
    """Rates by class, of ``20`` (the name is "" then) or ``Shopper=20,Driver=0.5``."""
    rates = {}
    for part in filter(None, text.replace(" ", "").split(",")):
        name, _, number = part.rpartition("=")
        if name and name not in _classes:
            raise ValueError(f"--arrivals: there is no class {name!r} with arrivals, only {', '.join(_classes)}")
        try:
            rates[name] = float(number)
            checked_rate(rates[name], "--arrivals")
        except ValueError:
            raise ValueError(
                f"--arrivals: {part!r} is no rate: give a number above 0, of arrivals a second on all workers, or "
                f"Class=number for several classes, with commas between them"
            ) from None
    return rates


def on_init_command_line_parser(parser: LocustArgumentParser, **_: Any) -> None:
    if not _classes:
        return

    def checked(text: str) -> str:
        try:
            _parse(text)
        except ValueError as exc:
            parser.error(str(exc))  # type: ignore[no-untyped-call] # Locust's has no types
        return text

    parser.add_argument(
        "--arrivals",
        type=checked,
        default="",
        metavar="RATE",
        env_var="LOCUST_ARRIVALS",
        help="New virtual users a second on all workers, in place of the class's arrivals; Class=RATE,Class=RATE for "
        "several classes",
    )


def on_test_start(environment: Environment, **_: Any) -> None:
    _everywhere.clear()
    runner = environment.runner
    if isinstance(runner, MasterRunner) and _classes:
        runner.greenlet.spawn(_tell_workers, runner)


def on_init(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner) and _classes:
        environment.runner.register_message(_MESSAGE, _on_sources)


def _on_sources(environment: Environment, msg: Message, **_: Any) -> None:
    _everywhere.update(msg.data)


def on_test_stopping(**_: Any) -> None:
    global _telling
    _telling = None


_telling: object = None  # the run whose workers are told


def _tell_workers(runner: MasterRunner) -> None:
    """On the master, while the test runs: how many sources of each class there are."""
    global _telling
    this_run = _telling = object()
    told: dict[str, dict[str, int]] = {}
    while _telling is this_run:
        gevent.sleep(_LOOK)
        workers = [*runner.clients.spawning, *runner.clients.running]
        users = Counter[str]()
        for worker in workers:
            users.update({name: worker.user_classes_count.get(name, 0) for name in _classes})
        for worker in workers:
            if told.get(worker.id) != users and any(worker.user_classes_count.get(name) for name in _classes):
                told[worker.id] = dict(users)
                runner.send_message(_MESSAGE, dict(users), client_id=worker.id)
