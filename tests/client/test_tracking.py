"""``track``: are the numbers of a connection's messages followed, by key, across reconnects, and to the end?"""

from __future__ import annotations

import asyncio
import json
import logging
from time import perf_counter
from typing import Any

import pytest

from locust_ws_async.client import Backoff, StreamCounts, any_message, json_subset
from locust_ws_async.exceptions import MessageTimeout

from .helpers import Bench, eventually, frame, raw_server, run, until_eof
from .test_numbering import WINDOW, faulty

MESSAGES = 30_000


def counted(counts: StreamCounts) -> dict[str, int]:
    return {name: count for name, count in counts.as_dict().items() if count}


def incidents(bench: Bench, name: str = "ticks") -> list[str]:
    return [str(row.error) for row in bench.rows if (row.type, row.name) == ("WS STREAM", name) and row.error]


def ends(bench: Bench, name: str = "ticks") -> int:
    return sum((row.type, row.name, row.error) == ("WS STREAM", name, None) for row in bench.rows)


def sending(numbers: list[Any], *, by: str = "seq", then: bytes = frame(8, b"\x03\xe8")) -> Any:
    """A script for ``raw_server``: sends these numbers, then closes."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(numbers), 500):
            writer.write(b"".join(frame(1, json.dumps({by: number}).encode()) for number in numbers[start:][:500]))
            await writer.drain()
        writer.write(then)
        while then and await reader.read(1000):
            pass

    return script


def test_through_the_wire(bench: Bench) -> None:
    numbers, faults = faulty(MESSAGES, seed=2)

    async def main() -> None:
        async with raw_server(sending(numbers)) as url:
            line = await bench.client().connect(url)
            tracker = line.track(seq="seq", name="ticks", window=WINDOW)
            received = [json.loads(message)["seq"] async for message in line]
            assert received == numbers  # everybody gets them all the same
            assert counted(tracker.counts) == faults | {"messages": len(numbers)}
            assert line.stats.streams["ticks"] is tracker.counts
            assert line.stats.as_dict()["streams"] == {"ticks": tracker.counts.as_dict()}

    run(main())
    assert ends(bench) == 1
    texts = incidents(bench)
    assert texts.count("numbers are missing") == faults["gaps"]
    assert texts.count("the numbering began again") == faults["restarts"]
    assert len(set(texts)) == 5
    assert all(row.time is None for row in bench.rows if row.type == "WS STREAM")


@pytest.mark.parametrize(
    ("query", "expected", "text"),
    [
        ("", {}, None),
        ("&lose=100", {"gaps": 9, "missing": 9}, "numbers are missing"),  # who would miss the last one?
        ("&repeat=100", {"duplicates": 10}, "a number came again"),
        ("&swap=100", {"reordered": 9, "gaps": 0}, "a number came after a later one"),
        ("&restart=250", {"restarts": 3}, "the numbering began again"),
    ],
)
def test_the_faults_of_the_demo_server(bench: Bench, query: str, expected: dict[str, int], text: str | None) -> None:
    async def main() -> None:
        async with bench.client().connect(f"/ticker?rate=5000&count=1000{query}") as line:
            tracker = line.track(seq="seq", name="ticks", window=5)
            async for _ in line:
                pass
            counts = counted(tracker.counts)
            counts.pop("messages")
            assert counts == {name: count for name, count in expected.items() if count}

    run(main())
    assert set(incidents(bench)) == ({text} if text else set())
    assert ends(bench) == 1


def test_each_key_has_its_own_numbering(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/subscribe?rate=500&lose=20") as line:
            tracker = line.track(seq="seq", key=("topic",), name="ticks", window=0)
            for topic in ("a", "b"):
                await line.send_json({"subscribe": topic})
            await eventually(lambda: tracker.counts.messages >= 200)
            tracker.cancel()
            counts = counted(tracker.counts)
            assert counts["gaps"] == counts["missing"] >= 8
            assert counts.keys() == {"messages", "gaps", "missing"}  # the confirmations are of another kind
            tracker.cancel()

    run(main())
    assert ends(bench) == 1


def test_messages_that_everybody_else_takes_are_tracked(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/rpc") as line:
            tracker = line.track(seq="id", name="ticks")
            handled: list[str] = []
            line.on(json_subset({"id": 1}), handled.append)
            assert json.loads(await line.request({"id": 0}))["id"] == 0
            await line.send_json({"id": 1})
            await eventually(lambda: handled)
            async with line.stream({"id": 2}, end=json_subset({"id": 3}), name="turn") as turn:
                await line.send_json({"id": 3})
                assert [json.loads(item)["id"] async for item in turn] == [2]
            await line.send_json({"id": 4})
            await line.recv()
            assert counted(tracker.counts) == {"messages": 5}

    run(main())
    assert not bench.failures()


def test_what_waits_for_recv_already_counts(bench: Bench) -> None:
    async def main() -> None:
        async with raw_server(sending([3, 4, 6])) as url:
            line = await bench.client().connect(url)
            await eventually(lambda: len(line.queue) == 3)
            tracker = line.track(seq="seq", name="ticks", window=0)
            assert counted(tracker.counts) == {"messages": 3, "gaps": 1, "missing": 1}
            await line.close()

    run(main())


@pytest.mark.parametrize("resume", [False, True])
def test_across_a_reconnect(bench: Bench, resume: bool) -> None:
    """The first session ends behind 9; the second begins with 8 and 9 again, and goes on with 15."""
    sessions = iter([sending(list(range(10)), then=b""), sending([8, 9, 15, 16])])

    async def main() -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await next(sessions)(reader, writer)

        async with raw_server(script) as url:
            line = await bench.client().connect(url, reconnect=Backoff(initial=0.01, jitter=0))
            tracker = line.track(seq="seq", name="ticks", resume=resume, window=5)
            assert len([message async for message in line]) == 14
            counts = counted(tracker.counts)
            assert counts == {"messages": 14, "gaps": 1, "missing": 5} | ({"duplicates": 2} if resume else {})

    run(main())
    again = ["a number came again"] if resume else []
    assert incidents(bench) == [*again, "numbers are missing"]
    assert ends(bench) == 1


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        ({"seq": "id"}, []),  # messages of another kind
        ({"seq": "id", "match": any_message}, ["a message without a sequence number"]),
        (
            {"seq": lambda message: json.loads(message)["number"], "match": any_message},
            ["a sequence number that is no int"],
        ),
        ({"seq": "number"}, ["a sequence number that is no int"]),
        ({"seq": "seq", "key": "topic"}, ["a message without a key"]),
        ({"seq": "seq", "key": "list"}, ["a key that is not hashable"]),
        ({"seq": "seq", "key": lambda message: [1]}, ["a key that is not hashable"]),
    ],
)
def test_messages_that_cannot_be_read(bench: Bench, arguments: dict[str, Any], texts: list[str]) -> None:
    message = json.dumps({"seq": 1, "number": 1.5, "list": [1]}).encode()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(1, message) * 3 + frame(8, b"\x03\xe8"))
        await reader.read(1000)

    async def main() -> None:
        async with raw_server(script) as url:
            line = await bench.client().connect(url)
            tracker = line.track(name="ticks", **arguments)
            assert len([message async for message in line]) == 3
            assert counted(tracker.counts) == ({"unreadable": 3} if texts else {})

    run(main())
    assert incidents(bench) == texts
    assert ends(bench) == 0


def test_it_says_so_if_there_was_nothing_to_track(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as line:
            line.track(seq="sequence", name=f"nothing {bench.engine}")
            await line.request("x")

    with caplog.at_level(logging.WARNING, "locust_ws_async.client"):
        run(main())
    assert "nothing was tracked: none of 1 messages matched" in caplog.text
    assert "WS STREAM" not in bench.types()


@pytest.mark.parametrize("by", ["close", "cancel"])
@pytest.mark.parametrize("waits", [False, True])
def test_what_was_skipped_just_before_this_side_ends_it_does_not_count(bench: Bench, by: str, waits: bool) -> None:
    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(frame(1, b'{"seq": %d}' % number) for number in (1, 2, 4)))
        await until_eof(reader, writer)

    async def main() -> None:
        async with raw_server(send) as url, bench.client().connect(url, close_timeout=0.05) as line:
            tracker = line.track(seq="seq", name="ticks")
            await eventually(lambda: tracker.counts.messages == 3)
            *_, (_, _, arrived) = line.queue
            if waits:
                await asyncio.sleep(1)
            if by == "close":
                await line.close()
            else:
                tracker.cancel()
            if perf_counter() - arrived < 1:
                assert counted(tracker.counts) == {"messages": 3}
            elif waits:
                assert counted(tracker.counts) == {"messages": 3, "gaps": 1, "missing": 1}

    run(main())


def test_two_trackers_of_one_name_count_together(bench: Bench) -> None:
    async def main() -> None:
        async with raw_server(sending([1, 2, 4])) as url:
            line = await bench.client().connect(url)
            first, second = (line.track(seq="seq", name="ticks", window=0) for _ in range(2))
            assert first.counts is second.counts
            async for _ in line:
                pass
            assert counted(first.counts) == {"messages": 6, "gaps": 2, "missing": 2}

    run(main())
    assert ends(bench) == 2


def test_a_tracker_is_there_before_the_router_and_the_other_way_round(bench: Bench) -> None:
    """Requests that wait when the first tracker comes are answered all the same."""

    async def main() -> None:
        async with bench.client().connect("/echo?delay=0.02") as line:
            waiting = asyncio.ensure_future(line.request('{"seq": 1}'))
            await asyncio.sleep(0)
            tracker = line.track(seq="seq", name="ticks")
            assert await waiting == '{"seq": 1}'
            with pytest.raises(MessageTimeout):
                await line.expect(any_message, timeout=0.01)
            assert counted(tracker.counts) == {"messages": 1}

    run(main())


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"seq": None}, TypeError, "track: seq must be a JSON field"),
        ({"seq": ()}, TypeError, "track: seq must be"),
        ({"seq": 1.5}, TypeError, "track: seq must be"),
        ({"seq": ("a", None)}, TypeError, "track: seq must be"),
        ({"seq": True}, TypeError, "track: seq must be"),
        ({"key": ["topic"]}, TypeError, "track: key must be"),
        ({"match": "ticks"}, TypeError, "track: the match must be"),
        ({"window": -1}, ValueError, "track: window must be 0 or more"),
        ({"window": 1.0}, TypeError, "track: window must be a whole number"),
        ({"window": None}, TypeError, "track: window must be a whole number"),
    ],
)
def test_wrong_arguments_are_refused(
    bench: Bench, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as line:
            given: dict[str, Any] = {"seq": "seq"} | arguments
            with pytest.raises(error, match=text):
                line.track(**given)

    run(main())
    assert "WS STREAM" not in bench.types()
