"""What is wrong with numbers: exact, whatever is wrong, and with bounded memory. Without a connection."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locust_ws_async.client import StreamCounts
from locust_ws_async.client.messages.numbering import DUPLICATE, GAP, REORDERED, RESTART, STALE, Numbering

pytestmark = pytest.mark.once

WINDOW = 20


def follow(numbers: Iterator[int] | list[int], window: int = WINDOW) -> tuple[dict[str, int], Counter[str]]:
    """What is counted of these numbers, but for zeros, and how many incidents of each kind there are."""
    counts, incidents = StreamCounts(), Counter[str]()

    def note(text: str) -> None:
        incidents[text] += 1

    numbering = Numbering(window, counts, note)
    for number in numbers:
        numbering.came(number, 0.0)
    numbering.end()
    return {name: count for name, count in counts.as_dict().items() if count}, incidents


@pytest.mark.parametrize(
    ("numbers", "counted", "incidents"),
    [
        ([], {}, []),
        ([7], {}, []),
        ([0, 1, 2], {}, []),
        ([-2, -1, 0, 1], {}, []),
        ([1, 2, 5, 6], {"gaps": 1, "missing": 2}, [GAP]),
        ([1, 3, 5], {"gaps": 2, "missing": 2}, [GAP, GAP]),
        ([1, 2, 2, 3], {"duplicates": 1}, [DUPLICATE]),
        ([1, 2, 2, 2, 3, 3], {"duplicates": 3}, [DUPLICATE, DUPLICATE]),
        ([1, 3, 2, 4], {"reordered": 1}, [REORDERED]),
        ([1, 4, 3, 2, 5], {"reordered": 2}, [REORDERED]),
        ([1, 4, 2, 5], {"reordered": 1, "gaps": 1, "missing": 1}, [REORDERED, GAP]),
        ([5, 6, 7, 0, 1, 2], {"restarts": 1}, [RESTART]),
        ([0, 1, 2, 0, 1, 2, 3], {"restarts": 1}, [RESTART]),
        ([0, 1, 2, 0, 3, 4], {"duplicates": 1}, [DUPLICATE]),
        ([5, 6, 9, 0, 1], {"restarts": 1, "gaps": 1, "missing": 2}, [GAP, RESTART]),
        ([9, 8, 10], {"reordered": 1}, [REORDERED]),
        ([*range(100), 5, 100], {"stale": 1}, [STALE]),
        ([*range(100), 5, 5, 100], {"stale": 2}, [STALE]),
        ([*range(50), *range(51, 100), 50, 100], {"gaps": 1, "missing": 1, "stale": 1}, [GAP, STALE]),
        ([*range(100), 90], {"duplicates": 1}, [DUPLICATE]),
        ([*range(100), 0], {"stale": 1}, [STALE]),
        ([0, 10**15], {"gaps": 1, "missing": 10**15 - 1}, [GAP]),
    ],
)
def test_each_kind(numbers: list[int], counted: dict[str, int], incidents: list[str]) -> None:
    counts, found = follow(numbers)
    assert counts == counted
    assert found == Counter(incidents)


@pytest.mark.parametrize("window", [0, 1, 5])
def test_the_window_tells_late_from_lost(window: int) -> None:
    """A number may be as far behind the highest as the window is wide."""
    if window:
        late = [0, *range(2, 2 + window), 1, *range(2 + window, 50)]
        assert follow(late, window) == ({"reordered": 1}, Counter([REORDERED]))
    too_late = [0, *range(2, 3 + window), 1, *range(3 + window, 50)]
    counts, incidents = follow(too_late, window)
    assert counts == {"gaps": 1, "missing": 1, "stale": 1}
    assert incidents == Counter([GAP, STALE])


def faulty(count: int, seed: int) -> tuple[list[int], dict[str, int]]:
    """So many numbers with faults of all kinds, each far enough from the next to be told apart; and what they are."""
    chance = random.Random(seed)
    numbers: list[int] = []
    faults = Counter[str]()
    upcoming = 0
    while len(numbers) < count:
        numbers.extend(range(upcoming, upcoming := upcoming + chance.randint(WINDOW + 2, 60)))
        match chance.choice(["gap", "duplicate", "swap", "restart", "stale", "far"]):
            case "gap":
                missing = chance.choice([1, 2, WINDOW, 1000])
                upcoming += missing
                faults += Counter(gaps=1, missing=missing)
            case "duplicate":
                again = chance.randint(1, 3)
                numbers.extend([upcoming - chance.randint(1, WINDOW)] * again)
                faults += Counter(duplicates=again)
            case "swap":  # one number comes after up to WINDOW later ones
                later = chance.randint(1, WINDOW)
                numbers.extend([*range(upcoming + 1, upcoming + 1 + later), upcoming])
                upcoming += 1 + later
                faults += Counter(reordered=1)
            case "restart":
                upcoming = 0
                faults += Counter(restarts=1)
            case "stale" if upcoming > 2 * WINDOW + 2:
                numbers.append(upcoming - 2 - WINDOW - chance.randint(0, WINDOW))
                faults += Counter(stale=1)
            case "far":  # of some that are skipped, half come late
                skipped = list(range(upcoming, upcoming + 6))
                numbers.extend([upcoming + 6, *skipped[1::2]])
                upcoming += 7
                faults += Counter(reordered=3, gaps=1, missing=3)
    numbers.extend(range(upcoming, upcoming + WINDOW + 2))
    return numbers, dict(faults)


def test_a_million_numbers_with_faults_of_all_kinds_are_counted_exactly() -> None:
    numbers, faults = faulty(1_000_000, seed=1)
    counts, incidents = follow(numbers)
    assert counts == faults
    assert min(faults.values()) > 3000
    assert incidents[GAP] == faults["gaps"]
    assert incidents[RESTART] == faults["restarts"]


@given(st.lists(st.integers(0, 60), max_size=60), st.integers(0, 10))
def test_every_number_is_something(steps: list[int], window: int) -> None:
    """Each message is in order or one fault. Each number from the first to the highest has come, or is missing."""
    counts = StreamCounts()
    numbering = Numbering(window, counts, lambda text: None)
    numbers = [number + index for index, number in enumerate(steps)]
    for number in numbers:
        numbering.came(number, 0.0)
    numbering.end()
    odd = counts.duplicates + counts.reordered + counts.stale
    assert odd <= max(0, len(numbers) - 1)
    assert counts.gaps <= counts.missing
    if not counts.restarts and not counts.stale and numbers:
        came = {number for number in numbers if number >= numbers[0]}
        assert counts.missing == max(numbers) - numbers[0] + 1 - len(came)


def test_what_was_skipped_just_before_the_end_may_be_on_its_way() -> None:
    counts = StreamCounts()
    numbering = Numbering(WINDOW, counts, lambda text: None)
    for number, at in ((0, 1.0), (2, 2.0), (4, 3.0)):
        numbering.came(number, at)
    numbering.end(undecided_since=2.5)
    assert (counts.gaps, counts.missing) == (1, 1)
    numbering.came(100, 4.0)  # after the end it begins anew
    numbering.end()
    assert (counts.gaps, counts.missing) == (1, 1)


def test_memory_is_bounded_by_the_window() -> None:
    numbering = Numbering(1000, StreamCounts(), lambda text: None)
    number = 0
    tracemalloc.start()
    try:
        for _ in range(50):
            number += 1_000_000
            numbering.came(number, 0.0)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 1000 * 300


def test_counts_can_be_added() -> None:
    total, one = StreamCounts(), StreamCounts()
    one.gaps, one.missing = 1, 5
    total.add(one)
    total.add(one)
    assert total.as_dict() == dict.fromkeys(StreamCounts.__slots__, 0) | {"gaps": 2, "missing": 10}
    assert repr(total) == "<StreamCounts gaps=2 missing=10>"
