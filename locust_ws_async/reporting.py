"""One operation of the client, one ``events.request``."""

from __future__ import annotations

from collections.abc import Callable

from locust import User

__all__: list[str] = []


def reporter(user: User) -> Callable[..., None]:
    """The client's ``report`` for *user*: fires its environment's request event, with the user's context merged in.

    The keyword arguments are those of Locust's own clients (locust/clients.py), and the ones that its listeners insist
    on (locust/runners.py:126, locust/debug.py:50). Exceptions of listeners that are meant for the user, ``StopUser``
    for instance, are raised to the caller (locust/event.py:48).
    """
    fire = user.environment.events.request.fire
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
