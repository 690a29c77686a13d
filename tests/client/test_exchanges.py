"""request() and expect(): each reply to its own request."""

from __future__ import annotations

import asyncio
import json
import random
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.protocol import State

from locust_ws_async.client import Backoff, WebSocketConnection, any_message, json_field, json_subset, prefix, regex
from locust_ws_async.client import reply as keepalive_reply
from locust_ws_async.exceptions import CatchResponseError, ConnectionClosedError, ConnectionClosedOK, MessageTimeout
from locust_ws_async.fast_paths import PLAIN

from .helpers import Bench, Row, eventually, frame, raw_server, run

BY_ID = json_field("id")


def result_of(reply: str | bytes) -> Any:
    return json.loads(reply)["result"]


def test_a_message_behind_the_cancellation_of_an_expect_is_not_lost(bench: Bench) -> None:
    """In the turn of the loop in which the task has been cancelled and does not know yet."""

    async def main() -> None:
        async with bench.client().connect("/echo") as connection:

            async def expect() -> None:
                await connection.expect(any_message)

            task = asyncio.create_task(expect())
            await asyncio.sleep(0)
            task.cancel()
            connection.message_received("x", 1, perf_counter())  # as the engine does
            await asyncio.wait([task])
            assert task.cancelled()
            assert await connection.recv() == "x"
            assert connection.stats.late_replies == 0

    run(main())


