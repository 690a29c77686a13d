"""Operations that begin when they are awaited, and not when they are called."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Coroutine, Generator
from types import CodeType
from typing import TYPE_CHECKING, Any, ClassVar, Never, TypeVar

from ..internals.cpython import get_frame

__all__ = ["LazyCoroutine", "refuse_plain_with"]

T = TypeVar("T")

_registry: dict[Any, Any] = {}
"""The places that were warned of: see ``warnings.warn_explicit``."""


class LazyCoroutine(Coroutine[Any, Any, T]):
    """
    A coroutine for ``await``, ``asyncio.create_task`` and whatever else takes one.

    If it is never awaited, nothing has begun, and Python's ``RuntimeWarning`` of a coroutine that "was never awaited"
    tells the line of the call. Whoever takes it for its result gets an error that says so. Like any coroutine it can be
    awaited once.

    Args:
        depth: how many calls lie between this one and the author's code, which the warning names.
    """

    __slots__ = ("_begun", "_caller", "_used")

    _hint: ClassVar[str] = "await it"
    """How it is used, for the texts of errors."""

    def __init__(self, depth: int) -> None:
        self._begun: Coroutine[Any, Any, T] | None = None  # what a task steps, closes or cancels
        self._used = False
        frame = get_frame(depth)
        # The frame itself would keep the author's variables alive. Its line takes longer to find than these two.
        self._caller: tuple[CodeType, int] | None = frame.f_code, frame.f_lasti

    def __del__(self) -> None:
        if self._used or self._caller is None:
            return
        code, instruction = self._caller
        line = next((line for start, end, line in code.co_lines() if start <= instruction < end and line), 1)
        warnings.warn_explicit(
            f"coroutine {self._called!r} was never awaited", RuntimeWarning, code.co_filename, line, registry=_registry
        )

    @property
    @abstractmethod
    def _called(self) -> str:
        """The method that has made it, as Python names coroutines: ``WebSocketConnection.request``."""

    @abstractmethod
    def _begin(self) -> Coroutine[Any, Any, T]:
        """Make the coroutine that does the work."""

    def _not_awaited(self) -> str:
        self._caller = None  # it is told here: a warning would tell it twice
        return f"this is the coroutine of {self._called}(), which was not awaited: {self._hint}"

    if not TYPE_CHECKING:  # for which every attribute would be there

        def __getattr__(self, name: str) -> Never:
            if name.startswith("__"):  # asked for by Python and its libraries, whether it is there or not
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            raise AttributeError(f"no attribute {name!r}: {self._not_awaited()}", name=name)

    def __getitem__(self, key: Any) -> Never:
        raise TypeError(self._not_awaited())

    def __enter__(self) -> Never:
        self._caller = None
        refuse_plain_with(f"{self._called}()")

    def __exit__(self, *exc: object) -> None:  # so that Python calls __enter__
        pass

    def __aiter__(self) -> Never:
        raise TypeError(self._not_awaited())

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
        if value is not None and self._begun is None:  # a first step has no value: this is not a task
            raise TypeError(self._not_awaited())
        return self._stepped().send(value)

    def throw(self, *exc: Any) -> Any:
        """Raise an exception where the operation waits. A task calls this to cancel."""
        return self._stepped().throw(*exc)

    def close(self) -> None:
        """End the operation, whether it has begun or not."""
        self._used = True
        if self._begun is not None:
            self._begun.close()


def refuse_plain_with(entered: str) -> Never:
    """Raise the error for ``with`` in place of ``async with``."""
    raise TypeError(f"{entered} is entered by `async with`, not by `with`")
