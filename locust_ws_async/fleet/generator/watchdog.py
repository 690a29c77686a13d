"""Looks at the stack of a hub that does not turn: from a thread of the operating system, since no greenlet runs then.

The thread wakes up twenty times a second and compares two numbers. It looks at the stack only while the hub has not
turned for half of the limit. One look proves nothing: where thousands of users are ready, a turn of the hub is long,
and whoever is met has just begun. So what is found in one function twice in a row has held the hub meanwhile. And where
the thread itself could not wake up, whoever it meets has held the interpreter's lock: a call of a C library.

What has been seen is told when the hub turns again, which is when it is known how long that took. Only where the hub
does not come back, an endless loop say, does the thread itself tell.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import perf_counter

from gevent.monkey import get_original

from ...internals.cpython import frame_of_thread
from .places import Place, place_of

__all__ = ["Watchdog"]

# gevent's would be greenlets.
_allocate_lock = get_original("_thread", "allocate_lock")
_start_new_thread = get_original("_thread", "start_new_thread")
_get_ident = get_original("_thread", "get_ident")

_LOOK = 0.05  # seconds between two looks
_PATIENCE = 5.0  # seconds until the thread tells of it itself

_logger = logging.getLogger(__name__)


class _Hold:
    """What was seen of a hub since it turned last."""

    def __init__(self, turned: float) -> None:
        self.turned = turned
        self.place: Place | None = None
        """What was seen last, since `since`."""
        self.since = self.looked = turned
        self.is_proved = self.is_told = False
        self.seconds: dict[str, float] = {}

    def saw(self, place: Place | None, now: float, is_certain: bool) -> None:
        is_same = place is not None and self.place is not None and place.function is self.place.function
        if not is_same:
            self.close(self.looked)
            self.place, self.since, self.is_proved = place, self.looked, False
        self.is_proved |= is_same or is_certain
        self.looked = now

    def close(self, now: float) -> None:
        """What was seen last has ended by now."""
        if self.place is not None and self.is_proved:
            self.seconds[self.place.text] = self.seconds.get(self.place.text, 0.0) + now - self.since


class Watchdog:
    """Watches the thread that makes it."""

    def __init__(self, turned: Callable[[], float], limit: float) -> None:
        """
        Args:
            turned: when the hub turned last, by ``time.perf_counter()``; called in the other thread.
            limit: seconds for which something may hold the hub.
        """
        self._turned, self._limit = turned, limit
        self._watched = _get_ident()
        self._hold: _Hold | None = None
        self._stop, self._stopped = _allocate_lock(), _allocate_lock()
        self._stop.acquire()
        self._stopped.acquire()
        _start_new_thread(self._run, ())

    def stop(self) -> None:
        """End the thread, and wait for that."""
        self._stop.release()
        self._stopped.acquire()

    def take(self, turned: float, now: float) -> dict[str, float]:
        """What has held the hub from *turned* until *now*, if for longer than the limit: seconds by place."""
        hold, self._hold = self._hold, None
        if hold is None or hold.turned != turned:
            return {}
        hold.close(now)
        return {place: seconds for place, seconds in hold.seconds.items() if seconds >= self._limit}

    def _run(self) -> None:
        try:
            woken = perf_counter()
            while not self._stop.acquire(timeout=_LOOK):
                before, woken = woken, perf_counter()
                turned = self._turned()
                if woken - turned > self._limit / 2:
                    self._look(turned, woken, is_certain=woken - before > self._limit)
        finally:
            self._stopped.release()

    def _look(self, turned: float, now: float, is_certain: bool) -> None:
        place = place_of(frame_of_thread(self._watched))
        hold = self._hold
        if hold is None or hold.turned != turned:
            hold = _Hold(turned)
        hold.saw(place, now, is_certain)
        if self._turned() != turned:  # it was the stack of a hub that turns again
            return
        self._hold = hold
        if place is not None and hold.is_proved and not hold.is_told and now - hold.since > _PATIENCE:
            hold.is_told = True
            _logger.error(
                "%s has held the hub for %.1f s, and goes on: all users of this process wait.",
                place.text,
                now - hold.since,
            )