def test_a_request(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo?delay=0.05") as connection:
            assert await connection.request("hello") == "hello"
            assert await connection.request(b"bytes", name="bytes") == b"bytes"
            assert await connection.request({"a": [1]}) == '{"a":[1]}'
            assert await connection.request(memoryview(b"view")) == b"view"

    run(main())
    assert bench.types() == ["WS CONNECT", *["WS REQUEST"] * 4, "WS SESSION"]
    hello, named = bench.rows[1:3]
    assert hello.time is not None and hello.time >= 40
    assert (hello.name, hello.length, hello.response) == ("/echo", 5, "hello")
    assert named.name == "bytes"


def test_a_thousand_requests_in_flight(bench: Bench) -> None:
    """Out of order, from many tasks, each gets its own reply."""

    async def main() -> None:
        async with bench.client().connect("/rpc") as connection:

            async def ask(number: int) -> None:
                request = {"id": number, "params": number * 7, "delay": random.random() / 2}
                reply = await connection.request(request, match=BY_ID)
                assert result_of(reply) == number * 7

            async with asyncio.TaskGroup() as group:
                for number in range(1000):
                    group.create_task(ask(number))

    run(main())
    assert bench.types().count("WS REQUEST") == 1000
    assert not bench.failures()


def test_the_time_ends_with_the_arrival(bench: Bench) -> None:
    matched: list[float] = []

    async def main() -> None:
        async with bench.client().connect("/echo") as connection:

            def keep_the_loop_busy(message: str | bytes) -> bool:
                matched.append(time.perf_counter())
                asyncio.get_running_loop().call_soon(time.sleep, 0.2)
                return True

            await connection.request("x", match=keep_the_loop_busy)
            await connection.expect(keep_the_loop_busy, timeout=0.05, optional=True)
            await connection.send("y")
            await connection.expect(keep_the_loop_busy)

    run(main())
    request, optional, expectation = (row for row in bench.rows if row.type in ("WS REQUEST", "WS RECV"))
    assert optional.time is None
    for row, seen in zip((request, expectation), matched, strict=True):
        assert row.time is not None and row.start + row.time / 1000 <= seen


def test_replies_in_reverse(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/rpc") as connection:
            requests = [{"id": number, "params": number, "hold": number < 9} for number in range(10)]
            replies = await asyncio.gather(*(connection.request(request, match=BY_ID) for request in requests))
            assert [result_of(reply) for reply in replies] == list(range(10))

    run(main())


def test_duplicates_go_to_recv(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/rpc") as connection:
            await connection.request({"id": 1, "params": "a", "copies": 3}, match=BY_ID)
            assert [result_of(await connection.recv()) for _ in range(2)] == ["a", "a"]

    run(main())


def test_connects_and_requests_are_coroutines_for_tasks(bench: Bench) -> None:
    async def main() -> None:
        client = bench.client()
        connection = await asyncio.create_task(client.connect("/rpc"))
        async with connection, asyncio.TaskGroup() as group:
            asks = [
                group.create_task(connection.request({"id": number, "params": number}, match=BY_ID))
                for number in range(5)
            ]
        assert [result_of(ask.result()) for ask in asks] == list(range(5))

    run(main())
    assert [row.type for row in bench.rows].count("WS CONNECT") == 1


def test_an_operation_happens_once(bench: Bench) -> None:
    """Awaited or entered again, it raises as a coroutine does."""

    async def main() -> None:
        client = bench.client()
        connecting = client.connect("/echo")
        async with connecting as connection:
            with pytest.raises(
                RuntimeError, match="this ConnectContext was awaited or entered before, which works once"
            ):
                await connecting
            with pytest.raises(RuntimeError, match="ConnectContext"):
                async with connecting:
                    pass
            request = connection.request("once")
            assert await request == "once"
            with pytest.raises(RuntimeError, match="this MessageWait was awaited or entered before, which works once"):
                await request
            task = asyncio.create_task(request)
            with pytest.raises(RuntimeError, match="MessageWait"):
                await task
            checked = connection.request("checked", catch_response=True)
            with pytest.raises(TypeError, match="catch_response=True needs a block"):
                await checked
            async with checked as reply:
                assert reply.message == "checked"
            with pytest.raises(RuntimeError, match="MessageWait"):
                async with checked:
                    pass
            in_task = connection.expect(any_message)
            task = asyncio.create_task(in_task)
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="MessageWait"):
                await in_task
            await connection.send("x")
            assert await task == "x"
            closed = connection.request("never")
            closed.close()
            with pytest.raises(RuntimeError, match="MessageWait"):
                await closed
            assert connection.stats.messages_sent == 3

    run(main())
    assert bench.types() == ["WS CONNECT", "WS REQUEST", "WS REQUEST", "WS SEND", "WS RECV", "WS SESSION"]


def test_a_cancelled_task_of_a_request(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/silent", close_timeout=0.1) as connection:
            ask = asyncio.create_task(connection.request("anybody?"))
            await eventually(lambda: connection.stats.texts_sent)
            ask.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ask

    run(main())
    assert "WS REQUEST" not in [row.type for row in bench.rows]


def test_a_timeout_and_the_late_reply(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/rpc") as connection:
            with pytest.raises(MessageTimeout):
                await connection.request(
                    {"id": 1, "params": "slow", "delay": 0.2}, match=BY_ID, timeout=0.05, name="ask"
                )
            # Another request in the meantime, that would take any message.
            reply = await connection.request({"id": 2, "params": "fast"}, match=any_message)
            assert result_of(reply) == "fast"
            await eventually(lambda: connection.stats.late_replies)

    run(main())
    timeout, fast, late = (row for row in bench.rows if row.type == "WS REQUEST")
    assert repr(timeout.error) == "MessageTimeout('no message that matches within the timeout')"
    assert timeout.time is not None and timeout.time >= 50
    assert (fast.name, fast.error) == ("/rpc", None)
    assert (late.name, late.error) == ("ask (late)", None)
    assert late.time is not None and late.time >= 190


def test_a_late_reply_does_not_pass_for_a_younger_one(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo?delay=0.1") as connection:
            with pytest.raises(MessageTimeout):
                await connection.request("first", timeout=0.05)
            for message in ("second", "third", "fourth"):
                assert await connection.request(message) == message
            assert connection.stats.late_replies == 1

    run(main())
    names = [row.name for row in bench.rows if row.type == "WS REQUEST"]
    assert names == ["/echo", "/echo (late)", "/echo", "/echo", "/echo"]


class SkippingLoop(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward."""

    skipped = 0.0

    def time(self) -> float:
        return super().time() + self.skipped


async def answer_all_but_the_first(connection: ServerConnection) -> None:
    await connection.recv()
    async for message in connection:
        await connection.send(message)


def test_a_request_without_an_answer_shifts_the_next_for_a_minute_at_most(bench: Bench) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SkippingLoop)
        async with serve(answer_all_but_the_first, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with bench.client().connect(f"ws://127.0.0.1:{port}/") as connection:
                for message in ("first", "second"):
                    with pytest.raises(MessageTimeout):
                        await connection.request(message, timeout=0.1)
                loop.skipped = 60.0
                assert await connection.request("third", timeout=20) == "third"

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(main())
    names = [row.name for row in bench.rows if row.type == "WS REQUEST"]
    assert names == ["/", "/ (late)", "/", "/"]


def test_with_an_id_a_request_without_an_answer_shifts_nothing(bench: Bench) -> None:
    async def main() -> None:
        async with serve(answer_all_but_the_first, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with bench.client().connect(f"ws://127.0.0.1:{port}/") as connection:
                with pytest.raises(MessageTimeout):
                    await connection.request({"id": 1}, match=BY_ID, timeout=0.05)
                for number in (2, 3):
                    assert json.loads(await connection.request({"id": number}, match=BY_ID)) == {"id": number}

    run(main())
    assert [row.name for row in bench.rows if row.type == "WS REQUEST"] == ["/", "/", "/"]


def test_late_replies_while_this_side_closes_are_counted_only(bench: Bench) -> None:
    async def main() -> None:
        asked = asyncio.Event()

        async def answer_the_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1000)
            asked.set()
            await reader.read(1000)
            writer.write(frame(1, b"late") + frame(8, b"\x03\xe8"))

        async with raw_server(answer_the_close) as url:
            async with bench.client().connect(url) as connection:
                request = asyncio.ensure_future(connection.request("x"))
                await asked.wait()
                request.cancel()
            assert connection.stats.late_replies == 1
            assert request.cancelled()

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SESSION"]


def test_a_cancelled_request_is_late_too(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo?delay=0.1") as connection:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await connection.request("first")
            await connection.send("second")
            assert await connection.recv() == "second"

    run(main())
    assert [row.name for row in bench.rows if row.type == "WS REQUEST"] == ["/echo (late)"]


def test_cancelling_an_expectation_in_the_turn_of_the_loop_in_which_it_fails(bench: Bench) -> None:
    async def main() -> None:
        connection = await bench.client().connect("/silent")

        async def perform() -> None:
            await connection.expect(any_message)

        waiting = asyncio.create_task(perform())
        await asyncio.sleep(0)  # it waits now
        connection.abort()
        while connection.state is not State.CLOSED:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SESSION"]


def test_a_message_in_the_turn_of_the_loop_in_which_its_expectation_is_cancelled(bench: Bench) -> None:
    """It is for the next that wants it: another expectation, a handler, recv."""

    async def main() -> None:
        handled: list[Any] = []
        async with bench.client().connect("/echo") as connection:
            for number, wanted in enumerate(("expect", "handler", "recv"), 1):
                first = asyncio.ensure_future(connection.expect(any_message))
                await asyncio.sleep(0)
                other: asyncio.Future[Any] | None = None
                if wanted == "expect":
                    other = asyncio.ensure_future(connection.expect(any_message))
                    await asyncio.sleep(0)
                elif wanted == "handler":
                    subscription = connection.on(any_message, handled.append)
                await connection.send(wanted)
                while connection.stats.messages_received < number:
                    await asyncio.sleep(0)
                first.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await first
                if other is not None:
                    assert await other == wanted
                elif wanted == "handler":
                    assert handled == [wanted]
                    subscription.cancel()
                else:
                    assert await connection.recv() == wanted

    run(main())


def test_a_timeout_says_that_nothing_was_read(bench: Bench) -> None:
    """The messages that nobody takes stand in the way of the reply."""

    async def main() -> None:
        async with bench.client().connect(
            "/ticker?rate=10000", max_queue=10, name=f"unread {bench.engine}"
        ) as connection:
            await eventually(lambda: connection.reading_paused)
            with pytest.raises(MessageTimeout, match=r"none was read: the queue of recv is full \(max_queue\)"):
                await connection.request({"id": 1}, match=BY_ID, timeout=0.05)

    run(main())


def test_a_reply_in_the_turn_of_the_loop_in_which_its_request_is_cancelled(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:

            async def perform() -> None:
                await connection.request("?")

            waiting = asyncio.create_task(perform())
            while not connection.stats.messages_received:
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    run(main())
    assert [row.name for row in bench.rows if row.type == "WS REQUEST"] == ["/echo (late)"]


def test_a_message_that_is_nested_too_deep_to_parse_is_nobodys_reply(bench: Bench) -> None:
    deep = "[" * 200_000

    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            await connection.send(deep)
            await connection.request({"id": 1}, match=BY_ID)
            assert await connection.recv() == deep

    run(main())


def test_different_timeouts(bench: Bench) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with bench.client().connect("/sink") as connection:

            async def time_out(after: float) -> float:
                started = loop.time()
                with pytest.raises(MessageTimeout):
                    await connection.request("x", timeout=after)
                return loop.time() - started

            timeouts = [0.2, 0.05, 0.1, 0.05]
            for after, took in zip(timeouts, await asyncio.gather(*map(time_out, timeouts)), strict=True):
                assert took >= after - 0.001  # one timer serves all: a wait may end with one that is due 1 ms earlier

    run(main())


def test_the_default_timeout_is_an_option(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/sink", request_timeout=0.05) as connection:
            with pytest.raises(MessageTimeout):
                await connection.request("x")
            with pytest.raises(MessageTimeout):
                await connection.expect(any_message)

    run(main())


def test_what_the_match_raised_is_the_cause_of_the_timeout(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            with pytest.raises(MessageTimeout) as caught:
                await connection.request("{}", match=lambda message: json.loads(message)["id"] == 1, timeout=0.1)
            assert isinstance(caught.value.__cause__, KeyError)
            assert await connection.recv() == "{}"

    run(main())


def test_requests_fail_with_the_connection(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/drop?after=1") as connection:
            results = await asyncio.gather(
                *(connection.request({"id": number}, match=BY_ID) for number in range(3)), return_exceptions=True
            )
            # The server answers the first and cuts the connection, which may cut that answer too.
            assert [type(result) for result in results[1:]] == [ConnectionClosedError] * 2
            assert results[1] is not results[2]
            with pytest.raises(ConnectionClosedError):
                await connection.request("x")
        answered = isinstance(results[0], str)
        assert len([row for row in bench.rows if row.type == "WS REQUEST" and row.error]) == (3 if answered else 4)

    run(main())


def test_a_request_that_this_side_ends_is_not_reported(bench: Bench) -> None:
    async def main() -> None:
        connection = await bench.client().connect("/sink")
        request = asyncio.ensure_future(connection.request("x"))
        await asyncio.sleep(0)
        await connection.close()
        with pytest.raises(ConnectionClosedOK):
            await request

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SESSION"]


# A server that reads slowly


def test_requests_wait_for_a_server_that_reads_slowly(bench: Bench) -> None:
    """They are not piled up in memory, and each gets its reply; what it waited is in its time."""

    async def main() -> None:
        reads = asyncio.Event()

        async def answer(connection: ServerConnection) -> None:
            await reads.wait()
            async for message in connection:
                await connection.send(json.dumps({"id": json.loads(message)["id"]}))

        async with serve(answer, "127.0.0.1", 0, max_size=None, max_queue=1, compression=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with bench.client().connect(f"ws://127.0.0.1:{port}/") as connection, asyncio.TaskGroup() as group:

                async def ask(number: int) -> None:
                    reply = await connection.request({"id": number, "padding": "x" * 1_000_000}, match=BY_ID)
                    assert json.loads(reply) == {"id": number}

                for number in range(40):
                    group.create_task(ask(number))
                await eventually(lambda: connection.writing_paused)
                await asyncio.sleep(0.1)
                assert 0 < connection.stats.texts_sent < 40
                reads.set()

    run(main())
    times = [row.time for row in bench.rows if row.type == "WS REQUEST"]
    assert len(times) == 40 and all(time is not None and time >= 90 for time in times)
    assert not bench.failures()


def test_a_request_that_waits_to_be_sent_times_out(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/stalled", close_timeout=0.05) as connection:
            payload = bytes(1_000_000)
            requests = [connection.request(payload, timeout=0.1) for _ in range(40)]
            results = await asyncio.gather(*requests, return_exceptions=True)
            assert {type(result) for result in results} == {MessageTimeout}
            assert 0 < connection.stats.binaries_sent < 40
            sent = connection.stats.binaries_sent
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await connection.request(payload)
            assert connection.stats.binaries_sent == sent  # nothing was written after all

    run(main())
    rows = [row for row in bench.rows if row.type == "WS REQUEST"]
    assert len(rows) == 40 and all(row.time is not None and row.time >= 90 for row in rows)


def test_a_request_that_waits_to_be_sent_fails_with_the_connection(bench: Bench) -> None:
    async def main() -> None:
        connection = await bench.client().connect("/stalled")

        async def ask() -> None:
            with pytest.raises(ConnectionClosedError):
                await connection.request(bytes(1_000_000))

        async with asyncio.TaskGroup() as group:
            for _ in range(40):
                group.create_task(ask())
            await eventually(lambda: connection.writing_paused)
            connection.wire.transport.abort()

    run(main())
    rows = [row for row in bench.rows if row.type == "WS REQUEST"]
    assert len(rows) == 40 and all(row.error for row in rows)


def test_a_request_that_waits_to_be_sent_is_not_reported_when_this_side_closes(bench: Bench) -> None:
    async def main() -> None:
        connection = await bench.client().connect("/stalled", close_timeout=0.05)
        asks = [asyncio.ensure_future(connection.request(bytes(1_000_000))) for _ in range(40)]
        await eventually(lambda: connection.writing_paused)
        await connection.close()
        for result in await asyncio.gather(*asks, return_exceptions=True):
            assert isinstance(result, ConnectionClosedError)

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SESSION"]


def test_json_field_finds_nested_and_differently_named_fields(bench: Bench) -> None:
    async def main() -> None:
        async def answer(connection: ServerConnection) -> None:
            async for message in connection:
                request = json.loads(message)
                if isinstance(request, list):
                    await connection.send(json.dumps([3, request[1], "ok"]))
                else:
                    await connection.send(json.dumps({"header": {"re": request["meta"]["id"]}}))

        async with serve(answer, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with bench.client().connect(f"ws://127.0.0.1:{port}/") as connection:
                nested = json_field("meta", "id", reply=("header", "re"))
                for value in (1, "1", True, None, [1, {"a": 2}]):
                    reply = await connection.request({"meta": {"id": value}}, match=nested, timeout=5)
                    assert json.loads(reply)["header"]["re"] == value
                reply = await connection.request([2, "unique", "Heartbeat", {}], match=json_field(1))
                assert json.loads(reply) == [3, "unique", "ok"]

    run(main())


@pytest.mark.parametrize("payload", ["not JSON", {"other": 1}, [1], b"\xff", 5])
def test_a_request_without_the_field(bench: Bench, payload: Any) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            with pytest.raises(ValueError, match="the request has no field 'id'"):
                connection.request(payload, match=BY_ID)

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SESSION"]


# Expectations


def test_expect_waits_for_its_message(bench: Bench) -> None:
    async def main() -> float:
        async with bench.client().connect("/echo") as connection:
            expectation = asyncio.ensure_future(connection.expect(prefix("b"), name="b"))
            await asyncio.sleep(0)  # it waits from now on
            began = perf_counter()
            await asyncio.sleep(0.01)
            waited = perf_counter() - began
            for message in ("a", "b", "c"):
                await connection.send(message)
            assert await expectation == "b"
            assert [await connection.recv() for _ in range(2)] == ["a", "c"]
            return waited

    waited = run(main())
    row = next(row for row in bench.rows if row.name == "b")
    assert (row.type, row.length, row.error) == ("WS RECV", 1, None)
    assert row.time is not None and row.time >= waited * 1000


def test_expect_finds_what_is_there_already(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            for message in ("a", "b", "b"):
                await connection.send(message)
            await eventually(lambda: connection.stats.messages_received == 3)
            assert await connection.expect(prefix("b")) == "b"
            assert [await connection.recv() for _ in range(2)] == ["a", "b"]

    run(main())


def test_an_optional_expectation(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            assert await connection.expect(any_message, timeout=0.05, optional=True, name="maybe") is None
            async with connection.expect(any_message, timeout=0.05, optional=True, name="maybe") as reply:
                assert reply.message is None
            with pytest.raises(MessageTimeout):
                await connection.expect(any_message, timeout=0.05, name="must")

    run(main())
    first, second, must = (row for row in bench.rows if row.type == "WS RECV")
    assert (first.error, first.time, second.error, second.time) == (None, None, None, None)
    assert isinstance(must.error, MessageTimeout) and must.time is not None


def test_a_message_after_the_timeout_of_an_expectation_is_for_recv(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo?delay=0.1") as connection:
            await connection.send("x")
            with pytest.raises(MessageTimeout):
                await connection.expect(any_message, timeout=0.02)
            assert await connection.recv() == "x"

    run(main())


def test_json_field_cannot_be_expected(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            with pytest.raises(TypeError, match="to expect a value: json_subset"):
                connection.expect(BY_ID)  # type: ignore[arg-type]

    run(main())


# Checks


def test_checks(bench: Bench) -> None:
    class StopUser(Exception):
        pass

    class Mine(Exception):
        pass

    async def main() -> None:
        client = bench.client(check_errors=(Mine,), control_flow=(StopUser,))
        async with client.connect("/echo") as connection:
            async with connection.request("1", catch_response=True, name="good") as reply:
                assert reply.json() == 1 and reply.message == "1"
            async with connection.request("1", catch_response=True, name="assert") as reply:
                assert reply.json() == 2, "not two"
            async with connection.request("1", catch_response=True, name="raised") as reply:
                raise CatchResponseError("wrong")
            async with connection.request("1", catch_response=True, name="mine") as reply:
                raise Mine("wrong")
            async with connection.request("1", catch_response=True, name="marked") as reply:
                reply.failure("too small")
            with pytest.raises(KeyError):
                async with connection.request("1", catch_response=True, name="bug"):
                    raise KeyError("x")
            with pytest.raises(KeyError):
                async with connection.request("1", catch_response=True, name="success") as reply:
                    reply.success()
                    raise KeyError("x")
            with pytest.raises(StopUser):
                async with connection.request("1", catch_response=True, name="stop"):
                    raise StopUser
            with pytest.raises(asyncio.CancelledError):
                async with connection.request("1", catch_response=True, name="cancelled"):
                    raise asyncio.CancelledError
            with pytest.raises(MessageTimeout):
                async with connection.request("1", match=prefix("2"), timeout=0.05, catch_response=True, name="never"):
                    pytest.fail("there was no reply to check")
            with pytest.raises(TypeError, match="`async with"):
                await connection.request("1", catch_response=True)

    run(main())
    rows = {row.name: repr(row.error) for row in bench.rows if row.type == "WS REQUEST"}
    assert rows.pop("assert").startswith("AssertionError(")  # pytest adds to the text
    assert rows == {
        "good": "None",
        "raised": "CatchResponseError('wrong')",
        "mine": "Mine('wrong')",
        "marked": "CatchResponseError('too small')",
        "bug": "KeyError('x')",
        "success": "None",
        "stop": "None",
        "never": "MessageTimeout('no message that matches within the timeout')",
    }


# Who gets a message


def test_precedence(bench: Bench) -> None:
    async def main() -> list[str]:
        taken: list[str] = []

        async def run_case(connection: WebSocketConnection, message: str) -> None:
            received = connection.stats.messages_received
            await connection.send(message)
            await eventually(lambda: connection.stats.messages_received > received)

        rule = keepalive_reply(regex("k"), lambda message: "yes")
        async with bench.client().connect("/echo", keepalive=rule) as connection:
            connection.on(regex("h"), lambda message: taken.append(f"first handler {message}"))
            connection.on(regex("h|g"), lambda message: taken.append(f"second handler {message}"))
            older = asyncio.ensure_future(connection.expect(regex("w")))
            younger = asyncio.ensure_future(connection.expect(regex("w|v")))
            await asyncio.sleep(0)
            await run_case(connection, "kwh")  # everybody would have it: the keepalive does
            assert await connection.recv() == "yes"
            await run_case(connection, "wh")
            assert await older == "wh" and not younger.done()
            await run_case(connection, "wvh")
            assert await younger == "wvh"
            await run_case(connection, "wgh")
            await run_case(connection, "g")
            await run_case(connection, "r")
            assert await connection.recv() == "r"
        return taken

    assert run(main()) == ["first handler wgh", "second handler g"]


def test_json_subset_as_a_match(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            expectation = asyncio.ensure_future(connection.expect(json_subset({"type": "b", "data": {"x": 1}})))
            await asyncio.sleep(0)
            messages = ["not JSON", '{"type": "a"}', '{"type": "b", "data": {"x": 1, "y": 2}}']
            for message in messages:
                await connection.send(message)
            assert await expectation == messages[2]

    run(main())


@pytest.mark.parametrize("waiting", [False, True])
def test_a_long_message_is_let_go(bench: Bench, waiting: bool) -> None:
    """Whether it was parsed when it arrived, or in the queue of recv."""
    if PLAIN and bench.engine == "websockets":
        pytest.skip("the parser of websockets keeps a frame until the next one comes")

    async def main() -> None:
        async with bench.client(report=lambda *row: None).connect("/echo", max_size=None) as connection:

            async def exchange() -> None:
                await connection.send(json.dumps({"id": 1, "padding": "x" * 8_000_000}))
                if waiting:
                    await eventually(lambda: connection.stats.messages_received == exchanges)
                await connection.expect(json_subset({"id": 1}))

            exchanges = 1
            await exchange()  # the first makes buffers
            tracemalloc.start()
            exchanges = 2
            await exchange()
            await asyncio.sleep(0)  # what woke this task held it
            assert tracemalloc.get_traced_memory()[0] < 4_000_000

    try:
        run(main())
    finally:
        tracemalloc.stop()


def test_a_recv_in_time_and_one_that_is_not(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo", recv_timeout=0.1) as connection:
            await connection.send("x")
            assert await connection.recv() == "x"
            for operation in (connection.recv, connection.__anext__, connection.recv_json):
                with pytest.raises(MessageTimeout, match=r"^no message within the timeout$"):
                    await operation()
            waiting = asyncio.ensure_future(connection.recv(timeout=None))
            await asyncio.sleep(0.2)
            await connection.send("late")
            assert await waiting == "late"

    run(main())
    rows = [row for row in bench.rows if row.type == "WS RECV"]
    assert [type(row.error) for row in rows] == [type(None), *[MessageTimeout] * 3, type(None)]
    assert all(row.time is not None and row.time >= 99 for row in rows[1:])


OVER: dict[str, Callable[[WebSocketConnection], Awaitable[object]]] = {
    "send": lambda connection: connection.send("x"),
    "recv": lambda connection: connection.recv(),
    "recv in time": lambda connection: connection.recv(timeout=0.01),
    "async for": lambda connection: connection.__anext__(),
    "request": lambda connection: connection.request("x", timeout=0.01),
    "expect": lambda connection: connection.expect(any_message, timeout=0.01),
    "ping": lambda connection: connection.ping(timeout=0.01),
    "until_ready": lambda connection: connection.until_ready(),
}


@pytest.mark.parametrize("operation", OVER)
@pytest.mark.parametrize("closed_by", ["server", "this side"])
def test_a_task_that_ignores_that_its_connection_is_over_keeps_the_loop_from_nothing(
    bench: Bench, operation: str, closed_by: str
) -> None:
    async def main() -> None:
        connection = await bench.client().connect("/close/1011" if closed_by == "server" else "/echo")
        if closed_by == "this side":
            await connection.close()
        await connection.wait_closed()
        turns = 0

        async def spin() -> None:
            nonlocal turns
            while True:
                try:
                    await OVER[operation](connection)
                except Exception:
                    turns += 1

        spinning = asyncio.ensure_future(spin())
        await eventually(lambda: turns > 10)
        spinning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await spinning

    run(main())


@pytest.mark.parametrize("operation", OVER)
def test_what_is_done_on_a_connection_that_is_over_backs_off(
    bench: Bench, operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As connects that fail do. The row has none of that delay, and is reported before it."""
    name = f"over {operation} {bench.engine}"

    async def use_it(connection: WebSocketConnection) -> None:
        await OVER[operation](connection)

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if "connection is over" in record.getMessage()]

    def rows() -> list[Row]:
        return [row for row in bench.rows if row.type not in ("WS CONNECT", "WS SESSION")]

    async def main() -> None:
        client = bench.client(connect_backoff=Backoff(0.1, 1000, factor=10_000, jitter=0))
        connection = await client.connect("/close/1011", name=name)
        await connection.wait_closed()
        with pytest.raises(ConnectionClosedError):
            await use_it(connection)
        began = perf_counter()
        with pytest.raises(ConnectionClosedError):
            await use_it(connection)
        assert perf_counter() - began >= 0.09
        assert not told()
        third = asyncio.ensure_future(use_it(connection))
        await eventually(told)
        reported = operation != "until_ready"
        assert len(rows()) == 3 * reported and not third.done()
        client.stopping = lambda: True  # nothing is slowed down
        with pytest.raises(ConnectionClosedError):
            await use_it(connection)
        third.cancel()
        await asyncio.wait([third])

    run(main())
    assert [type(row.error) for row in rows()] == [ConnectionClosedError] * 4 * (operation != "until_ready")
    (warning,) = told()
    assert warning.startswith(f"{name}: its connection is over (connection closed by the server: 1011")
    assert "use_it goes on using it; set reconnect=Backoff(), or connect in the task" in warning


def test_what_a_stop_ends_is_not_late_and_is_told_of(bench: Bench) -> None:
    waited: list[tuple[str, str, str]] = []

    async def main() -> None:
        client = bench.client(
            stopping=lambda: stops, waited=lambda what, name, seconds, never: waited.append((what, name, never))
        )
        stops = False
        async with client.connect("/rpc") as connection:
            tasks = [
                asyncio.ensure_future(_await(connection.request({"id": 1, "delay": 0.2}, name="ask"))),
                asyncio.ensure_future(_await(connection.expect(prefix("never"), name="push"))),
                asyncio.ensure_future(connection.recv()),
                asyncio.ensure_future(connection.wait_closed()),
            ]
            cancelled = asyncio.ensure_future(_await(connection.expect(prefix("before"))))
            await asyncio.sleep(0)  # they wait from now on
            cancelled.cancel()
            await asyncio.wait([cancelled])
            stops = True
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await eventually(lambda: connection.stats.late_replies)

    async def _await(awaitable: Awaitable[Any]) -> Any:
        return await awaitable

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SESSION"]
    never = "nothing ever came"
    assert sorted(waited) == [
        ("expect()", "push", never),
        ("recv()", "/rpc", never),
        ("request()", "ask", never),
        ("wait_closed()", "/rpc", ""),
    ]
