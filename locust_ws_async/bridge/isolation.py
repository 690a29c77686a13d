"""Keeps asyncio's per-thread state per greenlet.

asyncio stores three things per OS thread, and greenlets share their thread:

- the running loop (``asyncio.get_running_loop()``);
- the current task (``asyncio.current_task()``);
- the hooks for asynchronous generators (``sys.set_asyncgen_hooks()``).

The rules of this file:

1. While a loop's callbacks run, all three belong to that loop. While its greenlet is away, other greenlets see no
   running loop and no current task unless they host a loop themselves. (The hooks stay: only code that iterates
   asynchronous generators without any loop would notice, and clearing them would cost as much as the rest together.)
2. A loop that parks on the hub goes away on purpose: its selector calls :meth:`Isolation.leave` and
   :meth:`Isolation.enter` around the switch. No task is current at that point.
3. A coroutine that *blocks* through gevent (``time.sleep``, ``requests``, a lock) does not know about us. gevent's
   hub calls ``switch_out`` of the current greenlet just before it parks it; there we leave. To come back we need to
   know when the greenlet is resumed, which only ``greenlet.settrace`` tells. The trace function is installed while
   somebody is blocked and at no other time, so that nobody pays for it otherwise, and it calls on to the trace
   function that it found.
4. contextvars need nothing: greenlets switch their ``contextvars`` context themselves.

Up to Python 3.13 the current task is kept in a dictionary keyed by loop, so that two loops never collide; since 3.12
``asyncio.tasks._swap_current_task`` changes it. Python 3.14 keeps the running loop and its current task in the
thread state (read in CPython's ``Modules/_asynciomodule.c``: ``swap_current_task`` insists that the given loop is the
running one). Hence the order here, which should hold there unchanged: the task is swapped out before the running loop
is cleared, and in after it is set.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import events
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import greenlet
from gevent.hub import Hub

__all__ = ["Isolation"]

_get_running_loop = events._get_running_loop
_set_running_loop = events._set_running_loop
_set_asyncgen_hooks = sys.set_asyncgen_hooks

if sys.version_info >= (3, 12):
    _swap_current_task = asyncio.tasks._swap_current_task
else:

    def _swap_current_task(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None) -> None:
        """Nothing to do: current tasks are keyed by loop, and no other greenlet runs this one."""


class Isolation:
    """The per-thread state of one loop, put in place and set aside with the greenlet that runs the loop."""

    __slots__ = ("_blocked", "_loop", "_task", "asyncgen_hooks")

    _loop: asyncio.BaseEventLoop

    def __init__(self, hub: Hub) -> None:
        self._task: asyncio.Task[Any] | None = None
        blocked = _blocked_by_hub.get(hub)
        if blocked is None:
            blocked = _blocked_by_hub[hub] = _BlockedGreenlets()
        self._blocked = blocked

    def isolate(self, loop: asyncio.BaseEventLoop) -> None:
        """Take charge of *loop*; called once."""
        self._loop = loop
        self.asyncgen_hooks = loop._asyncgen_firstiter_hook, loop._asyncgen_finalizer_hook

    def enter(self) -> None:
        """The loop's greenlet is back: its loop is the running one again."""
        _set_running_loop(self._loop)
        _set_asyncgen_hooks(*self.asyncgen_hooks)

    def leave(self) -> None:
        """The loop's greenlet goes away: no loop is running in this thread."""
        _set_running_loop(None)

    def switch_out(self) -> None:
        """Called by gevent's hub in the loop's greenlet, just before it blocks (gevent/_greenlet_primitives.py)."""
        if _get_running_loop() is self._loop:
            self._task = asyncio.current_task(self._loop)
            _swap_current_task(self._loop, None)
            self.leave()
            self._blocked.add(greenlet.getcurrent(), self)

    def switched_in(self) -> None:
        """Called in the loop's greenlet when it goes on after it blocked."""
        self.enter()
        task, self._task = self._task, None
        _swap_current_task(self._loop, task)


class _BlockedGreenlets:
    """The greenlets of one hub that are blocked inside a callback of their loop, and the trace while there are any."""

    __slots__ = ("__weakref__", "_isolations", "_trace")

    def __init__(self) -> None:
        self._isolations: dict[greenlet.greenlet, Isolation] = {}
        self._trace: _Trace | None = None

    def add(self, blocked: greenlet.greenlet, isolation: Isolation) -> None:
        self._isolations[blocked] = isolation
        # Somebody may have put a trace function of their own in place of ours since.
        if self._trace is None or greenlet.gettrace() is not self._trace:
            self._trace = _Trace(self)
            greenlet.settrace(self._trace)

    def switched(self, target: greenlet.greenlet) -> None:
        isolation = self._isolations.pop(target, None)
        if isolation is not None:
            isolation.switched_in()
        if not self._isolations and self._trace is not None and greenlet.gettrace() is self._trace:
            greenlet.settrace(self._trace.previous)
            self._trace = None


class _Trace:
    """One installation of our trace function; each has its own predecessor, so that chains never form a circle."""

    __slots__ = ("_blocked", "previous")

    def __init__(self, blocked: _BlockedGreenlets) -> None:
        self._blocked = blocked
        self.previous: Callable[[str, Any], None] | None = greenlet.gettrace()

    def __call__(self, event: str, args: Any) -> None:
        previous = self.previous
        if event in ("switch", "throw"):
            self._blocked.switched(args[1])
        if previous is not None:
            previous(event, args)


_blocked_by_hub: WeakKeyDictionary[Hub, _BlockedGreenlets] = WeakKeyDictionary()
