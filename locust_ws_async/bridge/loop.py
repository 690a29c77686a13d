"""GreenletEventLoop: asyncio's own selector event loop, run by a greenlet on the gevent hub.

The rules of this file:

1. asyncio's semantics are asyncio's code: what is overridden here says why.
2. An exception that ends the run leaves ``run_forever()`` as soon as the callback that raised it returns. asyncio lets
   only ``KeyboardInterrupt`` and ``SystemExit`` out of callbacks and tasks; here also a kill that arrives while one
   blocks, any other ``BaseException``, and the types *carried*. Callbacks that did not get their turn stay queued.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
import warnings
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from contextvars import Context
from heapq import heappop
from math import inf
from selectors import SelectorKey
from sys import set_asyncgen_hooks
from typing import Any, TypeVar, TypeVarTuple, Unpack

import gevent.socket
from gevent import GreenletExit
from gevent.hub import Hub, get_hub
from greenlet import getcurrent, greenlet

from . import cpython
from .cpython import Handle, SelectorEventLoop, current_task, enter_task, get_running_loop, leave_task, set_running_loop
from .executor import GreenletExecutor
from .isolation import isolate
from .selector import READ, WRITE, HubSelector

__all__ = ["GreenletEventLoop"]

S = TypeVar("S")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_MANY_CANCELLED_TIMERS = 100  # so many asyncio leaves in its heap (asyncio/base_events.py)

_LATE = 0.001  # seconds; a little of it passes between asyncio's look at the clock and the selector's

_TLS_RECORD = 16 * 1024  # bytes; a record carries no more (RFC 8446 section 5.1)

_DATA = SelectorKey._fields.index("data")

_new_handle = Handle.__new__
_switch = greenlet.switch


class GreenletEventLoop(SelectorEventLoop):
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

    # Objects of a class share the keys of their attributes, if they are fewer than 30. With more each loop would have
    # a table of its own, of 1.3 KiB. Hence these two, which few loops ever need, are not set by __init__().

    _leaving: _Leave | None = None

    interrupted: asyncio.Task[Any] | None = None
    """The task in which the last kill arrived, as its cancellation; None if it did not arrive in a task."""

    def __init__(self, *, carried: tuple[type[BaseException], ...] = ()) -> None:
        hub: Hub = get_hub()
        isolate(hub)
        # What every wait looks at comes first: attributes lie in memory in the order in which they are made. asyncio
        # sets these two again, and goes on with _stopping, _ready and _scheduled.
        self._selector: HubSelector = HubSelector(hub)  # None after close()
        self._debug = False
        # What run_forever() gives to sys.set_asyncgen_hooks(), and every return from the hub again.
        self._finalizer: Any = self._asyncgen_finalizer_hook
        super().__init__(self._selector)
        self._carried = carried
        self.ending = False
        """While true nothing is carried: another exception has ended the run, and this one is only cleaned up."""
        self.tasks: set[asyncio.Task[Any]] = set()
        """The loop's unfinished tasks. Kept here since ``asyncio.all_tasks()`` walks those of every loop."""

    # Running

    def run_forever(self) -> None:
        """Run in the current greenlet until ``stop()``, or until an exception is thrown in or carried."""
        # asyncio.BaseEventLoop checks too, but Python 3.13.0 where a refusal spoils the state of the running loop.
        self._check_closed()
        self._check_running()
        selector, current = self._selector, getcurrent()
        if current is selector.hub:
            raise RuntimeError("the gevent hub cannot run an event loop: do it in a greenlet, e.g. gevent.spawn()")
        if get_hub() is not selector.hub:
            raise RuntimeError("this event loop belongs to another thread: create it in the thread that runs it")
        set_asyncgen_hooks(None, None)  # perhaps those of a parked loop, which asyncio would put back at the end
        selector.greenlet = current
        selector.time_left = self._time_left
        selector.attach()
        try:
            super().run_forever()
            if self._leaving is not None:  # a stop came first
                raise self._leaving.exc
        finally:
            selector.detach()
            selector.greenlet = selector.time_left = None
            if self._leaving is not None:  # a stop or another exception came first
                self._leaving.cancel()
                self._leaving = None

    def close(self) -> None:
        """Close the loop; blocking calls that its executor still runs are killed."""
        executor = self._default_executor
        super().close()
        self._finalizer = None  # or only the garbage collector would free the loop
        if isinstance(executor, GreenletExecutor):
            executor.kill()

    def _run_once(self) -> None:
        """asyncio's pass over the loop, with a short cut in front for the common case.

        The common case: nothing is ready, so the greenlet parks, and a descriptor wakes it. Its reader or writer is
        called at once, and what that made ready runs in the same pass, without a look at the clock or at the other
        descriptors in between: a message that arrives and the answer to it are one pass. In all other cases, and
        whenever the timers need attention, asyncio's own code runs.
        """
        ready = self._ready
        while self._only_io_is_next():
            if not self._wait_for_io():
                break
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
            if self._stopping:
                return
        super()._run_once()

    def wait_for_io_inline(self) -> bool:
        """Wait inside the current task for the next descriptor, and call its reader or writer.

        A short cut for ``await future``, for the task that would leave the loop with nothing else to do: its coroutines
        stay where they are, and no future, handle or step of the task is needed to come back to them. For readers and
        writers nothing differs; ``current_task()`` is None in them as ever.

        Returns whether a reader or writer was called. If not, something else wants the loop (other callbacks, a timer,
        a cancellation, a kill): await a future, through which the task then gets whatever it is.
        """
        task = current_task(self)
        if type(task) is not Task or getcurrent() is not self._selector.greenlet or not self._only_io_is_next():
            return False
        leave_task(self, task)
        try:
            called = self._wait_for_io()
        except BaseException as exc:  # thrown in: it leaves run_forever(), as when the loop waits
            self._throw(exc)
            return False
        finally:
            enter_task(self, task)
        return called and not task._must_cancel

    # Both are the hot path: what they need is in local variables, and parking is HubSelector.park() written out.

    def _only_io_is_next(self) -> bool:
        """Whether nothing has to happen before the next descriptor is ready."""
        selector, scheduled = self._selector, self._scheduled
        return (
            0.0 < selector.armed_for <= (scheduled[0]._when + _LATE if scheduled else inf)
            and not (self._ready or selector.seen is not None or self._stopping or self._debug)
            and self._timer_cancelled_count <= _MANY_CANCELLED_TIMERS
        )

    def _wait_for_io(self) -> bool:
        """Park until a descriptor is ready, and call its reader and writer. False: something else woke the greenlet."""
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
        reader, writer = key[_DATA]
        # A negative mask: the watcher failed (libuv), and the reader and the writer shall meet the error.
        if reader is not None and (mask & READ or mask < 0) and not reader._cancelled:
            try:  # Handle._run() written out
                reader._context.run(reader._callback, *reader._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                message = f"Exception in callback {reader!r}"
                self.call_exception_handler({"message": message, "exception": exc, "handle": reader})
        if writer is not None and (mask & WRITE or mask < 0) and not writer._cancelled:
            writer._run()
        return True

    def _time_left(self) -> float:
        """Seconds until the next timer is due. Cancelled ones before it are dropped, as asyncio itself does."""
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heappop(scheduled)._scheduled = False
            self._timer_cancelled_count -= 1
        return scheduled[0]._when - self.time() if scheduled else inf

    # Waking up

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        if context is None or self._debug or self._closed:
            self._check_closed()
            self._selector.wake()
            created = super().call_soon(callback, *args, context=context)
            return _from_caller(created) if self._debug else created
        # Every wake-up of a task comes here: Handle.__init__() written out, without its look at the debug mode.
        if self._selector.parked is not None:
            self._selector.wake()
        handle = _new_handle(Handle)
        handle._callback, handle._args, handle._loop, handle._context = callback, args, self, context
        handle._cancelled, handle._repr, handle._source_traceback = False, None, None
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self._check_closed()
        self._selector.wake()
        timer = super().call_at(when, callback, *args, context=context)
        return _from_caller(timer) if self._debug else timer

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        # Other greenlets of the thread come here as well, for asyncio.to_thread() say. When a doorbell rings, libev
        # looks at those of all loops.
        selector = self._selector
        if selector is None or selector.in_other_thread():
            return _from_caller(super().call_soon_threadsafe(callback, *args, context=context))
        return _from_caller(self.call_soon(callback, *args, context=context))

    def _check_thread(self) -> None:
        """asyncio's debug mode takes greenlets for threads, after monkey-patching; :meth:`wake` knows them."""

    def _write_to_self(self) -> None:
        selector = self._selector
        if selector is not None:  # closed just now by its own thread
            selector.wake_threadsafe()

    def _make_self_pipe(self) -> None:
        """There is none: a loop costs no descriptors."""

    def _close_self_pipe(self) -> None:
        """See above."""

    # Called by isolation.py

    def blocks(self) -> None:
        """The greenlet leaves for the hub, and not to wait for this loop."""
        self._selector.detach()

    def resumes(self) -> None:
        """It is back."""
        self._selector.attach()

    # Exceptions that must not be lost

    def carry(self, exc: BaseException) -> None:
        """Make ``run_forever()`` raise *exc*, or the next one if none is running; the first of several counts."""
        if self._leaving is None and not self.ending:
            self._leave(exc)
        elif self.to_carry(exc) is None:
            super().call_exception_handler({"message": "exception while another one ends the run", "exception": exc})

    def killed(self, task: asyncio.Task[Any] | None, exc: GreenletExit) -> None:
        """The greenlet was killed by *exc* while it was blocked in *task*, or else in a callback."""
        self.interrupted = task
        self._throw(exc)

    def _throw(self, exc: BaseException) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
        self._leave(exc)

    def _leave(self, exc: BaseException) -> None:
        self._leaving = _Leave(self, exc)
        self._selector.wake()
        self._ready.appendleft(self._leaving)

    def to_carry(self, exc: BaseException | None) -> BaseException | None:
        """What of *exc* ``run_forever()`` has to raise: *exc* itself, or one of a group that holds nothing else."""
        if isinstance(exc, BaseExceptionGroup):
            parts = [self.to_carry(part) for part in exc.exceptions]
            kill = next((part for part in parts if part is not None and not isinstance(part, Exception)), None)
            return kill if kill is not None or None in parts else parts[0]
        if isinstance(exc, Exception):
            return exc if isinstance(exc, self._carried) else None
        # (What a context of the exception handler holds may be no exception at all: aiofastnet puts a class there.)
        return exc if isinstance(exc, BaseException) and not isinstance(exc, asyncio.CancelledError) else None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        exc = self.to_carry(context.get("exception"))
        if exc is not None and not self._closed:
            self.carry(exc)
        else:
            super().call_exception_handler(context)

    def create_task(self, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any]
        if self._task_factory is None:
            self._check_closed()
            task = Task(coro, loop=self, **kwargs)
        else:
            task = super().create_task(coro, **kwargs)
        if self._debug:
            _from_caller(task)
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

    def _make_ssl_transport(self, *args: Any, **kwargs: Any) -> Any:
        transport = super()._make_ssl_transport(*args, **kwargs)
        # asyncio gives each TLS connection a receive buffer of 256 KiB, which thousands of users would pay for.
        protocol = transport._ssl_protocol
        protocol.max_size = _TLS_RECORD
        protocol._ssl_buffer = bytearray(_TLS_RECORD)
        protocol._ssl_buffer_view = memoryview(protocol._ssl_buffer)
        return transport

    # Blocking work beside the loop

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        if executor is None and self._default_executor is None:
            self._default_executor = GreenletExecutor()
        return super().run_in_executor(executor, func, *args)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait until the calls of the default executor have ended, for at most *timeout* seconds; it takes no more."""
        executor = self._default_executor
        if not isinstance(executor, GreenletExecutor):
            await super().shutdown_default_executor()
            return
        self._executor_shutdown_called = True
        try:
            # asyncio does this in a thread, which cannot wait for the greenlets of this one.
            async with asyncio.timeout(timeout):
                await asyncio.wrap_future(GreenletExecutor().submit(executor.shutdown))
        except TimeoutError:
            warnings.warn(
                f"blocking calls of the executor did not end within {timeout} seconds", RuntimeWarning, stacklevel=2
            )

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        return await self.run_in_executor(None, lambda: gevent.socket.getaddrinfo(host, port, **hints))

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        return await self.run_in_executor(None, gevent.socket.getnameinfo, sockaddr, flags)

    # Signals, which asyncio sends through its self-pipe

    if sys.platform != "win32":

        def add_signal_handler(self, sig: int, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> None:
            """Call *callback* in the loop when *sig* arrives; main thread only. Errors as in asyncio."""
            if asyncio.iscoroutine(callback) or asyncio.iscoroutinefunction(callback):
                raise TypeError("coroutines cannot be used with add_signal_handler()")
            self._check_signal(sig)
            self._check_closed()
            self._signal_handlers[sig] = asyncio.Handle(callback, args, self, None)
            try:
                signal.signal(sig, lambda signum, frame: self._handle_signal(signum))
                signal.siginterrupt(sig, False)
            except (ValueError, OSError) as exc:
                del self._signal_handlers[sig]
                if isinstance(exc, OSError) and exc.errno != errno.EINVAL:
                    raise
                raise RuntimeError(f"signal {sig} cannot be caught here: {exc}") from exc


def _first_iteration(generator: AsyncGenerator[Any, Any]) -> None:
    # The running loop's hook. One function for all loops: an object less to look up at each wake-up. No loop runs where
    # another greenlet goes through a generator by hand, while ours wait.
    loop: Any = get_running_loop()
    if loop is not None:
        loop._asyncgen_firstiter_hook(generator)


def _from_caller(created: S) -> S:
    """*created*, which in debug mode knows the stack that created it, without our frame at the end of that."""
    stack: Any = getattr(created, "_source_traceback", None)
    if stack:
        del stack[-1]
    return created


class Task(cpython.Task):
    """asyncio's, but it wakes its loop when it is cancelled, since it may wait in ``wait_for_io_inline()``."""

    __slots__ = ()

    def cancel(self, msg: Any | None = None) -> bool:
        requested = super().cancel(msg)
        selector = self._loop._selector
        if requested and selector is not None:  # None: the loop is closed
            selector.wake()
        return requested


class _Leave(Handle):
    """In the loop's queue: leaves ``run_forever()`` with an exception, which asyncio's handles would catch."""

    __slots__ = ("exc",)

    def __init__(self, loop: GreenletEventLoop, exc: BaseException) -> None:
        super().__init__(loop.carry, (exc,), loop)
        self.exc = exc

    def _run(self) -> None:
        self._loop._leaving = None
        raise self.exc
