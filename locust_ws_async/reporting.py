"""One operation of the client, one ``events.request``."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from locust import User
from locust.event import EventHook

__all__: list[str] = []

_STATISTICS = ("request_type", "name", "response_time", "response_length", "exception", "_kwargs")
"""The arguments of the listener by which a runner counts (locust/runners.py:127)."""


def reporter(user: User) -> Callable[..., None]:
    """The client's ``report`` for *user*: fires its environment's request event, with the user's context merged in.

    The keyword arguments are those of Locust's own clients (locust/clients.py), and the ones that its listeners insist
    on (locust/runners.py:126, locust/debug.py:50). Exceptions of listeners that are meant for the user, ``StopUser``
    for instance, are raised to the caller (locust/event.py:48).
    """
    request = user.environment.events.request
    statistics = tuple(listener for listener in request._handlers if _is_statistics(listener))
    if type(user).context is User.context:  # most users have no context of their own
        return _shared_reporter(request, request.fire, statistics)
    return _new_reporter(request, request.fire, statistics, user.context)


def _new_reporter(
    request: EventHook, fire: Callable[..., None], statistics: tuple[Any, ...], context: Callable[[], object]
) -> Callable[..., None]:
    listeners, only_statistics = request._handlers, list(statistics)

    def report(
        request_type: str,
        name: str,
        response_time: float | None,
        response_length: int,
        exception: BaseException | None,
        start_time: float,
        url: str,
        response: object,
    ) -> None:
        # This runs for every message. Of a success Locust's statistics look at four of the nine arguments. While nobody
        # else listens the others are left out: to hand them on would be an eighth of what a message costs.
        if exception is None and listeners == only_statistics:
            fire(request_type=request_type, name=name, response_time=response_time, response_length=response_length)
            return
        fire(
            request_type=request_type,
            name=name,
            response_time=response_time,
            response_length=response_length,
            exception=exception,
            context=context(),
            start_time=start_time,
            url=url,
            response=response,
        )

    return report


@lru_cache(maxsize=1)
def _shared_reporter(request: EventHook, fire: Callable[..., None], statistics: tuple[Any, ...]) -> Callable[..., None]:
    # The same for all users: with thousands of them each object less that is a user's own is a miss of the cache less.
    return _new_reporter(request, fire, statistics, dict)


def _is_statistics(listener: Any) -> bool:
    code = getattr(listener, "__code__", None)
    return getattr(code, "co_varnames", ()) == _STATISTICS and listener.__module__ == "locust.runners"
