"""When a message has arrived: when the kernel says so, though the process was busy. What is done with odd stamps."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter
from typing import Any

import pytest
import trustme
from websockets.sync.server import Server, ServerConnection, serve

from locust_ws_async.client import Backoff, WebSocketConnection, any_message
from locust_ws_async.client.observing import unread
from locust_ws_async.client.wire import stamps as module
from locust_ws_async.client.wire.stamps import AVAILABLE, Stamps

from .helpers import PATIENCE, Bench, eventually, run

needs_stamps = pytest.mark.skipif(not AVAILABLE, reason="this system does not tell when bytes arrived")
HELD_UP = 0.2  # seconds


class Gated:
    """An echo server in a thread, which holds back its answers to handshakes while it is told to."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self.asked, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()
        self._server: Server = serve(
            self._echo, "127.0.0.1", 0, ssl=tls, process_request=self._gate, compression=None, ping_interval=None
        )
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        scheme = "ws" if tls is None else "wss"
        self.url = f"{scheme}://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def _gate(self, connection: ServerConnection, request: object) -> None:
        self.asked.set()
        self.may_answer.wait(PATIENCE)

    def _echo(self, connection: ServerConnection) -> None:
        for message in connection:
            if message == "leave":
                connection.close(1001)
            else:
                connection.send(message)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()


@pytest.fixture(params=["tcp", "tls"])
def server(request: pytest.FixtureRequest) -> Iterator[Gated]:
    tls = None
    if request.param == "tls":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    gated = Gated(tls)
    try:
        yield gated
    finally:
        gated.close()


def held_up(descriptor: int) -> float:
    """Hold up this process until something can be read, and for a while after that; returns when it could."""
    assert select.select([descriptor], [], [], PATIENCE)[0]
    seen = perf_counter()
    time.sleep(HELD_UP)
    return seen


def is_kernels(arrived: float, seen: float) -> bool:
    """Whether this is the kernel's time, and not that of the read; the two are far apart."""
    assert arrived <= seen or arrived > seen + HELD_UP * 0.9
    return arrived <= seen


Operation = Callable[[WebSocketConnection], Awaitable[Any]]


async def ask(connection: WebSocketConnection) -> None:
    await connection.request("x")


async def send_and_recv(connection: WebSocketConnection) -> None:
    await connection.send("x")
    await connection.recv()


async def send_and_recv_in_time(connection: WebSocketConnection) -> None:
    await connection.send("x")
    await connection.recv(timeout=PATIENCE)


async def expect(connection: WebSocketConnection) -> None:
    await connection.send("x")
    await connection.expect(any_message)


async def ping(connection: WebSocketConnection) -> None:
    await connection.ping()


async def push(connection: WebSocketConnection) -> None:
    pushed = asyncio.Event()
    connection.measure_push(any_message, sent_at=lambda message: float(message), handler=lambda message: pushed.set())
    await connection.send(repr(time.time()))
    await pushed.wait()


OPERATIONS: list[tuple[Operation, str]] = [
    (ask, "WS REQUEST"),
    (send_and_recv, "WS RECV"),
    (send_and_recv_in_time, "WS RECV"),
    (expect, "WS RECV"),
    (ping, "WS PING"),
    (push, "WS PUSH"),
]


