"""Operations that begin when they are awaited, and not when they are called."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

__all__ = ["LazyCoroutine"]

T = TypeVar("T")


class LazyCoroutine(Coroutine[Any, Any, T]):
    """
    A coroutine for ``await``, ``asyncio.create_task`` and all else that takes one, except that one which is never used
    does no harm: nothing has begun, and nothing is "never awaited".
    """

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun: Coroutine[Any, Any, T] | None = None

    @abstractmethod
    def _begin(self) -> Coroutine[Any, Any, T]: ...

    def _inner(self) -> Coroutine[Any, Any, T]:
        if self._begun is None:
            self._begun = self._begin()
        return self._begun

    def __await__(self) -> Generator[Any, None, T]:
        return self._begin().__await__()

    def send(self, value: Any) -> Any:
        """What a task calls."""
        return self._inner().send(value)

    def throw(self, *exc: Any) -> Any:
        """What a task calls to cancel."""
        return self._inner().throw(*exc)

    def close(self) -> None:
        """What ends an operation that has begun and is not wanted any more."""
        if self._begun is not None:
            self._begun.close()
