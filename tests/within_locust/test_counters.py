"""Looking at many connections keeps nobody waiting, and a long history stays small."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locust_ws_async.client import WebSocketClient, WebSocketConnection
from locust_ws_async.client.observing.tally import SHELF, Tally
from locust_ws_async.fleet import counters, history
from locust_ws_async.fleet.numbers import Numbers


@contextmanager
def connections(number: int) -> Iterator[list[WebSocketConnection]]:
    """So many connections of as many clients, that begin to connect, and are over at the end of the block."""
    made: list[WebSocketConnection] = []

    async def make() -> None:
        for _ in range(number):
            client = WebSocketClient(base_url="ws://host.invalid", report=lambda *_: None, tally=counters.tally)
            connection = WebSocketConnection(client, "ws://host.invalid/", "/", client.options)
            client.connections.begin(connection)
            made.append(connection)

    asyncio.run(make())
    try:
        yield made
    finally:
        for connection in made:
            connection.client.connections.finish(connection)


@pytest.fixture(autouse=True)
def own_tally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "tally", Tally())


def test_others_run_while_many_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each shelf of connections the hub turns, so that what a look holds up is a shelf's time."""
    turns: list[None] = []
    most = 20 * SHELF
    with connections(most) as made:
        counters.start()
        for connection in made:
            connection.stats.texts_received = 1

        def turn() -> None:
            while len(turns) < 1000:
                turns.append(None)
                gevent.sleep(0)

        other = gevent.spawn(turn)
        counters.refresh()  # not yet: the last look was just now
        assert not turns and counters.snapshot().counts == {}
        monkeypatch.setattr(counters, "_MOST_SECONDS", 0.0)
        counters.refresh()
        other.kill()
        assert counters.snapshot().counts["messages_in"] == most
        assert len(turns) >= most / SHELF


def test_what_ends_meanwhile_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with connections(4 * SHELF) as made:
        counters.start()
        for connection in made:
            connection.stats.binaries_sent = 1

        def end_some() -> None:
            for connection in made[::3]:
                connection.client.connections.finish(connection)

        gevent.spawn(end_some)
        monkeypatch.setattr(counters, "_MOST_SECONDS", 0.0)
        counters.refresh()
        assert counters.snapshot().counts["messages_out"] == len(made)
        assert counters.snapshot().gauges["connecting"] == len(made) - len(made[::3])
        made[:] = [connection for index, connection in enumerate(made) if index % 3]
    counters.refresh()
    assert counters.snapshot().counts["messages_out"] == 4 * SHELF
    assert counters.snapshot().gauges["connecting"] == 0


def test_shelves_are_used_again() -> None:
    for _ in range(5):
        with connections(3 * SHELF):
            pass
    assert len(counters.tally.shelves) <= 4


@settings(deadline=None)
@given(st.integers(1, 100_000))
def test_a_long_history_keeps_its_sums_and_stays_small(seconds: int) -> None:
    lines = history._History()
    step = max(1, seconds // 500)  # in the time that a test has, some hundred lines stand for all
    with patch.object(history, "_MOST_LINES", 100):
        for number in range(0, seconds, step):
            line: dict[str, Any] = {"time": float(number), "open": number, "opened": 2.0, "hub_lag_ms": None}
            if number > seconds / 2:
                line["closes/1006"] = 1.0
            lines.add(line)
    columns = lines.columns
    lengths = {len(column) for column in columns.values()}
    assert len(lengths) == 1 and lengths.pop() < 100
    assert list(columns["time"]) == sorted(columns["time"])
    assert set(columns["opened"]) <= {2.0}  # a rate that stays the same
    assert lines.peak_open == range(0, seconds, step)[-1]


def test_numbers_without_anything() -> None:
    assert not Numbers().seen_any
    assert Numbers().as_json()["queue_wait"] == {"count": 0, "mean_ms": None, "max_ms": None}
