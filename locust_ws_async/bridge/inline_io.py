"""The fast paths of the loop: what happens between a message that arrives and the task that waits for it.

asyncio's way is this: a pass over the loop looks at the clock and at its timers, asks the selector, makes a handle of
each reader that is ready and calls those in its queue. The reader resolves a future, which puts a step of the waiting
task into the queue, and the next pass takes the step. Most passes of a load test have one descriptor that is ready and
one task that waits for it. For these there are two short cuts, each with asyncio's own code as its plain twin.

The rules of this file:

1. A short cut is taken only where nothing else is due (:meth:`InlineIOLoop._only_io_is_next`). It waits for a
   descriptor in the same way as ``HubSelector.select()`` does. Whatever else ends its wait (a timer, a callback of
   another greenlet, a cancellation, a stop) is left to asyncio's own code.
2. A reader cannot tell the difference: it runs inside of the loop, with no current task.
"""

from __future__ import annotations

from math import inf
from sys import set_asyncgen_hooks
from typing import TYPE_CHECKING

from greenlet import getcurrent, greenlet

from ..fast_paths import PLAIN
from ..hosting import HostedLoop
from ..internals import cpython
from ..internals.cpython import (
    begin_asyncgen,
    current_task,
    enter_task,
    get_running_loop,
    leave_task,
    must_cancel,
    set_running_loop,
)
from .propagation import PropagatingLoop
from .selector import READ, WRITE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from typing import Any

__all__ = ["EagerTask", "InlineIOLoop", "Task"]

_CLOCK_SLACK = 0.001
"""Seconds by which the selector's timer may be late for the first timer of the loop. asyncio computes a timeout from
one look at the clock, and the selector adds the timeout to a look that comes a little later."""

_MANY_CANCELLED_TIMERS = 100
"""With more cancelled timers than this, asyncio's own pass runs, which removes them once they are more than half of all
timers (``_MIN_CANCELLED_TIMER_HANDLES_FRACTION``). Until then the short cuts are not taken."""


_switch = greenlet.switch


class Task(cpython.Task):
    """asyncio's task, but it wakes its loop when it is cancelled, since it may wait inside of itself."""

    __slots__ = ()

    def cancel(self, msg: Any | None = None) -> bool:
        requested = super().cancel(msg)
        selector = self._loop._selector
        if requested and selector is not None:  # None: the loop is closed
            selector.wake()
        return requested


class EagerTask(Task):
    """A task whose first step runs inside of ``create_task()``.

    It never waits inline, which its own type says. Beneath its first step are the frames of whoever creates the task.
    Waiting there would hold those up as well, perhaps for a reply to what they would have sent next.
    """

    __slots__ = ()


class InlineIOLoop(PropagatingLoop, HostedLoop):
    """The part of :class:`GreenletEventLoop` that has the fast paths."""

    _finalizer: Any
    """What ``run_forever()`` gives to ``sys.set_asyncgen_hooks()``, and each return from the hub again."""

    if not PLAIN:
        # Fast path "straight to the reader": a pass over the loop goes from the wake-up to the reader, without a look
        # at the clock or at other descriptors, and runs what that made ready (benchmarks/README.md).
        def _run_once(self) -> None:
            """Run one pass over the loop, by asyncio's own ``_run_once`` where anything but I/O needs attention."""
            ready = self._ready
            while self._only_io_is_next():
                if not self._wait_for_io():
                    break
                for _ in range(len(ready)):
                    handle = ready.popleft()
                    if not handle.cancelled():
                        handle._run()
                if self._stopping:
                    return
            super()._run_once()

        # Fast path "inline wait": a task parks its greenlet itself, so that no future, handle or step of the task is
        # needed to come back to it (benchmarks/README.md). The plain twin is the future that callers await after a
        # False, as HostedLoop has it.
        def wait_for_io_inline(self) -> bool:
            """Wait inside the current task for the next descriptor, and call its reader or writer.

            This is a short cut for ``await future``, for the task that would leave the loop with nothing else to do:
            its coroutines stay where they are. Returns whether a reader or writer was called. If not, something else
            wants the loop (other callbacks, a timer, a cancellation, a kill): await a future, through which the task
            then gets whatever it is.
            """
            task = current_task(self)
            # A task of another type may have been started eagerly by its factory: see EagerTask.
            if type(task) is not Task or getcurrent() is not self._selector.greenlet or not self._only_io_is_next():
                return False
            leave_task(self, task)
            try:
                called = self._wait_for_io()
            except BaseException as exc:  # thrown in: it leaves run_forever(), as when the loop waits
                self._raise_thrown(exc)
                return False
            finally:
                enter_task(self, task)
            return called and not must_cancel(task)

    def _only_io_is_next(self) -> bool:
        """Return whether nothing has to happen before the next descriptor is ready."""
        selector, scheduled = self._selector, self._scheduled
        return (
            # The selector's timer is armed, and goes off no later than the loop needs it.
            0.0 < selector.timer_deadline <= (scheduled[0].when() + _CLOCK_SLACK if scheduled else inf)
            and not (self._ready or selector.recorded is not None or self._stopping or self._debug)
            and self._timer_cancelled_count <= _MANY_CANCELLED_TIMERS
        )

    def _wait_for_io(self) -> bool:
        """Park until a descriptor is ready, and call its reader and writer. False: something else ended the wait."""
        # Fast path "parking written out": HubSelector.park() and isolation.park(), without their calls and without
        # asking for the hooks, which are known here (benchmarks/README.md). The plain twin is HubSelector.park().
        selector = self._selector
        selector.polls_in_a_row = 0
        selector.parked = selector.greenlet
        set_running_loop(None)
        try:
            woken = _switch(selector.hub)
        finally:
            selector.parked = None
            set_running_loop(self)
            set_asyncgen_hooks(_first_iteration, self._finalizer)
        if woken is None:
            return False
        mask, key = woken
        reader, writer = key.data
        # A negative mask: the watcher failed (libuv), and the reader and the writer shall meet the error.
        # The reader is not cancelled: whoever cancels it stops its watcher. But it may cancel the writer.
        if reader is not None and (mask & READ or mask < 0):
            reader._run()
        if writer is not None and (mask & WRITE or mask < 0) and not writer.cancelled():
            writer._run()
        return True


def _first_iteration(generator: AsyncGenerator[Any, Any]) -> None:
    # The hook of whatever loop runs: one function for all loops, so that a wake-up has one object less to look up.
    # There is no running loop where another greenlet goes through a generator by hand, while ours wait.
    loop = get_running_loop()
    if loop is not None:
        begin_asyncgen(loop, generator)
