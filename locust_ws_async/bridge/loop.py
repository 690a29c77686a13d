"""GreenletEventLoop: asyncio's own selector event loop, run by a greenlet on the gevent hub.

asyncio's semantics are asyncio's code: what is overridden here says why. Two parts have files of their own:
``inline_io.py`` the fast paths, ``propagation.py`` the exceptions that must leave ``run_forever()``.

The greenlet of a loop leaves for the hub in five ways:

1. The loop is idle: ``select()`` parks the greenlet (``selector.py``).
2. The same by the short cut of a pass over the loop (``_run_once()`` in ``inline_io.py``).
3. A task waits inside of itself (``wait_for_io_inline()`` in ``inline_io.py``).
4. A coroutine or a callback blocks through gevent: ``hub.switch()`` (``isolation.py``).
5. A plain function runs in the greenlet, and blocks: ``LoopHost.call()`` (``loop_host.py``).

They differ in what becomes of the current task and the running loop, in what a descriptor's watcher calls when it
fires, in what ends the wait, and in where an exception arrives that is thrown in meanwhile (a kill,
``gevent.Timeout``):

===  ====================  ======================  ==================================  ===============================
way  current task          a watcher calls         what ends the wait                  an exception thrown in
===  ====================  ======================  ==================================  ===============================
1    there is none         ``greenlet.switch``     I/O, the timer, ``wake()``          leaves ``run_forever()`` at once
2    there is none         ``greenlet.switch``     the same; asyncio's pass does the   leaves ``run_forever()`` at once
                                                   rest unless it was I/O
3    left, entered again   ``greenlet.switch``     the same; the task awaits a future  leaves ``run_forever()`` after
                                                   unless it was I/O                   this step of the task
4    left, entered again   ``_record``, for the    whatever it blocks for              is raised there; a kill becomes
                           next ``select()``                                           a cancellation of the task, and
                                                                                       leaves the loop after this step
5    none in this          ``switch`` of the       the end of the function             is raised in the function; a kill
     greenlet              greenlet that runs                                          ends the other greenlet as well
                           the loop meanwhile
===  ====================  ======================  ==================================  ===============================

In the first four the running loop is cleared before the switch, and set again after it.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import signal
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import Context
from math import inf
from typing import Any, TypeVar, TypeVarTuple, Unpack

from gevent.hub import Hub, get_hub
from greenlet import getcurrent

from ..internals.cpython import (
    remove_cancelled_timers,
    shrink_tls_buffer,
    thread_safe_handle,
    without_last_frame,
)
from .executor import GreenletExecutor
from .inline_io import EagerTask, InlineIOLoop, Task
from .isolation import BlockingAware, isolate
from .resolving import resolve
from .selector import HubSelector

__all__ = ["GreenletEventLoop"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class GreenletEventLoop(InlineIOLoop, BlockingAware):
    """An asyncio event loop for one greenlet; any number of them run side by side in one thread.

    It is the standard library's loop over a :class:`HubSelector`, and differs from it in this:

    - while it waits, its greenlet is parked and other greenlets run, with loops of their own or without;
    - ``run_in_executor(None, ...)`` and ``asyncio.to_thread()`` use greenlets, ``getaddrinfo()`` and
      ``getnameinfo()`` resolve through gevent;
    - it owns no descriptors: ``call_soon_threadsafe()`` wakes it through the hub. ``call_soon()`` and ``call_later()``
      are safe from other greenlets of its thread as well;
    - an exception that is thrown into the greenlet (a kill, ``gevent.Timeout``) leaves ``run_forever()``, wherever
      inside the loop it arrives; asyncio alone would swallow it in callbacks and background tasks;
    - exceptions of the types *propagated* leave ``run_forever()`` too when a callback or a task raises them.

    Create it in the thread that runs it.
    """

    # A loop has at most SHARED_ATTRIBUTES attributes (internals/cpython.py), which asyncio nearly uses up: each further
    # one would cost every user 1.3 KiB. tests/bridge/test_leftovers.py counts them.

    def __init__(self, *, propagated: tuple[type[BaseException], ...] = ()) -> None:
        hub: Hub = get_hub()
        isolate(hub)
        # What every wait looks at comes first: attributes lie in memory in the order in which they are made. asyncio
        # sets these two again, and goes on with _stopping, _ready and _scheduled.
        self._selector: HubSelector = HubSelector(hub)  # None after close()
        self._debug = False
        self._finalizer = self._asyncgen_finalizer_hook  # made once: each wait sets it again
        super().__init__(self._selector, propagated)

    # Running

    def run_forever(self) -> None:
        """Run in the current greenlet until ``stop()``, or until an exception is thrown in or propagated."""
        # asyncio.BaseEventLoop checks too, but Python 3.13.0 where a refusal spoils the state of the running loop.
        self._check_closed()
        self._check_running()
        selector, current = self._selector, getcurrent()
        if current is selector.hub:
            raise RuntimeError("the gevent hub cannot run an event loop: do it in a greenlet, e.g. gevent.spawn()")
        if get_hub() is not selector.hub:
            raise RuntimeError("this event loop belongs to another thread: create it in the thread that runs it")
        sys.set_asyncgen_hooks(None, None)  # perhaps those of a parked loop, which asyncio would put back at the end
        selector.greenlet = current
        selector.time_left = self._time_left
        selector.resume_on_io()
        try:
            super().run_forever()
        finally:
            selector.record_io()
            selector.greenlet = selector.time_left = None

    def close(self) -> None:
        """Close the loop; blocking calls that its executor still runs are killed."""
        executor = self._default_executor
        super().close()
        self._finalizer = None  # or only the garbage collector would free the loop
        if isinstance(executor, GreenletExecutor):
            executor.kill()

    def _time_left(self) -> float:
        """Return the seconds until the next timer is due."""
        remove_cancelled_timers(self)
        return self._scheduled[0].when() - self.time() if self._scheduled else inf

    # Waking up

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        self._check_closed()
        self._selector.wake()
        created = super().call_soon(callback, *args, context=context)
        return without_last_frame(created) if self._debug else created

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self._check_closed()
        self._selector.wake()
        timer = super().call_at(when, callback, *args, context=context)
        return without_last_frame(timer) if self._debug else timer

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        selector = self._selector
        if selector is None or selector.in_other_thread():
            return without_last_frame(super().call_soon_threadsafe(callback, *args, context=context))
        # Other greenlets of the thread come here as well, for asyncio.to_thread() say. asyncio would wake the loop as
        # from another thread, after which libev looks at the async watchers of all loops.
        self._check_closed()
        if self._debug:
            self._check_callback(callback, "call_soon_threadsafe")
        selector.wake()
        handle = thread_safe_handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def _check_thread(self) -> None:
        """Do nothing: asyncio's debug mode takes greenlets for threads after monkey-patching. ``wake()`` knows them."""

    def _write_to_self(self) -> None:
        selector = self._selector
        if selector is not None:  # closed just now by its own thread
            selector.wake_threadsafe()

    def _make_self_pipe(self) -> None:
        """Make none: a loop costs no descriptors."""

    def _close_self_pipe(self) -> None:
        """Do nothing: ``_make_self_pipe()`` has made no pipe."""

    # Called by isolation.py

    def on_block(self) -> None:
        self._selector.record_io()

    def on_unblock(self) -> None:
        self._selector.resume_on_io()

    # Tasks and transports

    def create_task(self, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        """Make a task of *coro*. *kwargs* are those of ``asyncio.Task``, with ``eager_start`` since Python 3.12."""
        task: asyncio.Task[Any]
        if self._task_factory is None:
            self._check_closed()
            kind = EagerTask if kwargs.get("eager_start") else Task
            task = kind(coro, loop=self, **kwargs)
        else:
            task = super().create_task(coro, **kwargs)
        if self._debug:
            without_last_frame(task)
        self.tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _make_ssl_transport(self, *args: Any, **kwargs: Any) -> Any:
        transport = super()._make_ssl_transport(*args, **kwargs)
        shrink_tls_buffer(transport)
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
        return await self.run_in_executor(None, lambda: resolve("getaddrinfo", host, port, **hints))

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        return await self.run_in_executor(None, resolve, "getnameinfo", sockaddr, flags)

    def allow_lookups(self, count: int) -> None:
        pool = self._selector.hub.threadpool
        if pool.maxsize < count:
            pool.maxsize = count

    # Signals, which asyncio sends through its self-pipe

    if sys.platform != "win32":

        def add_signal_handler(self, sig: int, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> None:
            """Call *callback* in the loop when *sig* arrives; main thread only. Errors as in asyncio."""
            if asyncio.iscoroutine(callback) or inspect.iscoroutinefunction(callback):
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
