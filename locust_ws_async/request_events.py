"""One operation of the client, one ``events.request``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import suppress
from functools import lru_cache
from time import perf_counter, time
from typing import Any, cast

from gevent import get_hub
from locust import User
from locust.event import EventHook

from .client import ALL_ROWS, KEEPALIVE, RECOVERY, SESSION, Report
from .client.client import checked_rows
from .fast_paths import PLAIN
from .internals.locust import listeners_of, statistics_among, stats_of
from .statistics.bulk import counts_as_locust_does, log_apart, log_requests

__all__ = ["AGGREGATED", "reporter", "reports_apart"]

AGGREGATED: frozenset[str] = ALL_ROWS - {SESSION, RECOVERY, KEEPALIVE}
"""The row types that count into Locust's *Aggregated* by default. How long a connection lived, how long an outage
lasted, and when an answer was written, are no response times."""


def reporter(user: User) -> Report:
    """The client's ``report`` for *user*: fires its environment's request event, with the user's context merged in.

    The keyword arguments are those of Locust's own clients (``HttpSession.request()``), and the ones that its listeners
    insist on (``on_request`` in ``Runner.__init__()`` and ``PrintListener.on_request()``). Exceptions of listeners that
    are meant for the user, ``StopUser`` for instance, are raised to the caller (``EventHook.fire()``).

    While only Locust's statistics listen, the event of a success is fired at the end of the hub's turn, with only the
    arguments that the statistics look at. A report, or a greenlet that the hub resumes later, finds it counted.
    Where Locust's statistics are not recognised, each event is fired at once and with all arguments.
    """
    return _reporters(user)[0]


def reports_apart(user: User, aggregated: Collection[str]) -> Mapping[str, Report]:
    """The ``report`` of the row types that do not count into *Aggregated*, by row type: all but those *aggregated*.

    It fires the same event for everybody but Locust's statistics, in which it counts the row alone. A failure counts in
    *Aggregated* too: as a request without a time, so that there never are more failures than requests.
    Where Locust's statistics are not recognised, such a row counts as any other.
    """
    apart = ALL_ROWS - checked_rows(aggregated, "aggregated")
    report = _reporters(user)[1]
    return _shared_reports(cast(Hashable, report), apart) if _has_no_context(user) else dict.fromkeys(apart, report)


def _reporters(user: User) -> tuple[Report, Report]:
    request = user.environment.events.request
    statistics = statistics_among(request)
    if _has_no_context(user):
        return _shared_reporters(request, request.fire, statistics)
    return _make_reporters(_shared_buffer(request, request.fire, statistics), user.context)


def _has_no_context(user: User) -> bool:  # of its own, as most users
    return type(user).context is User.context


# One of each for all users: with thousands of them each object less that is a user's own is a miss of the cache less.
# What is cached keeps one Environment alive, the last one that had users. Where two alternate, each new user makes both
# objects anew, which costs only time.


@lru_cache(maxsize=1)
def _shared_reporters(
    request: EventHook, fire: Callable[..., None], statistics: tuple[Any, ...]
) -> tuple[Report, Report]:
    return _make_reporters(_shared_buffer(request, fire, statistics), dict)


@lru_cache(maxsize=8)
def _shared_reports(report: Any, apart: frozenset[str]) -> Mapping[str, Report]:
    return dict.fromkeys(apart, report)


@lru_cache(maxsize=1)
def _shared_buffer(request: EventHook, fire: Callable[..., None], statistics: tuple[Any, ...]) -> _EventBuffer:
    return _EventBuffer(request, fire, statistics)


class _EventBuffer:
    """Successes that only the statistics hear of, until the end of the hub's turn."""

    def __init__(self, request: EventHook, fire: Callable[..., None], statistics: tuple[Any, ...]) -> None:
        self.fire = fire
        self.listeners: list[Any] = listeners_of(request)
        self.statistics = list(statistics)
        # Fast path "statistics at once": the successes of a turn are counted in one pass for each row, by the same sums
        # as Locust's (benchmarks/README.md). The plain twin fires each of them.
        not_replaced = getattr(fire, "__func__", None) is EventHook.fire
        self.counts_at_once = len(statistics) == 1 and not_replaced and counts_as_locust_does()
        self.can_count_apart = bool(statistics) and not_replaced
        self.arguments: list[Any] = []
        """Flat: request_type, name, response_time and response_length of each buffered event."""
        self.apart: list[Any] = []
        """The same of those that do not count into *Aggregated*."""

    def flush(self) -> None:
        # Not one function with flush_apart(): that was two thousand instructions of each turn.
        arguments = self.arguments.copy()
        self.arguments.clear()
        columns = arguments[0::4], arguments[1::4], arguments[2::4], arguments[3::4]
        if self.counts_at_once:
            with suppress(Exception):  # a replaced bucket_response_time raised: the listener below tells of it
                # A listener that was added meanwhile did not listen yet when these happened.
                log_requests(stats_of(self.statistics[0]), *columns)
                return
        fire = self.fire if self.listeners == self.statistics else self._count
        for request_type, name, response_time, response_length in zip(*columns, strict=True):
            fire(request_type=request_type, name=name, response_time=response_time, response_length=response_length)

    def flush_apart(self) -> None:
        apart = self.apart.copy()
        self.apart.clear()
        columns = apart[0::4], apart[1::4], apart[2::4], apart[3::4]
        if self.counts_at_once:
            with suppress(Exception):
                log_requests(stats_of(self.statistics[0]), *columns, aggregated=False)
                return
        for operation in zip(*columns, strict=True):
            self._count_apart(*operation)

    def _count(self, **arguments: Any) -> None:
        for listener in self.statistics:
            listener(**arguments)

    def fire_apart(self, **arguments: Any) -> None:
        """Fire an event that does not count into *Aggregated*."""
        self._count_apart(**arguments)
        make_hook: Any = EventHook  # which has no types
        others = make_hook()
        for listener in self.listeners:
            if listener not in self.statistics:
                others.add_listener(listener)
        others.fire(**arguments)

    def _count_apart(
        self,
        request_type: str,
        name: str,
        response_time: float | None,
        response_length: int,
        exception: BaseException | None = None,
        **_: Any,
    ) -> None:
        """Do what Locust's statistics do with this event, but for *Aggregated*."""
        for listener in self.statistics:
            stats = stats_of(listener)
            log_apart(stats, request_type, name, response_time, response_length)
            if exception is not None:
                stats.total.log(cast(int, None), 0)
                stats.log_error(request_type, name, cast(Exception, exception))


