"""How response times are rounded, and percentiles told from what is left."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from locust import events
from locust.env import Environment
from locust.stats import RequestStats, StatsEntry

from locust_ws_async.statistics import percentile
from locust_ws_async.statistics.buckets import bucket


@pytest.mark.parametrize(
    ("time", "key"),
    [
        (0, 0),
        (0.004, 0),
        (0.347, 0.35),
        (0.996, 1),
        (3.456, 3.46),
        (9.996, 10),
        (34.56, 34.6),
        (99.96, 100),
        (345.6, 346),
        (999.6, 1000),
        (1234, 1230),
        (99950, 100_000),
        (123_456, 123_000),
        (-0.347, -0.35),
        (-1234, -1230),
    ],
)
def test_three_digits_are_left(time: float, key: float) -> None:
    assert bucket(time) == key


@given(st.floats(-1e7, 1e7))
def test_the_error_is_within_half_a_step(time: float) -> None:
    assert abs(bucket(time) - time) <= max(0.005, abs(time) * 0.005) * (1 + 1e-9)


@given(st.floats(-1e7, 1e7))
def test_a_key_is_a_whole_number_of_hundredths(time: float) -> None:
    """The nearest double to it: so that the keys of all workers meet."""
    key = bucket(time)
    assert key == round(key * 100) / 100


@given(st.floats(0, 1e7), st.floats(0, 1e7))
def test_the_order_is_kept(a: float, b: float) -> None:
    assert (bucket(a) <= bucket(b)) or a > b


def row(times: list[float], monkeypatch: pytest.MonkeyPatch) -> StatsEntry:
    monkeypatch.setattr("locust.stats.bucket_response_time", bucket)
    entry = StatsEntry(RequestStats(), "name", "WS REQUEST")
    for time in times:
        entry.log(time, 0)  # type: ignore[arg-type]
    return entry


def test_percentiles_are_the_nearest_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = row([number / 10 for number in range(1, 1001)], monkeypatch)
    assert [percentile(entry, p) for p in (0, 0.001, 0.5, 0.9, 0.99, 0.999, 1)] == [0.1, 0.1, 50, 90, 99, 99.9, 100]


def test_the_ends_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = row([0.1234, 5, 123.456], monkeypatch)
    assert [percentile(entry, p) for p in (0, 0.5, 0.9999)] == [0.1234, 5, 123.456]


def test_what_has_no_time_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = row([5.0], monkeypatch)
    entry.log(None, 0)  # type: ignore[arg-type]
    assert percentile(entry, 0.1) == 5
    assert percentile(StatsEntry(RequestStats(), "name", "WS PUSH"), 0.5) is None


@pytest.mark.parametrize("full_history", [False, True])
def test_the_rows_keep_no_copies_that_nobody_looks_at(full_history: bool) -> None:
    import locust_ws_async.users  # which installs it

    assert locust_ws_async.users
    environment = Environment(events=events, parsed_options=Namespace(stats_history_enabled=full_history))
    environment.stats.log_request("WS REQUEST", "name", 1, 0)
    (entry,) = environment.stats.entries.values()
    assert entry.response_times_cache and environment.stats.total.response_times_cache
    events.usage_monitor.fire(environment=environment, cpu_usage=0, memory_usage=0)  # type: ignore[no-untyped-call]
    assert bool(entry.response_times_cache) == full_history
    assert environment.stats.total.response_times_cache
    environment.stats.log_request("WS REQUEST", "name", 1, 0)
    assert percentile(entry, 0.5) == 1
    environment.stats.reset_all()


def bucket_of(preparation: str) -> str:
    program = f"{preparation}\nprint(locust.stats.bucket_response_time(0.347))"
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def test_importing_the_users_installs_it() -> None:
    assert bucket_of("import locust.stats") == "0"
    assert bucket_of("import locust.stats; from locust_ws_async import AsyncWebSocketUser") == "0.35"


def test_one_line_turns_it_off() -> None:
    assert (
        bucket_of(
            "import locust.stats; from locust_ws_async import AsyncWebSocketUser\n"
            "from locust_ws_async.statistics import use_locust_buckets; use_locust_buckets()"
        )
        == "0"
    )


def test_a_replacement_of_the_authors_own_stays() -> None:
    own = "import locust.stats; locust.stats.bucket_response_time = lambda ms: -1.5\n"
    assert bucket_of(own + "from locust_ws_async import AsyncWebSocketUser") == "-1.5"
