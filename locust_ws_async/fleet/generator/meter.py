"""How late the hub is, second by second.

A timer of the hub is due each 50 ms. How late it comes is how late anything comes that waits for the hub: a message
that has arrived, a tick, a timeout. Where the hub was held for longer than 50 ms, the timers that were due meanwhile
count as well, each with its own lateness: a hub that stood still for a second was late for twenty of them.

What the timers of the system explain is not counted: gevent's event loop waits in whole milliseconds (``epoll_wait``),
so that a timer of an idle hub is late by up to one, on Windows by up to 16; messages do not wait for that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from gevent.hub import Hub

from ...client.observing import unread
from .system import SystemClocks

__all__ = ["TICK", "Meter", "Second"]

TICK = 0.05
"""Seconds from one timer to the next."""

_RESOLUTION = {"win32": 16.0, "darwin": 2.0}.get(sys.platform, 1.0)  # milliseconds


@dataclass(frozen=True)
class Second:
    """One second, or more where the hub stood still."""

    began: float
    """By ``time.perf_counter()``."""
    ended: float
    lags: list[float]
    """How late each timer was that was due: milliseconds."""
    shares: dict[str, float]
    """What :meth:`SystemClocks.shares` tells."""
    unread: unread.Unread | None
    """How long bytes lay unread; None where that is not known, or nothing was read."""


class Meter:
    """Measures the hub of the thread that starts it. All its methods are called in that thread."""

    def __init__(self, hub: Hub, on_second: Callable[[Second], None], on_turn: Callable[[float, float], None]) -> None:
        """
        Args:
            hub: the hub.
            on_second: called in the hub with each second; it must not block.
            on_turn: called in the hub with the last turn and this one, before `turned` is set; it must not block.
        """
        self.turned = perf_counter()
        """When the hub turned last. Other threads may read it."""
        self.turns = 0
        """How often the timer has come."""
        self._loop: Any = hub.loop
        self._on_second, self._on_turn = on_second, on_turn
        self._clocks = SystemClocks()
        self._began = self.turned
        self._lags: list[float] = []
        self._due = self.turned + TICK
        self._timer: Any = None
        self._arm(TICK)

    def stop(self) -> None:
        """Leave nothing in the hub."""
        self._timer.stop()
        self._timer.close()

    def _arm(self, seconds: float) -> None:
        self._timer = self._loop.timer(seconds, ref=False)
        self._timer.start(self._turn, update=True)

    def _turn(self) -> None:
        self.stop()
        now, due = perf_counter(), self._due
        while due <= now:
            self._lags.append(max(0.0, (now - due) * 1000 - _RESOLUTION))
            due += TICK
        self._due = due
        self.turns += 1
        self._on_turn(self.turned, now)
        self.turned = now
        self._arm(max(0.0, due - now))
        if now - self._began >= 1.0:
            second = Second(self._began, now, self._lags, self._clocks.shares(), unread.take())
            self._began, self._lags = now, []
            self._on_second(second)
