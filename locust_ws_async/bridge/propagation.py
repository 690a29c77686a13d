"""Exceptions that must leave ``run_forever()``, whichever callback or task they were raised in.

asyncio lets only ``KeyboardInterrupt`` and ``SystemExit`` out of callbacks and tasks. It logs everything else, or keeps
it in the task. A kill that ended like this would leave a user running that Locust has stopped. The rules of this file:

1. Three kinds of exceptions leave the run: what is thrown into the greenlet while it is inside of the loop, any other
   ``BaseException`` that is no cancellation, and the types *propagated* (Locust's control flow, ``StopUser`` say).
2. Such an exception leaves as soon as the callback in which it arose returns. For that, a handle that raises it
   (:class:`_RaiseFromRun`) is put at the front of the loop's queue; asyncio's own handles would catch it. Callbacks
   that did not get their turn stay in the queue.
3. One exception ends a run. Of several that are propagated the first one counts, and the others are logged unless they
   are of the same kinds. What is thrown in outranks them all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from gevent import GreenletExit

from ..internals.cpython import Handle, SelectorEventLoop, exception_of, never_retrieved

if TYPE_CHECKING:
    from .selector import HubSelector

__all__ = ["PropagatingLoop"]

_PATIENCE = 1.0
"""Seconds that a task may have failed before somebody awaits it."""


class PropagatingLoop(SelectorEventLoop):
    """The part of :class:`GreenletEventLoop` that raises such exceptions."""

    # Few loops ever need these two, so they are no attributes of each loop: see SHARED_ATTRIBUTES in
    # internals/cpython.py.

    _pending_raise: _RaiseFromRun | None = None
    """What stands in front of the queue, or stood there when the run ended in another way."""

    killed_task: asyncio.Task[Any] | None = None
    """The task in which the last kill arrived, as its cancellation; None if it did not arrive in a task."""

    failed_tasks: WeakSet[asyncio.Task[Any]] | None = None
    """The tasks that have failed a moment ago, and of which nobody has taken the exception yet."""

    _selector: HubSelector

    def __init__(self, selector: HubSelector, propagated: tuple[type[BaseException], ...]) -> None:
        super().__init__(selector)
        self._propagated = propagated
        self.propagates = True
        """False while another exception has ended the run and this one only cleans up: then nothing is propagated."""
        self.tasks: set[asyncio.Task[Any]] = set()
        """The loop's unfinished tasks. They are kept here since ``asyncio.all_tasks()`` walks those of every loop."""

    def run_forever(self) -> None:
        try:
            super().run_forever()
            if self._pending_raise is not None:  # a stop came first
                raise self._pending_raise.exc
        finally:
            if self._pending_raise is not None:  # a stop or another exception came first
                self._pending_raise.cancel()
                self._pending_raise = None

    def propagate(self, exc: BaseException) -> None:
        """Make ``run_forever()`` raise *exc*, or the next ``run_forever()`` if none is under way."""
        if self._pending_raise is None and self.propagates:
            self._raise_from_run(exc)
        elif self.to_propagate(exc) is None:
            super().call_exception_handler({"message": "exception while another one ends the run", "exception": exc})

    def on_kill(self, task: asyncio.Task[Any] | None, exc: GreenletExit) -> None:
        """Take notice that *exc* has killed the greenlet while it was blocked in *task*, or else in a callback."""
        self.killed_task = task
        self._raise_thrown(exc)

    def _raise_thrown(self, exc: BaseException) -> None:
        """Make ``run_forever()`` raise *exc*, which was thrown into the greenlet, instead of what was propagated."""
        if self._pending_raise is not None:
            self._pending_raise.cancel()
        self._raise_from_run(exc)

    def _raise_from_run(self, exc: BaseException) -> None:
        self._pending_raise = _RaiseFromRun(self, exc)
        self._selector.wake()
        self._ready.appendleft(self._pending_raise)

    def to_propagate(self, exc: object) -> BaseException | None:
        """Return what of *exc* has to leave the run: *exc* itself, one member of it if it is a group, or None.

        A kill in a group counts more than the errors beside it. Control flow (one of the types *propagated*) counts
        only if the group holds nothing else: what else is in the group has to be reported with it.
        """
        if isinstance(exc, BaseExceptionGroup):
            members = [self.to_propagate(member) for member in exc.exceptions]
            for member in members:
                if member is not None and not isinstance(member, Exception):
                    return member
            return None if None in members else members[0]
        if isinstance(exc, self._propagated):
            return exc
        if isinstance(exc, (Exception, asyncio.CancelledError)):
            return None
        # A context of the exception handler may hold no exception at all: aiofastnet puts a class there.
        return exc if isinstance(exc, BaseException) else None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        exc = self.to_propagate(context.get("exception"))
        if exc is not None and not self._closed:
            self.propagate(exc)
        else:
            super().call_exception_handler(context)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        ended_by = exception_of(task)
        exc = self.to_propagate(ended_by)
        if exc is not None:
            task.exception()  # it counts as retrieved from here on: asyncio reports those that nobody looks at
            if not isinstance(ended_by, (KeyboardInterrupt, SystemExit)):  # asyncio's task has raised these by itself
                self.propagate(exc)
        elif isinstance(ended_by, Exception) and never_retrieved(task):
            if self.failed_tasks is None:
                self.failed_tasks = WeakSet()
            self.failed_tasks.add(task)
            self.call_later(_PATIENCE, self._tell_of_failed, ref(task))

    def tell_of_failed(self) -> None:
        """Tell of all tasks that have failed and that nobody has awaited: the loop is about to end."""
        for task in list(self.failed_tasks or ()):
            self._tell_of_failed(ref(task))

    def _tell_of_failed(self, failed: ref[asyncio.Task[Any]]) -> None:
        # asyncio tells when a task is freed. One that is kept, ``self.reader`` say, would fail in silence.
        task = failed()
        if task is None or self.failed_tasks is None or task not in self.failed_tasks:
            return
        self.failed_tasks.discard(task)
        if never_retrieved(task):
            message = "Task exception was never retrieved"  # asyncio's words
            self.call_exception_handler({"message": message, "exception": task.exception(), "task": task})


class _RaiseFromRun(Handle):
    """A handle that raises its exception from ``run_forever()``.

    asyncio's own handles catch what their callback raises. The loop calls ``_run()`` of whatever is in its queue, so
    this one raises there. It stands at the front of the queue, and is thus what runs next.
    """

    __slots__ = ("exc",)

    def __init__(self, loop: PropagatingLoop, exc: BaseException) -> None:
        super().__init__(loop.propagate, (exc,), loop)
        self.exc = exc

    def _run(self) -> None:
        self._loop._pending_raise = None
        raise self.exc
