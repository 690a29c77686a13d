"""Locust's users, task sets and events: what of them is private, or known only from reading Locust.

Tried with Locust 2.47. Everything here is read by ``users.py``, ``tasksets.py`` and ``request_events.py`` alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from types import CodeType
from typing import Any

from locust import TaskSet, User, html
from locust.event import EventHook
from locust.runners import MasterRunner, Runner, WorkerRunner
from locust.stats import RequestStats, StatsEntry
from locust.user.task import LOCUST_STATE_RUNNING, LOCUST_STATE_STOPPING, LOCUST_STATE_WAITING

from .checks import names_in, require

__all__ = [
    "before_quit",
    "is_running",
    "is_stopping",
    "is_waiting",
    "keep_response_times",
    "listeners_of",
    "replace_root_task_set",
    "replace_sleep",
    "send_report",
    "set_running",
    "set_stopping",
    "set_waiting",
    "show_host_in_report",
    "statistics_among",
    "stats_of",
]

logger = logging.getLogger(__name__)


def _check() -> None:
    require("Locust's User", names_in(User.__init__), ["_state"], "locust")
    require("Locust's User.run()", names_in(User.run), ["_state", "_taskset_instance", "on_start", "on_stop"], "locust")
    require("Locust's TaskSet.wait()", names_in(TaskSet.wait), ["_sleep"], "locust")
    require("Locust's StatsEntry", dir(StatsEntry), ["_cache_response_times"], "locust")
    require("Locust's get_html_report()", html.get_html_report.__code__.co_names, ["render_template_from"], "locust")
    require("Locust's EventHook", names_in(EventHook.__init__), ["_handlers"], "locust")
    require("Locust's WorkerRunner", dir(WorkerRunner), ["_send_stats"], "locust")


_check()

# Users and task sets


def replace_root_task_set(user_class: type[User], replacement_of: Callable[[TaskSet], TaskSet]) -> None:
    """Let ``User.run()`` of *user_class* run what *replacement_of* returns for the root task set that it has made."""

    def get(user: User) -> TaskSet | None:
        taskset: TaskSet | None = vars(user).get("_taskset_instance")
        return taskset

    def set(user: User, taskset: TaskSet | None) -> None:  # User.__init__() sets None
        vars(user)["_taskset_instance"] = None if taskset is None else replacement_of(taskset)

    changed: Any = user_class
    changed._taskset_instance = property(get, set)


def replace_sleep(taskset: TaskSet, sleep: Callable[[Any], None]) -> None:
    """Let ``TaskSet.wait()`` of this *taskset* call *sleep*, with what its ``wait_time()`` has returned."""
    changed: Any = taskset
    changed._sleep = sleep


def is_stopping(user: User) -> bool:
    """Return whether ``User.stop()`` lets *user* end its present task first."""
    return user._state == LOCUST_STATE_STOPPING


def is_waiting(user: User) -> bool:
    """Return whether ``User.stop()`` would kill *user* at once."""
    return user._state == LOCUST_STATE_WAITING


def is_running(user: User) -> bool:
    """Return whether *user* runs a task, and has not been told to stop."""
    return user._state == LOCUST_STATE_RUNNING


def set_stopping(user: User) -> None:
    """Let *user* end when its present task has ended, as ``User.stop()`` does."""
    user._state = LOCUST_STATE_STOPPING


def set_waiting(user: User) -> None:
    """Let ``User.stop()`` kill *user* at once, as it does while the user waits between tasks."""
    user._state = LOCUST_STATE_WAITING


def set_running(user: User) -> None:
    """Let ``User.stop()`` wait until *user*'s present task has ended."""
    user._state = LOCUST_STATE_RUNNING


# Request events


def listeners_of(request: EventHook) -> list[Callable[..., Any]]:
    """Return the listeners of *request*: the list itself, to which later ones are added."""
    return request._handlers


def statistics_among(request: EventHook) -> tuple[Callable[..., Any], ...]:
    """Return those listeners of *request* by which Locust's runners count.

    They are known to look at the first four arguments only, as long as there is no exception. If Locust's listener is
    not the one that this was made for, none is returned, and that is logged once.
    """
    found = tuple(each for each in request._handlers if getattr(each, "__code__", None) is _ON_REQUEST)
    if _ON_REQUEST is None:
        _tell_of_unknown_statistics()
    return found


_ARGUMENTS = ("request_type", "name", "response_time", "response_length", "exception", "_kwargs")


def _on_request() -> CodeType | None:
    """Return the code of ``on_request`` in ``Runner.__init__()``, if it looks at the arguments that we know of."""
    for code in Runner.__init__.__code__.co_consts:
        if isinstance(code, CodeType) and code.co_name == "on_request" and code.co_varnames == _ARGUMENTS:
            return code
    return None


_ON_REQUEST = _on_request()


@lru_cache(maxsize=1)
def _tell_of_unknown_statistics() -> None:
    logger.debug("Locust's listener for its statistics is an unknown one: each request event is fired by itself")


# Statistics


def stats_of(listener: Callable[..., Any]) -> RequestStats:
    """Return the statistics in which *listener*, one of those of :func:`statistics_among`, counts."""
    (runner,) = (cell.cell_contents for cell in listener.__closure__ or () if isinstance(cell.cell_contents, Runner))
    stats: RequestStats = runner.stats
    return stats


def keep_response_times(entry: StatsEntry, second: int) -> None:
    """Let *entry* keep a copy of its response times, as they were at the end of this *second*."""
    entry._cache_response_times(second)


# Runners


def before_quit(runner: MasterRunner, call: Callable[[], None]) -> None:
    """Let *call* be called before ``quit()`` of this *runner*, which the runner itself and Locust's main call."""
    quit = runner.quit

    def call_and_quit() -> None:
        call()
        quit()

    changed: Any = runner
    changed.quit = call_and_quit


def send_report(runner: WorkerRunner) -> None:
    """Let *runner* send its numbers to the master now."""
    runner._send_stats()


# The HTML report


def show_host_in_report(shown: Callable[[str], str]) -> None:
    """Let Locust's HTML report show of its host what this returns."""
    module: Any = html
    render = module.render_template_from

    def render_template_from(file: str, **arguments: Any) -> Any:
        arguments["template_args"]["host"] = shown(arguments["template_args"]["host"])
        return render(file, **arguments)

    module.render_template_from = render_template_from
