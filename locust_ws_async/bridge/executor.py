"""Blocking work beside the loop: an executor of greenlets, no OS threads.

A greenlet that blocks through gevent parks in the hub, and the loop's own greenlet goes on serving its sockets. That
is what a thread is for in plain asyncio; here it costs a few microseconds and no lock.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

import gevent
from gevent import Greenlet

__all__ = ["GreenletExecutor"]

P = ParamSpec("P")
T = TypeVar("T")


class GreenletExecutor(Executor):
    """Runs each submitted call in a greenlet of its own, started in the hub's next turn."""

    def __init__(self) -> None:
        self._running: dict[Future[Any], Greenlet[..., None]] = {}
        self._closed = False
        self._killed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start ``fn(*args, **kwargs)``; its result or any exception, also a ``BaseException``, goes into the future.

        Raises ``RuntimeError`` after :meth:`shutdown`.
        """
        if self._closed:
            raise RuntimeError("cannot schedule new calls after shutdown")
        future: Future[T] = Future()
        self._running[future] = gevent.spawn(self._run, future, fn, args, kwargs)
        return future

    def _run(self, future: Future[Any], fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        try:
            if future.set_running_or_notify_cancel():
                try:
                    result = fn(*args, **kwargs)
                except BaseException as exc:
                    if not self._killed:
                        future.set_exception(exc)
                else:
                    future.set_result(result)
        finally:
            self._running.pop(future, None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; *cancel_futures* cancels those that have not begun, *wait* waits for the others."""
        self._closed = True
        if cancel_futures:
            for future in list(self._running):
                future.cancel()
        if wait:
            gevent.joinall(list(self._running.values()))

    def kill(self) -> None:
        """Take no more calls and raise ``GreenletExit`` in those that run, in the hub's next turn.

        Their futures stay pending: nobody is left to look at them.
        """
        self._killed = True
        self.shutdown(wait=False, cancel_futures=True)
        gevent.killall(list(self._running.values()), block=False)
