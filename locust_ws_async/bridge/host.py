"""LoopHost: coroutines run to their end by plain greenlet code.

The rules of this file:

1. One greenlet, one loop. The loop is made when it is first needed, in the greenlet that needs it, so that it belongs
   to the process that runs it (``os.fork`` may come before), and `close()` leaves nothing of it behind.
2. Kill means cancel. When an exception is thrown into the greenlet while a coroutine runs, the coroutine is cancelled
   and gets `cancel_timeout` seconds for its ``finally`` blocks; then the exception goes on. A second one ends this
   wait at once. Background tasks live on until `close()`, since there may be more to run (an async ``on_stop``).
3. The loop runs while the greenlet waits, be it for a coroutine (`run`), for a blocking call (`call`) or just for time
   to pass (`sleep`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any, ParamSpec, TypeVar

import gevent
import greenlet

from .loop import GreenletEventLoop

__all__ = ["LoopHost"]

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)


class LoopHost:
    """Hosts the event loop of one greenlet.

    *cancel_timeout* (seconds) bounds how long a cancelled coroutine may take to end. Exceptions of the types *carried*
    are raised from :meth:`run`, :meth:`call` and :meth:`sleep` also when a background task or a callback of the loop
    raises them.
    """

    def __init__(self, *, cancel_timeout: float = 5.0, carried: tuple[type[BaseException], ...] = ()) -> None:
        self.cancel_timeout = cancel_timeout
        self._carried = carried
        self._loop: GreenletEventLoop | None = None
        self._greenlet: greenlet.greenlet | None = None

    @property
    def loop(self) -> GreenletEventLoop | None:
        """The loop, or None before the first :meth:`run` and after :meth:`close`."""
        return self._loop

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run *coro* to its end in the host's loop and return its result, or raise its exception.

        An exception thrown into the greenlet meanwhile cancels *coro* (rule 2) and is raised from here.
        ``RuntimeError`` when called from inside a coroutine (await it instead) or from a foreign greenlet.
        """
        try:
            loop = self._own_loop()
        except BaseException:
            coro.close()  # so that the error above is not followed by "was never awaited"
            raise
        task = loop.create_task(coro)
        try:
            return loop.run_until_complete(task)
        except BaseException:
            if not task.done():
                self._cancel([task])
            raise

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the blocking *function* while the loop goes on.

        *function* runs here, in the host's own greenlet, where greenlet-local data, ``gevent.getcurrent()`` and kills
        mean what its author expects; another greenlet serves the loop meanwhile. Without a loop there is nothing to
        keep alive.
        """
        loop = self._loop
        if loop is None or loop.is_running():
            return function(*args, **kwargs)
        self._own_loop()
        server = gevent.spawn(_outcome, loop.run_forever)
        try:
            return function(*args, **kwargs)
        finally:
            loop.call_soon(loop.stop)
            try:
                server.join()
            except BaseException:
                server.kill()
                raise
            if server.value is not None:
                raise server.value  # what the loop carries

    def sleep(self, seconds: float) -> None:
        """Let *seconds* pass while the loop runs; at least one turn of the hub, as ``gevent.sleep(0)``."""
        loop = self._loop
        if loop is None or self._greenlet is not greenlet.getcurrent() or loop.is_running():
            gevent.sleep(seconds)
            return
        if seconds <= 0:
            gevent.sleep(0)
        timer = loop.call_later(seconds, loop.stop)
        try:
            loop.run_forever()
        finally:
            timer.cancel()

    def carry(self, exc: BaseException) -> None:
        """Raise *exc* from the :meth:`run`, :meth:`call` or :meth:`sleep` under way. For callbacks of the loop."""
        if self._loop is not None:
            self._loop.carry(exc)

    def cancel_tasks(self) -> None:
        """Cancel every task in the loop and run it until they are done, for at most `cancel_timeout` seconds."""
        if self._loop is not None:
            self._cancel(self._own_loop().tasks)

    def close(self) -> None:
        """Cancel what still runs in the loop, for at most `cancel_timeout` seconds, and close it. Idempotent."""
        loop = self._loop
        if loop is None:
            return
        self._own_loop()
        try:
            self._cancel(loop.tasks)
            self._finish(loop)
        finally:
            for task in loop.tasks:
                logger.error("%r ignored its cancellation for %s s and is left behind", task, self.cancel_timeout)
                task._log_destroy_pending = False  # it was just reported
            self._loop = self._greenlet = None
            loop.close()

    def _own_loop(self) -> GreenletEventLoop:
        current = greenlet.getcurrent()
        loop = self._loop
        if loop is None:
            # Raises where a loop is running in this greenlet already, a foreign one (asyncio.run) included.
            running = asyncio._get_running_loop()
            if running is not None:
                raise RuntimeError(f"{running!r} is running in this greenlet: await the coroutine there instead")
            self._greenlet = current
            loop = self._loop = GreenletEventLoop(carried=self._carried)
        elif self._greenlet is not current:
            raise RuntimeError(
                "this LoopHost belongs to another greenlet: call it there, or schedule the coroutine on its loop with "
                "asyncio.run_coroutine_threadsafe()"
            )
        elif loop.is_running():
            raise RuntimeError("called from inside the loop: await the coroutine instead")
        return loop

    def _cancel(self, tasks: Collection[asyncio.Task[Any]]) -> None:
        """Cancel *tasks* and run the loop until they are done, for at most `cancel_timeout` seconds."""
        pending = set(tasks)
        if not pending:
            return
        loop = self._loop
        assert loop is not None

        def done(task: asyncio.Task[Any]) -> None:
            pending.discard(task)
            if not pending:
                loop.stop()

        for task in list(pending):
            task.cancel()
            task.add_done_callback(done)
        timer = loop.call_later(self.cancel_timeout, loop.stop)
        try:
            loop.run_forever()
        finally:
            timer.cancel()
            for task in pending:
                task.remove_done_callback(done)
        for task in set(tasks) - pending:
            exc = None if task.cancelled() else task.exception()
            if exc is not None and loop.to_carry(exc) is None:  # otherwise it was raised
                loop.call_exception_handler(
                    {"message": "exception while a task was cancelled", "exception": exc, "task": task}
                )

    def _finish(self, loop: GreenletEventLoop) -> None:
        """Let asynchronous generators and transports that were closed in the last moment come to their end."""
        shutdown = loop.create_task(loop.shutdown_asyncgens())
        timer = loop.call_later(self.cancel_timeout, loop.stop)
        shutdown.add_done_callback(lambda task: loop.stop())
        try:
            loop.run_forever()
        finally:
            timer.cancel()


def _outcome(function: Callable[[], None]) -> BaseException | None:
    """What *function* raised; returned, since gevent prints what leaves a greenlet."""
    try:
        function()
    except BaseException as exc:
        return exc
    return None
