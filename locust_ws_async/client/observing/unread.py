"""
How long bytes lay unread in the socket, because this process was busy: the load generator's own figure.

It is known where times of arrival are the kernel's (``wire/stamps.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from ..wire.stamps import BUCKET, stamps

__all__ = ["Unread", "connections", "restart", "take", "total"]


@dataclass(frozen=True, slots=True)
class Unread:
    """
    How long bytes lay unread, over some time: a figure for each read from a socket.

    Attributes:
        count: reads.
        p50, p99, max: milliseconds, exact to 0.015 below 62 ms, and to 1 above.
    """

    count: int
    p50: float
    p99: float
    max: float


class _Connections:
    """How many connections were opened, reconnects included."""

    def __init__(self) -> None:
        self.kernel = 0
        """Those whose times of arrival are the kernel's."""
        self.read = 0
        """Those with times of when this process read."""

    def opened(self, *, stamped: bool) -> None:
        if stamped:
            self.kernel += 1
        else:
            self.read += 1


connections = _Connections()
_taken: Counter[float] = Counter()  # by milliseconds


def take() -> Unread | None:
    """What was read since the last call of this; None for nothing, as where times of arrival are not the kernel's."""
    lags = _present()
    _taken.update(lags)
    stamps.restart()
    return _figures(lags)


def total() -> Unread | None:
    """What was read since :func:`restart`, whoever takes meanwhile; None for nothing."""
    return _figures(_taken + _present())


def restart() -> None:
    """Count everything anew."""
    stamps.restart()
    stamps.refused = stamps.missing = 0
    connections.__init__()  # type: ignore[misc] # its attributes anew, in the same object
    _taken.clear()


def _present() -> Counter[float]:
    lags: Counter[float] = Counter(
        {(index + 1) * BUCKET * 1000: count for index, count in enumerate(stamps.short) if count}
    )
    lags.update({ms + 1.0: count for ms, count in stamps.long.items()})
    return lags


def _figures(lags: Mapping[float, int]) -> Unread | None:
    """Each is the upper end of a bucket, by the nearest rank."""
    count = sum(lags.values())
    if not count:
        return None
    ranks = {fraction: max(1, ceil(fraction * count - 1e-6)) for fraction in (0.5, 0.99, 1.0)}
    found: dict[float, float] = {}
    below = 0
    for milliseconds in sorted(lags):
        below += lags[milliseconds]
        for fraction, rank in ranks.items():
            if rank <= below:
                found.setdefault(fraction, milliseconds)
    return Unread(count, *found.values())
