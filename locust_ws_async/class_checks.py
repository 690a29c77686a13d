"""What a run is told about its locustfile: wrong settings before it begins, too many names of rows while it goes on.

A wrong setting ends Locust with exit code 2. Locust itself would log what the constructor of a user raises, and run
with no users.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from typing import Any
from weakref import WeakSet

import gevent
from locust import User
from locust.env import Environment
from locust.runners import MasterRunner

from .client.options import nearest_name

__all__: list[str] = []

logger = logging.getLogger(__name__)

_MANY_NAMES = 200
_CHILD_STARTS_WITHIN = 30  # seconds
_told: WeakSet[Environment] = WeakSet()


def check_classes(environment: Environment, check: Callable[[type[User], str | None], None]) -> None:
    """
    Check all user classes of a run, and end the process if one is wrong. Each problem is logged.

    Args:
        environment: the environment of the run.
        check: raises what is wrong with the settings of a class, for this host.
    """
    wrong = False
    for user_class in environment.user_classes:
        try:
            check(user_class, environment.host or user_class.host)
        except (TypeError, ValueError, ImportError) as exc:
            wrong = True
            logger.error("%s: %s", user_class.__name__, exc)
    if wrong:
        _let_children_end(environment)
        sys.exit(2)


def _let_children_end(environment: Environment) -> None:
    """Wait until the children of ``--processes`` are connected, so that each of them comes to check its classes too.

    A child whose master is gone before it is connected asks for it for minutes (``WorkerRunner.connect_to_master``),
    and Locust ends such a child in no other way.
    """
    runner, children = environment.runner, getattr(environment.parsed_options, "processes", None)
    if not isinstance(runner, MasterRunner) or not children:
        return
    came = set(runner.clients)
    environment.events.worker_connect.add_listener(  # type: ignore[no-untyped-call] # Locust's has no types
        lambda client_id, **_: came.add(client_id)
    )
    with suppress(gevent.Timeout), gevent.Timeout(_CHILD_STARTS_WITHIN):
        while len(came) < children:
            gevent.sleep(0.02)


@cache
def tell_of_unknown_settings(user_class: type[User], base: type[User], settings: Iterable[str]) -> None:
    """
    Warn of each attribute that looks like a setting but is none.

    Args:
        user_class: the class of the locustfile.
        base: the class of this package that it inherits from, whose attributes are all known.
        settings: the names of the settings.
    """
    ours = base.__mro__
    for holder in user_class.__mro__:
        if holder in ours:
            continue
        for name, value in vars(holder).items():
            if name.startswith("_") or hasattr(base, name) or hasattr(value, "locust_task_weight"):
                continue
            nearest = nearest_name(name, settings)
            if nearest is not None:
                logger.warning("%s.%s is no setting: is %s meant?", holder.__name__, name, nearest)


def values_on(user_class: Any, names: Iterable[str]) -> dict[str, Any]:
    """The settings that a class itself has; those that each user computes, by a property, are left out."""
    values = {name: getattr(user_class, name) for name in names}
    return {name: value for name, value in values.items() if not hasattr(type(value), "__get__") or callable(value)}


def watch_names(environment: Environment, **_: Any) -> None:
    """Warn once of more than 200 names of rows. A listener of events: ``usage_monitor`` is fired every 5 seconds."""
    entries = environment.stats.entries
    if len(entries) <= _MANY_NAMES or environment in _told:
        return
    names = {name for name, request_type in entries if request_type.startswith("WS ")}
    if len(names) > _MANY_NAMES:
        _told.add(environment)
        logger.warning(
            "More than %d names of rows. Does a name hold an id, a token or a time? Give connect and request a name=, "
            "or set fold_ids = True, which makes /room/{id} of /room/123.",
            _MANY_NAMES,
        )
