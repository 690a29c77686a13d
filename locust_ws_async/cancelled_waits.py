"""What waited when its user was stopped: no row tells of it, so a line in the log does, one for each name."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from locust.env import Environment

__all__: list[str] = []

_logger = logging.getLogger(__name__)


@dataclass
class _Waits:
    users: set[int] = field(default_factory=set)
    longest: float = 0.0
    never: str | None = None


class CancelledWaits:
    """The waits that the stop of users has cancelled, in one process, since the last time that they were logged."""

    def __init__(self) -> None:
        self._waits: dict[tuple[str, str], _Waits] = {}

    def add(self, user: object, operation: str, name: str, seconds: float, never: str) -> None:
        """Take one wait of a user; what a client calls ``waited`` (:class:`~.client.session.reports.Waited`)."""
        waits = self._waits.setdefault((operation, name), _Waits())
        waits.users.add(id(user))
        waits.longest = max(waits.longest, seconds)
        # Virtual users of `arrivals` come all the time, so that at each stop some are on their way.
        if not never or getattr(user, "_arrived", False):
            waits.never = ""
        elif waits.never is None:
            waits.never = never

    def log(self, **_: Any) -> None:
        """Log them: a listener of ``events.test_stop``."""
        waits, self._waits = self._waits, {}
        for (operation, name), each in sorted(waits.items()):
            number = len(each.users)
            _logger.log(
                logging.WARNING if each.never else logging.INFO,
                "%d %s had waited in %s of %s, the longest for %.1f s%s",
                number,
                "user" if number == 1 else "users",
                operation,
                name,
                each.longest,
                f", and {each.never}" if each.never else "",
            )


_of_environments: WeakKeyDictionary[Environment, CancelledWaits] = WeakKeyDictionary()


def cancelled_waits(environment: Environment) -> CancelledWaits:
    """Return the waits of this environment's users; they are logged when its test stops."""
    waits = _of_environments.get(environment)
    if waits is None:
        waits = _of_environments[environment] = CancelledWaits()
        environment.events.test_stop.add_listener(waits.log)  # type: ignore[no-untyped-call] # Locust's has no types
    return waits
