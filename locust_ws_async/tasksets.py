"""``async def`` in Locust's task sets.

Locust calls tasks, ``on_start``, ``on_stop`` and ``wait_time`` synchronously and never awaits them (``TaskSet.run()``
and ``TaskSet.execute_task()``). The task sets themselves need no change: a task set that runs inside an ``AsyncUser``
is given to :func:`enable_async`, which replaces four of its methods on the instance. What they replace is still called,
with a plain function in place of the coroutine function, so that every kind of task set works, nested ones included:
``TaskSet``, ``SequentialTaskSet``, ``MarkovTaskSet`` and those of plugins.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
from collections.abc import Callable, Coroutine
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from gevent import get_hub, getcurrent
from locust import TaskSet, User
from locust.exception import RescheduleTask, RescheduleTaskImmediately

from .bridge import LoopHost
from .exceptions import WebSocketError
from .internals.cpython import get_running_loop
from .internals.locust import replace_sleep
from .user_errors import CONTROL_FLOW, contains_only, is_row, list_exception, log_exception, without_our_frames

__all__ = ["tag", "task"]

if TYPE_CHECKING:
    TaskT = TypeVar("TaskT", bound=Callable[..., Any])  # a function, async def or def, or a task set

    @overload
    def task(weight: TaskT, /) -> TaskT: ...

    @overload
    def task(weight: int = 1, /) -> Callable[[TaskT], TaskT]: ...

    def task(weight: Any = 1, /) -> Any:
        """Locust's own ``task``: Locust's annotations allow no ``async def``."""

    def tag(*tags: str) -> Callable[[TaskT], TaskT]:
        """Locust's own ``tag``: Locust's annotations allow no ``async def``."""

else:
    from locust import tag, task

logger = logging.getLogger(__name__)

_HOOKS = ("on_start", "on_stop", "wait_time")


def enable_async(taskset: TaskSet) -> TaskSet:
    """Make *taskset* run its coroutine functions in its user's loop, and wait inside the loop between tasks."""
    host = _host(taskset)
    execute_task = taskset.execute_task

    # Not functools.partial: its C frame would be on the stack of every user, which is copied at each switch.
    def execute(task: Any) -> None:
        _execute_task(taskset, execute_task, task)

    def sleep(seconds: Any) -> None:
        _sleep(host, seconds)

    replaced: Any = taskset
    replaced.execute_task = execute
    if type(taskset).on_start is not TaskSet.on_start:
        replaced.on_start = functools.partial(call_sync, host, taskset.on_start)
    if type(taskset).on_stop is not TaskSet.on_stop:
        replaced.on_stop = functools.partial(call_on_stop, host, taskset, taskset.on_stop)
    replace_sleep(taskset, sleep)
    return taskset


def call_sync(host: LoopHost, function: Callable[..., Any], *args: Any) -> Any:
    """Call *function*, ``async def`` or plain, to its end."""
    running = get_running_loop()
    if running is not None and running is host.loop:
        return function(*args)  # a coroutine calls it, ``await self.on_start()`` say, and awaits it itself
    if inspect.iscoroutinefunction(function):
        return _run_coroutine(host, function(*args))
    result = host.call(function, *args)
    # A decorator may have hidden the async def.
    return _run_coroutine(host, result) if inspect.iscoroutine(result) else result


def call_on_stop(host: LoopHost, owner: User | TaskSet, on_stop: Callable[[], Any]) -> Any:
    """Call an ``on_stop``, and tell what it raises. An error of a connection that is over has no traceback.

    If it has not ended after `cancel_timeout`, the log says what it waits for. It goes on all the same, as in Locust:
    it may have much to do. But the run does not end before it.
    """
    timer = get_hub().loop.timer(host.cancel_timeout)
    timer.start(_tell_slow, host, on_stop, getcurrent())
    try:
        return call_sync(host, on_stop)
    except CONTROL_FLOW:
        raise
    except Exception as exc:
        without_our_frames(exc)
        user: Any = owner.user if isinstance(owner, TaskSet) else owner
        if not user.environment.catch_exceptions:
            raise
        if not is_row(exc):
            list_exception(owner, exc)
            if not contains_only(exc, WebSocketError):
                log_exception("root", exc, "Uncaught exception in on_stop: ")  # as TaskSet.run() does it
        return None
    finally:
        timer.close()


def _tell_slow(host: LoopHost, on_stop: Callable[[], Any], caller: Any) -> None:
    function = inspect.unwrap(on_stop)
    code: CodeType | None = getattr(function, "__code__", None)  # it may be any callable
    line = None if code is None else _present_line(code, host, caller) or code.co_firstlineno
    logger.warning(
        "%s has not ended within cancel_timeout (%s s): the stop waits for it%s",
        getattr(function, "__qualname__", function),
        host.cancel_timeout,
        "" if code is None else f", at {code.co_filename}:{line}",
    )


