"""One operation, one row."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from locust_ws_async.client import WebSocketClient
from locust_ws_async.exceptions import HandshakeRejected

from .helpers import Bench, eventually, run


class StopUser(Exception):
    """Stands for the exceptions by which Locust's listeners stop a user."""


def test_the_rows_of_a_connection(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo?token=1") as connection:
            await connection.send("é")
            await connection.recv()
            await asyncio.sleep(0.02)

    before = time.perf_counter()
    run(main())
    assert bench.types() == ["WS CONNECT", "WS SEND", "WS RECV", "WS SESSION"]
    for row in bench.rows:
        assert row.name == "/echo"
        assert row.url == f"{bench.base_url}/echo?token=1"
        assert row.error is None
        assert row.time is not None and 0 <= row.time < 10_000
        assert before <= row.start <= time.perf_counter()
    assert [row.length for row in bench.rows] == [0, 2, 2, 0]
    connect, _, recv, session = bench.rows
    assert getattr(connect.response, "status_code", None) == 101
    assert recv.response == "é"
    assert session.time is not None and session.time >= 20


def test_a_given_name(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo", name="chat") as connection:
            await connection.ping()

    run(main())
    assert {row.name for row in bench.rows} == {"chat"}


def test_rows_that_are_switched_off(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client(reported=frozenset({"WS RECV"})).connect("/echo") as connection:
            await connection.send("x")
            await connection.recv()
            await connection.ping()

    run(main())
    assert bench.types() == ["WS RECV"]
    with pytest.raises(ValueError, match="unknown row type 'WS RECIEVE'; there are: WS CONNECT"):
        bench.client(reported=frozenset({"WS RECIEVE"}))


@pytest.mark.parametrize("operation", ["WS CONNECT", "WS SEND", "WS RECV", "WS PING"])
def test_what_the_report_raises_reaches_the_caller(bench: Bench, operation: str) -> None:
    async def main() -> None:
        def report(*row: Any) -> None:
            bench.report(*row)
            if row[0] == operation:
                raise StopUser

        client = bench.client(report=report)
        with pytest.raises(StopUser):
            async with client.connect("/echo") as connection:
                await connection.send("x")
                await connection.recv()
                await connection.ping()
        await client.aclose()  # where the connect itself raised

    run(main())
    assert bench.types()[-2:] == [operation, "WS SESSION"]


def test_a_report_that_raises_for_a_failed_connect(bench: Bench) -> None:
    async def main() -> None:
        def report(*row: Any) -> None:
            raise StopUser

        with pytest.raises(StopUser) as caught:
            await bench.client(report=report).connect("/reject/503")
        assert isinstance(caught.value.__context__, HandshakeRejected)

    run(main())


def test_what_the_report_of_a_session_raises_is_escalated(bench: Bench) -> None:
    escalated: list[BaseException] = []

    async def main() -> None:
        def report(*row: Any) -> None:
            bench.report(*row)
            if row[0] == "WS SESSION":
                raise StopUser

        async with bench.client(report=report, escalate=escalated.append).connect("/drop") as connection:
            await connection.wait_closed()

    run(main())
    assert [type(exc) for exc in escalated] == [StopUser]
    assert bench.types() == ["WS CONNECT", "WS SESSION"]


def test_without_an_escalation_the_loop_is_told(engine: str, bench: Bench) -> None:
    async def main() -> None:
        def report(*row: Any) -> None:
            if row[0] == "WS SESSION":
                raise StopUser

        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        async with WebSocketClient(base_url=bench.base_url, report=report, engine=engine).connect("/echo"):
            pass
        (context,) = told
        assert isinstance(context["exception"], StopUser)

    run(main())


def test_nothing_happens_until_it_is_awaited(bench: Bench) -> None:
    async def main() -> None:
        bench.client().connect("/echo").close()

    run(main())
    assert bench.rows == []


def test_the_session_row_follows_the_connect_row(bench: Bench) -> None:
    """Also where the connection ends within the same read as the handshake."""
    from .helpers import frame, raw_server, until_eof

    async def main() -> None:
        async with raw_server(until_eof, then=frame(8, b"\x03\xf3")) as url:
            connection = await bench.client().connect(url, close_timeout=0.05)
            await connection.wait_closed()

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SESSION"]


def test_a_connect_whose_report_raises_leaves_no_connection(bench: Bench) -> None:
    """Nobody gets it, so nobody could close it."""

    def refuse(request_type: str, *row: Any) -> None:
        if request_type == "WS CONNECT":
            raise RuntimeError("too slow")
        bench.report(request_type, *row)

    async def main() -> None:
        client = bench.client(report=refuse)
        with pytest.raises(RuntimeError, match="too slow"):
            await client.connect("/echo")
        await eventually(lambda: not client.connections)

    run(main())
    assert bench.types() == ["WS SESSION"]
    assert not bench.failures()
