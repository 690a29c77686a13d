"""``async def`` in Locust's task sets.

Locust calls tasks, ``on_start`` and ``on_stop`` synchronously and never awaits them (locust/user/task.py:398-408). The
task sets themselves need no change: a task set that runs inside an ``AsyncUser`` is *adopted*, which replaces four of
its methods on the instance. What they replace is still called, with a plain function in place of the coroutine
function, so that every kind of task set works, nested ones included: ``TaskSet``, ``SequentialTaskSet``,
``MarkovTaskSet`` and those of plugins.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from locust import TaskSet, User

from .bridge import LoopHost

__all__: list[str] = []

_is_coroutine_function = functools.lru_cache(maxsize=None)(inspect.iscoroutinefunction)


def adopt(taskset: TaskSet, host: LoopHost) -> TaskSet:
    """Make *taskset* run its coroutine functions in *host*'s loop, and wait inside the loop between tasks."""
    execute_task: Callable[[Any], None] = taskset.execute_task
    replaced: Any = taskset
    replaced.execute_task = lambda task: execute_task(_synchronous(task, taskset, host))
    if type(taskset).on_start is not TaskSet.on_start:
        replaced.on_start = functools.partial(call, host, taskset.on_start)
    if type(taskset).on_stop is not TaskSet.on_stop:
        replaced.on_stop = functools.partial(call, host, taskset.on_stop)
    replaced._sleep = host.sleep
    return taskset


def call(host: LoopHost, function: Callable[..., Any], *args: Any) -> Any:
    """Call *function*, ``async def`` or plain, to its end."""
    if _is_coroutine_function(function):
        return host.run(function(*args))
    result = host.call(function, *args)
    # A decorator may have hidden the async def.
    return host.run(result) if inspect.iscoroutine(result) else result


def refuse_unawaited(user_class: type[User]) -> None:
    """Raise ``TypeError`` for a user class that cannot await its ``async def`` tasks: they would silently never run."""
    for holder, function in _functions(user_class):
        if inspect.iscoroutinefunction(function):
            raise TypeError(
                f"{holder.__name__}.{function.__name__} is an async def, and {user_class.__name__} cannot await it, so "
                f"that it would never run: let {user_class.__name__} inherit from locust_ws_async.AsyncUser or "
                f"AsyncWebSocketUser (also together with HttpUser)"
            )


def refuse_generators(user_class: type[User]) -> None:
    """Raise ``TypeError`` for tasks with a ``yield``: calling them runs nothing."""
    for holder, function in _functions(user_class):
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(
                f"{holder.__name__}.{function.__name__} is a generator because of its yield: as a task it would never "
                f"run. Remove the yield, or loop over the generator in a task"
            )


def _functions(holder: Any) -> list[tuple[Any, Callable[..., Any]]]:
    """The tasks and hooks of a user or task set class, with the class that holds each; nested task sets included."""
    found = []
    pending, seen = [holder], set()
    while pending:
        holder = pending.pop()
        if holder in seen:
            continue
        seen.add(holder)
        found += [(holder, holder.on_start), (holder, holder.on_stop)]
        for task in holder.tasks:
            if inspect.isclass(task):
                pending.append(task)
            else:
                found.append((holder, task))
    return found


def _synchronous(task: Any, taskset: TaskSet, host: LoopHost) -> Callable[[Any], None]:
    """*task*, a function, a method bound to *taskset* or a nested task set, as a plain function of the task's owner."""
    if inspect.isclass(task):
        nested: Any = task
        return lambda parent: adopt(nested(parent), host).run()  # type: ignore[no-untyped-call] # Locust's is untyped
    if getattr(task, "__self__", None) is taskset:
        return lambda owner: call(host, task)
    return lambda owner: call(host, task, owner)

