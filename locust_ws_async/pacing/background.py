"""What ``tick.spawn`` runs: coroutines in the background, not too many at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from .counters import paced

__all__ = ["Background"]

_logger = logging.getLogger(__name__)


class Background:
    """
    The tasks of one ``pace``.

    Args:
        limit: how many may run at a time.
        on_error: called with what one of them raises; may raise it again.
    """

    __slots__ = ("_limit", "_on_error", "_tasks")

    _warned = False

    def __init__(self, limit: int, on_error: Callable[[Exception], None]) -> None:
        self._limit = limit
        self._on_error = on_error
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, awaitable: Awaitable[Any]) -> asyncio.Task[None] | None:
        """Run it in a task; None, and it is dropped, when the limit is reached."""
        if len(self._tasks) >= self._limit:
            self._drop(awaitable)
            return None
        task = asyncio.get_running_loop().create_task(_run(awaitable, self._on_error))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finished(self) -> None:
        """Wait until all have ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _drop(self, awaitable: Awaitable[Any]) -> None:
        paced.dropped += 1
        end = getattr(awaitable, "close", None) or getattr(awaitable, "cancel", None)
        if end is not None:
            end()  # so that no "was never awaited" follows
        if not Background._warned:
            Background._warned = True
            _logger.warning(
                "tick.spawn: %d are running, the limit of this pace, so that one more was dropped: the server is "
                "slower than the load that is meant for it. (Warned once; how many were dropped is told at the end.)",
                self._limit,
            )


async def _run(awaitable: Awaitable[Any], on_error: Callable[[Exception], None]) -> None:
    try:
        await awaitable
    except Exception as exc:
        on_error(exc)
