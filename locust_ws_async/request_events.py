"""One operation of the client, one ``events.request``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from time import perf_counter, time
from typing import Any

from gevent import get_hub
from locust import User
from locust.event import EventHook

from .fast_paths import PLAIN
from .internals.locust import listeners_of, statistics_among, stats_of
from .statistics.bulk import counts_as_locust_does, log_requests

__all__: list[str] = []


def reporter(user: User) -> Callable[..., None]:
    """The client's ``report`` for *user*: fires its environment's request event, with the user's context merged in.

    The keyword arguments are those of Locust's own clients (``HttpSession.request()``), and the ones that its listeners
    insist on (``on_request`` in ``Runner.__init__()`` and ``PrintListener.on_request()``). Exceptions of listeners that
    are meant for the user, ``StopUser`` for instance, are raised to the caller (``EventHook.fire()``).

    While only Locust's statistics listen, the event of a success is fired at the end of the hub's turn, with only the
    arguments that the statistics look at. A report, and a greenlet that the hub resumes later, finds it counted.
    Where Locust's statistics are not recognised, each event is fired at once and with all arguments.
    """
    request = user.environment.events.request
    statistics = statistics_among(request)
    if type(user).context is User.context:  # most users have no context of their own
        return _shared_reporter(request, request.fire, statistics)
    return _make_reporter(_shared_buffer(request, request.fire, statistics), user.context)


# One of each for all users: with thousands of them each object less that is a user's own is a miss of the cache less.
# What is cached keeps one Environment alive, the last one that had users. Where two alternate, each new user makes both
# objects anew, which costs only time.


@lru_cache(maxsize=1)
def _shared_reporter(request: EventHook, fire: Callable[..., None], statistics: tuple[Any, ...]) -> Callable[..., None]:
    return _make_reporter(_shared_buffer(request, fire, statistics), dict)


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
        self.arguments: list[Any] = []
        """Flat: request_type, name, response_time and response_length of each buffered event."""

    def flush(self) -> None:
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

    def _count(self, **arguments: Any) -> None:
        for listener in self.statistics:
            listener(**arguments)


def _make_reporter(buffer: _EventBuffer, context: Callable[[], object]) -> Callable[..., None]:
    fire, flush, arguments = buffer.fire, buffer.flush, buffer.arguments
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
        if arguments:
            flush()
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
