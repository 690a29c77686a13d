"""Lost connections that are made again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from time import perf_counter
from typing import Any

import gevent
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.protocol import State

from locust_ws_async.client import Backoff, WebSocketConnection, any_message, every, json_field, prefix
from locust_ws_async.exceptions import (
    ConnectionClosedError,
    ConnectionClosedOK,
    HandshakeRejected,
    LostInOnConnected,
    MessageTimeout,
    NotRecovered,
    OnConnectedTimeout,
    PingTimeout,
)

from .helpers import HOSTED, Bench, eventually, frame, raw_server, run, until_eof

SOON = Backoff(initial=0.01, maximum=0.05)


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def cut(connection: ServerConnection) -> None:
    connection.transport.abort()


@contextlib.asynccontextmanager
async def server(*sessions: Callable[[ServerConnection], Awaitable[None]] | int) -> AsyncIterator[str]:
    """A server that does one thing with each connection, in this order: a handler, or an HTTP status to reject it with.
    The last is for all that follow."""
    count = 0

    def next_session() -> Callable[[ServerConnection], Awaitable[None]] | int:
        return sessions[min(count, len(sessions)) - 1]

    async def process_request(connection: ServerConnection, request: Any) -> Any:
        nonlocal count
        count += 1
        session = next_session()
        return connection.respond(session, "") if isinstance(session, int) else None  # type: ignore[arg-type]

    async def handle(connection: ServerConnection) -> None:
        session = next_session()
        assert not isinstance(session, int)
        await session(connection)

    async with serve(handle, "127.0.0.1", 0, process_request=process_request) as listening:
        yield f"ws://127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}/"


def test_the_close_code_is_that_of_a_connection_that_is_over(bench: Bench) -> None:
    seen: list[tuple[str, int | None, str | None]] = []

    def look(request_type: str, *row: Any) -> None:
        (connection,) = client.connections or (None,)
        seen.append((request_type, connection and connection.close_code, connection and connection.close_reason))

    client = bench.client(report=look)

    async def main() -> None:
        async with server(cut, echo) as url:
            connection = await client.connect(url, reconnect=SOON)
            await eventually(lambda: connection.stats.reconnects)
            await connection.close()
            assert (connection.close_code, connection.close_reason) == (1000, "")

    run(main())
    assert seen[:4] == [
        ("WS CONNECT", None, None),
        ("WS SESSION", 1006, ""),
        ("WS RECOVERY", None, None),
        ("WS RECONNECT", None, None),
    ]


def test_a_cut_connection_heals(bench: Bench) -> None:
    async def answer_one(connection: ServerConnection) -> None:
        await connection.send(await connection.recv())
        connection.transport.abort()

    async def main() -> None:
        async with (
            server(answer_one, answer_one, echo) as url,
            bench.client().connect(url, reconnect=SOON) as connection,
        ):
            for number in range(5):
                await connection.send(str(number))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5):
                        while await connection.recv() != str(number):
                            pass
                await asyncio.sleep(0.01)
            assert connection.stats.reconnects == 2
            assert connection.client.connections == {connection}
        assert connection.client.connections == set()

    run(main())
    types = bench.types()
    assert types.count("WS SESSION") == 3
    assert types.count("WS CONNECT") == 1
    assert types.count("WS RECONNECT") == types.count("WS RECOVERY") == 2
    sessions = [row.error is None for row in bench.rows if row.type == "WS SESSION"]
    assert sessions == [False, False, True]


def test_recv_goes_on_over_a_reconnect(bench: Bench) -> None:
    async def greet_and_cut(connection: ServerConnection) -> None:
        await connection.send("hello")
        await connection.close(1012)

    async def greet_and_close(connection: ServerConnection) -> None:
        await connection.send("hello again")

    async def main() -> None:
        async with server(greet_and_cut, 503, greet_and_cut, greet_and_close) as url:
            connection = await bench.client().connect(url, reconnect=SOON)
            assert [message async for message in connection] == ["hello", "hello", "hello again"]
            assert connection.state is State.CLOSED and connection.stats.reconnects == 2

    run(main())
    connects = [repr(row.error) for row in bench.rows if row.type == "WS RECONNECT"]
    assert connects == [
        "HandshakeRejected('the server answered the handshake with HTTP 503 Service Unavailable')",
        "None",
        "None",
    ]
    assert [row.error is None for row in bench.rows if row.type == "WS SESSION"] == [False, False, True]


def test_without_the_setting_nothing_is_made_again(bench: Bench) -> None:
    async def main() -> None:
        async with server(cut, echo) as url:
            connection = await bench.client().connect(url)
            await connection.wait_closed()
            with pytest.raises(ConnectionClosedError):
                await connection.send("x")

    run(main())
    assert bench.types().count("WS CONNECT") == 1


def test_a_server_that_closes_with_1000_is_done(bench: Bench) -> None:
    async def close(connection: ServerConnection) -> None:
        await connection.close(1000)

    async def main() -> None:
        async with server(close) as url:
            connection = await bench.client().connect(url, reconnect=SOON)
            await connection.wait_closed()

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SESSION"]


def test_the_first_connect_is_not_repeated(bench: Bench) -> None:
    async def main() -> None:
        async with server(503, echo) as url:
            client = bench.client()
            with pytest.raises(HandshakeRejected):
                await client.connect(url, reconnect=SOON)
            assert client.connections == set()

    run(main())


def test_the_time_of_a_function_that_gives_a_setting_counts_into_no_row(bench: Bench) -> None:
    async def main() -> None:
        ended: list[float] = []

        async def token() -> str:
            await asyncio.sleep(0.02)
            ended.append(perf_counter())
            return "token"

        async with (
            server(cut, echo) as url,
            bench.client().connect(lambda: url, bearer=token, reconnect=SOON) as connection,
        ):
            await eventually(lambda: connection.stats.reconnects)
        first, second = (row for row in bench.rows if row.type in ("WS CONNECT", "WS RECONNECT"))
        assert first.start > ended[0]
        assert second.start > ended[1]
        assert second.time == pytest.approx((connection._opened_at - second.start) * 1000.0)

    run(main())


def test_giving_up_after_so_many_attempts(bench: Bench) -> None:
    async def main() -> None:
        async with server(cut, 503) as url:
            connection = await bench.client().connect(url, reconnect=Backoff(0.01, 0.02, attempts=3))
            with pytest.raises(ConnectionClosedError, match="1006"):
                await connection.recv()
            with pytest.raises(ConnectionClosedError):
                await connection.send("x")
            assert connection.state is State.CLOSED
            assert connection.client.connections == set()

    run(main())
    assert bench.only("WS CONNECT").error is None
    assert [row.error is None for row in bench.rows if row.type == "WS RECONNECT"] == [False] * 3
    recovery = bench.only("WS RECOVERY")
    assert repr(recovery.error) == (
        "NotRecovered('not connected again: as many attempts have failed as Backoff.attempts allows')"
    )


def test_requests_in_flight_fail_and_are_not_repeated(bench: Bench) -> None:
    seen: list[str | bytes] = []

    async def swallow_and_cut(connection: ServerConnection) -> None:
        seen.append(await connection.recv())
        connection.transport.abort()

    async def note(connection: ServerConnection) -> None:
        async for message in connection:
            seen.append(message)

    async def main() -> None:
        async with (
            server(swallow_and_cut, note) as url,
            bench.client().connect(url, reconnect=SOON) as connection,
        ):
            with pytest.raises(ConnectionClosedError):
                await connection.request({"id": 1}, match=json_field("id"))
            ping = asyncio.ensure_future(connection.ping())
            await ping  # waits for the connection to be made again
            assert connection.stats.reconnects == 1

    run(main())
    assert seen == ['{"id":1}']
    request = bench.only("WS REQUEST")
    assert isinstance(request.error, ConnectionClosedError)


def test_what_is_sent_while_it_is_away_waits_for_it(bench: Bench) -> None:
    async def main() -> None:
        async with (
            server(cut, 503, echo) as url,
            bench.client().connect(url, reconnect=Backoff(0.1, jitter=0)) as connection,
        ):
            await eventually(lambda: connection.state is State.CONNECTING)
            sending = asyncio.ensure_future(connection.send("sent"))
            assert await connection.request("asked", match=lambda message: message == "asked") == "asked"
            await sending
            assert await connection.recv() == "sent"

    run(main())
    # The first attempt came after 0.1 s, the second 0.2 s later. This is what each task went through.
    for request_type in ("WS SEND", "WS REQUEST", "WS RECOVERY"):
        row = bench.only(request_type)
        assert row.time is not None and row.time > 250 and row.error is None, row
    assert [row.error is None for row in bench.rows if row.type == "WS RECONNECT"] == [False, True]


def test_a_request_times_out_while_it_is_away(bench: Bench) -> None:
    async def main() -> None:
        async with server(cut, echo) as url:
            connection = await bench.client().connect(url, reconnect=Backoff(60, 60, jitter=0))
            await eventually(lambda: connection.state is State.CONNECTING)
            for operation in (
                connection.request("x", timeout=0.05),
                connection.expect(any_message, timeout=0.05),
                connection.recv(timeout=0.05),
                connection.ping(timeout=0.05),
            ):
                with pytest.raises(TimeoutError, match=r"^not connected within the timeout \(reconnecting\)$"):
                    await operation
            await connection.close()

    run(main())
    assert [(row.type, type(row.error)) for row in bench.rows if row.type != "WS SESSION"] == [
        ("WS CONNECT", type(None)),
        ("WS REQUEST", MessageTimeout),
        ("WS RECV", MessageTimeout),
        ("WS RECV", MessageTimeout),
        ("WS PING", PingTimeout),
        ("WS RECOVERY", NotRecovered),
    ]
    timeouts = [row for row in bench.rows if isinstance(row.error, (MessageTimeout, PingTimeout))]
    assert all(row.time is not None and row.time >= 49 for row in timeouts)


@pytest.mark.parametrize("how", ["close", "aclose", "abort"])
def test_closing_while_it_waits_for_the_next_attempt(bench: Bench, how: str) -> None:
    async def main() -> None:
        async with server(cut) as url:
            client = bench.client()
            connection = await client.connect(url, reconnect=Backoff(60, 60))
            receiving = asyncio.ensure_future(connection.recv())
            await eventually(lambda: connection.state is State.CONNECTING)
            if how == "close":
                await connection.close()
            elif how == "aclose":
                await client.aclose()
            else:
                client.abort()
                await connection.wait_closed()
            with pytest.raises(ConnectionClosedOK):
                await receiving
            assert client.connections == set()

    run(main())
    recovery = bench.only("WS RECOVERY")
    assert repr(recovery.error) == "NotRecovered('still not connected when this side closed the connection')"


def test_an_abort_by_another_greenlet_while_recv_waits_in_place(bench: Bench) -> None:
    """In place: see tests/test_client_in_a_greenlet.py. A wake-up by the hub, not a timer, lets recv wait so."""

    async def main() -> None:
        async with server(echo, 503) as url:
            client = bench.client()
            connection = await client.connect(url, reconnect=Backoff(60, 60))
            for _ in range(2):
                await connection.send("x")
                await connection.recv()
            connection.wire.transport.abort()
            await eventually(lambda: connection.state is State.CONNECTING)
            loop = asyncio.get_running_loop()
            woken = loop.create_future()
            later = gevent.spawn_later if HOSTED else loop.call_later
            later(0.01, woken.set_result, None)
            await woken
            later(0.02, client.abort)
            with pytest.raises(ConnectionClosedOK):
                await connection.recv()

    run(main())


def test_cancelling_a_connect_in_the_turn_of_the_loop_in_which_it_succeeds(bench: Bench) -> None:
    async def main() -> None:
        async with server(echo) as url:
            client = bench.client()

            async def connect() -> None:
                await client.connect(url, reconnect=SOON)

            connecting = asyncio.create_task(connect())
            while not client.connections:
                await asyncio.sleep(0)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            await eventually(lambda: not client.connections)

    run(main())
    assert bench.rows == []


def test_a_recovery_lasts_from_the_close_frame_until_on_connected_is_done(bench: Bench) -> None:
    sent: list[float] = []

    async def close_and_keep_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not sent:
            await reader.read(1)
            sent.append(perf_counter())
            writer.write(frame(8, b"\x03\xf4"))
        await until_eof(reader, writer)

    async def take_long(connection: WebSocketConnection) -> None:
        if connection.stats.closes_received:
            await asyncio.sleep(0.2)

    async def main() -> None:
        async with raw_server(close_and_keep_tcp) as url:
            client = bench.client()
            connection = await client.connect(url, reconnect=SOON, close_timeout=0.2, on_connected=take_long)
            await connection.send("close")
            await eventually(lambda: connection.stats.reconnects)
            await connection.close()

    run(main())
    recovery = bench.only("WS RECOVERY")
    assert recovery.start >= sent[0]
    assert recovery.time is not None and recovery.time >= 380  # close_timeout, on_connected


@pytest.mark.parametrize("how", ["close", "abort"])
def test_closing_while_on_connected_of_a_reconnect_runs_is_no_recovery(bench: Bench, how: str) -> None:
    async def main() -> None:
        hangs = asyncio.Event()

        async def hang_at_second(connection: WebSocketConnection) -> None:
            if connection.stats.messages_sent:
                hangs.set()
                await asyncio.Event().wait()
            await connection.send("login")

        async def cut_at_login(connection: ServerConnection) -> None:
            await connection.recv()
            await connection.close(1012)

        async with server(cut_at_login, echo) as url:
            connection = await bench.client().connect(url, reconnect=SOON, on_connected=hang_at_second)
            await hangs.wait()
            if how == "abort":
                connection.abort()
            await connection.close()

    run(main())
    assert isinstance(bench.only("WS RECOVERY").error, NotRecovered)


# on_connected


def test_on_connected_has_a_limit(bench: Bench) -> None:
    async def hang(connection: WebSocketConnection) -> None:
        await connection.expect(any_message, timeout=None)

    async def main() -> None:
        async with server(echo) as url:
            client = bench.client()
            with pytest.raises(OnConnectedTimeout, match="does it wait for something, such as a lock, that a task"):
                await client.connect(url, on_connected=hang, open_timeout=0.5)
            with pytest.raises(OnConnectedTimeout):
                await client.connect(url, on_connected=hang, on_connected_timeout=0.05)
            await client.aclose()

    run(main())
    rows = [(row.type, type(row.error)) for row in bench.rows if row.type == "WS CONNECT"]
    assert rows == [("WS CONNECT", type(None)), ("WS CONNECT", OnConnectedTimeout)] * 2


def test_an_on_connected_that_waits_for_who_waits_for_the_connection(bench: Bench) -> None:
    """The lock of a library's call: the task that holds it sends, which waits for the connection."""

    async def main() -> None:
        lock = asyncio.Lock()

        async def log_in(connection: WebSocketConnection) -> None:
            async with lock:
                await connection.request("login")

        async def cut_later(connection: ServerConnection) -> None:
            await connection.send(await connection.recv())
            assert await connection.recv() == "cut"
            connection.transport.abort()

        async with server(cut_later, echo) as url:
            backoff = Backoff(0.01, 0.01, attempts=2)
            connection = await bench.client().connect(
                url, reconnect=backoff, on_connected=log_in, on_connected_timeout=0.05
            )
            await connection.send("cut")
            await eventually(lambda: connection.state is not State.OPEN)
            async with lock:
                with pytest.raises(ConnectionClosedOK):
                    await connection.send("x")

    run(main())
    failed = [row for row in bench.rows if row.type == "WS RECONNECT" and row.error is not None]
    assert [type(row.error) for row in failed] == [OnConnectedTimeout] * 2
    assert all(row.time is not None and row.time >= 49 for row in failed)
    assert isinstance(bench.only("WS RECOVERY").error, NotRecovered)


