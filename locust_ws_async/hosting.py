"""What the client may ask of the event loop that runs it.

The client and the bridge do not import each other: both import this.

Everything here also works under a loop that no greenlet hosts. There no task waits inline, and a kill is any exception
that is not an ``Exception``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = [
    "HostedLoop",
    "allow_lookups",
    "cancellation_of",
    "cancels_current_task",
    "inline_wait_of",
    "is_kill",
    "no_inline_wait",
]


class HostedLoop:
    """The base class of a loop that a greenlet hosts: what it can do beyond an asyncio loop."""

    __slots__ = ()

    def wait_for_io_inline(self) -> bool:
        """Wait inside of the current task until a transport has read or written something.

        This spares a future and a step of the task. Returns whether a reader or writer was called. If not, something
        else wants the loop: the caller must await a future, through which it then gets whatever it is. Cancelling the
        task ends the wait in that way. A loop that cannot wait like this returns False at once.
        """
        return False

    def allow_lookups(self, count: int) -> None:
        """Have threads for so many name lookups at a time, if they need threads."""


_KILL = "locust_ws_async_kill"


def cancellation_of(kill: BaseException) -> asyncio.CancelledError:
    """Return the cancellation that *kill* becomes in a coroutine that blocks its greenlet, with the kill as its cause.

    It is marked for :func:`is_kill`. It is no subclass: ``TaskGroup`` and ``timeout()`` ask for the very type.
    """
    cancellation = asyncio.CancelledError()
    cancellation.__cause__ = kill
    vars(cancellation)[_KILL] = True
    return cancellation


def no_inline_wait() -> bool:
    """Stand for ``wait_for_io_inline`` of a loop that has none: the caller must await a future."""
    return False


def inline_wait_of(loop: asyncio.AbstractEventLoop) -> Callable[[], bool]:
    """Return how a task of *loop* waits inside of itself for I/O: see :meth:`HostedLoop.wait_for_io_inline`."""
    return loop.wait_for_io_inline if isinstance(loop, HostedLoop) else no_inline_wait


def allow_lookups(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """Let *loop* look up so many names at a time: see :meth:`HostedLoop.allow_lookups`. asyncio's have their limit."""
    if isinstance(loop, HostedLoop):
        loop.allow_lookups(count)


def is_kill(exc: BaseException) -> bool:
    """Return whether *exc* ends the greenlet, or the process, and is not an error of the code that it came through.

    A cancellation is a kill only where the bridge has made it of one (:func:`cancellation_of`).
    """
    if isinstance(exc, asyncio.CancelledError):
        return _KILL in vars(exc)
    return not isinstance(exc, Exception)


def cancels_current_task(exc: BaseException) -> bool:
    """Return whether *exc* cancels the current task, and not something else that the task awaited."""
    task = asyncio.current_task()
    assert task is not None
    return isinstance(exc, asyncio.CancelledError) and (task.cancelling() > 0 or is_kill(exc))
