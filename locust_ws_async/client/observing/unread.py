"""
How long bytes lay unread in the socket, because this process was busy: the load generator's own figure.

It is known where times of arrival are the kernel's (``wire/stamps.py``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil

from ..wire.stamps import stamps

__all__ = ["Unread", "connections", "restart", "take", "total", "unused"]


@dataclass(frozen=True, slots=True)
class Unread:
    """
    How long bytes lay unread, over some time: a figure for each read from a socket.

    Attributes:
        count: reads; an estimate, as the lags of a busy process are sampled.
        p50, p99: milliseconds, to 1/64 below 64 ms and to a whole one above.
        max: milliseconds, of all reads.
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
_longest = 0.0  # seconds


def take() -> Unread | None:
    """What was read since the last call of this; None for nothing, as where times of arrival are not the kernel's."""
    global _longest
    lags, longest = stamps.lags, stamps.longest
    stamps.restart()
    _taken.update(lags)
    _longest = max(_longest, longest)
    return _figures(lags, longest)


def total() -> Unread | None:
    """What was read since :func:`restart`, whoever takes meanwhile; None for nothing."""
    return _figures(_taken + stamps.lags, max(_longest, stamps.longest))


def unused() -> int:
    """How many reads had no stamp, or one that could not be right, since :func:`restart`."""
    return stamps.refused + stamps.missing


def restart() -> None:
    """Count everything anew."""
    global _longest
    stamps.restart()
    stamps.refused = stamps.missing = 0
    connections.__init__()  # type: ignore[misc] # its attributes anew, in the same object
    _taken.clear()
    _longest = 0.0


def _figures(lags: Counter[float], longest: float) -> Unread | None:
    count = sum(lags.values())
    if not count:
        return None
    return Unread(count, _percentile(lags, 0.5), _percentile(lags, 0.99), longest * 1000)


def _percentile(lags: Counter[float], fraction: float) -> float:
    """The nearest rank."""
    rank = max(1, ceil(fraction * sum(lags.values()) - 1e-6))
    for milliseconds in sorted(lags):
        rank -= lags[milliseconds]
        if rank <= 0:
            break
    return milliseconds