def test_on_connected_logs_in_each_time(bench: Bench) -> None:
    async def expect_login(connection: ServerConnection) -> None:
        assert await connection.recv() == "login"
        await connection.send("welcome")
        message = await connection.recv()
        await connection.send(message)
        if message == "cut":
            connection.transport.abort()
        else:
            await echo(connection)

    async def log_in(connection: WebSocketConnection) -> None:
        # Also from tasks that it makes.
        async with asyncio.TaskGroup() as group:
            reply = group.create_task(_await(connection.request("login")))
        assert reply.result() == "welcome"

    async def _await(awaitable: Awaitable[Any]) -> Any:
        return await awaitable

    async def main() -> None:
        async with (
            server(expect_login) as url,
            bench.client().connect(url, reconnect=SOON, on_connected=log_in) as connection,
        ):
            await connection.send("cut")
            await eventually(lambda: connection.state is not State.OPEN)
            await connection.send("after")  # must not come before the login
            assert await connection.expect(lambda message: message == "after") == "after"

    run(main())
    assert bench.types().count("WS REQUEST") == 2


def test_expect_finds_what_comes_right_behind_the_handshake(bench: Bench) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not connections:
            connections.append(writer)
            await reader.read(1)  # until a frame comes
        else:
            await until_eof(reader, writer)

    connections: list[asyncio.StreamWriter] = []

    async def main() -> None:
        async with raw_server(cut, then=frame(1, b"welcome")) as url:
            connection = await bench.client().connect(url, reconnect=SOON, close_timeout=0.01)
            assert await connection.recv() == "welcome"
            await connection.send("cut")
            await eventually(lambda: "WS SESSION" in bench.types())
            assert await connection.expect(any_message) == "welcome"
            connection.abort()

    run(main())


