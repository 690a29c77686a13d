"""A turn's successes of one row, counted at once.

Locust counts a request in two entries, the row's and *Aggregated*'s, by some twenty Python calls each
(``StatsEntry.log``). Where many requests of few rows have ended in one turn of the hub, one pass over their times gives
the same sums, extremes and buckets.

The same means: to the last digit. Floating-point sums depend on their order, so the times are added in the order of the
events. Before the first use :func:`counts_as_locust_does` counts samples in both ways and compares the entries. Where
they differ, with another Locust, nothing is counted here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, cast

import locust.stats
from locust.stats import RequestStats, StatsEntry

from ..internals.locust import keep_response_times

__all__ = ["counts_as_locust_does", "log_apart", "log_requests"]


def log_requests(
    stats: RequestStats,
    request_types: Sequence[str],
    names: Sequence[str],
    response_times: Sequence[float | None],
    response_lengths: Sequence[int],
    *,
    aggregated: bool = True,
) -> None:
    """
    Do what ``RequestStats.log_request`` does for each of these requests; one position in all sequences is one request.

    Args:
        response_times: milliseconds, or None.
        response_lengths: bytes.
        aggregated: False counts them in their rows only, and not in *Aggregated*.

    Raises:
        Exception: what a replaced ``bucket_response_time`` raises; nothing is counted then.
    """
    rows: dict[tuple[str, str], tuple[list[float | None], list[int]]] = {}
    for key, response_time, length in zip(
        zip(names, request_types, strict=True), response_times, response_lengths, strict=True
    ):
        row = rows.get(key)
        if row is None:
            row = rows[key] = ([], [])
        row[0].append(response_time)
        row[1].append(length)
    # First what may raise, so that a request is counted wholly or not at all.
    buckets = {key: _buckets(times) for key, (times, _) in rows.items()}
    now = time.time()
    total = stats.total
    if aggregated:
        _log(total, response_times, response_lengths, now)
    for key, (times, lengths) in rows.items():
        entry = stats.entries[key]
        _log(entry, times, lengths, now)
        for bucket, count in buckets[key].items():
            entry.response_times[bucket] += count
            if aggregated:
                total.response_times[bucket] += count


def log_apart(
    stats: RequestStats, request_type: str, name: str, response_time: float | None, response_length: int
) -> None:
    """Count one request in its row only, and not in *Aggregated*. Reports of workers and the master keep the two apart,
    and so do resets."""
    stats.entries[name, request_type].log(cast(int, response_time), response_length)


def _buckets(times: Sequence[float | None]) -> Counter[int]:
    # Looked up each time: it may be replaced at any time.
    return Counter(map(locust.stats.bucket_response_time, _known(times)))


def _known(times: Sequence[float | None]) -> Sequence[float]:
    if None in times:  # which seldom is so
        return [response_time for response_time in times if response_time is not None]
    return cast(Sequence[float], times)


def _log(entry: StatsEntry, times: Sequence[float | None], lengths: Sequence[int], now: float) -> None:
    """``StatsEntry.log`` for several requests, but for the buckets."""
    second = int(now)
    if entry.use_response_times_cache and entry.last_request_timestamp and second > int(entry.last_request_timestamp):
        keep_response_times(entry, second - 1)
    entry.num_requests += len(times)
    entry.num_reqs_per_sec[second] += len(times)
    entry.last_request_timestamp = now
    entry.total_content_length += sum(lengths)
    known = _known(times)
    entry.num_none_requests += len(times) - len(known)
    if known:
        total: float = entry.total_response_time
        for response_time in known:  # sum() adds up more exactly than Locust does
            total += response_time
        changed: Any = entry  # annotated with int
        changed.total_response_time = total
        least = min(known)
        changed.min_response_time = least if entry.min_response_time is None else min(entry.min_response_time, least)
        changed.max_response_time = max(entry.max_response_time, max(known))


@lru_cache(maxsize=1)
def counts_as_locust_does() -> bool:
    """Whether :func:`log_requests` gives the entries that ``RequestStats.log_request`` gives with this Locust."""
    # A second may begin between the two countings, or within the first.
    return any(_counts_the_same() for _ in range(3))


def _counts_the_same() -> bool:
    requests = [
        ("WS SEND", "/a", 0.1, 3),
        ("WS RECV", "/a", 120.7, 64),
        ("WS SEND", "/a", 0.3, 5),
        ("WS PUSH", "/b", None, 8),
        ("WS RECV", "/a", 0.2, 0),
        ("WS SEND", "/a", 1e-3, 70_000),
    ]
    one_by_one, at_once = RequestStats(), RequestStats()
    for aggregated in (True, False, True):
        log_requests(at_once, *zip(*requests, strict=True), aggregated=aggregated)
        for request_type, name, response_time, length in requests:
            log: Any = one_by_one.log_request if aggregated else partial(log_apart, one_by_one)  # annotated with int
            log(request_type, name, response_time, length)
    return _comparable(one_by_one) == _comparable(at_once)


def _comparable(stats: RequestStats) -> list[dict[str, Any]]:
    # The times of the clock apart, whose digits differ.
    entries = [stats.total, *(stats.entries[key] for key in sorted(stats.entries))]
    return [dict(entry.serialize(), start_time=0.0, last_request_timestamp=0.0) for entry in entries]