@needs_stamps
@pytest.mark.parametrize("arrival", ["kernel", "read"])
@pytest.mark.parametrize(("operation", "row"), OPERATIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_ends_with_an_arrival_ends_when_the_kernel_says(
    server: Gated, operation: Operation, row: str, arrival: Any
) -> None:
    bench = Bench("websockets", server.url)

    async def scenario() -> None:
        client = bench.client()
        async with client.connect("/", arrival=arrival, verify=False) as connection:
            await connection.request("first", name="first")  # with it comes what TLS has to say
            bench.rows.clear()
            started = perf_counter()
            task = asyncio.ensure_future(operation(connection))
            await asyncio.sleep(0)  # the task has sent, and nothing was read since
            seen = held_up(connection.wire.transport.get_extra_info("socket").fileno())
            await task
            (measured,) = [each.time for each in bench.rows if each.type == row]
            assert measured is not None
            assert is_kernels(started + measured / 1000, seen) == (arrival == "kernel")

    run(scenario())


@needs_stamps
@pytest.mark.parametrize("arrival", ["kernel", "read"])
def test_a_connect_and_a_recovery_end_when_the_kernel_says(server: Gated, arrival: Any) -> None:
    bench = Bench("websockets", server.url)

    descriptors: list[int] = []

    def new_socket(*arguments: int) -> socket.socket:
        sock = socket.socket(*arguments)
        descriptors.append(sock.fileno())
        return sock

    async def hold_up_the_answer() -> float:
        await eventually(server.asked.is_set)
        await asyncio.sleep(0.01)  # a turn of the loop reads what TLS sent before
        server.may_answer.set()
        return held_up(descriptors[-1])

    def hold_back() -> None:
        server.asked.clear()
        server.may_answer.clear()

    async def scenario() -> None:
        client = bench.client(new_socket=new_socket)
        hold_back()
        holding = asyncio.ensure_future(hold_up_the_answer())
        reconnect = Backoff(initial=0.0)
        async with client.connect("/", arrival=arrival, verify=False, reconnect=reconnect) as connection:
            seen = await holding
            connect = bench.only("WS CONNECT")
            assert connect.time is not None
            assert is_kernels(connect.start + connect.time / 1000, seen) == (arrival == "kernel")
            phases = connection.stats.connect
            assert phases.upgrade is not None and phases.upgrade < connect.time
            hold_back()
            holding = asyncio.ensure_future(hold_up_the_answer())
            await connection.send("leave")
            await eventually(lambda: "WS RECOVERY" in bench.types())
            seen = await holding
            for row in (bench.only("WS RECONNECT"), bench.only("WS RECOVERY")):
                assert row.time is not None
                assert is_kernels(row.start + row.time / 1000, seen) == (arrival == "kernel")

    run(scenario())


@needs_stamps
def test_how_long_bytes_lay_unread_is_known(server: Gated) -> None:
    bench = Bench("websockets", server.url)

    async def scenario() -> None:
        async with bench.client().connect("/", verify=False) as connection:
            await connection.request("first")
            unread.take()
            task = asyncio.ensure_future(ask(connection))
            await asyncio.sleep(0)
            held_up(connection.wire.transport.get_extra_info("socket").fileno())
            await task
            lag = unread.take()
            assert lag is not None
            assert lag.max >= HELD_UP * 1000 and lag.p99 == pytest.approx(lag.max, abs=1)
            assert unread.take() is None
            total = unread.total()
            assert total is not None and total.max >= lag.max and total.count > lag.count

    unread.restart()
    run(scenario())
    assert (unread.connections.kernel, unread.connections.read) == (1, 0)


def test_what_has_no_stamps_says_so(bench: Bench) -> None:
    async def scenario() -> None:
        for arrival in ("kernel", "read"):
            async with bench.client().connect("/echo", arrival=arrival) as connection:
                unread.take()
                await connection.request("x")
                stamped = AVAILABLE and bench.engine == "websockets" and arrival == "kernel"
                assert connection.wire.stamped == stamped
                assert (unread.take() is None) == (not stamped)

    run(scenario())


# The clock. It is set here in the place of the time of day, beneath stamps that the test makes.


class Clocks:
    """The time of day and the time since some instant, of which the first may be set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.day = 1000.0, 1_790_000_000.0
        monkeypatch.setattr(module, "time", lambda: self.day)
        monkeypatch.setattr(module, "perf_counter", lambda: self.now)
        self.stamps = Stamps()

    def run(self, seconds: float) -> None:
        self.now += seconds
        self.day += seconds

    def stamp(self) -> list[tuple[int, int, bytes]]:
        """What the kernel tells of what comes now."""
        return [(1, 35, struct.pack("=qq", int(self.day), int(self.day % 1 * 1e9)))]

    def arrival(self, stamp: list[tuple[int, int, bytes]], before: float = 0.0) -> float:
        return self.stamps.arrival(stamp, before, self.now)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def test_a_stamp_is_told_in_the_time_of_the_process(clocks: Clocks) -> None:
    for lag in (0.0, 0.00002, 0.3, 1000.0):
        arrived = clocks.now
        stamp = clocks.stamp()
        clocks.run(lag)
        assert clocks.arrival(stamp) == pytest.approx(arrived, abs=1e-6)
    assert clocks.stamps.longest == pytest.approx(1000.0)
    assert clocks.stamps.refused == clocks.stamps.missing == 0


def test_a_read_without_a_stamp_came_now_and_is_counted(clocks: Clocks) -> None:
    assert clocks.arrival([]) == clocks.now
    assert (clocks.stamps.missing, clocks.stamps.refused) == (1, 0)


def test_a_stamp_from_the_future_or_from_before_the_last_one_is_not_used(clocks: Clocks) -> None:
    early = clocks.stamp()
    clocks.run(0.5)
    last = clocks.arrival(clocks.stamp())
    assert clocks.arrival(early, last) == clocks.now
    clocks.run(10)
    late = clocks.stamp()
    clocks.run(-10)
    assert clocks.arrival(late, last) == clocks.now
    assert clocks.stamps.refused == 2


@pytest.mark.parametrize("step", [3600.0, 0.2, 0.001, -0.001, -0.2, -3600.0])
@pytest.mark.parametrize("lag", [0.00002, 0.3])
def test_no_stamp_is_used_where_the_time_of_day_was_set(
    clocks: Clocks, step: float, lag: float, caplog: pytest.LogCaptureFixture
) -> None:
    clocks.arrival(clocks.stamp())
    clocks.run(0.1)
    came_before, stamp_before = clocks.now, clocks.stamp()
    clocks.run(lag / 2)
    clocks.day += step
    stamp_after = clocks.stamp()
    clocks.run(lag / 2)
    with caplog.at_level(logging.WARNING):
        for stamp in (stamp_before, stamp_after, stamp_before):
            assert clocks.arrival(stamp, came_before) == clocks.now
    assert clocks.stamps.refused == 3
    (record,) = caplog.records
    assert f"{step:+.3f} s" in record.getMessage()
    clocks.run(2.0)
    came, stamp = clocks.now, clocks.stamp()
    clocks.run(lag)
    assert clocks.arrival(stamp, came_before) == pytest.approx(came, abs=1e-4)
    assert clocks.stamps.refused == 3


def test_to_be_held_up_between_two_looks_at_clocks_is_no_step(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = 0

    def slow_day() -> float:
        nonlocal looks
        looks += 1
        day = clocks.day
        if looks == 1:
            clocks.run(0.05)
        return day

    clocks.arrival(clocks.stamp())
    clocks.run(0.1)
    came, stamp = clocks.now, clocks.stamp()
    monkeypatch.setattr(module, "time", slow_day)
    assert clocks.arrival(stamp) == pytest.approx(came, abs=1e-6)
    assert not caplog.records and not clocks.stamps.refused
