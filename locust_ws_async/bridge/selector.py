"""File descriptor and timeout waits on the gevent hub, as a selector.

This is the one place where asyncio's loop meets gevent's. The rules of this file:

1. ``select()`` parks the calling greenlet in the hub, so that other greenlets run. Each descriptor has one io watcher
   for as long as it is registered; parking and waking cost no system call of ours.
2. A watcher that fires while the greenlet is parked resumes it at once: its callback is the greenlet's own ``switch``.
   The greenlet may be elsewhere: blocked in gevent inside a coroutine, or out of the loop. A watcher that fires then is
   stopped, and its event is remembered until the next ``select()``. If it went on, the unread descriptor would keep the
   hub spinning, because libev is level-triggered. `resume_on_io()` and `record_io()` choose between the two callbacks.
   They run in the loop's greenlet, and watchers fire only in the hub, so none resumes a greenlet that is not parked.
3. ``select(0)`` really polls, as any selector does: code relies on ``await asyncio.sleep(0)`` letting I/O in. Since
   that must be cheap it asks the kernel about our few descriptors directly, and every `POLLS_PER_HUB_TURN`-th time in a
   row it lets the hub run instead, so that a loop that always has something to do cannot starve other greenlets.
4. There is one timer watcher, and it stays armed: asyncio's next deadline seldom comes closer from one wait to the
   next. When it goes off too early (most timeouts are cancelled) it is armed for the deadline that is next by then,
   and the greenlet goes on waiting. It is armed also where there is no deadline: gevent raises ``LoopExit`` when
   nothing is left that could wake a greenlet, and it does not know of other threads.

The rejected alternative is ``gevent.selectors.GeventSelector``: its ``select(0)`` never polls, and each wait creates
and closes a timer and an event object.
"""

from __future__ import annotations

from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE, SelectorKey
from time import monotonic
from typing import Any

import greenlet
from gevent.hub import Hub
from gevent.monkey import get_original

from ..internals.cpython import Selector
from .isolation import park

__all__ = ["READ", "WRITE", "HubSelector"]

POLLS_PER_HUB_TURN = 8
"""Of so many polls in a row one is a turn of the hub. A turn serves the descriptors of all greenlets, which may be
thousands, and a poll only our own. With 8, a loop that never waits pays for the hub in one pass of eight, and another
greenlet waits for eight passes of it at the most. The figure is a choice between the two, and not a measured
optimum."""

FOREVER = 86_400.0
"""Seconds; asyncio's loops wait no longer either (``MAXIMUM_SELECT_TIMEOUT``)."""

READ, WRITE = 1, 2  # libev's and libuv's masks, the same in both

_get_ident = get_original("threading", "get_ident")

# The originals: gevent's own block through the hub.
_select = get_original("select", "select")
try:
    _poll_class = get_original("select", "poll")
except AttributeError:  # Windows
    _poll_class = None
else:
    import select

    _POLL_READ, _POLL_WRITE = select.POLLIN, select.POLLOUT