def test_a_handler_that_on_connected_makes_may_answer_at_once(bench: Bench) -> None:
    """A login by challenge and response."""

    async def log_in(connection: WebSocketConnection) -> None:
        connection.on(prefix("challenge"), lambda message: connection.send("response"))
        await connection.send("hello")
        await connection.expect(prefix("welcome"))

    async def main() -> None:
        async def challenge(connection: ServerConnection) -> None:
            assert await connection.recv() == "hello"
            await connection.send("challenge")
            assert await connection.recv() == "response"
            await connection.send("welcome")
            await connection.wait_closed()

        async with server(challenge) as url, bench.client().connect(url, on_connected=log_in):
            pass

    run(main())
    assert not bench.failures()


def test_on_connected_that_fails_at_first_fails_the_connect(bench: Bench) -> None:
    async def refuse(connection: WebSocketConnection) -> None:
        raise LookupError("no such user")

    async def main() -> None:
        async with server(echo) as url:
            client = bench.client()
            with pytest.raises(LookupError):
                await client.connect(url, reconnect=SOON, on_connected=refuse)
            await client.aclose()

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SESSION"]
    assert not bench.failures()


def test_on_connected_that_fails_later_is_another_failed_attempt(bench: Bench) -> None:
    async def close_at_second(connection: ServerConnection) -> None:
        await connection.send(await connection.recv())
        await connection.recv()
        await connection.close(1012)

    calls = 0
    escalated: list[BaseException] = []

    async def log_in(connection: WebSocketConnection) -> None:
        nonlocal calls
        calls += 1
        await connection.request("login")
        if calls in (2, 3):
            raise LookupError("no such user")

    async def main() -> None:
        async with server(close_at_second, echo) as url:
            client = bench.client(escalate=escalated.append)
            async with client.connect(url, reconnect=SOON, on_connected=log_in) as connection:
                await connection.send("close")
                await eventually(lambda: connection.state is not State.OPEN)
                await connection.request("after")
                assert connection.stats.reconnects == 1

    run(main())
    assert calls == 4
    assert [type(exc) for exc in escalated] == [LookupError] * 2
    # The sessions that we gave up ended normally.
    assert [row.error is None for row in bench.rows if row.type == "WS SESSION"] == [False, True, True, True]


