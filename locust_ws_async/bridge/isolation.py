"""Keeps asyncio's per-thread state per greenlet.

asyncio stores three things per OS thread, and greenlets share their thread:

- the running loop (``asyncio.get_running_loop()``);
- the current task (``asyncio.current_task()``);
- the hooks for asynchronous generators (``sys.set_asyncgen_hooks()``).

The rules of this file:

1. A greenlet that leaves for the hub takes all three with it, on its own stack, and puts them back when it returns.
   So the hub, and every greenlet that starts from it, finds nothing.
2. A loop with nothing to do parks on purpose: its selector calls :func:`park`. No task is current at that point.
3. A coroutine that *blocks* through gevent (``time.sleep``, ``requests``, a lock) does not know about us. All of gevent
   blocks in ``hub.switch()``; :func:`isolate` puts ours in its place, which costs a greenlet without a loop one more
   Python call when it blocks. Who parks by :func:`park` does not pass there.
4. A kill that arrives in a coroutine that blocks is a cancellation there, as it is for one that awaits. The loop is
   told, since the coroutine may have something to await in a ``finally``, or be a background task.
5. contextvars need nothing: greenlets switch their context themselves.

Up to Python 3.13 the current task is kept in a dictionary by loop, so that two loops never collide; since 3.12
``asyncio.tasks._swap_current_task`` changes it. Python 3.14 keeps the running loop and its current task in the thread
state (read in CPython's ``Modules/_asynciomodule.c``: ``swap_current_task`` insists that the given loop is the running
one). Hence the order here, which should hold there unchanged: the task is swapped out before the running loop is
cleared, and in after it is set.

The rejected alternative is ``greenlet.settrace``, with gevent's ``switch_out`` to learn when a greenlet leaves: it
slows every switch of the thread while anybody is blocked, a debugger that sets a trace of its own takes it away, and
it cannot tell what is thrown in.
"""

from __future__ import annotations

import functools
import sys
from asyncio import CancelledError
from collections.abc import Callable
from typing import Any

from gevent import GreenletExit
from gevent.hub import Hub
from greenlet import greenlet

from .private import get_running_loop, set_running_loop, swap_current_task

__all__ = ["isolate", "park"]

_switch = greenlet.switch  # not hub.switch, which is for those that block unawares
_get_asyncgen_hooks = sys.get_asyncgen_hooks
_set_asyncgen_hooks = sys.set_asyncgen_hooks


def isolate(hub: Hub) -> None:
    """Keep apart whatever loops the greenlets of *hub* run, from now on. Further calls change nothing."""
    attributes = vars(hub)
    if not isinstance(attributes.get("switch"), _Block):
        attributes["switch"] = _Block(_block, hub.switch)


def park(hub: Hub) -> None:
    """Switch to *hub* from a loop that waits, until somebody switches back."""
    loop = get_running_loop()
    firstiter, finalizer = _get_asyncgen_hooks()
    set_running_loop(None)
    _set_asyncgen_hooks(None, None)
    try:
        _switch(hub)
    finally:
        set_running_loop(loop)
        _set_asyncgen_hooks(firstiter, finalizer)


class _Block(functools.partial[Any]):
    """What we put in place of ``hub.switch``; a type, so that it is recognised."""


def _block(switch: Callable[[], Any]) -> Any:
    loop = get_running_loop()
    if loop is None:
        return switch()
    task = swap_current_task(loop, None)
    firstiter, finalizer = _get_asyncgen_hooks()
    set_running_loop(None)
    _set_asyncgen_hooks(None, None)
    try:
        return switch()
    except GreenletExit as kill:
        killed: Callable[[Any, GreenletExit], None] | None = getattr(loop, "killed", None)
        if killed is None:  # a foreign loop
            raise
        killed(task, kill)
        if task is None:  # in a callback
            raise
        raise CancelledError from kill
    finally:
        set_running_loop(loop)
        _set_asyncgen_hooks(firstiter, finalizer)
        swap_current_task(loop, task)
