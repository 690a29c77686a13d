"""Keeps asyncio's per-thread state per greenlet.

asyncio stores three things per OS thread, and greenlets share their thread:

- the running loop (``asyncio.get_running_loop()``);
- the current task (``asyncio.current_task()``);
- the hooks for asynchronous generators (``sys.set_asyncgen_hooks()``).

The rules of this file:

1. A greenlet that leaves for the hub takes its loop and task with it, on its own stack, and puts them back when it
   returns. So the hub, and every greenlet that starts from it, finds no running loop. (The hooks are put back too, but
   not cleared: only code that iterates asynchronous generators without any loop would notice, and clearing them would
   cost as much as the rest together.)
2. A loop with nothing to do parks on purpose, by :func:`park`. No task is current at that point.
3. A coroutine that *blocks* through gevent (``time.sleep``, ``requests``, a lock) does not know about us. All of gevent
   blocks in ``hub.switch()``; :func:`isolate` puts ours in its place. It costs one Python call, and only where
   somebody blocks.
   A loop of ours is told, so that what its descriptors have to say waits until the greenlet is back. Who wants to know
   how long coroutines block is told too, by :func:`watch_blocking`.
4. A kill that arrives in a coroutine that blocks is a cancellation there, as in one that awaits. The loop is told,
   since that coroutine may await something in a ``finally``, swallow it, or belong to a background task.
5. A loop of somebody else's (``asyncio.run()`` in a greenlet of the locustfile) may wait already when the first of ours
   is made, and would have left itself behind as the running one. So the thread that imports this is isolated at once;
   others are when their first loop is made.
6. contextvars need nothing: greenlets switch their context themselves.

The order of leaving and entering matters since Python 3.14 (``internals/cpython.py``): the task is left before the
running loop is cleared, and entered after it is set.

The rejected alternative is ``greenlet.settrace``, with gevent's ``switch_out`` to learn when a greenlet leaves: it
slows every switch of the thread while anybody blocks, another trace function can take its place, and it does not see
what is thrown in.
"""

from __future__ import annotations

import functools
import sys
from asyncio import Task
from collections.abc import Callable
from typing import Any, Protocol

from gevent import GreenletExit
from gevent.hub import Hub, get_hub
from greenlet import greenlet

from ..hosting import cancellation_of
from ..internals.cpython import current_task, enter_task, get_running_loop, leave_task, set_running_loop
from ..internals.gevent import hub_switch_override, override_hub_switch

__all__ = ["BlockingAware", "BlockingWatch", "isolate", "park", "watch_blocking"]

_switch = greenlet.switch  # not hub.switch(), which is for those that block


class BlockingAware:
    """The base class of a loop that wants to know when its greenlet blocks inside of a coroutine or callback."""

    __slots__ = ()

    def on_block(self) -> None:
        """Called before the greenlet leaves for the hub: it does not wait for this loop."""
        raise NotImplementedError

    def on_unblock(self) -> None:
        """Called after the greenlet has come back from there."""
        raise NotImplementedError

    def on_kill(self, task: Task[Any] | None, exc: GreenletExit) -> None:
        """Called when *exc* was thrown in meanwhile; the greenlet was blocked in *task*, or else in a callback."""
        raise NotImplementedError


class BlockingWatch(Protocol):
    """Is told of each time that a coroutine or a callback of a loop blocks, in the greenlet that blocks."""

    def on_block(self) -> Any:
        """Called before the greenlet leaves for the hub; what it returns, `on_unblock` gets."""

    def on_unblock(self, before: Any) -> None:
        """Called when it is back, however it came back, on top of the stack that blocked. It must not raise."""


_watch: BlockingWatch | None = None


def watch_blocking(watch: BlockingWatch | None) -> None:
    """Let *watch* know from now on, in place of the one before it; None: nobody."""
    global _watch
    _watch = watch


def isolate(hub: Hub) -> None:
    """Keep apart whatever loops the greenlets of *hub* run, from now on. Further calls change nothing."""
    if not isinstance(hub_switch_override(hub), _BlockingSwitch):
        override_hub_switch(hub, _BlockingSwitch(_blocking_switch, hub.switch))


def park(hub: Hub) -> Any:
    """Switch to *hub* from a loop that waits; returns what is passed to ``switch()`` of the greenlet."""
    loop = get_running_loop()
    hooks = sys.get_asyncgen_hooks()
    set_running_loop(None)
    try:
        return _switch(hub)
    finally:
        set_running_loop(loop)
        sys.set_asyncgen_hooks(*hooks)


def _blocking_switch(switch: Callable[[], Any]) -> Any:
    """``hub.switch()`` for a greenlet that blocks, perhaps inside of a loop."""
    loop = get_running_loop()
    if loop is None:
        return switch()
    hooks = sys.get_asyncgen_hooks()
    task = current_task(loop)
    aware = loop if isinstance(loop, BlockingAware) else None  # None: a loop of somebody else's
    if task is not None:
        leave_task(loop, task)
    if aware is not None:
        aware.on_block()
    watch = _watch
    before = None if watch is None else watch.on_block()
    set_running_loop(None)
    try:
        return switch()
    except GreenletExit as kill:
        if aware is None:
            raise
        aware.on_kill(task, kill)
        if task is None:  # in a callback, which nobody can cancel
            raise
        raise cancellation_of(kill) from kill
    finally:
        set_running_loop(loop)
        if aware is not None:
            aware.on_unblock()
        if task is not None:
            enter_task(loop, task)
        sys.set_asyncgen_hooks(*hooks)
        if watch is not None:
            watch.on_unblock(before)


class _BlockingSwitch(functools.partial[Any]):
    """A type of its own, so that :func:`isolate` recognises it."""


isolate(get_hub())
