"""LoopHost: coroutines run to their end by plain greenlet code.

The rules of this file:

1. One greenlet, one loop. The loop is made when it is first needed, in the greenlet that needs it, so that it belongs
   to the process that runs it (``os.fork`` may come before), and `close()` leaves nothing of it behind.
2. Kill means cancel. When an exception is thrown into the greenlet while a coroutine runs, the coroutine is cancelled
   and gets `cancel_timeout` seconds for its ``finally`` blocks; then the exception goes on. A second one ends this
   wait at once. Background tasks live on until `close()`, since there may be more to run (an async ``on_stop``). All
   that is cancelled after a kill shares these seconds, so that they pass once and not once for each step of the end.
3. The loop runs while the greenlet waits, be it for a coroutine (`run`), for a blocking call (`call`) or just for time
   to pass (`sleep`).
4. The host alone says when the loop stops: a ``loop.stop()`` of somebody else, or one left over from a run that ended
   otherwise, is no more than a pause.
5. contextvars are the greenlet's: what one coroutine sets, those that `run()` runs later see, and so does the plain
   code around them. ``asyncio.Runner`` keeps one context for all its runs in the same way; the tasks that a coroutine
   creates work in copies, as everywhere in asyncio.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, ParamSpec, TypeVar

import gevent
import greenlet

from ..internals.cpython import get_running_loop, silence_destroy_warning
from .loop import GreenletEventLoop

__all__ = ["LoopHost"]

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

_LEAST = 0.5  # seconds for what is cancelled when other code has used up `cancel_timeout`: enough for a `finally`


class LoopHost:
    """Hosts the event loop of one greenlet.

    *cancel_timeout* (seconds) bounds how long cancelled coroutines may take to end. Exceptions of the types
    *propagated* are raised from :meth:`run`, :meth:`call` and :meth:`sleep` also when a background task or a callback
    of the loop raises them. *exception_handler* is asyncio's (``loop.set_exception_handler``): it gets all others.
    """

    def __init__(
        self,
        *,
        cancel_timeout: float = 5.0,
        propagated: tuple[type[BaseException], ...] = (),
        exception_handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None,
    ) -> None:
        self.cancel_timeout = cancel_timeout
        self._propagated = propagated
        self._exception_handler = exception_handler
        self._propagates = True
        self.killed = False
        """Whether the greenlet was killed while it ran, called or slept here."""
        self._used = 0.0  # seconds of `cancel_timeout`
        self._loop: GreenletEventLoop | None = None
        self._greenlet: greenlet.greenlet | None = None
        self._runner: _LoopRunner | None = None

    @property
    def loop(self) -> GreenletEventLoop | None:
        """The loop, or None before the first :meth:`run` and after :meth:`close`."""
        return self._loop

    @property
    def time_left(self) -> float:
        """Seconds of `cancel_timeout` that what is cancelled now has: less than that once the end has begun."""
        return max(self.cancel_timeout - self._used, min(self.cancel_timeout, _LEAST))

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end in the host's loop.

        Args:
            coro: the coroutine; it is closed if it cannot be run.

        Returns:
            What the coroutine returns.

        Raises:
            RuntimeError: called from inside a coroutine (await it instead), or from a foreign greenlet.
            BaseException: whatever the coroutine raises. What is thrown into the greenlet meanwhile cancels the
                coroutine (rule 2), and is raised from here.
        """
        try:
            loop = self._own_loop()
        except BaseException:
            coro.close()  # so that the error above is not followed by "was never awaited"
            raise
        self._begin()
        task: asyncio.Task[T] = loop.create_task(coro, context=_own_context())
        try:
            _run_until_done(loop, task)
        except BaseException as exc:
            self._note_kill(exc)
            self._cancel(loop, task, exc)
            raise
        return task.result()

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the blocking *function* while the loop goes on, and return its result.

        *function* runs here, in the host's own greenlet, where greenlet-local data, ``gevent.getcurrent()`` and kills
        mean what its author expects. Another greenlet runs the loop meanwhile. Without a loop there is nothing to keep
        alive.

        =======================  ==============================  =====================================================
        The function             The loop meanwhile              What is raised
        =======================  ==============================  =====================================================
        returns                  propagated an exception         that exception; a coroutine as the result is closed
        raises an ``Exception``  propagated an exception         that exception, with the function's as its context
        is killed                whatever it did                 the kill; the callback that the loop is in has
                                                                 `cancel_timeout` seconds to end
        =======================  ==============================  =====================================================
        """
        loop = self._loop
        if loop is None or self._is_running(loop):
            return function(*args, **kwargs)
        runner = self._runner = _LoopRunner(self._own_loop())
        self._begin()
        try:
            try:
                result = function(*args, **kwargs)
            except Exception:
                runner.stop()
                raise
            except BaseException as exc:
                self._note_kill(exc)
                started = time.monotonic()
                runner.kill(self.time_left)
                self._used += time.monotonic() - started
                raise
            try:
                runner.stop()
            except BaseException:
                if asyncio.iscoroutine(result):  # nobody gets it: so that no "was never awaited" follows
                    result.close()
                raise
            return result
        finally:
            self._runner = None

    def sleep(self, seconds: float) -> None:
        """Let time pass while the loop runs.

        Args:
            seconds: how many; with 0 or less it is one turn of the hub, as ``gevent.sleep(0)``, and one of the loop.

        Raises:
            BaseException: what is thrown into the greenlet meanwhile, or propagated by the loop.
        """
        loop = self._loop
        if loop is None or self._greenlet is not greenlet.getcurrent() or self._is_running(loop):
            gevent.sleep(seconds)
            return
        if seconds <= 0:
            gevent.sleep(0)
            loop.stop()
            loop.run_forever()  # one turn of the loop
            return
        over = loop.create_future()
        timer = loop.call_later(seconds, over.set_result, None)
        try:
            _run_until_done(loop, over)
        except BaseException as exc:
            self._note_kill(exc)
            raise
        finally:
            timer.cancel()

    def propagate(self, exc: BaseException) -> None:
        """Raise *exc* from :meth:`run`, :meth:`call` or :meth:`sleep`, whichever runs or comes next."""
        if self._loop is not None:
            self._loop.propagate(exc)

    def stop_propagating(self) -> None:
        """From now on drop what the loop would propagate: the end has begun, and an exception changes nothing."""
        self._propagates = False
        if self._loop is not None:
            self._loop.propagates = False

    def cancel_tasks(self) -> None:
        """Cancel every task in the loop and run it until they are done, for at most `time_left` seconds."""
        if self._loop is not None:
            loop = self._own_loop()
            task = loop.create_task(_cancel_tasks(loop))
            try:
                self._run_with_timeout(loop, task)
            except BaseException:
                task.cancel()  # or it would cancel what runs next, an async on_stop say
                raise

    def close(self) -> None:
        """Cancel what still runs in the loop, for at most `time_left` seconds, and close it. Idempotent."""
        loop = self._loop
        if loop is None:
            return
        self._own_loop()
        end = loop.create_task(_end(loop))
        try:
            self._run_with_timeout(loop, end)
        finally:
            loop.tell_of_failed()
            for task in loop.tasks:
                if task is not end:
                    logger.error(
                        "%r did not end after its cancellation, within cancel_timeout (%s s): left behind",
                        task,
                        self.cancel_timeout,
                    )
                silence_destroy_warning(task)
            self._loop = self._greenlet = None
            loop.close()

    def _own_loop(self) -> GreenletEventLoop:
        current = greenlet.getcurrent()
        loop = self._loop
        if loop is None:
            # Raises where a loop is running in this greenlet already, a foreign one (asyncio.run) included.
            running = get_running_loop()
            if running is not None:
                raise RuntimeError(f"{running!r} is running in this greenlet: await the coroutine there instead")
            self._greenlet = current
            loop = self._loop = GreenletEventLoop(propagated=self._propagated)
            loop.propagates = self._propagates
            loop.set_exception_handler(self._exception_handler)
        elif self._greenlet is not current:
            raise RuntimeError(
                "this LoopHost belongs to another greenlet: call it there, or schedule the coroutine on its loop with "
                "asyncio.run_coroutine_threadsafe()"
            )
        elif get_running_loop() is loop:
            raise RuntimeError("called from inside the loop: await the coroutine instead")
        elif self._is_running(loop):
            raise RuntimeError(
                "called from a function that LoopHost.call() runs: make it async and await the coroutine"
            )
        return loop

    def _begin(self) -> None:
        if not self.killed and self._propagates:
            self._used = 0.0  # of a timeout, say, after which the user went on

    def _is_running(self, loop: GreenletEventLoop) -> bool:
        # A runner that was just spawned begins in the hub's next turn.
        return self._runner is not None or loop.is_running()

    def _note_kill(self, exc: BaseException) -> None:
        if isinstance(exc, gevent.GreenletExit):
            self.killed = True

    def _cancel(self, loop: GreenletEventLoop, task: asyncio.Task[Any], cause: BaseException) -> None:
        """Cancel *task* and give it its time, after *cause* has ended its run, which is the exception to raise.

        A task that was blocked when the kill came knows already, and may be busy with its ``finally``.
        """
        if task is not loop.killed_task:
            if not isinstance(cause, gevent.GreenletExit):
                loop.call_soon(_drop_duplicate_cancellation, task)
            task.cancel()
        self._run_with_timeout(loop, task)

    def _run_with_timeout(self, loop: GreenletEventLoop, task: asyncio.Task[Any]) -> None:
        """Run *loop* until *task* is done, for at most `time_left` seconds, whatever blocks; propagate nothing."""
        done_before = task.done()
        started = time.monotonic()
        propagates, loop.propagates = loop.propagates, False
        try:
            with gevent.Timeout(self.time_left, _CancelTimeout):
                _run_until_done(loop, task)
            if not (done_before or task.cancelled()) and (exc := task.exception()) is not None:
                context = {"message": "exception in a coroutine that was cancelled", "exception": exc, "task": task}
                loop.call_exception_handler(context)
        except _CancelTimeout:
            task.cancel()  # whatever it is that it goes on with
        finally:
            self._used += time.monotonic() - started
            loop.propagates = propagates
            loop.killed_task = None


def _own_context() -> Context:
    """The current greenlet's own context (rule 5)."""
    current = greenlet.getcurrent()
    own = current.gr_context
    if own is None:  # nothing has been set here yet
        own = current.gr_context = Context()
    try:
        own.run(int)
    except RuntimeError:  # a Context.run() is under way, asyncio.to_thread() say, and no context is entered twice
        return copy_context()
    return own


