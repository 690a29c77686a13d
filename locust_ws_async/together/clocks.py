"""The clocks of the workers against that of the master.

Instants of different processes are compared on the master's ``time.perf_counter()``. Processes of one host share one
monotonic clock, on Linux, so that there is nothing to measure. Otherwise a worker sends pings of its own, twenty in a
row, and takes the one with the smallest round trip: the master has stamped it somewhere within that, so half of the
round trip bounds the error. As clocks drift apart, that is done anew every few seconds, and the bound grows meanwhile.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import gevent
from gevent.event import AsyncResult, Event

from .exchange import at_master, at_worker, exchange

__all__ = ["ClockOfWorker", "clock"]

_PINGS = 20
_PAUSE = 0.01  # seconds between two pings of a row
_EVERY = 5.0  # seconds between two rows
_PATIENCE = 1.0  # seconds to wait for an answer
_DRIFT = 1e-4  # seconds a second: as far as the quartz clocks of two machines drift apart at most


class ClockOfWorker:
    """This process's clock, and how far the master's is ahead of it. It is measured from the first use on."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._error = 0.0
        self._measured_at: float | None = None  # None where both are one clock
        self._known = Event()
        self._measuring: Any = None
        self._awaited: tuple[int, AsyncResult[Any]] | None = None
        self._number = 0

    def start(self) -> None:
        """Begin to measure, unless that has begun."""
        if exchange().is_local:
            self._known.set()
        elif not self._measuring and (self._measured_at is not None or not self.known):
            self._measuring = exchange().spawn(self._measure)

    def stop(self) -> None:
        """End it, with the test."""
        if self._measuring:
            self._measuring.kill(block=False)
        self._measuring = None

    def wait(self, seconds: float) -> bool:
        """Wait until the master's clock is known; return whether it is."""
        return bool(self._known.wait(seconds))

    @property
    def known(self) -> bool:
        """Whether the master's clock is known."""
        return self._known.is_set()

    @property
    def error(self) -> float:
        """By how many seconds a converted instant may be wrong, now."""
        if self._measured_at is None:
            return self._error
        return self._error + _DRIFT * (perf_counter() - self._measured_at)

    def on_master(self, instant: float) -> float:
        """An instant of this process on the master's clock."""
        return instant + self._offset

    def here(self, instant: float) -> float:
        """An instant of the master's on this process's clock."""
        return instant - self._offset

    def _measure(self) -> None:
        while True:
            best: tuple[float, float, float] | None = None
            for _ in range(_PINGS):
                pong = self._ping()
                if pong is not None:
                    sent, theirs, identity, received = pong
                    half = (received - sent) / 2
                    offset = theirs - (sent + received) / 2
                    # Clones of one virtual machine have one identity, and clocks of their own.
                    if identity is not None and identity == IDENTITY and abs(offset) <= half:
                        self._set(0.0, 0.0, None)
                        return
                    if best is None or half < best[1]:
                        best = offset, half, received
                gevent.sleep(_PAUSE)
            if best is not None:
                self._set(*best)
            gevent.sleep(_EVERY)

    def _set(self, offset: float, error: float, measured_at: float | None) -> None:
        self._offset, self._error, self._measured_at = offset, error, measured_at
        self._known.set()

    def _ping(self) -> tuple[float, float, str | None, float] | None:
        self._number += 1
        answer: AsyncResult[Any] = AsyncResult()
        self._awaited = self._number, answer
        sent = perf_counter()
        if not exchange().to_master("clock", self._number):
            return None
        try:
            theirs, identity, received = cast(tuple[float, str | None, float], answer.get(timeout=_PATIENCE))
        except gevent.Timeout:
            return None
        return sent, theirs, identity, received

    def answered(self, data: Any) -> None:
        """Take the master's answer to a ping."""
        number, theirs, identity = data
        if self._awaited is not None and self._awaited[0] == number:
            self._awaited[1].set((theirs, identity, perf_counter()))


def _identity() -> str | None:
    """What two processes share whose ``perf_counter`` is one clock; None where that is not known."""
    if "CLOCK_MONOTONIC" not in time.get_clock_info("perf_counter").implementation:
        return None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    try:
        return f"{boot} {os.readlink('/proc/self/ns/time')}"
    except OSError:
        return boot  # a Linux without time namespaces


IDENTITY = _identity()
clock = ClockOfWorker()

at_master("clock", lambda worker, number: _answer(worker, number, perf_counter()))
at_worker("clock", lambda data: clock.answered(data))


def _answer(worker: str, number: int, now: float) -> None:
    exchange().to_worker("clock", [number, now, IDENTITY], worker)
