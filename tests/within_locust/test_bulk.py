"""A turn's successes counted at once are Locust's numbers, to the last digit."""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import patch

import locust.stats
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from locust.stats import RequestStats

from locust_ws_async.statistics import bulk

Request = tuple[str, str, float | None, int]

TIMES = st.none() | st.floats(min_value=-1e3, max_value=1e6, allow_nan=False) | st.sampled_from([0, 0.0, 99.5, 150])
REQUESTS = st.tuples(
    st.sampled_from(["WS SEND", "WS RECV"]), st.sampled_from(["/a", "/b"]), TIMES, st.integers(0, 10**6)
)
STEPS = st.lists(
    st.tuples(st.booleans(), st.lists(REQUESTS, min_size=1, max_size=20))  # one turn's: whether they are aggregated
    | st.sampled_from(["reset", "report", "next second", "other buckets"]),
    max_size=12,
)


def tens(response_time: float) -> int:
    return int(response_time // 10) * 10


def one_by_one(stats: RequestStats, aggregated: bool, requests: list[Request]) -> None:
    for request_type, name, response_time, length in requests:
        if aggregated:
            stats.log_request(request_type, name, response_time, length)  # type: ignore[arg-type] # annotated with int
        else:
            stats.entries[name, request_type].log(response_time, length)  # type: ignore[arg-type]


def at_once(stats: RequestStats, aggregated: bool, requests: list[Request]) -> None:
    types, names, times, lengths = zip(*requests, strict=True)
    bulk.log_requests(stats, types, names, times, lengths, aggregated=aggregated)


def digits(value: Any) -> Any:
    """As text, in which 1 is not 1.0; the order of a dict does not count."""
    if isinstance(value, dict):
        return sorted((key, digits(each)) for key, each in value.items())
    return [digits(each) for each in value] if isinstance(value, tuple) else repr(value)


def everything(stats: RequestStats) -> list[Any]:
    entries = [stats.total, *(stats.entries[key] for key in sorted(stats.entries))]
    return [digits({**entry.serialize(), "cache": entry.response_times_cache}) for entry in entries]


@given(STEPS, st.booleans())
@example([(True, [("WS SEND", "/a", 0.1, 1)] * 10)], True)  # whose sum is not 1.0
@example([(True, [("WS SEND", "/a", 0.1, 1), ("WS RECV", "/a", 1e9, 1), ("WS SEND", "/a", 0.3, 1)])], False)
def test_at_once_as_one_by_one(steps: list[Any], use_cache: bool) -> None:
    each, both = RequestStats(use_cache), []
    bulked = RequestStats(use_cache)
    now = 1_000_000.25
    with (
        patch.object(time, "time", lambda: now),
        patch.object(locust.stats, "bucket_response_time", locust.stats.bucket_response_time),
    ):
        for stats in (each, bulked):
            stats.clear_all()
        for step in steps:
            match step:
                case "reset":
                    each.reset_all()
                    bulked.reset_all()
                case "report":  # a worker's
                    both.append((each.serialize_stats(), each.total.get_stripped_report()))
                    assert both[-1] == (bulked.serialize_stats(), bulked.total.get_stripped_report())
                case "next second":
                    now += 1.0
                case "other buckets":
                    locust.stats.bucket_response_time = tens
                case _:
                    one_by_one(each, *step)
                    at_once(bulked, *step)
            assert everything(each) == everything(bulked)


def test_a_request_is_counted_wholly_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(response_time: float) -> int:
        raise ValueError("too slow")

    stats = RequestStats()
    monkeypatch.setattr(locust.stats, "bucket_response_time", refuses)
    with pytest.raises(ValueError, match="too slow"):
        at_once(stats, True, [("WS SEND", "/a", 1.0, 1)])
    assert (stats.total.num_requests, len(stats.entries)) == (0, 0)


def test_another_locust_counts_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bulk.counts_as_locust_does.__wrapped__()

    def log_twice(self: Any, response_time: float, content_length: int) -> None:
        self.num_requests += 2

    monkeypatch.setattr(locust.stats.StatsEntry, "log", log_twice)
    assert not bulk.counts_as_locust_does.__wrapped__()
