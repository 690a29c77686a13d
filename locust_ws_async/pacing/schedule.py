"""The instants at which something is due.

An instant comes whenever the integral of the rate has grown by one more ("even"), or by one more number that is drawn
from the exponential distribution with mean 1 ("poisson"): for a constant rate those are equal distances, and a Poisson
process; for a function of time they follow it exactly, and a rate of 0 is a pause. Each instant is derived from the one
before, never from the clock, so that nothing drifts.

A function is taken to be constant for steps of a tenth of a second, counted from the beginning of the test: its value
in the middle of the step. It is asked when the step begins, or up to a second ahead where that saves waking up.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import copy
from math import floor, inf, isfinite
from numbers import Real
from typing import Literal

__all__ = ["Law", "Rate", "Schedule", "checked_law", "checked_rate"]

Rate = float | Callable[[float], float]
"""A number a second, or a function from the seconds since the test began to one."""

Law = Literal["even", "poisson"]

_STEP = 0.1  # seconds


def checked_rate(rate: Rate, what: str) -> Rate:
    """
    *rate*, if it is one.

    Raises:
        TypeError: it is neither a number nor a function.
        ValueError: it is no finite number above 0.
    """
    if callable(rate):
        return rate
    if not _is_number(rate):
        raise TypeError(
            f"{what} must be a number a second, or a function of the seconds since the test began: {rate!r}"
        )
    if not (isfinite(rate) and rate > 0):
        raise ValueError(f"{what} must be a finite number above 0 a second, not {rate!r}")
    return rate


def checked_law(law: Law) -> Law:
    """
    *law*, if there is one of that name.

    Raises:
        ValueError: there is not.
    """
    if law not in ("even", "poisson"):
        raise ValueError(f'law must be "even" or "poisson", not {law!r}')
    return law


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


class Schedule:
    """
    Gives the instants one after the other.

    Args:
        rate: see :data:`Rate`.
        law: "even" begins at a random point of the first period; "poisson" has random distances.
        start: nothing is due before this instant.
        zero: the instant at which the test began.
    """

    __slots__ = ("_at", "_function", "_gap", "_owed", "_rate", "_step", "_zero", "until")

    def __init__(self, rate: Rate, law: Law, start: float, zero: float) -> None:
        self._gap: Callable[[], float] = _one if law == "even" else _exponential
        self._owed = random.random() if law == "even" else _exponential()
        self._at = start
        self._zero = zero
        self._function = rate if callable(rate) else None
        self._step = max(0, floor((start - zero) / _STEP)) - 1
        self._rate = 0.0 if callable(rate) else float(rate)
        self.until = inf
        """Up to here the rate is known."""
        if self._function is not None:
            self._enter_next_step()

    def next(self, horizon: float) -> float | None:
        """The next instant; None if it is not known yet and lies beyond the horizon."""
        while True:
            due = self._at + self._owed / self._rate if self._rate > 0 else inf
            if due <= self.until:
                self._at = due
                self._owed = self._gap()
                return due
            if self.until > horizon:
                return None
            self._owed -= self._rate * (self.until - self._at)
            self._at = self.until
            self._enter_next_step()

    def overdue(self, now: float) -> int:
        """How many instants up to now `next` has not given; of "poisson" the number to be expected."""
        ahead = copy(self)
        try:
            while ahead.until < now:
                ahead._owed -= ahead._rate * (ahead.until - ahead._at)
                ahead._at = ahead.until
                ahead._enter_next_step()
        except Exception:
            return 0  # of the author's function, which whoever calls `next` gets to see
        missing = ahead._rate * (now - ahead._at) - ahead._owed
        return floor(missing) + 1 if missing >= 0 else 0

    def _enter_next_step(self) -> None:
        assert self._function is not None
        self._step += 1
        self.until = max(self._at, self._zero + (self._step + 1) * _STEP)
        rate = self._function((self._step + 0.5) * _STEP)
        if not _is_number(rate):
            raise TypeError(f"the function of the rate must give a number a second, not {rate!r}")
        if not (isfinite(rate) and rate >= 0):
            raise ValueError(f"the function of the rate must give a finite number, 0 or more, not {rate!r}")
        self._rate = float(rate)


def _one() -> float:
    return 1.0


def _exponential() -> float:
    return random.expovariate(1.0)
