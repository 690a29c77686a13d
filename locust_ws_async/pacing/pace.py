"""``async for tick in self.pace(20)``: one user's schedule."""

from __future__ import annotations

import asyncio
import sys
from asyncio import sleep
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Literal, Self

from .background import Background
from .clock import began
from .counters import paced
from .schedule import Law, Rate, Schedule, checked_law, checked_rate

__all__ = ["Late", "Pace", "Tick"]

Late = Literal["catch-up", "skip"]

# A function is asked for the rate so many seconds in advance, so that a slow pace seldom wakes the loop.
_AHEAD = 1.0


class Tick:
    """
    One instant of a pace. As a number it is when it was intended, for ``since=``.

    Attributes:
        number: which one it is, from 0 on; ticks that were skipped count.
        intended: when it was due (``time.perf_counter()``).
        late: how many seconds later it was given.
    """

    __slots__ = ("_background", "intended", "late", "number")

    def __init__(self, number: int, intended: float, late: float, background: Background) -> None:
        self.number = number
        self.intended = intended
        self.late = late
        self._background = background

    def __float__(self) -> float:
        return self.intended

    def __repr__(self) -> str:
        return f"<Tick {self.number}, {self.late * 1000:.1f} ms late>"

    def spawn(self, awaitable: Awaitable[Any]) -> asyncio.Task[None] | None:
        """
        Run *awaitable* in the background, so that the next tick does not wait for it.

        It is cancelled when the user ends. Where Locust gives users time to stop (``--stop-timeout``), the loop over
        the pace first waits for those that run. What it raises is listed under Locust's *Exceptions*, unless it is an
        error of a connection, which is a failed row already; ``StopUser`` and its kin reach Locust.

        Returns:
            The task; None if the pace's ``limit`` are running: then *awaitable* is dropped and counted.
        """
        return self._background.spawn(awaitable)


class Pace:
    """What ``AsyncUser.pace`` returns; see there. The schedule begins with the loop over it."""

    def __init__(
        self,
        rate: Rate,
        law: Law,
        late: Late,
        limit: int,
        *,
        stopping: Callable[[], bool],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._rate = checked_rate(rate, "the rate of pace()")
        self._law = checked_law(law)
        if late not in ("catch-up", "skip"):
            raise ValueError(f'late must be "catch-up" or "skip", not {late!r}')
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(f"limit must be a whole number of at least 1, not {limit!r}")
        self._skips = late == "skip"
        self._stopping = stopping
        self._background = Background(limit, on_error)
        self._schedule: Schedule | None = None
        self._following: float | None = None
        self._sleeping: asyncio.Future[None] | None = None
        self._number = 0
        if callable(rate):
            Schedule(rate, law, perf_counter(), began())  # so that a function that cannot be called is told at once

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Tick:
        if self._schedule is None:
            self._schedule = Schedule(self._rate, self._law, perf_counter(), began())
            paced.live.add(self)
        has_waited = False
        while True:
            if self._stopping():
                await self._background.finished()
                raise StopAsyncIteration
            now = perf_counter()
            due = self._peek(now + _AHEAD)
            if due is None or due > now:
                await self._sleep(_AHEAD if due is None else due - now)
            elif not has_waited:
                await sleep(0)  # also where one tick after the other is late: others of this loop have their turn
            else:
                break
            has_waited = True
        number, self._following = self._number, None
        if self._skips:
            while (following := self._peek(now)) is not None and following <= now:
                due, self._following = following, None
                number += 1
        paced.given(now - due, skipped=number - self._number)
        self._number = number + 1
        return Tick(number, due, now - due, self._background)

    def overdue(self) -> int:
        """How many ticks are due and have not been given."""
        if self._schedule is None:
            return 0
        now = perf_counter()
        ahead = self._following is not None and self._following <= now
        return ahead + self._schedule.overdue(now)

    def wake(self) -> None:
        """The user is asked to stop: look whether it is so now, and not only at the next tick."""
        if self._sleeping is not None and not self._sleeping.done():
            self._sleeping.get_loop().call_soon(_set, self._sleeping)

    def __del__(self) -> None:
        # The loop over it was left, as a rule because the user ended: what was due by then was offered too. A task that
        # somebody keeps keeps its pace, up to the end of the interpreter.
        if getattr(self, "_schedule", None) is not None and not sys.is_finalizing():
            paced.owed += self.overdue()

    def _peek(self, horizon: float) -> float | None:
        assert self._schedule is not None
        if self._following is None:
            self._following = self._schedule.next(horizon)
        return self._following

    async def _sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._sleeping = loop.create_future()
        timer = loop.call_later(seconds, _set, self._sleeping)
        try:
            await self._sleeping
        finally:
            timer.cancel()
            self._sleeping = None


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
