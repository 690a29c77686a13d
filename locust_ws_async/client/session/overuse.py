"""Operations on a connection that is over: each fails, and a task that goes on must not do so at full speed."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic

from ...exceptions import ConnectionClosed
from .backoff import Backoff, Retry

__all__ = ["Overuse"]

_logger = logging.getLogger("locust_ws_async.client")
_told: set[str] = set()  # the names of connections; a word for each is enough

# The first may well be how a task learns of the end, and the second how it says goodbye.
_TELL_AT = 3


class Overuse:
    """
    What a connection that is over keeps of the operations that were begun on it since.

    Args:
        name: that of the connection's rows.
        backoff: the client's ``connect_backoff``: how the operations are slowed down, as connects that fail are; None
            lets each of them take one turn of the loop.
    """

    __slots__ = ("_count", "_name", "_not_before", "_retry")

    def __init__(self, name: str, backoff: Backoff | None) -> None:
        self._name = name
        self._retry = None if backoff is None else Retry(backoff)
        self._count = 0
        self._not_before = 0.0  # by monotonic; no operation fails sooner

    async def slow_down(self, error: ConnectionClosed) -> None:
        """Wait, before an operation raises this error."""
        self._count += 1
        if self._count == _TELL_AT and self._name not in _told:
            _told.add(self._name)
            self._tell(error)
        await asyncio.sleep(max(0.0, self._not_before - monotonic()))
        # Operations that fail together count once.
        if self._retry is not None and (now := monotonic()) >= self._not_before:
            self._not_before = now + self._retry.next_delay()

    def _tell(self, error: ConnectionClosed) -> None:
        task = asyncio.current_task()
        assert task is not None
        _logger.warning(
            "%s: its connection is over (%s), and %s goes on using it; set reconnect=Backoff(), or connect in the "
            "task. What is done with it now fails, the more slowly the longer it goes on. (Told once for each name.)",
            self._name,
            error,
            getattr(task.get_coro(), "__qualname__", task.get_name()),
        )