def _drop_duplicate_cancellation(task: asyncio.Task[Any]) -> None:
    """Take back one of two cancellations of *task*.

    The exception that ended the run may have come from a child in a ``TaskGroup`` of *task*. Then the group has
    cancelled *task* too. Since Python 3.13 a group that ends with errors, and finds another cancellation than its own,
    cancels *task* once more (https://github.com/python/cpython/issues/116720). That would hit the first ``await`` after
    the group, which may well be in a ``finally``.

    A kill as a rule comes from no child. After a kill the second cancellation is that of a timeout, and must stay:
    without it the timeout would take the place of our cancellation. So this is not called then.
    """
    if task.cancelling() > 1:
        task.uncancel()


class _CancelTimeout(gevent.GreenletExit):
    """Thrown into the greenlet when the time is over: what still runs is left behind."""


async def _cancel_tasks(loop: GreenletEventLoop) -> None:
    """Cancel all other tasks, also those that they start meanwhile."""
    this = {asyncio.current_task()}
    while others := loop.tasks - this:
        for task in others:
            task.cancel()
        await asyncio.wait(others)


async def _end(loop: GreenletEventLoop) -> None:
    await _cancel_tasks(loop)
    await loop.shutdown_asyncgens()
    await asyncio.sleep(0)  # for transports that were closed in the last moment
    await _cancel_tasks(loop)  # those that were begun meanwhile


