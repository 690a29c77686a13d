"""One operation of the client, one ``events.request``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from locust import User

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
    fire, listeners = request.fire, request._handlers
    # Of a success Locust's statistics look at four of the nine arguments. While nobody else listens the others are left
    # out: to hand them on would be an eighth of what a message costs.
    statistics = [listener for listener in listeners if _is_statistics(listener)]
    # Most users have no context of their own, and this runs for every message.
    context = None if type(user).context is User.context else user.context

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
        if exception is None and listeners == statistics:
            fire(request_type=request_type, name=name, response_time=response_time, response_length=response_length)
            return
        fire(
            request_type=request_type,
            name=name,
            response_time=response_time,
            response_length=response_length,
            exception=exception,
            context={} if context is None else context(),
            start_time=start_time,
            url=url,
            response=response,
        )

    return report


def _is_statistics(listener: Any) -> bool:
    code = getattr(listener, "__code__", None)
    return listener.__module__ == "locust.runners" and code is not None and code.co_varnames == _STATISTICS
