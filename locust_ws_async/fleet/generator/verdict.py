"""When a generator is saturated: from seconds to spans of time.

A second is over a limit when one of its timers was later than the limit allows, when the p99 of how long bytes lay
unread was longer, or a share higher. The verdict
begins when three seconds in a row were over the same limit, and ends when five in a row were over none: a pause of the
garbage collector, or a burst of connects, is no verdict, and a generator on the edge is one span and not many. What a
verdict says is of the seconds that were over.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from itertools import count

from ...statistics.buckets import bucket
from ...statistics.percentiles import percentile_of
from .limits import Limits
from .meter import Second

__all__ = ["Span", "Verdict"]

BEGINS, ENDS = 3.0, 5.0  # seconds

_KEPT = 8  # spans: what a master that was away for a while has to be told
_numbers = count(1)  # of the spans of this process, also of one that is judged anew


@dataclass
class Span:
    """A span of time in which this process was saturated."""

    number: int
    began: float
    """By ``time.perf_counter()``, as is `ended`."""
    ended: float | None
    why: str


class _Lag:
    """How late the hub was."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.clear()

    def clear(self) -> None:
        self._lags: Counter[float] = Counter()
        self._limit = 0.0

    def is_over(self, second: Second) -> bool:
        return max(second.lags) > self._limits.hub_lag_now()

    def add(self, second: Second) -> None:
        self._lags.update(map(bucket, second.lags))
        self._limit = self._limits.hub_lag_now()

    def __str__(self) -> str:
        return f"hub lag p99 {_rounded(percentile_of(self._lags, 0.99) or 0.0)} ms (limit {self._limit:g})"


class _Unread:
    """How long bytes lay unread, of the second in which they did so for longest."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self.clear()

    def clear(self) -> None:
        self._longest = 0.0

    def is_over(self, second: Second) -> bool:
        return second.unread is not None and second.unread.p99 > self._limit

    def add(self, second: Second) -> None:
        assert second.unread is not None
        self._longest = max(self._longest, second.unread.p99)

    def __str__(self) -> str:
        return f"bytes lay unread p99 {_rounded(self._longest)} ms (limit {self._limit:g})"


class _Share:
    """How much of the time something took."""

    def __init__(self, name: str, limit: float, text: str) -> None:
        self._name, self._limit, self._text = name, limit, text
        self.clear()

    def clear(self) -> None:
        self._taken = self._seconds = 0.0

    def is_over(self, second: Second) -> bool:
        return second.shares.get(self._name, 0.0) * 100 > self._limit

    def add(self, second: Second) -> None:
        length = second.ended - second.began
        self._taken += second.shares[self._name] * length
        self._seconds += length

    def __str__(self) -> str:
        return self._text.format(f"{_rounded(self._taken / self._seconds * 100)} %") + f" (limit {self._limit:g})"


def _rounded(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


class _Watched:
    """One limit, with its hysteresis."""

    def __init__(self, quantity: _Lag | _Unread | _Share) -> None:
        self._quantity = quantity
        self.is_open = False
        self.began = self.last = 0.0
        self.text = ""

    def take(self, second: Second) -> None:
        if self._quantity.is_over(second):
            if not (self.is_open or self.last == second.began):
                self.began = second.began
                self._quantity.clear()
            self._quantity.add(second)
            self.last = second.ended
            if self.last - self.began >= BEGINS:
                self.is_open = True
                self.text = str(self._quantity)
        elif second.ended - self.last >= ENDS:
            self.is_open = False


class Verdict:
    """Takes one second after the other, and knows whether the process is saturated."""

    def __init__(self, limits: Limits) -> None:
        self.spans: deque[Span] = deque(maxlen=_KEPT)
        """The last spans; the newest may still last."""
        self._watched = [
            _Watched(_Lag(limits)),
            _Watched(_Unread(limits.unread)),
            _Watched(_Share("cpu", limits.cpu, "CPU {} of a core")),
            _Watched(_Share("throttled", limits.throttled, "container throttled for {} of the time")),
            _Watched(_Share("steal", limits.steal, "{} of the time stolen by the host")),
        ]
        self._texts: dict[int, str] = {}

    @property
    def is_saturated(self) -> bool:
        """Whether a span lasts."""
        return bool(self.spans) and self.spans[-1].ended is None

    def take(self, second: Second) -> bool:
        """Take the next second; returns whether a span has begun or ended with it."""
        for watched in self._watched:
            watched.take(second)
        opened = {index: watched for index, watched in enumerate(self._watched) if watched.is_open}
        was = self.is_saturated
        if not opened:
            return was and self._end()
        if not was:
            self._texts = {}
            self.spans.append(Span(next(_numbers), min(each.began for each in opened.values()), None, ""))
        self._texts |= {index: watched.text for index, watched in opened.items()}
        self.spans[-1].why = "; ".join(text for _, text in sorted(self._texts.items()))
        return not was

    def finish(self) -> bool:
        """No second comes any more; returns whether a span has ended with it."""
        return self.is_saturated and self._end()

    def _end(self) -> bool:
        self.spans[-1].ended = max(self._watched[index].last for index in self._texts)
        return True
