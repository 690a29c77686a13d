"""How many name lookups run at a time."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import deque

from ...hosting import allow_lookups

__all__ = ["Lookups"]


class Lookups:
    """
    A queue for name lookups, over all event loops of the process: ``async with`` takes a place, and waits for one.

    Each lookup keeps a thread busy. So there is a limit, and whoever waits for a place can tell this wait from the
    resolver's time.

    Args:
        limit: how many lookups run at a time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._lock = threading.Lock()

    @classmethod
    @functools.cache
    def shared(cls, limit: int) -> Lookups:
        """The one queue of this process with this limit."""
        return cls(limit)

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        allow_lookups(loop, self._limit)
        with self._lock:
            if self._running < self._limit:
                self._running += 1
                return
            place = loop.create_future()
            self._waiting.append(place)
        try:
            await place
        except BaseException:
            with self._lock:
                queued = place in self._waiting
                if queued:
                    self._waiting.remove(place)
            if not queued and not place.cancelled():
                self._leave()  # the place was given just before
            raise

    async def __aexit__(self, *exc: object) -> None:
        self._leave()

    def _leave(self) -> None:
        """Give the place to the next that waits."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                place = self._waiting.popleft()
            try:
                place.get_loop().call_soon_threadsafe(self._give, place)
            except RuntimeError:  # its loop is closed
                continue
            return

    def _give(self, place: asyncio.Future[None]) -> None:
        if place.done():  # cancelled meanwhile
            self._leave()
        else:
            place.set_result(None)
