"""When a generator counts as saturated, and what the system tells of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locust_ws_async.client.observing.unread import Unread
from locust_ws_async.fleet.generator.limits import Limits
from locust_ws_async.fleet.generator.meter import Second
from locust_ws_async.fleet.generator.system import SystemClocks, throttled_files
from locust_ws_async.fleet.generator.verdict import Verdict

LIMITS = Limits(hub_lag=10, cpu=90, throttled=1, steal=5, unread=10)
FINE = Second(0, 1, [0.1] * 20, {"cpu": 0.5, "throttled": 0.0, "steal": 0.0}, None)
LATE = Second(0, 1, [0.1] * 19 + [64.0], {"cpu": 0.5}, None)
OVER = {
    "hub lag p99 64 ms (limit 10)": LATE,
    "CPU 97 % of a core (limit 90)": Second(0, 1, [0.1] * 20, {"cpu": 0.97}, None),
    "container throttled for 12 % of the time (limit 1)": Second(0, 1, [0.1], {"throttled": 0.12}, None),
    "6.5 % of the time stolen by the host (limit 5)": Second(0, 1, [0.1], {"steal": 0.065}, None),
    "bytes lay unread p99 31 ms (limit 10)": Second(0, 1, [0.1], {}, Unread(100, 1.0, 31.2, 50.0)),
}


def judge(verdict: Verdict, seconds: Iterable[Second], began: float = 0.0) -> list[bool]:
    """Whether it is saturated after each of these, one after the other."""
    found = []
    for number, second in enumerate(seconds):
        start = began + number
        verdict.take(Second(start, start + 1, second.lags, second.shares, second.unread))
        found.append(verdict.is_saturated)
    return found


@pytest.mark.parametrize("why", OVER)
def test_three_seconds_over_a_limit_begin_a_span_and_five_under_it_end_it(why: str) -> None:
    verdict = Verdict(LIMITS)
    over, no, yes = OVER[why], False, True
    assert judge(verdict, [FINE, over, over, FINE, over, over, over]) == [no] * 6 + [yes]
    assert (verdict.spans[-1].began, verdict.spans[-1].ended, verdict.spans[-1].why) == (4, None, why)
    assert judge(verdict, [*[FINE] * 4, over, *[FINE] * 5], 7) == [yes] * 9 + [no]
    assert (verdict.spans[-1].began, verdict.spans[-1].ended, verdict.spans[-1].why) == (4, 12, why)


def test_a_long_standstill_is_as_good_as_three_seconds() -> None:
    verdict = Verdict(LIMITS)
    assert verdict.take(Second(0, 3.5, [3000.0, 10.0], {}, None))
    assert verdict.is_saturated


def test_what_is_said_is_of_the_seconds_that_were_over() -> None:
    verdict = Verdict(LIMITS)
    judge(verdict, [LATE] * 3 + [*[FINE] * 4, LATE] * 10 + [FINE] * 5)
    assert verdict.spans[-1].why == "hub lag p99 64 ms (limit 10)"


def test_all_reasons_are_told() -> None:
    verdict = Verdict(LIMITS)
    judge(verdict, [Second(0, 1, [64.0], {"cpu": 0.99}, None)] * 3)
    assert verdict.spans[-1].why == "hub lag p99 64 ms (limit 10); CPU 99 % of a core (limit 90)"


def test_the_end_of_the_run_ends_the_span() -> None:
    verdict = Verdict(LIMITS)
    assert not verdict.finish()
    judge(verdict, [LATE] * 3)
    assert verdict.finish() and not verdict.is_saturated
    assert verdict.spans[-1].ended == 3


@given(st.lists(st.booleans(), max_size=60))
def test_it_holds_whatever_comes(over: list[bool]) -> None:
    """It begins with the third in a row, and lasts until five in a row were fine."""
    found = judge(Verdict(LIMITS), [LATE if each else FINE for each in over])
    expected = False
    for number, saturated in enumerate(found):
        if number >= 2 and all(over[number - 2 : number + 1]):
            expected = True
        elif number >= 4 and not any(over[number - 4 : number + 1]):
            expected = False
        assert saturated == expected


def cpu_stat(folder: Path, microseconds: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["usage_usec 5", "nr_periods 9", "nr_throttled 2", f"throttled_usec {microseconds}", "burst_usec 0"]
    (folder / "cpu.stat").write_text("\n".join(lines) + "\n")


def test_throttling_is_that_of_the_own_group_or_of_one_around_it(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/pod/container\n")
    cpu_stat(root / "pod" / "container", 0)
    cpu_stat(root / "pod", 1_000_000)
    cpu_stat(root / "another", 5)
    root.joinpath("cpu.stat").write_text("usage_usec 5\n")  # the root of a machine is never throttled
    files = throttled_files(root, own)
    assert files == [root / "pod" / "container" / "cpu.stat", root / "pod" / "cpu.stat"]
    clocks = SystemClocks(files)
    assert clocks.shares()["throttled"] == 0.0
    cpu_stat(root / "pod", 3_000_000_000)
    assert clocks.shares()["throttled"] == 1.0


@pytest.mark.parametrize("own", ["9:cpu:/\n8:memory:/\n", "", None])
def test_without_control_groups_of_version_2_nothing_is_said_of_throttling(own: str | None, tmp_path: Path) -> None:
    if own is not None:
        (tmp_path / "own").write_text(own)
    cpu_stat(tmp_path / "cgroup", 5)
    assert throttled_files(tmp_path / "cgroup", tmp_path / "own") == []
    assert "throttled" not in SystemClocks([]).shares()


def test_the_share_of_cpu_is_that_of_the_thread() -> None:
    clocks = SystemClocks([])
    started = time.thread_time()
    while time.thread_time() < started + 0.1:
        pass
    busy = clocks.shares()["cpu"]
    time.sleep(0.2)
    assert 0.0 <= clocks.shares()["cpu"] < busy <= 1.0
