"""What the client may ask of the loop that hosts it."""

from __future__ import annotations

import asyncio

__all__ = ["cancels_current_task", "is_kill"]


def is_kill(exc: BaseException) -> bool:
    """Whether it is a kill, say, and not an error of the code that it came through."""
    if isinstance(exc, asyncio.CancelledError):
        return exc.__cause__ is not None  # where a task blocks, the bridge makes a cancellation of a kill
    return not isinstance(exc, Exception)


def cancels_current_task(exc: BaseException) -> bool:
    """Whether the current task is cancelled, and not something else that it awaited."""
    task = asyncio.current_task()
    assert task is not None
    return isinstance(exc, asyncio.CancelledError) and (task.cancelling() > 0 or is_kill(exc))
