"""The rows of a run without its beginning.

What there was at an instant is copied then, and taken off at the end: counts, sums and the buckets of the times. So
percentiles are as exact as ever; the largest and the smallest time are those of their buckets.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from locust.stats import RequestStats, StatsEntry

__all__ = ["Baseline", "since"]

_SUMS = ("num_requests", "num_none_requests", "num_failures", "total_response_time", "total_content_length")


@dataclass(frozen=True, slots=True)
class _Row:
    sums: tuple[float, ...]
    response_times: dict[int, int]


class Baseline:
    """What there is now."""

    def __init__(self, stats: RequestStats) -> None:
        self.at = time.time()
        self.total = _copied(stats.total)
        self.rows = {key: _copied(entry) for key, entry in stats.entries.items()}


def since(baseline: Baseline, stats: RequestStats) -> RequestStats:
    """What *stats* have of what came after the baseline."""
    rest = RequestStats()
    _subtract(stats.total, baseline.total, rest.total)
    for key, entry in stats.entries.items():
        _subtract(entry, baseline.rows.get(key), rest.entries[key])
    rest.total.start_time = baseline.at
    return rest


def _copied(entry: StatsEntry) -> _Row:
    return _Row(tuple(getattr(entry, name) for name in _SUMS), dict(entry.response_times))


def _subtract(entry: StatsEntry, before: _Row | None, rest: StatsEntry) -> None:
    for name, value in zip(_SUMS, before.sums if before else (0,) * len(_SUMS), strict=True):
        setattr(rest, name, getattr(entry, name) - value)
    times = Counter(entry.response_times)
    times.subtract(before.response_times if before else {})
    rest.response_times.update(+times)
    rest.last_request_timestamp = entry.last_request_timestamp
    if rest.response_times:
        rest.min_response_time = min(rest.response_times)
        rest.max_response_time = max(rest.response_times)
