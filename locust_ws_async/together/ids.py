"""The ids of broadcasts: what stands for one in a report, and which are looked at when there are too many."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any
from uuid import UUID

__all__ = ["Sampling", "digest", "is_sampled"]

IDS_PER_SECOND = 300
"""So many ids a second a process looks at, in all rooms."""

_SIMPLE = (str, bytes, int, float, UUID)


def digest(room: str, message_id: Any) -> bytes:
    """
    Eight bytes that stand for an id in a room, the same in all processes, as Python's own hash is not.

    Raises:
        TypeError: another process could not know this id again.
    """
    if not _is_simple(message_id):
        raise TypeError(
            f"an id must be a text, a number, bytes, a UUID, or a tuple of these, not {type(message_id).__name__}"
        )
    return blake2b(repr((room, message_id)).encode(), digest_size=8).digest()


def _is_simple(message_id: Any) -> bool:
    if isinstance(message_id, tuple):
        return all(map(_is_simple, message_id))
    return type(message_id) in _SIMPLE


def is_sampled(digested: bytes, level: int) -> bool:
    """Whether an id is among the one of 2 ** *level* that are looked at; those of a higher level are a part of them."""
    return not int.from_bytes(digested, "big") & ((1 << level) - 1)


class Sampling:
    """
    Which ids this process looks at. While there are too many, each step takes half of them.

    The level only rises within a run. Each worker tells the master its own, and the master tells all workers the
    highest, so that in the end all look at the same ids.
    """

    def __init__(self) -> None:
        self.level = 0
        self._began = 0

    def takes(self, digested: bytes) -> bool:
        """Whether to look at this id, which has not been seen before."""
        if not is_sampled(digested, self.level):
            return False
        self._began += 1
        if self._began > IDS_PER_SECOND:
            self.level += 1
            self._began //= 2
            return is_sampled(digested, self.level)
        return True

    def next_second(self) -> None:
        """A second is over."""
        self._began = 0
