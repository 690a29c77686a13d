"""The private names of the standard library that the bridge stands on, in one place and with types.

They are the same in CPython 3.11, 3.12 and 3.13; typeshed leaves most of them out.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
from asyncio.events import _get_running_loop as get_running_loop
from asyncio.events import _set_running_loop as set_running_loop
from typing import TYPE_CHECKING, Any, cast

__all__ = [
    "Handle",
    "Selector",
    "SelectorEventLoop",
    "Task",
    "current_task",
    "enter_task",
    "forget",
    "get_running_loop",
    "leave_task",
    "set_running_loop",
]

if TYPE_CHECKING:
    from collections import deque
    from concurrent.futures import Executor

    class Handle(asyncio.Handle):
        _args: tuple[Any, ...]
        _callback: Any
        _context: Any
        _loop: Any
        _repr: Any
        _source_traceback: Any

    class Task(asyncio.Task[Any]):
        _loop: Any
        _must_cancel: bool

    class TimerHandle(asyncio.TimerHandle):
        _scheduled: bool
        _when: float

    class SelectorEventLoop(asyncio.SelectorEventLoop):
        _asyncgen_finalizer_hook: Any
        _asyncgen_firstiter_hook: Any
        _closed: bool
        _debug: bool
        _default_executor: Executor | None
        _executor_shutdown_called: bool
        _ready: deque[asyncio.Handle]
        _scheduled: list[TimerHandle]
        _signal_handlers: dict[int, asyncio.Handle]
        _stopping: bool
        _task_factory: Any
        _timer_cancelled_count: int

        def _check_closed(self) -> None: ...
        def _check_running(self) -> None: ...
        def _check_signal(self, sig: int) -> None: ...
        def _handle_signal(self, sig: int) -> None: ...
        def _make_ssl_transport(self, *args: Any, **kwargs: Any) -> Any: ...
        def _run_once(self) -> None: ...

    class Selector(selectors.BaseSelector):
        _fd_to_key: dict[int, selectors.SelectorKey]

        def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey: ...
        def unregister(self, fileobj: Any) -> selectors.SelectorKey: ...
        def get_map(self) -> Any: ...

    def current_task(loop: asyncio.AbstractEventLoop, /) -> asyncio.Task[Any] | None: ...

    def enter_task(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """Make *task* the current one of *loop*, which has none."""

    def leave_task(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """Leave *loop* without a current task, which *task* is."""

else:
    Handle = asyncio.Handle
    SelectorEventLoop = asyncio.SelectorEventLoop
    Task = asyncio.Task
    Selector = selectors._BaseSelectorImpl

    enter_task = asyncio.tasks._enter_task
    leave_task = asyncio.tasks._leave_task
    # In C since 3.12.
    current_task = asyncio.current_task if sys.version_info >= (3, 12) else asyncio.tasks._current_tasks.get


def forget(task: asyncio.Task[Any]) -> None:
    """Let *task* be destroyed while it is pending, without a report."""
    cast(Any, task)._log_destroy_pending = False
