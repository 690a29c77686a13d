"""GreenletEventLoop: asyncio's own selector event loop, run by a greenlet on the gevent hub."""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
import warnings
from asyncio import events
from collections.abc import Callable
from contextvars import Context
from typing import Any

import gevent.socket
import greenlet
from gevent.hub import Hub, get_hub

from .executor import GreenletExecutor
from .selector import READ, WRITE, HubSelector, switch

__all__ = ["GreenletEventLoop"]

new_handle = asyncio.Handle.__new__
set_asyncgen_hooks = sys.set_asyncgen_hooks
set_running_loop = events._set_running_loop

_MANY_CANCELLED_TIMERS = 100  # so many asyncio leaves in its heap (asyncio/base_events.py)


class GreenletEventLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop for one greenlet; any number of them run side by side in one thread.

    It is the standard library's loop over a :class:`HubSelector`, and differs from it in this:

    - while it waits, its greenlet is parked and other greenlets run, with loops of their own or without;
    - ``run_in_executor(None, ...)`` and ``asyncio.to_thread()`` use greenlets, ``getaddrinfo()`` and
      ``getnameinfo()`` resolve through gevent;
    - it owns no descriptors: ``call_soon_threadsafe()`` wakes it through the hub. ``call_soon()`` and ``call_later()``
      are safe from other greenlets of its thread as well;
    - an exception that is thrown into the greenlet (a kill, ``gevent.Timeout``) leaves ``run_forever()``, wherever
      inside the loop it arrives; asyncio alone would swallow it in callbacks and background tasks;
    - exceptions of the types *carried* do so too when a callback or a task raises them.

    Create it in the thread that runs it.
    """

    def __init__(self, *, carried: tuple[type[BaseException], ...] = ()) -> None:
        hub: Hub = get_hub()
        self._hub = hub
        self._carried = carried
        self._carrying: BaseException | None = None
        self._greenlet_executor: GreenletExecutor | None = None
        self.tasks: set[asyncio.Task[Any]] = set()
        """The loop's unfinished tasks. Kept here since ``asyncio.all_tasks()`` walks those of every loop."""
        self._selector: HubSelector
        super().__init__(HubSelector(hub))
        self._selector.isolation.isolate(self)

    # Running

    def run_forever(self) -> None:
        """Run in the current greenlet until ``stop()``, or until an exception is thrown in or carried."""
        current = greenlet.getcurrent()
        if current is self._hub:
            raise RuntimeError("the gevent hub cannot run an event loop: do it in a greenlet, e.g. gevent.spawn()")
        # asyncio checks too, but Python 3.13.0 does so where a refusal spoils the state of a running loop.
        self._check_closed()
        self._check_running()
        current.switch_out = self._selector.isolation.switch_out
        try:
            super().run_forever()
        finally:
            del current.switch_out
        if self._carrying is not None:
            exc, self._carrying = self._carrying, None
            raise exc

    def close(self) -> None:
        """Close the loop; blocking calls that its executor still runs are killed."""
        super().close()
        if self._greenlet_executor is not None:
            self._greenlet_executor.shutdown(wait=False, cancel_futures=True)
            self._greenlet_executor = None

    def _run_once(self) -> None:
        """asyncio's pass over the loop, with a short cut in front for the common case.

        The common case: nothing is ready, so the greenlet parks, and a descriptor wakes it. Its reader or writer is
        called at once, and what that made ready runs in the same pass, without a look at the clock or at the other
        descriptors in between: a message that arrives and the answer to it are one pass. In all other cases, and
        whenever the timers need attention, asyncio's own code runs.

        This is the hot path: what it needs is in local variables, and parking is ``HubSelector.park()`` written out.
        """
        if not self._debug:
            ready, scheduled, selector = self._ready, self._scheduled, self._selector
            popleft, keys, seen = ready.popleft, selector.keys, selector.seen
            hub, current = self._hub, greenlet.getcurrent()
            asyncgen_hooks = selector.isolation.asyncgen_hooks
            while not (ready or seen or self._stopping):
                if scheduled and (
                    self._timer_cancelled_count > _MANY_CANCELLED_TIMERS or not selector.armed(scheduled[0]._when)
                ):
                    break
                selector.parked = current
                set_running_loop(None)
                try:
                    woken = switch(hub)
                finally:
                    selector.parked = None
                    set_running_loop(self)
                    set_asyncgen_hooks(*asyncgen_hooks)
                if woken is None:
                    break
                fd, mask = woken
                reader, writer = keys[fd].data
                if mask & READ and reader is not None and not reader._cancelled:
                    reader._run()
                if mask & WRITE and writer is not None and not writer._cancelled:
                    writer._run()
                for _ in range(len(ready)):
                    handle = popleft()
                    if not handle._cancelled:
                        handle._run()
                if self._stopping:
                    return
        super()._run_once()

    # Waking up

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        if context is None or self._debug or self._closed:
            handle = super().call_soon(callback, *args, context=context)
        else:  # every wake-up of a task comes here: Handle.__init__() written out, without its look at the debug mode
            handle = new_handle(asyncio.Handle)
            handle._callback, handle._args, handle._loop, handle._context = callback, args, self, context
            handle._cancelled, handle._repr, handle._source_traceback = False, None, None
            self._ready.append(handle)
        if self._selector.parked is not None:
            self._selector.wake()
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        timer = super().call_at(when, callback, *args, context=context)
        self._selector.wake()
        return timer

    def _write_to_self(self) -> None:
        self._selector.wake_threadsafe()

    def _make_self_pipe(self) -> None:
        """There is none: a loop costs no descriptors."""

    def _close_self_pipe(self) -> None:
        """See above."""

    # Exceptions that must not be lost

    def carry(self, exc: BaseException) -> None:
        """Make ``run_forever()`` stop and raise *exc* in its greenlet; the first of several counts."""
        if self._carrying is None:
            self._carrying = exc
        self.stop()
        self._selector.wake()

    def to_carry(self, exc: BaseException | None) -> BaseException | None:
        """What of *exc* ``run_forever()`` has to raise: *exc* itself, or one of a group that holds nothing else."""
        if isinstance(exc, BaseExceptionGroup):
            parts = [self.to_carry(part) for part in exc.exceptions]
            kill = next((part for part in parts if part is not None and not isinstance(part, Exception)), None)
            return kill if kill is not None or None in parts else parts[0]
        if isinstance(exc, Exception):
            return exc if isinstance(exc, self._carried) else None
        return None if isinstance(exc, asyncio.CancelledError) else exc

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        exc = self.to_carry(context.get("exception"))
        if exc is not None:
            self.carry(exc)
        else:
            super().call_exception_handler(context)

    def create_task(self, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **kwargs)
        self.tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        # Not task.exception(): that counts as retrieved, and asyncio would not report one that nobody looks at.
        exc = self.to_carry(task._exception)
        if exc is not None:
            task.exception()
            self.carry(exc)

    # Blocking work beside the loop

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        if executor is None and self._default_executor is None:
            self._check_closed()
            self._check_default_executor()
            if self._greenlet_executor is None:
                self._greenlet_executor = GreenletExecutor()
            executor = self._greenlet_executor
        return super().run_in_executor(executor, func, *args)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        executor = self._greenlet_executor
        if executor is not None:
            self._greenlet_executor = None
            try:
                async with asyncio.timeout(timeout):
                    await asyncio.wrap_future(GreenletExecutor().submit(executor.shutdown))
            except TimeoutError:
                warnings.warn(
                    f"blocking calls of the executor did not end within {timeout} seconds",
                    RuntimeWarning,
                    stacklevel=2,
                )
                executor.shutdown(wait=False)
        await super().shutdown_default_executor()

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        return await self.run_in_executor(None, lambda: gevent.socket.getaddrinfo(host, port, **hints))

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        return await self.run_in_executor(None, gevent.socket.getnameinfo, sockaddr, flags)

    # Signals, which asyncio sends through its self-pipe

    if sys.platform != "win32":

        def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
            """Call *callback* in the loop when *sig* arrives; main thread only. Errors as in asyncio."""
            if asyncio.iscoroutine(callback) or asyncio.iscoroutinefunction(callback):
                raise TypeError("coroutines cannot be used with add_signal_handler()")
            self._check_signal(sig)
            self._check_closed()
            self._signal_handlers[sig] = events.Handle(callback, args, self, None)
            try:
                signal.signal(sig, lambda signum, frame: self._handle_signal(signum))
                signal.siginterrupt(sig, False)
            except (ValueError, OSError) as exc:
                del self._signal_handlers[sig]
                if isinstance(exc, OSError) and exc.errno != errno.EINVAL:
                    raise
                raise RuntimeError(f"signal {sig} cannot be caught here: {exc}") from exc