def test_a_connection_that_is_lost_during_on_connected(bench: Bench) -> None:
    async def cut_at_login(connection: ServerConnection) -> None:
        await connection.recv()
        connection.transport.abort()

    async def cut_later(connection: ServerConnection) -> None:
        await connection.send(await connection.recv())
        await connection.recv()
        connection.transport.abort()

    async def log_in(connection: WebSocketConnection) -> None:
        await connection.request("login")

    async def main() -> None:
        async with (
            server(cut_later, cut_at_login, echo) as url,
            bench.client().connect(url, reconnect=SOON, on_connected=log_in) as connection,
        ):
            await connection.send("cut")
            await eventually(lambda: connection.state is not State.OPEN)
            assert await connection.request("x", match=lambda message: message == "x") == "x"
            assert connection.stats.reconnects == 1

    run(main())
    attempts = [row.error for row in bench.rows if row.type == "WS RECONNECT"]
    assert [type(error) for error in attempts] == [type(None), LostInOnConnected, type(None)]
    assert bench.only("WS RECOVERY").error is None  # one outage, with a login that was cut


@pytest.mark.parametrize("notices", [False, True])
def test_a_connection_that_is_lost_during_the_first_on_connected_is_a_failed_connect(
    bench: Bench, notices: bool
) -> None:
    async def log_in(connection: WebSocketConnection) -> None:
        if notices:
            await connection.recv()
        else:
            await connection.wait_closed()

    async def main() -> None:
        async with server(cut) as url:
            with pytest.raises(LostInOnConnected) as caught:
                await bench.client().connect(url, on_connected=log_in)
        assert caught.value.is_row and isinstance(caught.value.__cause__, ConnectionClosedError)

    run(main())
    assert [repr(row.error) for row in bench.rows if row.type == "WS CONNECT"] == [
        "None",
        "LostInOnConnected('the connection ended before on_connected was done: connection lost without a close frame "
        "(1006)')",
    ]


