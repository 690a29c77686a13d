"""How the errors of a user come to Locust: into its Exceptions, once each, and without frames of this package."""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from locust import TaskSet, User
from locust.env import Environment
from locust.exception import InterruptTaskSet, RescheduleTask, RescheduleTaskImmediately, StopTest, StopUser

from .exceptions import WebSocketError
from .tracebacks import author_frames

__all__: list[str] = []

CONTROL_FLOW = (StopUser, StopTest, RescheduleTask, RescheduleTaskImmediately, InterruptTaskSet)
"""What Locust's task sets understand, wherever in the user's loop it is raised (TaskSet.run(), EventHook.fire())."""


def contains_only(exc: BaseException, kind: type[Exception]) -> bool:
    """Whether *exc* is a *kind*, or the group of an ``asyncio.TaskGroup`` that holds nothing else."""
    if isinstance(exc, BaseExceptionGroup):
        return all(contains_only(each, kind) for each in exc.exceptions)
    return isinstance(exc, kind)


def is_row(exc: BaseException) -> bool:
    """Whether failed rows tell of *exc* already, or of all that is in the group."""
    if isinstance(exc, BaseExceptionGroup):
        return all(is_row(each) for each in exc.exceptions)
    return isinstance(exc, WebSocketError) and exc.is_row


def list_exception(owner: User | TaskSet, exc: BaseException) -> None:
    """Add *exc* to Locust's Exceptions, as ``TaskSet.run()`` does it."""
    user: Any = owner.user if isinstance(owner, TaskSet) else owner
    user.environment.events.user_error.fire(user_instance=owner, exception=exc, tb=exc.__traceback__)


def log_exception(logger: str, exc: BaseException, text: object = None) -> None:
    """Log *exc* with its traceback, below *text* or its own, as Locust does it in its logger of this name."""
    logging.getLogger(logger).error("%s\n%s", text or exc, "".join(traceback.format_exception(exc)))


def without_our_frames(exc: BaseException) -> None:
    """Cut the frames of this package from the traceback of *exc*, and of all that it holds or came of."""
    pending, seen = [exc], set()
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        each.__traceback__ = author_frames(each.__traceback__) or each.__traceback__
        pending += [other for other in (each.__cause__, each.__context__) if other is not None]
        if isinstance(each, BaseExceptionGroup):
            pending += each.exceptions


def list_forgotten_awaits(environment: Environment) -> None:
    """Add each coroutine that was never awaited to the Exceptions of *environment*: Python only warns of it, on stderr.

    Python warns once for each line. Its warning is shown as before.
    """
    show = warnings.showwarning

    def showwarning(message: Any, category: type[Warning], filename: str, lineno: int, *more: Any) -> None:
        show(message, category, filename, lineno, *more)
        if issubclass(category, RuntimeWarning) and str(message).endswith("was never awaited"):
            exc = RuntimeError(f"{message}: write `await` before it")
            _raise_at(filename, lineno, exc)
            user_error: Any = environment.events.user_error  # which has no types
            user_error.fire(user_instance=None, exception=exc, tb=exc.__traceback__)

    replaced: Callable[..., None] = showwarning
    warnings.showwarning = replaced


def _raise_at(filename: str, lineno: int, exc: BaseException) -> None:
    """Give *exc* the traceback of one that was raised there: Locust tells exceptions apart by theirs."""
    code = compile("\n" * (lineno - 1) + "raise exc", filename, "exec")
    try:
        exec(code, {"exc": exc})
    except RuntimeError as raised:
        assert raised is exc and exc.__traceback__ is not None
        exc.__traceback__ = exc.__traceback__.tb_next
