"""``stream``: one message out, and an answer that comes in many."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from time import perf_counter
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConcurrencyError, ConnectionClosed

from locust_ws_async.client import Backoff, any_message, json_field, json_subset, prefix
from locust_ws_async.exceptions import ConnectionClosedError, MessageTimeout

from .helpers import Bench, Row, eventually, frame, raw_server, run, until_eof

DONE = json_subset({"type": "done"})
DELTA = json_subset({"type": "delta"})

Script = Callable[[ServerConnection], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(script: Script) -> AsyncIterator[str]:
    """A server that runs this script for each connection; gives its URL."""

    async def talk(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await script(connection)
            await connection.wait_closed()

    async with serve(talk, "127.0.0.1", 0, compression=None, close_timeout=1) as serving:
        yield f"ws://127.0.0.1:{next(iter(serving.sockets)).getsockname()[1]}"


def rows(bench: Bench, request_type: str, name: str = "turn") -> list[Row]:
    return [row for row in bench.rows if (row.type, row.name) == (request_type, name)]


def failed(bench: Bench) -> list[tuple[str, str]]:
    return [(row.type, str(row.error)) for row in bench.rows if row.error is not None]


def delta(number: int, **more: Any) -> str:
    return json.dumps({"type": "delta", "number": number, **more})


async def three_items(connection: ServerConnection) -> None:
    async for _ in connection:
        for number in range(3):
            await connection.send(delta(number))
            await asyncio.sleep(0.02)
        await connection.send('{"type": "done"}')


def test_the_rows_of_an_answer(bench: Bench) -> None:
    async def main() -> None:
        before = perf_counter()
        async with bench.client().connect("/realtime?first=0.1&jitter=0.01&frames=10") as line:
            async with line.stream({"type": "respond", "response_id": 7}, end=DONE, name="turn") as turn:
                items = []
                arrivals = []
                async for item in turn:
                    items.append(item)
                    arrivals.append(line.arrived)
            assert turn.count == len(items) == 12  # ten frames, and two texts
            end = turn.end
            assert end is not None and json.loads(end)["status"] == "completed"
            first, whole = bench.only("WS FIRST"), bench.only("WS REQUEST")
            assert before < first.start == whole.start < arrivals[0]
            assert first.time == pytest.approx((arrivals[0] - first.start) * 1000)
            assert first.time >= 100
            gaps = rows(bench, "WS GAP")
            assert [row.time for row in gaps] == pytest.approx(
                [(later - earlier) * 1000 for earlier, later in pairwise(arrivals)]
            )
            assert [row.length for row in gaps] == [len(item) for item in items[1:]]
            assert whole.time is not None and whole.time >= (arrivals[-1] - whole.start) * 1000
            assert whole.length == sum(map(len, items)) + len(end)
            assert (first.response, whole.response) == (items[0], end)
            # The frames are due every 20 ms, every other one 10 ms later: from the first to the last, 190 ms.
            assert arrivals[-1] - arrivals[0] >= 0.15

    run(main())
    assert bench.types().count("WS GAP") == 11
    assert not bench.failures()


def test_each_stream_gets_the_messages_with_its_id(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/realtime?first=0.02&frames=10") as line:

            async def ask(number: int) -> list[int]:
                stream = line.stream(
                    {"type": "respond", "response_id": number},
                    match=json_field("response_id"),
                    item=DELTA,
                    end=DONE,
                    name=f"turn {number}",
                )
                async with stream as turn:
                    return [json.loads(item)["response_id"] async for item in turn]

            assert await asyncio.gather(*map(ask, range(5))) == [[number] * 2 for number in range(5)]
            # What is neither an item nor an end is for others: the audio.
            assert line.discard() == 50

    run(main())
    assert not bench.failures()


def test_the_times_count_from_since(bench: Bench) -> None:
    async def main() -> None:
        async with server(three_items) as url, bench.client().connect(url) as line:
            since = perf_counter() - 5
            async with line.stream("?", end=DONE, name="turn", since=since, first_timeout=4) as turn:
                assert len([item async for item in turn]) == 3
            for request_type in ("WS FIRST", "WS REQUEST"):
                row = bench.only(request_type)
                assert row.start == since
                assert row.time is not None and row.time >= 5000

    run(main())
    assert not bench.failures()


def test_a_server_that_speaks_by_itself(bench: Bench) -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.send("old")
        await connection.send(delta(0))
        await connection.recv()
        for number in range(1, 4):
            await connection.send(delta(number))
        await connection.recv()
        await connection.send('{"type": "done"}')
        await connection.send("new")

    async def main() -> None:
        async with server(speak) as url, bench.client().connect(url) as line:
            await eventually(lambda: len(line.queue) == 2)
            since = perf_counter()
            await line.send("now")
            await eventually(lambda: len(line.queue) == 5)
            async with line.stream(None, end=DONE, item=DELTA, since=since, name="turn") as turn:
                items = []
                async for item in turn:
                    items.append(json.loads(item)["number"])
                    if len(items) == 3:
                        await line.send("go on")
            assert items == [1, 2, 3]
            assert [await line.recv() for _ in range(3)] == ["old", delta(0), "new"]

    run(main())
    assert not bench.failures()


def test_without_since_what_has_come_counts_up_to_its_end(bench: Bench) -> None:
    async def speak(connection: ServerConnection) -> None:
        for message in (delta(0), '{"type": "done"}', delta(1), '{"type": "done"}'):
            await connection.send(message)

    async def main() -> None:
        async with server(speak) as url, bench.client().connect(url) as line:
            await eventually(lambda: len(line.queue) == 4)
            for number in range(2):
                async with line.stream(None, end=DONE, name="turn") as turn:
                    assert [item async for item in turn] == [delta(number)]
            assert [row.time for row in rows(bench, "WS FIRST")] == [0, 0]

    run(main())


def test_an_item_may_be_the_end(bench: Bench) -> None:
    async def answer(connection: ServerConnection) -> None:
        async for _ in connection:
            for number in range(3):
                await connection.send(delta(number, done=number == 2))

    async def main() -> None:
        async with server(answer) as url, bench.client().connect(url) as line:
            async with line.stream("?", item=DELTA, end=json_subset({"done": True}), name="turn") as turn:
                assert [json.loads(item)["number"] async for item in turn] == [0, 1, 2]
            assert turn.end == delta(2, done=True)

    run(main())
    assert bench.types().count("WS GAP") == 2


def test_an_answer_without_items(bench: Bench) -> None:
    async def main() -> None:
        async with (
            bench.client().connect("/echo") as line,
            line.stream('{"type": "done"}', end=DONE, name="turn") as turn,
        ):
            assert [item async for item in turn] == []

    run(main())
    assert bench.types() == ["WS CONNECT", "WS REQUEST", "WS SESSION"]
    assert not bench.failures()


def test_no_first_item_in_time(bench: Bench) -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def hesitate(connection: ServerConnection) -> None:
            await connection.recv()
            await go_on.wait()
            await connection.send(delta(0))
            await connection.send('{"type": "done"}')
            await connection.send("next")

        async with server(hesitate) as url, bench.client().connect(url) as line:
            with pytest.raises(MessageTimeout, match="no first item within first_timeout") as caught:
                async with line.stream("?", end=DONE, name="turn", first_timeout=0.05) as turn:
                    async for _ in turn:
                        pass
            assert caught.value.is_row
            assert [row.type for row in bench.rows if row.error is caught.value] == ["WS FIRST", "WS REQUEST"]
            assert all(row.time is not None and row.time >= 49 for row in bench.rows if row.error)
            # What comes of it later is told, and for nobody else.
            go_on.set()
            assert await line.recv() == "next"
            (late,) = rows(bench, "WS REQUEST", "turn (late)")
            assert late.error is None
            assert line.stats.late_replies == 1

    run(main())
    assert bench.types().count("WS REQUEST") == 2 and bench.types().count("WS FIRST") == 1


def test_no_further_item_in_time(bench: Bench) -> None:
    async def stop_in_the_middle(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(delta(0))
        await connection.send(delta(1))

    async def main() -> None:
        async with server(stop_in_the_middle) as url, bench.client().connect(url) as line:
            items = []
            with pytest.raises(MessageTimeout):
                async with line.stream("?", end=DONE, name="turn", gap_timeout=0.05) as turn:
                    async for item in turn:
                        items.append(item)
            assert items == [delta(0), delta(1)]

    run(main())
    text = "no further item, and no end, within gap_timeout"
    assert failed(bench) == [("WS GAP", text), ("WS REQUEST", text)]
    assert [row.error is None for row in rows(bench, "WS GAP")] == [True, False]


def test_no_end_in_time(bench: Bench) -> None:
    async def never_end(connection: ServerConnection) -> None:
        await connection.recv()
        while True:
            await connection.send(delta(0))
            await asyncio.sleep(0.01)

    async def main() -> None:
        async with server(never_end) as url, bench.client().connect(url) as line:
            with pytest.raises(MessageTimeout):
                async with line.stream("?", end=DONE, name="turn", timeout=0.1) as turn:
                    async for _ in turn:
                        pass
            assert turn.count > 1

    run(main())
    assert failed(bench) == [("WS REQUEST", "the stream did not end within the timeout")]


def test_a_timeout_between_items_counts_from_each(bench: Bench) -> None:
    async def slowly(connection: ServerConnection) -> None:
        await connection.recv()
        for number in range(4):
            await connection.send(delta(number))
            await asyncio.sleep(0.6)
        await connection.send('{"type": "done"}')

    async def main() -> None:
        async with (
            server(slowly) as url,
            bench.client().connect(url) as line,
            line.stream("?", end=DONE, name="turn", gap_timeout=1.5) as turn,
        ):
            reported = [len(rows(bench, "WS GAP")) async for _ in turn]
            # While the stream is under way, but not each by itself.
            assert reported[:2] == [0, 0] and reported[-1] >= 2

    run(main())
    assert len(rows(bench, "WS GAP")) == 3
    assert not bench.failures()


def test_to_send_while_it_streams(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/realtime?first=0&frames=10000") as line:
            async with line.stream({"type": "respond", "response_id": 1}, end=DONE, name="turn") as turn:
                taken = 0
                async for _ in turn:
                    await line.send(bytes(640))
                    taken += 1
                    if taken == 10:
                        await line.send_json({"type": "cancel", "response_id": 1})
                assert taken == turn.count
            assert turn.end is not None and json.loads(turn.end)["status"] == "cancelled"

    run(main())
    assert not bench.failures()
    assert bench.types().count("WS REQUEST") == 1


def test_a_stream_that_is_cut_has_no_row_and_its_rest_is_for_nobody(bench: Bench) -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def two_answers(connection: ServerConnection) -> None:
            await connection.recv()
            await connection.send(delta(0))
            await connection.recv()
            await go_on.wait()
            for message in (delta(1), '{"type": "done"}', delta(10), '{"type": "done"}', "other"):
                await connection.send(message)

        async with server(two_answers) as url, bench.client().connect(url) as line:
            async with line.stream("?", item=DELTA, end=DONE, name="cut") as turn:
                async for _ in turn:
                    break
            async with line.stream("?", item=DELTA, end=DONE, name="turn") as turn:
                go_on.set()
                assert [item async for item in turn] == [delta(10)]
            assert await line.recv() == "other"

    run(main())
    assert [row.name for row in bench.rows if row.type == "WS REQUEST"] == ["turn"]
    assert [row.name for row in bench.rows if row.type == "WS FIRST"] == ["cut", "turn"]
    assert not bench.failures()


def test_checks_in_the_block(bench: Bench) -> None:
    class Stop(Exception):
        pass

    async def main() -> None:
        async with server(three_items) as url, bench.client(control_flow=(Stop,)).connect(url) as line:

            async def ask(problem: Exception | None, text: str | None = None) -> None:
                async with line.stream("?", end=DONE, name="turn") as turn:
                    async for _ in turn:
                        pass
                    if text:
                        turn.failure(text)
                    if problem:
                        raise problem

            await ask(AssertionError("wrong"))
            await ask(None, "too short")
            with pytest.raises(ZeroDivisionError):
                await ask(ZeroDivisionError("oh"))
            with pytest.raises(Stop):
                await ask(Stop())

    run(main())
    errors = [repr(row.error) for row in rows(bench, "WS REQUEST")]
    assert errors == ["AssertionError('wrong')", "CatchResponseError('too short')", "ZeroDivisionError('oh')", "None"]


def test_a_check_that_fails_before_the_end(bench: Bench) -> None:
    async def main() -> None:
        async with server(three_items) as url, bench.client().connect(url) as line:
            async with line.stream("?", end=DONE, name="turn") as turn:
                async for _ in turn:
                    raise AssertionError("wrong at once")
            async with line.stream("?", end=DONE, name="next") as turn:
                assert len([item async for item in turn]) == 3

    run(main())
    assert failed(bench) == [("WS REQUEST", "wrong at once")]


def test_a_loss_in_the_middle(bench: Bench) -> None:
    async def break_off(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(delta(0))
        connection.transport.abort()

    async def main() -> None:
        async with server(break_off) as url:
            line = await bench.client().connect(url)
            items = []
            with pytest.raises(ConnectionClosedError):
                async with line.stream("?", end=DONE, name="turn") as turn:
                    await eventually(lambda: line.state.name == "CLOSED")
                    async for item in turn:
                        items.append(item)
            assert items == [delta(0)]

    run(main())
    assert [request_type for request_type, _ in failed(bench)] == ["WS REQUEST", "WS SESSION"]
    assert len(rows(bench, "WS REQUEST")) == 1


def test_a_loss_before_the_first_item(bench: Bench) -> None:
    async def main() -> None:
        line = await bench.client().connect("/drop")
        with pytest.raises(ConnectionClosedError):
            async with line.stream("?", end=DONE, name="turn") as turn:
                async for _ in turn:
                    pass
        with pytest.raises(ConnectionClosedError):
            async with line.stream("?", end=DONE, name="over"):
                pass

    run(main())
    types = [(row.type, row.name) for row in bench.rows if row.error is not None and row.type != "WS SESSION"]
    assert types in (
        [("WS FIRST", "turn"), ("WS REQUEST", "turn"), ("WS REQUEST", "over")],
        [("WS REQUEST", "turn"), ("WS REQUEST", "over")],  # it was lost before the stream began
    )


def test_what_this_side_closes_is_no_failure(bench: Bench) -> None:
    async def main() -> None:
        line = await bench.client().connect("/realtime?first=0&frames=10000")
        with pytest.raises(ConnectionClosed):
            async with line.stream({"type": "respond"}, end=DONE, name="turn") as turn:
                async for _ in turn:
                    if turn.count >= 3:
                        await line.close()

    run(main())
    assert bench.types().count("WS FIRST") == 1
    assert "WS REQUEST" not in bench.types()
    assert not bench.failures()


def test_a_stream_that_is_cancelled(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/realtime?first=0&frames=10000") as line:
            entered = asyncio.Event()

            async def listen() -> None:
                async with line.stream({"type": "respond"}, end=DONE, name="turn") as turn:
                    async for _ in turn:
                        entered.set()

            task = asyncio.create_task(listen())
            await entered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await line.send_json({"type": "cancel"})
            assert line.discard() == 0

    run(main())
    assert "WS REQUEST" not in bench.types()
    assert not bench.failures()


def test_a_stream_waits_for_the_connection(bench: Bench) -> None:
    async def main() -> None:
        connections = 0

        async def cut_the_first(connection: ServerConnection) -> None:
            nonlocal connections
            connections += 1
            if connections == 1:
                await connection.recv()
                connection.transport.abort()
            await three_items(connection)

        again = Backoff(initial=0.01, jitter=0)
        async with server(cut_the_first) as url, bench.client().connect(url, reconnect=again) as line:
            with pytest.raises(ConnectionClosedError):
                async with line.stream("?", end=DONE, name="lost") as turn:
                    async for _ in turn:
                        pass
            async with line.stream("?", end=DONE, name="turn") as turn:
                assert len([item async for item in turn]) == 3

    run(main())
    assert [row.error is None for row in rows(bench, "WS REQUEST", "turn")] == [True]
    assert [row.error is None for row in rows(bench, "WS REQUEST", "lost")] == [False]
    assert len(rows(bench, "WS FIRST", "lost")) == 1


def test_no_gaps_if_they_are_off(bench: Bench) -> None:
    async def main() -> None:
        async with (
            server(three_items) as url,
            bench.client().connect(url) as line,
            line.stream("?", end=DONE, gaps=False) as turn,
        ):
            async for _ in turn:
                pass

    run(main())
    assert "WS GAP" not in bench.types()


@pytest.mark.parametrize("takes_all", [True, False])
def test_a_loop_that_is_too_slow_stops_the_reading(bench: Bench, takes_all: bool) -> None:
    async def much(connection: ServerConnection) -> None:
        await connection.recv()
        for number in range(2000):
            await connection.send(delta(number))
        await connection.send('{"type": "done"}')
        await connection.send("other")

    async def main() -> None:
        async with server(much) as url, bench.client().connect(url, max_queue=10) as line:
            async with line.stream("?", end=DONE, name="turn") as turn:
                await eventually(lambda: line.reading_paused)
                if takes_all:
                    numbers = [json.loads(item)["number"] async for item in turn]
                    assert numbers == list(range(2000))
            # A stream that is left stops nobody.
            assert await line.recv() == "other"

    run(main())
    assert not bench.failures()


def test_a_stream_that_has_ended_unread_does_not_stop_the_reading(bench: Bench) -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            # In one read: the queue is full before the end comes.
            writer.write(frame(1, delta(0).encode()) * 11 + frame(1, b'{"type": "done"}'))
            await ended.wait()
            writer.write(frame(1, b"other"))
            await until_eof(reader, writer)

        async with (
            raw_server(answer) as url,
            bench.client().connect(url, max_queue=10, close_timeout=0.05) as line,
            line.stream("?", end=DONE, name="turn") as turn,
        ):
            await eventually(lambda: turn.end)
            ended.set()
            assert await line.recv() == "other"
            assert len([item async for item in turn]) == 11

    run(main())


def test_it_says_so_if_nothing_was_read(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/realtime?first=0.2") as line:
            line.pause()
            with pytest.raises(MessageTimeout):
                async with line.stream({"type": "respond"}, end=DONE, first_timeout=0.05) as turn:
                    async for _ in turn:
                        pass

    run(main())
    text = "nothing of the stream within the timeout, and nothing was read: pause() was called"
    assert failed(bench) == [("WS FIRST", text), ("WS REQUEST", text)]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"end": None}, TypeError, "stream: the match must be a function"),
        ({"end": json_field("id")}, TypeError, "stream: json_field pairs"),
        ({"item": "delta"}, TypeError, "stream: the match must be a function"),
        ({"match": "delta"}, TypeError, "stream: the match must be a function"),
        ({"match": json_field("id")}, ValueError, "has no field 'id'"),
        ({"match": json_field("id"), "payload": None}, TypeError, "by the id in the payload"),
        ({"first_timeout": 0}, ValueError, "first_timeout must be greater than 0"),
        ({"gap_timeout": -1}, ValueError, "gap_timeout must be greater than 0"),
        ({"timeout": float("nan")}, ValueError, "timeout must be greater than 0"),
        ({"timeout": "1"}, TypeError, "timeout must be a number of seconds"),
        ({"since": "now"}, TypeError, "since must be"),
        ({"payload": {1, 2}}, TypeError, "not JSON serializable"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(
    bench: Bench, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as line:
            given: dict[str, Any] = {"payload": {}, "end": any_message} | arguments
            with pytest.raises(error, match=text):
                line.stream(given.pop("payload"), **given)

    run(main())


def test_a_stream_is_entered_and_nothing_else(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as line:
            with pytest.raises(TypeError, match="a stream needs a block"):
                await line.stream("?", end=DONE)
            with pytest.raises(TypeError, match="`async with"):
                async for _ in line.stream("?", end=DONE):  # type: ignore[attr-defined] # the mistake
                    pass
            with pytest.warns(RuntimeWarning, match="'WebSocketConnection.stream' was never awaited"):
                line.stream("?", end=DONE)
            async with line.stream("x", end=prefix("x"), name="turn") as turn:
                pass
            with pytest.raises(RuntimeError, match="the block of this stream is left"):
                await anext(turn)
            assert line.discard() == 0

    run(main())


def test_one_task_iterates(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/sink") as line, line.stream("?", end=DONE) as turn:
            first = asyncio.ensure_future(anext(turn))
            await asyncio.sleep(0)
            with pytest.raises(ConcurrencyError):
                await anext(turn)
            first.cancel()

    run(main())