def test_closing_in_on_connected(bench: Bench) -> None:
    async def close(connection: WebSocketConnection) -> None:
        await connection.close()

    async def main() -> None:
        async with server(echo) as url:
            connection = await bench.client().connect(url, reconnect=SOON, on_connected=close)
            assert connection.state is State.CLOSED

    run(main())


@pytest.mark.parametrize("who", ["on_connected", "close", "abort"])
def test_closing_in_or_during_a_later_on_connected(bench: Bench, who: str) -> None:
    async def main() -> None:
        calls = 0

        async def on_connected(connection: WebSocketConnection) -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                if who == "on_connected":
                    await connection.close()
                else:
                    await asyncio.Event().wait()  # for what does not end with the connection

        async with server(cut, echo) as url:
            connection = await bench.client().connect(url, reconnect=SOON, on_connected=on_connected)
            await eventually(lambda: calls == 2)
            if who == "close":
                await connection.close()
            elif who == "abort":
                connection.abort()
            await connection.wait_closed()
            assert connection.state is State.CLOSED

    run(main())


def test_keepalive_and_pings_begin_again(bench: Bench) -> None:
    seen: list[str | bytes] = []

    async def wait_for_beats(connection: ServerConnection) -> None:
        for _ in range(2):
            seen.append(await connection.recv())
        connection.transport.abort()

    async def main() -> None:
        async with server(wait_for_beats) as url:
            connection = await bench.client().connect(
                url, reconnect=SOON, keepalive=every(0.01, "beat"), ping_interval=0.01
            )
            connection.on(any_message, lambda message: None)
            await eventually(lambda: len(seen) >= 6 and connection.latency)
            await connection.close()

    run(main())


def test_a_reconnect_whose_task_is_cancelled_is_given_up(bench: Bench) -> None:
    """As by whoever cancels all tasks. Nobody waits for ever for a connection that nothing makes again."""

    async def main() -> None:
        async with server(cut) as url:
            client = bench.client()
            connection = await client.connect(url, reconnect=Backoff(60, 60))
            await eventually(lambda: connection.state is State.CONNECTING)
            waiting = [asyncio.ensure_future(connection.recv()), asyncio.ensure_future(connection.send("x"))]
            await asyncio.sleep(0)
            (reconnecting,) = [task for task in asyncio.all_tasks() if "_reconnect" in repr(task.get_coro())]
            reconnecting.cancel()
            for operation in waiting:
                with pytest.raises(ConnectionClosedOK):
                    await operation
            assert connection.state is State.CLOSED
            assert not client.connections

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SESSION", "WS RECOVERY"]
