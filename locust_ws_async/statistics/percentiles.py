"""Percentiles of a row, as exactly as its histogram has them."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from locust.stats import StatsEntry

__all__ = ["percentile", "percentile_of"]


def percentile(row: StatsEntry, fraction: float) -> float | None:
    """The response time, in milliseconds, that this fraction of the row's requests did not exceed.

    This is the nearest rank: of 1,000 times the p99 is the 990th. It is as exact as the buckets are; the largest and
    the smallest time are exact.

    Args:
        row: ``environment.stats.get("balance", "WS REQUEST")``, say, or ``environment.stats.total``.
        fraction: 0.99 for the p99.

    Returns:
        Milliseconds; None for a row without times.
    """
    value = percentile_of(row.response_times, fraction)
    if value is None:
        return None
    if value == max(row.response_times):  # the bucket of the largest, as a p99.99 of few requests is
        return row.max_response_time
    return value if row.min_response_time is None else max(value, row.min_response_time)


def percentile_of(histogram: Mapping[int, int] | Mapping[float, int], fraction: float) -> float | None:
    """The same of a dict from values to how often they occurred."""
    rank = max(1, ceil(fraction * sum(histogram.values()) - 1e-6))  # 0.9999 * 10,000 is a little over 9,999
    for value in sorted(histogram):
        rank -= histogram[value]  # type: ignore[index] # it is one of its keys
        if rank <= 0:
            return value
    return None
