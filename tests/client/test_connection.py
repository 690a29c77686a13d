from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from typing import Any

import pytest
import websockets.exceptions
from websockets.exceptions import ConcurrencyError
from websockets.protocol import State

from locust_ws_async.client import any_message
from locust_ws_async.client.connection import Latency, WebSocketConnection
from locust_ws_async.exceptions import ConnectionClosedError, PingTimeout

from .helpers import Bench, eventually, frame, raw_server, run, until_eof


@pytest.mark.parametrize(
    "message",
    [
        "",
        "hello",
        "é" * 60,
        "x" * 125,
        "x" * 126,
        "é" * 32767,
        "x" * 65536,
        b"",
        b"\x00\xff",
        b"y" * 125,
        b"y" * 300_000,
    ],
    ids=lambda message: f"{type(message).__name__}-{len(message)}",
)
def test_messages_of_every_size_come_back(bench: Bench, message: str | bytes) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            await connection.send(message)
            assert await connection.recv() == message

    run(main())
    size = len(message.encode() if isinstance(message, str) else message)
    assert bench.only("WS SEND").length == bench.only("WS RECV").length == size


def test_bytes_like_messages_are_binary(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            for message in (bytearray(b"abc"), memoryview(b"abc")):
                await connection.send(message)
                assert await connection.recv() == b"abc"
            with pytest.raises(TypeError, match="str or bytes-like, not int"):
                await connection.send(1)  # type: ignore[arg-type]

    run(main())


def test_text_and_decode_override_the_kind(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            await connection.send("text", text=False)
            assert await connection.recv() == b"text"
            await connection.send(b"bytes", text=True)
            assert await connection.recv() == "bytes"
            await connection.send("text")
            assert await connection.recv(decode=False) == b"text"
            await connection.send(b"bytes")
            assert await connection.recv(decode=True) == "bytes"

    run(main())


def test_json(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            await connection.send_json({"a": [1, "é"]})
            assert await connection.recv_json() == {"a": [1, "é"]}

    run(main())


def test_many_messages_keep_their_order(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            for number in range(2000):
                await connection.send(str(number))
            assert [await connection.recv() for _ in range(2000)] == [str(number) for number in range(2000)]
            assert connection.stats.messages_sent == connection.stats.messages_received == 2000

    run(main())


def test_a_task_that_only_sends_leaves_the_loop_to_others(bench: Bench) -> None:
    """Even while no send has to wait: the write buffer of a lost connection takes everything."""

    async def main() -> None:
        async with raw_server(until_eof) as url:
            connection = await bench.client().connect(url)
            connection.wire.transport.abort()
            with pytest.raises(ConnectionClosedError):
                for _ in range(1000):
                    await connection.send("x")

    run(main())


def test_iteration_ends_when_the_server_closes_normally(bench: Bench) -> None:
    async def main() -> list[str]:
        async with bench.client().connect("/ticker?rate=1000&count=5") as connection:
            return [message async for message in connection]

    assert len(run(main())) == 5
    assert bench.types() == ["WS CONNECT", *["WS RECV"] * 5, "WS SESSION"]
    assert not bench.failures()


def test_iteration_raises_when_the_connection_fails(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/close/1011?reason=secret") as connection:
            with pytest.raises(ConnectionClosedError):
                async for _ in connection:
                    pass

    run(main())
    text = "ConnectionClosedError('connection closed by the server: 1011 internal error')"
    assert bench.failures() == {"WS RECV": text, "WS SESSION": text}


def test_recv_when_the_server_closes_normally(bench: Bench) -> None:
    async def main() -> None:
        connection = await bench.client().connect("/close/1000?reason=bye")
        with pytest.raises(websockets.exceptions.ConnectionClosedOK) as caught:
            await connection.recv()
        assert caught.value.rcvd is not None and caught.value.rcvd.reason == "bye"
        assert (connection.close_code, connection.close_reason) == (1000, "bye")
        assert connection.state is State.CLOSED

    run(main())
    assert list(bench.failures()) == ["WS RECV"]  # a message was expected; the session ended well


def test_messages_before_the_close_are_received(bench: Bench) -> None:
    async def main() -> None:
        async def close_after_two(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(1, b"one") + frame(1, b"two") + frame(8, b"\x03\xe8"))
            await until_eof(reader, writer)

        async with raw_server(close_after_two) as url:
            connection = await bench.client().connect(url)
            await connection.wait_closed()
            assert [message async for message in connection] == ["one", "two"]

    run(main())


def test_frames_that_come_with_the_handshake_are_received(bench: Bench) -> None:
    async def main() -> None:
        early = frame(1, b"early") + frame(1, b"x" * 200)
        async with (
            raw_server(until_eof, then=early) as url,
            bench.client().connect(url, close_timeout=0.1) as connection,
        ):
            assert await connection.recv() == "early"
            assert await connection.recv() == "x" * 200

    run(main())


def test_frames_cut_anywhere(bench: Bench) -> None:
    """The stream may break off at any byte, also within a header."""
    stream = b"".join(
        [
            frame(1, b"a"),
            frame(2, b"b" * 200),
            frame(9, b"ping"),
            frame(1, b"c", fin=False),
            frame(9, b""),
            frame(0, b"d" * 126, fin=False),
            frame(0, b"e"),
            frame(2, b"f" * 70_000),
            frame(1, b""),
            frame(1, b"g"),
        ]
    )
    expected = ["a", b"b" * 200, "c" + "d" * 126 + "e", b"f" * 70_000, "", "g"]

    async def main(step: int) -> None:
        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for position in range(0, len(stream), step):
                writer.write(stream[position : position + step])
                if position < 600 or position > len(stream) - 100:  # the bytes within `f` need no pauses
                    await writer.drain()
                    await asyncio.sleep(0)
            await until_eof(reader, writer)

        async with raw_server(drip) as url, bench.client().connect(url, close_timeout=0.1) as connection:
            assert [await connection.recv() for _ in expected] == expected

    for step in (1, 2, 3, 7, 64, 203, 100_000):
        run(main(step))


def test_fragments_with_pings_between(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/fragments?parts=7") as connection:
            for message in ("é" * 1000, b"z" * 1000):
                await connection.send(message)
                assert await connection.recv() == message

    run(main())
    assert bench.rows[2].length == 2000


def test_cancelling_recv_loses_nothing_and_is_not_reported(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            waiting = asyncio.create_task(connection.recv())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            # Cancelled after the message came, before the task could take it.
            waiting = asyncio.create_task(connection.recv())
            await asyncio.sleep(0)
            connection.message_received("mine", 4, time.perf_counter())
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert await connection.recv() == "mine"

    run(main())
    assert bench.types() == ["WS CONNECT", "WS RECV", "WS SESSION"]


def test_two_tasks_cannot_wait_at_once(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            waiting = asyncio.create_task(connection.recv())
            await asyncio.sleep(0)
            with pytest.raises(websockets.exceptions.ConcurrencyError):
                await connection.recv()
            await connection.send("x")
            assert await waiting == "x"

    run(main())


def test_recv_time_ends_with_the_arrival(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo?delay=0.05") as connection:
            await connection.send("a")
            await connection.recv()
            await connection.send("b")
            await eventually(lambda: connection.stats.messages_received == 2)
            await asyncio.sleep(0.05)
            await connection.recv()
            assert connection.queue_wait >= 0.05

    run(main())
    waited, queued = (row for row in bench.rows if row.type == "WS RECV")
    assert waited.time is not None and waited.time >= 40
    assert queued.time == 0


def test_what_comes_together_arrived_at_one_time(bench: Bench) -> None:
    """How long the task takes for a message does not count for the next one of the same chunk."""
    message = frame(1, b"xyz")

    async def main() -> None:
        async def push(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for chunk in (message * 50 + message[:3], message[3:], message * 2):
                writer.write(chunk)
                await reader.readexactly(7)
            await until_eof(reader, writer)

        async with raw_server(push) as url, bench.client().connect(url, close_timeout=0.1) as connection:
            connection.on(any_message, lambda message: time.sleep(0.0001), name="push")
            for count in (50, 51, 53):
                await eventually(lambda count=count: connection.stats.messages_received == count)
                await connection.send("x")

    run(main())
    arrivals = [row.start for row in bench.rows if row.type == "WS PUSH"]
    assert [len(list(group)) for _, group in itertools.groupby(arrivals)] == [50, 1, 2]
    assert arrivals == sorted(arrivals)


def test_ping(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            latency = await connection.ping()
            assert 0 < latency == connection.latency
            assert await latency == latency  # as in `pong = await ws.ping(); await pong`
            await connection.ping("data")
            with pytest.raises(ValueError, match="at most 125 bytes"):
                await connection.ping(b"x" * 126)

    run(main())
    ping, with_data = (row for row in bench.rows if row.type == "WS PING")
    assert (ping.length, with_data.length) == (4, 4)
    assert ping.time is not None and ping.time > 0


def test_two_pings_with_the_same_data(bench: Bench) -> None:
    """Also when both wait for a connection that is being restored."""

    async def main() -> None:
        restored = asyncio.Event()
        opened: asyncio.Future[WebSocketConnection] = asyncio.get_running_loop().create_future()

        async def restore(connection: WebSocketConnection) -> None:
            opened.set_result(connection)
            await restored.wait()

        connecting = asyncio.ensure_future(bench.client().connect("/echo", on_connected=restore))
        connection = await opened
        pings = [asyncio.ensure_future(connection.ping("same")) for _ in range(2)]
        await asyncio.sleep(0)
        restored.set()
        results = await asyncio.gather(*pings, return_exceptions=True)
        assert {type(result) for result in results} == {Latency, ConcurrencyError}
        await (await connecting).close()

    run(main())


def test_a_ping_without_pong_times_out(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/silent", close_timeout=0.1) as connection:
            with pytest.raises(PingTimeout):
                await connection.ping(timeout=0.05)

    run(main())
    assert bench.failures()["WS PING"] == "PingTimeout('no pong within the timeout')"


def test_a_ping_fails_when_the_connection_does(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/silent", close_timeout=0.1) as connection:
            ping = asyncio.create_task(connection.ping())
            await asyncio.sleep(0)
            await connection.close()
            with pytest.raises(ConnectionClosedError):
                await ping
            with pytest.raises(ConnectionClosedError):
                await connection.ping()

    run(main())


def test_a_pong_answers_the_pings_before_it(bench: Bench) -> None:
    async def main() -> None:
        async def answer_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(2 * (2 + 4 + 1))
            writer.write(frame(10, b"unsolicited") + frame(10, b"b"))
            await until_eof(reader, writer)

        async with (
            raw_server(answer_the_second) as url,
            bench.client().connect(url, close_timeout=0.1) as connection,
        ):
            await asyncio.gather(connection.ping(b"a"), connection.ping(b"b"))

    run(main())
    assert not [row for row in bench.rows if row.type == "WS PING" and row.error]


def test_what_the_handshake_said(bench: Bench) -> None:
    async def main() -> None:
        client = bench.client()
        async with client.connect("/headers", headers={"X-Test": "1"}, subprotocols=["chat.v2"]) as connection:
            seen = await connection.recv_json()
            assert seen["x-test"] == "1"
            assert seen["user-agent"] == "locust-ws-async"
            assert seen["sec-websocket-protocol"] == "chat.v2"
            assert "sec-websocket-extensions" not in seen
            assert connection.subprotocol == "chat.v2"
            assert connection.handshake_request.headers["X-Test"] == "1"
            assert connection.response.status_code == 101
            assert connection.response.headers["sec-websocket-protocol"] == "chat.v2"
            assert connection.local_address[0] == connection.remote_address[0] == "127.0.0.1"
            assert connection.id == connection.id
            assert connection.state is State.OPEN and client.connections == {connection}
            assert (connection.close_code, connection.close_reason) == (None, None)
        assert client.connections == set()

    run(main())


def test_a_full_queue_stops_reading_and_loses_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with bench.client().connect(
            "/ticker?rate=10000&count=3000", name=bench.engine, max_queue=8
        ) as connection:
            await eventually(lambda: connection.reading_paused)
            received = connection.stats.messages_received
            await asyncio.sleep(0.05)  # in which the server sends hundreds
            assert connection.stats.messages_received == received
            numbers = [message async for message in connection]
            assert len(numbers) == 3000
            assert not connection.reading_paused

    run(main())
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "max_queue" in warning.getMessage()


def test_closing_with_a_full_queue(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/ticker?rate=10000", max_queue=4) as connection:
            await eventually(lambda: connection.reading_paused)
        assert connection.close_code == 1000

    run(main())
    assert not bench.failures()


async def read_control_frame(reader: asyncio.StreamReader) -> bytes:
    """The payload of the client's next frame, a ping or a pong."""
    opcode, length = await reader.readexactly(2)
    assert opcode in (0x89, 0x8A)
    mask, masked = await reader.readexactly(4), await reader.readexactly(length & 127)
    return bytes(byte ^ key for byte, key in zip(masked, itertools.cycle(mask), strict=False))


def test_keepalive_notices_a_dead_peer(bench: Bench) -> None:
    async def main() -> None:
        connection = await bench.client().connect("/silent", ping_interval=0.02, ping_timeout=0.05)
        with pytest.raises(ConnectionClosedError):
            await connection.recv()

    run(main())
    assert "answered no ping within ping_timeout" in bench.failures()["WS SESSION"]


def test_keepalive_goes_on_with_a_live_peer(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/sink", ping_interval=0.01, ping_timeout=5) as connection:
            await eventually(lambda: connection.stats.pongs_received >= 3)
            assert connection.latency > 0

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SESSION"]


def test_a_peer_that_may_stay_silent_forever_costs_no_memory(bench: Bench) -> None:
    """The first of its many pings is forgotten: a pong to it gives no latency."""

    async def answer_the_first_of_many(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await read_control_frame(reader)
        for _ in range(100):
            await read_control_frame(reader)
        writer.write(frame(10, first))
        await until_eof(reader, writer)

    async def main() -> None:
        async with (
            raw_server(answer_the_first_of_many) as url,
            bench.client().connect(url, ping_interval=0.001, ping_timeout=None, close_timeout=0.05) as connection,
        ):
            await eventually(lambda: connection.stats.pongs_received)
            assert connection.latency == 0

    run(main())


def test_server_pings_are_answered_while_the_task_does_other_things(bench: Bench) -> None:
    pongs: list[bytes] = []

    async def ping_each_in_turn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(5):
            writer.write(frame(9, b"%d" % number))
            pongs.append(await read_control_frame(reader))
        await until_eof(reader, writer)

    async def main() -> None:
        async with raw_server(ping_each_in_turn) as url, bench.client().connect(url, close_timeout=0.1) as connection:
            await eventually(lambda: len(pongs) == 5)
            assert connection.state is State.OPEN

    run(main())
    assert pongs == [b"0", b"1", b"2", b"3", b"4"]


def test_ocpp_runs_on_it_unmodified(bench: Bench) -> None:
    ocpp = pytest.importorskip("ocpp.v16")
    from ocpp.v16 import call, call_result
    from websockets.asyncio.server import ServerConnection, serve

    class CentralSystem(ocpp.ChargePoint):  # type: ignore[misc]  # ocpp has no types
        @__import__("ocpp.routing").routing.on("BootNotification")  # type: ignore[untyped-decorator]
        def on_boot(self, **_: Any) -> Any:
            return call_result.BootNotification(current_time="2026-01-01T00:00:00Z", interval=1, status="Accepted")

    async def main() -> None:
        async def handle(connection: ServerConnection) -> None:
            with contextlib.suppress(websockets.exceptions.ConnectionClosedOK):
                await CentralSystem("cp", connection).start()

        async with serve(handle, "127.0.0.1", 0, subprotocols=["ocpp1.6"]) as server:  # type: ignore[list-item]
            port = next(iter(server.sockets)).getsockname()[1]
            connection = await bench.client().connect(f"ws://127.0.0.1:{port}/cp", subprotocols=["ocpp1.6"])
            charge_point = ocpp.ChargePoint("cp", connection)
            reading = asyncio.create_task(charge_point.start())
            answer = await charge_point.call(call.BootNotification(charge_point_model="m", charge_point_vendor="v"))
            assert answer.status == "Accepted"
            await connection.close()
            with pytest.raises(websockets.exceptions.ConnectionClosedOK):
                await reading

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SEND", "WS RECV", "WS SESSION"]
    assert not bench.failures()