def _present_line(code: CodeType, host: LoopHost, caller: Any) -> int | None:
    """The line that a function of this code is at: it is on the stack of *caller*, or in a task that waits."""
    frame: FrameType | None = caller.gr_frame
    while frame is not None:
        if frame.f_code is code:
            return frame.f_lineno
        frame = frame.f_back
    for task in host.loop.tasks if host.loop is not None else ():
        for frame in task.get_stack(limit=1):
            if frame.f_code is code:
                return frame.f_lineno
    return None


def _run_coroutine(host: LoopHost, coro: Coroutine[Any, Any, Any]) -> Any:
    try:
        return host.run(coro)
    except asyncio.CancelledError as exc:
        # Not Locust's doing: a kill arrives here as GreenletExit. CancelledError, not being an Exception, would end the
        # user without a word.
        raise RuntimeError("the task was cancelled, though Locust does not stop the user") from exc


def refuse_unawaited(user_class: type[User]) -> None:
    """Raise ``TypeError`` for a user class that cannot await its ``async def`` tasks: they would silently never run."""
    for name, function in _functions(user_class):
        if inspect.iscoroutinefunction(function):
            raise TypeError(
                f"{name} is an async def, and {user_class.__name__} cannot await it, so that it would never run: let "
                f"{user_class.__name__} inherit from locust_ws_async.AsyncUser or AsyncWebSocketUser (also together "
                f"with HttpUser)"
            )


def refuse_generators(user_class: type[User]) -> None:
    """Raise ``TypeError`` for tasks with a ``yield``: calling them runs nothing."""
    for name, function in _functions(user_class):
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(
                f"{name} is a generator because of its yield: called by Locust it would never run. Remove the yield, "
                f"or loop over the generator in a task"
            )


def _functions(holder: Any) -> list[tuple[str, Any]]:
    """What Locust calls of a user or task set class, each with its name for people; nested task sets included."""
    found = []
    pending, seen = [holder], set()
    while pending:
        holder = pending.pop()
        if holder in seen:
            continue
        seen.add(holder)
        found += [(f"{holder.__name__}.{name}", getattr(holder, name)) for name in _HOOKS]
        for task in holder.tasks:
            if hasattr(task, "tasks"):  # as Locust's TaskSet.execute_task() tells a task set
                pending.append(task)
            else:
                found.append((f"{holder.__name__}.{getattr(task, '__name__', task)}", task))
    return found


def _execute_task(taskset: TaskSet, execute_task: Callable[[Any], None], task: Any) -> None:
    """Locust's ``execute_task``, for tasks of either kind."""
    if getattr(task, "__self__", None) is taskset:
        task = task.__func__  # Locust's MarkovTaskSet.get_next_task() looks its tasks up on the instance
    try:
        execute_task(_as_plain_function(task))
    except CONTROL_FLOW:
        raise
    except Exception as exc:
        without_our_frames(exc)
        if not taskset.user.environment.catch_exceptions:
            raise
        # As TaskSet.run() does it, where the traceback would begin with frames of ours.
        if not is_row(exc):
            list_exception(taskset, exc)
            if not contains_only(exc, WebSocketError):
                log_exception("locust.user.task", exc)
        raise RescheduleTask() from exc


@functools.lru_cache(maxsize=256)
def _as_plain_function(task: Any) -> Callable[[Any], None]:
    """*task*, a function or a nested task set, as a plain function; named and marked as the task is."""
    if inspect.isclass(task):
        nested: Any = task

        def run(parent: Any) -> None:
            enable_async(nested(parent)).run()  # type: ignore[no-untyped-call] # Locust's has no types

        return functools.update_wrapper(run, nested, updated=())

    @functools.wraps(task)
    def run_to_its_end(owner: Any) -> None:
        call_sync(_host(owner), task, owner)

    return run_to_its_end


def _host(owner: Any) -> LoopHost:
    """The loop of a task's owner, a user or a task set."""
    user: Any = owner.user if isinstance(owner, TaskSet) else owner
    host: LoopHost = user._loop_host
    return host


def _sleep(host: LoopHost, seconds: float | Coroutine[Any, Any, float]) -> None:
    """Locust's ``TaskSet._sleep``, with what ``wait_time()`` has returned: a coroutine if it is an ``async def``."""
    # Raised in the background, by a request listener perhaps: it ends the current task, and there is none.
    with contextlib.suppress(RescheduleTask, RescheduleTaskImmediately):
        host.sleep(_run_coroutine(host, seconds) if isinstance(seconds, Coroutine) else seconds)
