"""``since=``, ``connection.arrived``, ``connection.discard()``: from when a time counts, and what arrived when."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import pytest

from locust_ws_async.client import any_message

from .helpers import Bench, eventually, run


def test_a_request_counts_from_since(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.client().connect("/echo") as connection:
            since = perf_counter() - 1
            before = perf_counter()
            assert await connection.request("x", since=since, name="asked") == "x"
            row = bench.only("WS REQUEST")
            assert row.start == since
            assert row.time == pytest.approx((connection.arrived - since) * 1000)
            assert before < connection.arrived <= perf_counter()

    run(scenario())


def test_a_recv_counts_from_since(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.client().connect("/echo") as connection:
            since = perf_counter() - 1
            await connection.send("x")
            await eventually(lambda: connection.queue)
            await asyncio.sleep(0.05)
            assert await connection.recv(since=since) == "x"
            row = bench.only("WS RECV")
            assert row.start == since
            assert row.time == pytest.approx((connection.arrived - since) * 1000)
            assert connection.queue_wait >= 0.05

    run(scenario())


def test_expect_takes_only_what_arrived_after_since(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.client().connect("/echo") as connection:
            await connection.send("old")
            await eventually(lambda: connection.queue)
            since = perf_counter()
            expectation = asyncio.ensure_future(connection.expect(any_message, since=since))
            await asyncio.sleep(0)  # it has looked at what waits
            await connection.send("new")
            assert await expectation == "new"
            arrived = connection.arrived
            assert arrived > since
            assert await connection.recv() == "old"
            assert connection.arrived < since
            taken = [row for row in bench.rows if row.type == "WS RECV"]
            assert taken[0].time == pytest.approx((arrived - since) * 1000)

            await connection.send("next")
            await eventually(lambda: connection.queue)
            assert await connection.expect(any_message, since=arrived) == "next"  # which had come, but after it

    run(scenario())


def test_what_an_expectation_gives_back_may_be_too_old_for_another(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.client().connect("/echo") as connection:
            later: list[asyncio.Future[Any]] = []

            def expect_another_and_be_cancelled(message: object) -> bool:
                later.append(asyncio.ensure_future(connection.expect(any_message, since=perf_counter())))
                asyncio.get_running_loop().call_soon(first.cancel)
                return True

            first = asyncio.ensure_future(connection.expect(expect_another_and_be_cancelled))
            await asyncio.sleep(0)
            await connection.send("x")
            with pytest.raises(asyncio.CancelledError):
                await first
            assert await connection.recv() == "x"
            await connection.send("y")
            assert await later[0] == "y"

    run(scenario())


def test_a_handler_knows_when_its_message_arrived(bench: Bench) -> None:
    arrivals = []

    async def scenario() -> None:
        async with bench.client().connect("/echo") as connection:
            connection.on(any_message, lambda message: arrivals.append(connection.arrived))
            for number in range(3):
                await connection.send(str(number))
            await eventually(lambda: len(arrivals) == 3)
            assert arrivals == sorted(arrivals)
            assert 0 < arrivals[0] <= perf_counter()

    run(scenario())


def test_a_check_knows_when_its_message_arrived(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.client().connect("/echo") as connection:
            started = perf_counter()
            async with connection.request("x", catch_response=True):
                assert connection.arrived > started

    run(scenario())


def test_discard_drops_what_waits(bench: Bench) -> None:
    async def scenario() -> None:
        async with bench.client().connect("/echo", max_queue=2) as connection:
            assert connection.discard() == 0
            await connection.send("a")
            await connection.send("b")
            await eventually(lambda: connection.reading_paused)
            assert connection.discard() == 2
            assert not connection.reading_paused
            assert await connection.request("c") == "c"

    run(scenario())


class Odd:
    def __float__(self) -> float:
        return float("nan")


@pytest.mark.parametrize(
    ("since", "error"),
    [
        (lambda: perf_counter() + 1, ValueError),
        (lambda: float("nan"), ValueError),
        (Odd, ValueError),
        (lambda: "1", TypeError),
    ],
)
def test_a_wrong_since_is_refused_at_the_call(bench: Bench, since: Any, error: type[Exception]) -> None:
    async def scenario() -> None:
        async with bench.client().connect("/echo") as connection:
            with pytest.raises(error, match="since"):
                connection.request("x", since=since())
            with pytest.raises(error, match="since"):
                connection.expect(any_message, since=since())
            with pytest.raises(error, match="since"):
                connection.recv(since=since())

    run(scenario())
