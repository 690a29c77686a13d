"""Operations that begin when they are awaited, and not when they are called."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

__all__ = ["LazyCoroutine"]

T = TypeVar("T")


class LazyCoroutine(Coroutine[Any, Any, T]):
    """
    A coroutine for ``await``, ``asyncio.create_task`` and whatever else takes one.

    It differs from the coroutine of an ``async def`` in one way: if it is never awaited, nothing has begun, and Python
    does not warn of a coroutine that was "never awaited". Like any coroutine it can be awaited once.
    """

    __slots__ = ("_begun", "_used")

    def __init__(self) -> None:
        self._begun: Coroutine[Any, Any, T] | None = None  # what a task steps, closes or cancels
        self._used = False

    @abstractmethod
    def _begin(self) -> Coroutine[Any, Any, T]:
        """Make the coroutine that does the work."""

    def _use(self) -> None:
        """
        Begin the one operation, in another way than by awaiting.

        Raises:
            RuntimeError: it has begun before.
        """
        if self._used:
            raise RuntimeError(
                f"this {type(self).__name__} was awaited or entered before, which works once: "
                "make a new one for each operation"
            )
        self._used = True

    def _begin_once(self) -> Coroutine[Any, Any, T]:
        if self._used:
            self._use()  # which raises
        coroutine = self._begin()
        self._used = True
        return coroutine

    def _stepped(self) -> Coroutine[Any, Any, T]:
        if self._begun is None:
            self._begun = self._begin_once()
        return self._begun

    def __await__(self) -> Generator[Any, None, T]:
        return self._begin_once().__await__()

    def send(self, value: Any) -> Any:
        """Do the next step. A task calls this."""
        return self._stepped().send(value)

    def throw(self, *exc: Any) -> Any:
        """Raise an exception where the operation waits. A task calls this to cancel."""
        return self._stepped().throw(*exc)

    def close(self) -> None:
        """End the operation, whether it has begun or not."""
        self._used = True
        if self._begun is not None:
            self._begun.close()