def _make_reporters(buffer: _EventBuffer, context: Callable[[], object]) -> tuple[Report, Report]:
    report = _make_reporter(buffer, buffer.arguments, buffer.flush, buffer.fire, context)
    if not buffer.can_count_apart:
        return report, report
    return report, _make_reporter(buffer, buffer.apart, buffer.flush_apart, buffer.fire_apart, context)


def _make_reporter(
    buffer: _EventBuffer,
    arguments: list[Any],
    flush: Callable[[], None],
    fire: Callable[..., None],
    context: Callable[[], object],
) -> Report:
    buffered, apart = buffer.arguments, buffer.apart
    # With the plain twins no list of listeners is the one that is buffered for: each event is fired at once, with all
    # its arguments.
    listeners, statistics = buffer.listeners, None if PLAIN else buffer.statistics

    def report(
        request_type: str,
        name: str,
        response_time: float | None,
        response_length: int,
        exception: BaseException | None,
        started: float,
        url: str,
        response: object,
    ) -> None:
        # This runs for every message.
        # Fast path "four arguments": of a success Locust's statistics look at four of the nine arguments. While nobody
        # else listens, the others are left out (benchmarks/README.md).
        # Fast path "events in a row": the hub first serves all sockets that are ready. Then the events of that turn are
        # fired in a row, while the processor's caches hold the statistics (benchmarks/README.md).
        if exception is None and listeners == statistics:
            if not arguments:
                get_hub().loop.run_callback(flush)
            arguments.extend((request_type, name, response_time, response_length))
            return
        if buffered:
            buffer.flush()
        if apart:
            buffer.flush_apart()
        fire(
            request_type=request_type,
            name=name,
            response_time=response_time,
            response_length=response_length,
            exception=exception,
            context=context(),
            start_time=time() - (perf_counter() - started),
            url=url,
            response=response,
        )

    return report