def _run_until_done(loop: GreenletEventLoop, future: asyncio.Future[Any]) -> None:
    """Run *loop* until *future* is done and has said so to everybody who asked before (rule 4)."""
    over = False

    def stop(future: asyncio.Future[Any]) -> None:
        nonlocal over
        over = True
        loop.stop()

    future.add_done_callback(stop)
    while not over:
        loop.run_forever()


class _LoopRunner:
    """Runs a loop in a greenlet of its own, for as long as its host's greenlet blocks in :meth:`LoopHost.call`."""

    def __init__(self, loop: GreenletEventLoop) -> None:
        self._loop = loop
        self._stopped = False
        self._raised: BaseException | None = None
        """The first exception that has left the loop."""
        self._greenlet = gevent.spawn(self._run_loop)

    def _run_loop(self) -> None:
        while not self._stopped:
            try:
                self._loop.run_forever()
            except BaseException as exc:  # which gevent would print if it left the greenlet
                if self._raised is None:
                    self._raised = exc
                # An exception that the loop does not propagate is its own, because it cannot run now (another greenlet
                # runs it, say). It would fail again at once, for ever.
                if isinstance(exc, gevent.GreenletExit) or self._loop.to_propagate(exc) is None:
                    break

    def stop(self) -> None:
        """Stop running the loop when its present callback has ended, and raise what has left the loop meanwhile.

        An exception thrown in during this wait kills that callback.
        """
        try:
            self._end(timeout=None)
        except BaseException:
            self._greenlet.kill()
            raise
        if self._raised is not None:
            raise self._raised

    def kill(self, timeout: float) -> None:
        """Stop running the loop when its present callback has ended, which is killed after *timeout* seconds."""
        try:
            self._end(timeout)
        finally:
            self._greenlet.kill()

    def _end(self, timeout: float | None) -> None:
        self._stopped = True
        if self._loop.is_running():
            self._loop.call_soon(self._loop.stop)
        self._greenlet.join(timeout)
