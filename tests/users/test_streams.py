"""Streamed answers and tracked numbers as rows of Locust."""

from __future__ import annotations

from collections.abc import Callable

from .conftest import Server
from .running import LocustRun

Run = Callable[..., LocustRun]


def test_a_streamed_answer_in_rows(run: Run, server: Server, engine: str) -> None:
    result = run(
        f"""
        from locust_ws_async.client import json_subset

        class Caller(AsyncWebSocketUser):
            engine = "{engine}"

            @task
            async def call(self):
                async with self.ws.connect("/realtime?first=0.05&frames=10") as line:
                    done = json_subset({{"type": "done"}})
                    for number in range(3):
                        async with line.stream({{"type": "respond"}}, end=done, name="turn") as turn:
                            async for _ in turn:
                                await line.send(bytes(640))
                        assert turn.count == 12
                    note("sent", line.stats.binaries_sent)
                raise StopUser()

        quit_when_done()
        """,
        "--users",
        "2",
    )
    assert result.code == 0, result.stderr
    assert result.complaints == ""
    assert result.counts["WS REQUEST turn"] == result.counts["WS FIRST turn"] == 6
    assert result.counts["WS GAP turn"] == 6 * 11
    first, whole = result.rows["WS FIRST turn"], result.rows["WS REQUEST turn"]
    assert 50 <= first.minimum <= whole.minimum
    assert result.noted("sent") == [36, 36]
    assert server.counts()["messages_in"] == 2 * (3 + 36)


def test_what_a_stop_cuts_is_told_and_no_failure(run: Run, engine: str) -> None:
    result = run(
        f"""
        from locust_ws_async.client import json_subset

        class Caller(AsyncWebSocketUser):
            engine = "{engine}"

            @task
            async def call(self):
                async with self.ws.connect("/realtime?first=0&frames=100000") as line:
                    done = json_subset({{"type": "done"}})
                    async with line.stream({{"type": "respond"}}, end=done, name="turn") as turn:
                        async for item in turn:
                            items.append(item)

        items = []
        quit_when(lambda: len(items) > 5)
        """,
        "--users",
        "1",
    )
    assert result.code == 0, result.stderr
    assert result.counts["WS FIRST turn"] == 1
    assert "WS REQUEST turn" not in result.rows
    assert "had waited in stream() of turn" in result.stderr


def test_gaps_in_rows(run: Run, engine: str) -> None:
    result = run(
        f"""
        class Reader(AsyncWebSocketUser):
            engine = "{engine}"

            @task
            async def read(self):
                async with self.ws.connect("/ticker?rate=1000&count=300&lose=100", name="feed") as feed:
                    ticks = feed.track(seq="seq", name="ticks", window=5)
                    async for _ in feed:
                        pass
                note(ticks.counts.gaps, ticks.counts.missing)
                raise StopUser()

        quit_when_done()
        """,
        "--users",
        "2",
    )
    assert result.code == 1
    assert result.notes == [[2, 2], [2, 2]]
    row = result.rows["WS STREAM ticks"]
    assert (row.requests, row.failures) == (2 * 2 + 2, 2 * 2)
    assert result.failures["WS STREAM ticks"] == {"SequenceError('numbers are missing')": 4}