class HubSelector(Selector):
    """A selector whose ``select()`` waits on the hub of the thread that creates it.

    Cancelling: an exception thrown into the parked greenlet (a kill, ``gevent.Timeout``) leaves ``select()``; no
    readiness is lost by that, since it is level-triggered.
    """

    def __init__(self, hub: Hub) -> None:
        # What every wait looks at comes first: attributes lie in memory in the order in which they are made.
        self.hub = hub
        self.greenlet: greenlet.greenlet | None = None
        """The greenlet that runs the loop, if one does."""
        self.parked: greenlet.greenlet | None = None
        """The greenlet that waits in ``select()``."""
        self.timer_deadline = 0.0
        """When the timer goes off, on the monotonic clock; 0.0 while it is not armed, which is never in the future."""
        self.recorded: dict[int, int] | None = None
        """By descriptor, what was ready while the greenlet was busy elsewhere, if any; their watchers are stopped."""
        self.polls_in_a_row = 0
        """How often ``select(0)`` was called since the last time that the hub ran."""
        super().__init__()
        self._hub_loop = hub.loop
        self._thread_id = _get_ident()
        self._watchers: dict[int, Any] = {}
        self._io_callback: Callable[[int, SelectorKey], Any] = self._record
        self._waking = False
        self._async_watcher: Any = hub.loop.async_(ref=False)
        self._async_watcher.start(self._on_wake)
        self._timer: Any = None
        self.time_left: Callable[[], float] | None = None
        """Gives the seconds until the loop that waits has a timer to run; without it the timer ends each wait."""
        self._poll: Any = None

    # Registration

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        key = super().register(fileobj, events, data)
        mask = (READ if events & EVENT_READ else 0) | (WRITE if events & EVENT_WRITE else 0)
        try:
            watcher = self._hub_loop.io(key.fd, mask)
            watcher.start(self._io_callback, key, pass_events=True)
        except BaseException as exc:
            super().unregister(fileobj)
            if isinstance(exc, OSError):
                raise ValueError(f"Invalid file descriptor: {key.fd}") from exc
            raise
        self._watchers[key.fd] = watcher
        if self._poll is not None:
            self._poll.register(key.fd, _poll_mask(events))
        return key

    def unregister(self, fileobj: Any) -> SelectorKey:
        key = super().unregister(fileobj)
        watcher = self._watchers.pop(key.fd)
        watcher.stop()
        watcher.close()
        if self.recorded is not None:
            self.recorded.pop(key.fd, None)
            self.recorded = self.recorded or None
        if self._poll is not None:
            self._poll.unregister(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        key = self.get_key(fileobj)
        if events != key.events or self.recorded is not None:
            self.unregister(fileobj)
            return self.register(fileobj, events, data)
        key = self._fd_to_key[key.fd] = SelectorKey(key.fileobj, key.fd, events, data)
        watcher = self._watchers[key.fd]
        watcher.stop()
        watcher.start(self._io_callback, key, pass_events=True)  # which holds the key
        return key

    def get_key(self, fileobj: Any) -> SelectorKey:
        if type(fileobj) is not int:
            return super().get_key(fileobj)
        return self._fd_to_key[fileobj]  # without a text for each descriptor that is new, of which nobody reads it

    def close(self) -> None:
        for watcher in [*self._watchers.values(), self._timer, self._async_watcher]:
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._watchers.clear()
        self.recorded = None
        self._timer = self._async_watcher = self._poll = None
        super().close()

    # Whose it is

    def resume_on_io(self) -> None:
        """Let descriptors switch to `greenlet` from now on, when it leaves for the hub."""
        assert self.greenlet is not None
        self._set_io_callback(self.greenlet.switch)

    def record_io(self) -> None:
        """Only remember what is ready: the greenlet leaves for the hub for reasons of its own, or not for the hub."""
        self._set_io_callback(self._record)

    def _set_io_callback(self, callback: Callable[[int, SelectorKey], Any]) -> None:
        self._io_callback = callback
        for watcher in self._watchers.values():
            watcher.callback = callback

    # Waiting

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Wait until a registered descriptor is ready, :meth:`wake` is called or *timeout* seconds are over.

        None waits for ever; 0 or less polls. Returns ``[(key, events), ...]``, empty after a timeout or a wake.
        """
        if self.recorded:
            return self._take_recorded()
        if timeout is None or timeout > 0:
            seconds = FOREVER if timeout is None else timeout
            deadline = monotonic() + seconds
            if not 0.0 < self.timer_deadline <= deadline:
                self._arm(deadline, seconds)
            return self._ready(self.park())
        self.polls_in_a_row += 1
        if self.polls_in_a_row % POLLS_PER_HUB_TURN:
            return self._poll_now()
        return self._yield_to_hub()

    def park(self) -> tuple[int, SelectorKey] | None:
        """Park the current greenlet until a descriptor is ready, the timer goes off or :meth:`wake` is called.

        The hot path of ``select()``, for when nothing is in `recorded`. Returns a mask of `READ` and `WRITE` and the
        key of the ready descriptor, or None.
        """
        self.polls_in_a_row = 0
        self.parked = greenlet.getcurrent()
        try:
            woken: tuple[int, SelectorKey] | None = park(self.hub)
        finally:
            self.parked = None
        return woken

    def wake(self) -> None:
        """End the ``select()`` that is under way, if there is one. For other greenlets of the selector's thread."""
        if self.parked is not None and not self._waking:
            if self.in_other_thread():
                raise RuntimeError(
                    "Non-thread-safe operation: this event loop runs in another thread; use call_soon_threadsafe() "
                    "or asyncio.run_coroutine_threadsafe()"
                )
            self._waking = True
            self._hub_loop.run_callback(self._on_wake)

    def in_other_thread(self) -> bool:
        """Whether the caller runs in another OS thread than the selector."""
        return bool(_get_ident() != self._thread_id)

    def wake_threadsafe(self) -> None:
        """Like :meth:`wake`, from any OS thread or signal handler."""
        # Not run_callback_threadsafe(), which counts references in C without the GIL: one lost, and the hub would end.
        watcher = self._async_watcher
        if watcher is not None:
            watcher.send()

    def _yield_to_hub(self) -> list[tuple[SelectorKey, int]]:
        """One turn of the hub, with a poll of every greenlet's descriptors in it."""
        # A zero timer: libev runs a timer of low priority after the io watchers that became ready in the same turn.
        timer = self._hub_loop.timer(0, priority=-2)
        timer.start(self._on_wake)
        try:
            return self._ready(self.park())
        finally:
            timer.stop()
            timer.close()

    def _poll_now(self) -> list[tuple[SelectorKey, int]]:
        if not self._watchers:
            return []
        if _poll_class is None:
            return self._poll_now_by_select()
        poll = self._poll
        if poll is None:
            poll = self._poll = _poll_class()
            for key in self._fd_to_key.values():
                poll.register(key.fd, _poll_mask(key.events))
        ready = []
        for fd, mask in poll.poll(0):
            key = self._fd_to_key[fd]
            # Errors and hang-ups count as both, as in the standard library's selectors.
            events = (EVENT_WRITE if mask & ~_POLL_READ else 0) | (EVENT_READ if mask & ~_POLL_WRITE else 0)
            if events & key.events:
                ready.append((key, events & key.events))
        return ready

    def _poll_now_by_select(self) -> list[tuple[SelectorKey, int]]:
        keys = list(self._fd_to_key.values())
        readers = [key.fd for key in keys if key.events & EVENT_READ]
        writers = [key.fd for key in keys if key.events & EVENT_WRITE]
        try:
            # Windows tells of a connect that failed by the third list (as in selectors.SelectSelector).
            readable, writable, failed = _select(readers, writers, writers, 0)
        except (OSError, ValueError):  # one of them was closed without notice
            return self._yield_to_hub()
        ready = []
        for key in keys:
            events = EVENT_READ if key.fd in readable else 0
            if key.fd in writable or key.fd in failed:
                events |= EVENT_WRITE
            if events:
                ready.append((key, events))
        return ready

    def _arm(self, deadline: float, seconds: float) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
        self._timer = self._hub_loop.timer(max(seconds, self._hub_loop.approx_timer_resolution))
        self.timer_deadline = deadline
        self._timer.start(self._on_timer, update=True)

    def _take_recorded(self) -> list[tuple[SelectorKey, int]]:
        ready = []
        for fd, mask in (self.recorded or {}).items():
            key = self._fd_to_key[fd]
            self._watchers[fd].start(self._io_callback, key, pass_events=True)
            ready += self._ready((mask, key))
        self.recorded = None
        return ready

    def _ready(self, woken: tuple[int, SelectorKey] | None) -> list[tuple[SelectorKey, int]]:
        if woken is None:
            return []
        mask, key = woken
        if mask < 0:  # the watcher failed (libuv): let the reader and the writer meet the error
            mask = READ | WRITE
        events = (EVENT_READ if mask & READ else 0) | (EVENT_WRITE if mask & WRITE else 0)
        return [(key, events & key.events)] if events & key.events else []

    # Callbacks in the hub

    def _record(self, mask: int, key: SelectorKey) -> None:
        if self.recorded is None:
            self.recorded = {}
        self.recorded[key.fd] = self.recorded.get(key.fd, 0) | mask
        self._watchers[key.fd].stop()

    def _on_timer(self) -> None:
        self.timer_deadline = 0.0
        if self.parked is None:
            return
        seconds = 0.0 if self.time_left is None else min(self.time_left(), FOREVER)
        if seconds > 0.0:
            self._arm(monotonic() + seconds, seconds)
        else:
            self.parked.switch(None)

    def _on_wake(self) -> None:
        self._waking = False
        if self.parked is not None:
            self.parked.switch(None)


def _poll_mask(events: int) -> int:
    return (_POLL_READ if events & EVENT_READ else 0) | (_POLL_WRITE if events & EVENT_WRITE else 0)
