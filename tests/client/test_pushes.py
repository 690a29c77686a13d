"""Handlers, push latency and keepalive: what happens to messages that no task waits for."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from locust_ws_async.client import any_message, echo, every, ignore, json_field, json_subset, prefix, reply
from locust_ws_async.exceptions import ConnectionClosedError

from .helpers import Bench, eventually, frame, raw_server, run, until_eof

PUSH = json_subset({"topic": "a"})


def pushes(bench: Bench) -> list[Any]:
    return [row for row in bench.rows if row.type == "WS PUSH"]


def test_handlers_run_in_the_order_of_arrival(bench: Bench) -> None:
    seen: list[str] = []

    async def slow(message: str) -> None:
        await asyncio.sleep(0.02 if message.endswith("0") else 0)
        seen.append(message)

    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            connection.on(prefix("slow"), slow, name="slow")
            connection.on(prefix("quick"), seen.append, name="quick")
            expected = [f"{kind}{number}" for number in range(3) for kind in ("slow", "quick")]
            for message in expected:
                await connection.send(message)
            await connection.send("end")
            assert await connection.recv() == "end"  # recv does not wait for the handlers
            await eventually(lambda: len(seen) == 6)
            assert seen == expected

    run(main())
    assert [row.name for row in pushes(bench)] == ["slow", "quick"] * 3
    assert all(row.time is None and row.error is None and row.length for row in pushes(bench))


def test_a_handler_that_raises_fails_its_row_and_nothing_else(bench: Bench) -> None:
    async def fail(message: str) -> None:
        raise ValueError("async")

    def fail_at_once(message: str) -> None:
        raise ValueError("sync")

    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            connection.on(prefix("a"), fail)
            connection.on(prefix("b"), fail_at_once)
            for message in ("a", "b", "a", "c"):
                await connection.send(message)
            assert await connection.recv() == "c"
            await eventually(lambda: len(pushes(bench)) == 3)

    run(main())
    assert [repr(row.error) for row in pushes(bench)] == [
        "ValueError('async')",
        "ValueError('sync')",
        "ValueError('async')",
    ]
    assert not [row for row in bench.rows if row.type == "WS SESSION" and row.error]


def test_a_handler_that_meets_what_was_cancelled_fails_its_row_and_nothing_else(bench: Bench) -> None:
    def what_was_cancelled() -> asyncio.Future[None]:
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        return cancelled

    async def await_it(message: str) -> None:
        await what_was_cancelled()

    def ask_for_its_result(message: str) -> None:
        what_was_cancelled().result()

    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            connection.on(prefix("a"), await_it)
            connection.on(prefix("b"), ask_for_its_result)
            connection.measure_push(prefix("c"), sent_at=lambda message: what_was_cancelled().result())  # type: ignore[arg-type, return-value]
            for message in ("a", "a", "b", "c", "b"):
                await connection.send(message)
            await eventually(lambda: len(pushes(bench)) == 5)

    run(main())
    assert all(isinstance(row.error, asyncio.CancelledError) for row in pushes(bench))
    assert bench.only("WS SESSION").error is None


def test_control_flow_of_a_handler_is_escalated(bench: Bench) -> None:
    class StopUser(Exception):
        pass

    escalated: list[BaseException] = []

    def stop(message: str) -> None:
        raise StopUser

    async def main() -> None:
        client = bench.client(control_flow=(StopUser,), escalate=escalated.append)
        async with client.connect("/echo") as connection:
            connection.on(any_message, stop)
            await connection.send("x")
            await eventually(lambda: escalated)

    run(main())
    assert isinstance(escalated[0], StopUser)
    assert [row.error for row in pushes(bench)] == [None]


def test_a_report_that_raises_for_a_push_is_escalated(bench: Bench) -> None:
    class StopUser(Exception):
        pass

    escalated: list[BaseException] = []

    def report(*row: Any) -> None:
        if row[0] == "WS PUSH":
            raise StopUser

    async def main() -> None:
        async with bench.client(report=report, escalate=escalated.append).connect("/echo") as connection:
            connection.on(any_message, lambda message: None)
            await connection.send("x")
            await eventually(lambda: escalated)

    run(main())


def test_a_report_that_meets_what_was_cancelled_is_escalated(bench: Bench) -> None:
    escalated: list[BaseException] = []

    def report(*row: Any) -> None:
        bench.report(*row)
        if row[0] == "WS PUSH":
            cancelled = asyncio.get_running_loop().create_future()
            cancelled.cancel()
            cancelled.result()

    async def main() -> None:
        async with bench.client(report=report, escalate=escalated.append).connect("/echo") as connection:
            connection.on(any_message, lambda message: None)
            for _ in range(2):
                await connection.send("x")
            await eventually(lambda: len(escalated) == 2)

    run(main())
    # As such it would pass for a cancellation of whoever gets it.
    assert all(isinstance(exc, RuntimeError) for exc in escalated)
    assert bench.only("WS SESSION").error is None


def test_a_subscription_can_be_cancelled(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            subscription = connection.on(any_message, lambda message: subscription.cancel())
            await connection.send("handled")
            await connection.send("received")
            assert await connection.recv() == "received"
            subscription.cancel()

    run(main())


def test_a_handler_may_use_the_connection(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:

            async def answer(message: str) -> None:
                await connection.send("answer")

            connection.on(prefix("question"), answer)
            await connection.send("question")
            assert await connection.recv() == "answer"

    run(main())


@pytest.mark.parametrize("skew", [0, -5, 5])
def test_push_latency(bench: Bench, skew: int) -> None:
    async def main() -> None:
        async with bench.client().connect(f"/ticker?rate=200&count=5&skew={skew}") as connection:
            connection.measure_push(any_message, sent_at="sent_at", name="tick")
            connection.measure_push(any_message, sent_at="sent_at", name="never")
            assert [message async for message in connection] == []

    run(main())
    rows = pushes(bench)
    assert [row.name for row in rows] == ["tick"] * 5
    for row in rows:
        assert row.time == pytest.approx(-skew * 1000, abs=2000)
        assert row.length > 20 and row.response.startswith("{")


def test_push_latency_with_a_clock_offset_in_milliseconds_and_left_to_recv(bench: Bench) -> None:
    async def main() -> None:
        ahead = 100.0

        async def push(connection: ServerConnection) -> None:
            await connection.recv()
            now = time.time() + ahead
            await connection.send(json.dumps({"meta": {"at": now * 1000}}))
            await connection.send(json.dumps({"meta": {"at": now - 30}}))

        async with serve(push, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with bench.client().connect(f"ws://127.0.0.1:{port}/") as connection:
                connection.measure_push(any_message, sent_at=("meta", "at"), clock_offset=ahead, take=False)
                connection.measure_push(
                    any_message, sent_at=lambda message: json.loads(message)["meta"]["at"], clock_offset=ahead
                )
                await connection.send("go")
                await eventually(lambda: len(pushes(bench)) == 4)

    run(main())
    fresh, again, old, old_again = (row.time for row in pushes(bench))
    assert -1000 < fresh < 5000 and -1000 < again < 5000
    assert 29_000 < old < 35_000 and 29_000 < old_again < 35_000


@pytest.mark.parametrize("message", ["not JSON", "{}", '{"sent_at": "noon"}', '{"sent_at": true}', '{"sent_at": NaN}'])
def test_a_push_without_its_time_is_a_failure(bench: Bench, message: str) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            connection.measure_push(any_message, sent_at="sent_at")
            await connection.send(message)
            await eventually(lambda: pushes(bench))

    run(main())
    (row,) = pushes(bench)
    assert row.error is not None and row.time is None


# Application keepalive


def test_echoing_keepalives_does_not_reach_the_task(bench: Bench) -> None:
    async def main() -> None:
        rule = echo(json_subset({"type": "keepalive"}))
        path = "/cart/chat?keepalive=0.05&patience=0.3"
        async with bench.client().connect(path, keepalive=rule) as connection:
            async with asyncio.timeout(None):
                received = [await connection.recv_json()]
            assert received[0]["type"] == "data"
            assert connection.stats.messages_sent > 3  # those of the keepalive are counted

    run(main())
    assert bench.types() == ["WS CONNECT", "WS RECV", "WS SESSION"]
    assert not bench.failures()


def test_keepalive_rows_when_asked(bench: Bench) -> None:
    async def main() -> None:
        rules = [
            reply(prefix("PING"), lambda message: message.replace("PING", "PONG"), name="pong"),  # type: ignore[arg-type, union-attr]
            reply(prefix("ping"), b"pong"),
        ]
        async with bench.client().connect("/echo", keepalive=rules) as connection:
            await connection.send("PING 1")
            assert await connection.recv() == "PONG 1"
            await connection.send("ping")
            assert await connection.recv() == b"pong"

    run(main())
    row = bench.only("WS KEEPALIVE")
    assert (row.name, row.length, row.error) == ("pong", 6, None)
    assert row.time is not None and row.time >= 0


def test_a_keepalive_that_fails_is_a_row(bench: Bench) -> None:
    async def main() -> None:
        rule = reply(prefix("x"), lambda message: 1 / 0)  # type: ignore[arg-type, return-value]
        async with bench.client().connect("/echo", keepalive=rule) as connection:
            await connection.send("x")
            await eventually(lambda: "WS KEEPALIVE" in bench.types())

    run(main())
    assert repr(bench.only("WS KEEPALIVE").error) == "ZeroDivisionError('division by zero')"


def test_sending_every_so_often(bench: Bench) -> None:
    async def main() -> None:
        numbers = iter(range(1000))
        rules = (every(0.01, lambda: f"beat {next(numbers)}"), every(0.02, b"raw", name="raw"))
        async with bench.client().connect("/echo", keepalive=rules) as connection:
            texts, raw = [], 0
            while len(texts) < 5 or raw < 2:
                message = await connection.recv()
                if message == b"raw":
                    raw += 1
                else:
                    texts.append(message)
            assert texts[:5] == [f"beat {number}" for number in range(5)]
        sent = connection.stats.messages_sent
        await asyncio.sleep(0.05)
        assert connection.stats.messages_sent == sent

    run(main())
    assert {row.name for row in bench.rows if row.type == "WS KEEPALIVE"} == {"raw"}


def test_ignored_messages_are_counted_and_nothing_else(bench: Bench) -> None:
    async def main() -> None:
        rule = ignore(json_subset({"topic": "prices"}))
        async with bench.client().connect("/subscribe?rate=1000", keepalive=rule, max_queue=5) as connection:
            subscribe = {"subscribe": "prices"}
            assert (await connection.request(subscribe)).startswith('{"subscribed"')
            await eventually(lambda: connection.stats.messages_received > 20)
            assert not connection.reading_paused
            assert (await connection.request(subscribe)).startswith('{"subscribed"')  # no push is taken for it

    run(main())
    assert bench.types() == ["WS CONNECT", "WS REQUEST", "WS REQUEST", "WS SESSION"]


def test_wrong_rules() -> None:
    with pytest.raises(ValueError, match="seconds must be greater than 0"):
        every(0, "x")
    with pytest.raises(TypeError, match="the match must be a function of the message"):
        echo("keepalive")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="json_field pairs a reply with its request"):
        echo(json_field("id"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the match must be a function of the message"):
        ignore("keepalive")  # type: ignore[arg-type]


# The queue's other rules


def test_dropping_the_oldest(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with bench.client().connect(
            "/ticker?rate=10000&count=100", max_queue=10, overflow="drop", name=f"drop {bench.engine}"
        ) as connection:
            await connection.wait_closed()
            numbers = [json.loads(message)["seq"] async for message in connection]
        assert numbers == list(range(90, 100))
        assert connection.stats.messages_dropped == 90
        assert connection.stats.messages_received == 100

    run(main())
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "The oldest are dropped" in warning.getMessage()


@pytest.mark.parametrize("headers", ["", "Sec-WebSocket-Extensions: permessage-deflate\r\n"])
def test_failing_when_the_queue_is_full(bench: Bench, headers: str) -> None:
    if headers and bench.engine == "picows":
        pytest.skip("picows has no compression")

    async def main() -> None:
        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(1, b"x") * 20)
            await until_eof(reader, writer)

        async with raw_server(flood, headers) as url:
            compression = "deflate" if headers else None
            connection = await bench.client().connect(
                url, max_queue=10, overflow="fail", close_timeout=0.05, compression=compression
            )
            await connection.wait_closed()
            # The one too many has arrived; what came in the same piece behind it was discarded.
            assert connection.stats.messages_received == 11
            assert [await connection.recv() for _ in range(11)] == ["x"] * 11
            with pytest.raises(ConnectionClosedError):
                await connection.recv()

    run(main())
    assert "the receive queue was full" in bench.failures()["WS SESSION"]


def test_a_handler_without_a_row(bench: Bench) -> None:
    got: list[str] = []
    told: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))

        async def handler(message: str) -> None:
            got.append(message)
            if message == "bad":
                raise error

        error = ValueError("bad")
        async with bench.client().connect("/echo") as connection:
            connection.on(lambda message: True, handler, name=None)
            for message in ("good", "bad", "good"):
                await connection.send(message)
            await eventually(lambda: len(got) == 3)
        assert told == [error]

    run(main())
    assert got == ["good", "bad", "good"]
    assert "WS PUSH" not in bench.types()


def test_a_measured_push_may_have_a_handler_and_is_one_row(bench: Bench) -> None:
    got: list[str] = []

    async def main() -> None:
        async def handler(message: str) -> None:
            got.append(message)
            if len(got) == 2:
                raise ValueError("second")

        async with bench.client().connect("/ticker?rate=100&count=3") as connection:
            connection.measure_push(lambda message: True, sent_at="sent_at", handler=handler)
            await eventually(lambda: len(got) == 3)
            await connection.wait_closed()

    run(main())
    pushes = [row for row in bench.rows if row.type == "WS PUSH"]
    assert [repr(row.error) for row in pushes] == ["None", "ValueError('second')", "None"]
    assert all(row.time is not None for row in pushes)


def test_measured_pushes_that_wait_for_their_handler_are_bounded(bench: Bench) -> None:
    async def main() -> None:
        free = asyncio.Event()

        async def handler(message: str) -> None:
            await free.wait()

        async with bench.client().connect("/ticker?rate=1000&count=10", max_queue=2, overflow="drop") as connection:
            connection.measure_push(lambda message: True, sent_at="sent_at", handler=handler)
            await eventually(lambda: connection.stats.messages_received == 10)
            assert connection.stats.messages_dropped == 7
            free.set()
            await eventually(lambda: bench.types().count("WS PUSH") == 3)
            await connection.wait_closed()

    run(main())
