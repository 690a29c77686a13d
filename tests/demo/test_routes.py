"""Each path of the demo server, seen by ``websockets``' own client: a client that is not ours."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidMessage, InvalidStatus
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import Event, State

from locust_ws_async.demo.routes import GARBAGE
from tests.support import SCALE, DemoServerProcess

Visit = Callable[[ClientConnection], Awaitable[Any]]


def visit(server: DemoServerProcess, path: str, visit: Visit, **options: Any) -> Any:
    """Connect to a path, run ``visit`` with the connection, return its result."""

    async def main() -> Any:
        async with asyncio.timeout(30 * SCALE), connect(server.url + path, **options) as connection:
            return await visit(connection)

    return asyncio.run(main())


async def receive_json(connection: ClientConnection) -> Any:
    return json.loads(await connection.recv())


async def close_of(connection: ClientConnection) -> tuple[int | None, str | None]:
    """What the connection was closed with, once it is."""
    with pytest.raises(ConnectionClosed):
        while True:
            await connection.recv()
    return connection.close_code, connection.close_reason


@pytest.mark.parametrize("path", ["/echo", "/echo?delay=0.01", "/fragments", "/fragments?parts=1"])
@pytest.mark.parametrize(
    "message", ["", "text", "h\N{LATIN SMALL LETTER E WITH ACUTE}llo" * 1000, b"", b"\x00\xff" * 70_000]
)
def test_answers_with_the_same_message(shared_server: DemoServerProcess, path: str, message: str | bytes) -> None:
    async def echoed(connection: ClientConnection) -> Any:
        await connection.send(message)
        return await connection.recv()

    assert visit(shared_server, path, echoed, max_size=None) == message


def test_fragments_come_as_frames_with_pings_between(shared_server: DemoServerProcess) -> None:
    frames = []

    class Observer(ClientConnection):
        def process_event(self, event: Event) -> None:
            if isinstance(event, Frame):
                frames.append((event.opcode.name, bytes(event.data) if event.opcode in DATA_OPCODES else None))
            super().process_event(event)

    async def exchange(connection: ClientConnection) -> None:
        await connection.send("abcdef")
        await connection.recv()

    visit(shared_server, "/fragments?parts=3", exchange, create_connection=Observer)
    ping = ("PING", None)
    assert frames[:6] == [("TEXT", b"ab"), ping, ("CONT", b"cd"), ping, ("CONT", b"ef"), ("CONT", b"")]


def test_headers_tells_what_the_handshake_carried(shared_server: DemoServerProcess) -> None:
    headers = visit(
        shared_server,
        "/headers",
        receive_json,
        origin="https://shop.example",
        additional_headers={"X-Tenant": "7"},
        user_agent_header="tester",
    )
    assert (headers["origin"], headers["x-tenant"], headers["user-agent"]) == ("https://shop.example", "7", "tester")


def test_any_subprotocol_is_spoken(shared_server: DemoServerProcess) -> None:
    async def subprotocol(connection: ClientConnection) -> Any:
        return connection.subprotocol

    assert visit(shared_server, "/echo", subprotocol, subprotocols=["ocpp1.6", "chat"]) == "ocpp1.6"
    assert visit(shared_server, "/echo", subprotocol) is None


class TestRpc:
    def replies(self, server: DemoServerProcess, *requests: Any, count: int) -> list[Any]:
        async def exchange(connection: ClientConnection) -> list[Any]:
            for request in requests:
                await connection.send(json.dumps(request))
            return [await receive_json(connection) for _ in range(count)]

        return [reply["id"] for reply in visit(server, "/rpc", exchange)]

    def test_replies_with_the_id_and_the_params(self, shared_server: DemoServerProcess) -> None:
        async def exchange(connection: ClientConnection) -> Any:
            await connection.send('{"id": "a", "params": [1, 2]}')
            return await receive_json(connection)

        assert visit(shared_server, "/rpc", exchange) == {"id": "a", "result": [1, 2]}

    def test_held_replies_come_in_reverse(self, shared_server: DemoServerProcess) -> None:
        requests = [{"id": 1, "hold": True}, {"id": 2, "hold": True}, {"id": 3}, {"id": 4}]
        assert self.replies(shared_server, *requests, count=4) == [3, 2, 1, 4]

    def test_a_delayed_reply_is_overtaken(self, shared_server: DemoServerProcess) -> None:
        assert self.replies(shared_server, {"id": 1, "delay": 0.2 * SCALE}, {"id": 2}, count=2) == [2, 1]

    def test_copies(self, shared_server: DemoServerProcess) -> None:
        requests = [{"id": 1, "copies": 2}, {"id": 2, "copies": 0}, {"id": 3}]
        assert self.replies(shared_server, *requests, count=3) == [1, 1, 3]

    def test_refuses_what_is_not_json(self, shared_server: DemoServerProcess) -> None:
        async def exchange(connection: ClientConnection) -> Any:
            await connection.send("[]")
            return await close_of(connection)

        assert visit(shared_server, "/rpc", exchange) == (1008, "expected a JSON object")


def test_ticker_pushes_numbered_and_stamped_messages_then_closes(shared_server: DemoServerProcess) -> None:
    async def ticks(connection: ClientConnection) -> tuple[list[Any], Any]:
        return [json.loads(message) async for message in connection], connection.close_code

    before = time.time()
    messages, code = visit(shared_server, "/ticker?rate=100&count=5", ticks)
    assert [message["seq"] for message in messages] == [0, 1, 2, 3, 4]
    sent = [message["sent_at"] for message in messages]
    assert sorted(sent) == sent and before - 0.1 <= sent[0] and sent[-1] <= time.time() + 0.1
    assert sent[-1] - sent[0] >= 0.03
    assert code == 1000


def test_ticker_can_have_a_wrong_clock(shared_server: DemoServerProcess) -> None:
    assert visit(shared_server, "/ticker?rate=100&skew=3600", receive_json)["sent_at"] > time.time() + 3000


@pytest.mark.parametrize(
    ("fault", "numbers"),
    [
        ("lose=3", [0, 1, 3, 4, 6, 7]),
        ("repeat=3", [0, 1, 2, 2, 3, 4, 5, 5, 6, 7]),
        ("swap=3", [0, 1, 3, 2, 4, 6, 5, 7]),
        ("restart=3", [0, 1, 2, 0, 1, 2, 0, 1]),
        ("restart=4&swap=3", [0, 1, 3, 2, 0, 2, 1, 3]),
    ],
)
def test_ticker_can_have_wrong_numbers(shared_server: DemoServerProcess, fault: str, numbers: list[int]) -> None:
    async def ticks(connection: ClientConnection) -> list[int]:
        return [json.loads(message)["seq"] async for message in connection]

    assert visit(shared_server, f"/ticker?rate=1000&count=8&{fault}", ticks) == numbers


def test_subscribe_can_have_wrong_numbers(shared_server: DemoServerProcess) -> None:
    async def exchange(connection: ClientConnection) -> list[int]:
        await connection.send('{"subscribe": "gold"}')
        await connection.recv()
        return [(await receive_json(connection))["seq"] for _ in range(4)]

    assert visit(shared_server, "/subscribe?rate=1000&lose=2", exchange) == [0, 2, 4, 6]


class TestRealtime:
    @staticmethod
    async def answer(connection: ClientConnection) -> list[tuple[float, Any]]:
        """All messages up to the end of the next answer, with when they came."""
        messages: list[tuple[float, Any]] = []
        while not messages or not isinstance(messages[-1][1], dict) or messages[-1][1]["type"] != "done":
            message = await connection.recv()
            messages.append((time.perf_counter(), message if isinstance(message, bytes) else json.loads(message)))
        return messages

    def test_answers_with_frames_and_text(self, shared_server: DemoServerProcess) -> None:
        async def exchange(connection: ClientConnection) -> None:
            await connection.send(bytes(640))
            began = time.perf_counter()
            await connection.send('{"type": "respond", "response_id": 1}')
            messages = await self.answer(connection)
            assert [message for _, message in messages] == [
                {"type": "delta", "response_id": 1, "text": "word 0 "},
                *[bytes(640)] * 5,
                {"type": "delta", "response_id": 1, "text": "word 1 "},
                bytes(640),
                {"type": "done", "response_id": 1, "status": "completed"},
            ]
            assert messages[0][0] - began >= 0.1
            assert messages[-1][0] - began >= 0.1 + 5 * 0.02 + 0.015  # the sixth frame is one of the late ones

        visit(shared_server, "/realtime?first=0.1&frames=6&jitter=0.015", exchange)

    def test_can_leave_the_audio_out_and_be_cancelled(self, shared_server: DemoServerProcess) -> None:
        async def exchange(connection: ClientConnection) -> None:
            await connection.send('{"type": "respond", "response_id": "a"}')
            await connection.recv()
            await connection.send('{"type": "cancel", "response_id": "a"}')
            messages = [message for _, message in await self.answer(connection)]
            assert {message["type"] for message in messages} <= {"delta", "done"}
            assert messages[-1] == {"type": "done", "response_id": "a", "status": "cancelled"}

        visit(shared_server, "/realtime?first=0&frames=100000&audio=0", exchange)

    def test_a_jitter_of_a_whole_frame_is_none(self, shared_server: DemoServerProcess) -> None:
        code, reason = visit(shared_server, "/realtime?jitter=0.02", close_of)
        assert code == 1008 and reason is not None and "jitter" in reason


def test_subscribe_pushes_the_topics_asked_for(shared_server: DemoServerProcess) -> None:
    async def exchange(connection: ClientConnection) -> None:
        await connection.send('{"subscribe": "gold"}')
        assert await receive_json(connection) == {"subscribed": "gold"}
        push = await receive_json(connection)
        assert (push["topic"], push["seq"]) == ("gold", 0)
        await connection.send('{"subscribe": "silver"}')
        topics = set()
        while topics != {"gold", "silver"}:
            topics.add((await receive_json(connection)).get("topic", "gold"))
        await connection.send('{"unsubscribe": "gold"}')
        while await receive_json(connection) != {"unsubscribed": "gold"}:
            pass
        assert {(await receive_json(connection))["topic"] for _ in range(10)} == {"silver"}

    visit(shared_server, "/subscribe?rate=200", exchange)


class TestCartChat:
    def test_sends_keepalives_and_data_by_itself(self, shared_server: DemoServerProcess) -> None:
        async def kinds(connection: ClientConnection) -> list[str]:
            seen = []
            while seen.count("keepalive") < 3 or "data" not in seen:
                message = await connection.recv()
                seen.append(json.loads(message)["type"])
                if seen[-1] == "keepalive":
                    await connection.send(message)
            return seen

        assert visit(shared_server, "/cart/chat?sid=11303&keepalive=0.1", kinds)[0] == "keepalive"

    def test_answers_data_with_data(self, shared_server: DemoServerProcess) -> None:
        async def answers(connection: ClientConnection) -> list[str]:
            for _ in range(3):
                await connection.send('{"type": "data"}')
            return [(await receive_json(connection))["type"] for _ in range(4)]

        assert sorted(visit(shared_server, "/cart/chat?think=0.01&keepalive=60", answers)) == ["data"] * 3 + [
            "keepalive"
        ]

    def test_closes_a_client_that_does_not_echo_a_keepalive(self, shared_server: DemoServerProcess) -> None:
        closed = visit(shared_server, "/cart/chat?keepalive=0.1&patience=0.3", close_of)
        assert closed == (1008, "keepalive not echoed")


class TestPings:
    def test_keeps_a_client_that_answers(self, server: DemoServerProcess) -> None:
        async def stay(connection: ClientConnection) -> State:
            await asyncio.sleep(0.5 * SCALE)
            return connection.state

        assert visit(server, f"/pings?interval={0.1 * SCALE}", stay) is State.OPEN
        assert server.stats()["total"]["pongs_missed"] == 0

    def test_drops_a_silent_client_and_counts_it(self, server: DemoServerProcess) -> None:
        async def play_dead(connection: ClientConnection) -> Any:
            connection.transport.pause_reading()  # pings stay unread
            await asyncio.sleep(1 * SCALE)
            connection.transport.resume_reading()
            return await close_of(connection)

        assert visit(server, "/pings?interval=0.1", play_dead) == (1006, "")
        stats = server.stats()["routes"]["/pings"]
        assert (stats["pongs_missed"], stats["abnormal_closes"]) == (1, 1)


class TestHandshake:
    @pytest.mark.parametrize("status", [200, 401, 404, 429, 503])
    def test_reject(self, shared_server: DemoServerProcess, status: int) -> None:
        with pytest.raises(InvalidStatus) as caught:
            visit(shared_server, f"/reject/{status}", receive_json)
        assert caught.value.response.status_code == status

    @pytest.mark.parametrize("path", ["/reject/7", "/reject/x", "/nowhere", "/close"])
    def test_unknown_paths_list_the_known_ones(self, shared_server: DemoServerProcess, path: str) -> None:
        with pytest.raises(InvalidStatus) as caught:
            visit(shared_server, path, receive_json)
        assert caught.value.response.status_code == 404

    def test_redirect(self, shared_server: DemoServerProcess) -> None:
        headers = visit(shared_server, "/redirect?to=/headers", receive_json)
        assert headers["upgrade"] == "websocket"

    def test_not_http(self, shared_server: DemoServerProcess) -> None:
        with pytest.raises(InvalidMessage):
            visit(shared_server, "/not-http", receive_json)

    def test_slow_handshake_outlasts_the_client(self, shared_server: DemoServerProcess) -> None:
        with pytest.raises(TimeoutError):
            visit(shared_server, "/slow-handshake", receive_json, open_timeout=0.2)

    def test_slow_handshake_comes_at_last(self, shared_server: DemoServerProcess) -> None:
        async def echoed(connection: ClientConnection) -> Any:
            await connection.send("hi")
            return await connection.recv()

        start = time.perf_counter()
        assert visit(shared_server, "/slow-handshake?seconds=0.3", echoed) == "hi"
        assert time.perf_counter() - start >= 0.3

    def test_slow_handshake_with_nonsense_is_refused(self, shared_server: DemoServerProcess) -> None:
        with pytest.raises(InvalidStatus) as caught:
            visit(shared_server, "/slow-handshake?seconds=soon", receive_json)
        assert caught.value.response.status_code == 400
        assert b"seconds=soon: must be a number" in caught.value.response.body


class TestFaults:
    @pytest.mark.parametrize(
        ("path", "closed"),
        [
            ("/close/1000", (1000, "")),
            ("/close/1011?reason=out%20of%20memory", (1011, "out of memory")),
            ("/close/4000", (4000, "")),
            ("/drop", (1006, "")),
            ("/half-close", (1006, "")),
        ],
    )
    def test_ends(self, shared_server: DemoServerProcess, path: str, closed: tuple[int, str]) -> None:
        assert visit(shared_server, path, close_of) == closed

    def test_close_takes_the_answer_of_a_client_that_sends_on(self, server: DemoServerProcess) -> None:
        async def flood() -> None:
            reader, writer = await asyncio.open_connection(*server.url.removeprefix("ws://").split(":"))
            writer.write(
                b"GET /close/1011 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            await reader.readuntil(b"\r\n\r\n")
            mask = bytes(4)
            writer.write((b"\x82\xfe" + (10_000).to_bytes(2, "big") + mask + bytes(10_000)) * 40)
            close = await reader.readexactly(4)
            writer.write(b"\x88\x82" + mask + close[2:])
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

        asyncio.run(asyncio.wait_for(flood(), 30 * SCALE))
        stats = server.stats()["routes"]["/close/<code>"]
        assert (stats["messages_in"], stats["closes"]) == (40, {"1011": 1})

    def test_drop_after_some_messages(self, shared_server: DemoServerProcess) -> None:
        async def exchange(connection: ClientConnection) -> Any:
            for message in "abc":
                await connection.send(message)
            return await connection.recv(), await connection.recv(), await close_of(connection)

        assert visit(shared_server, "/drop?after=2", exchange) == ("a", "b", (1006, ""))

    @pytest.mark.parametrize("kind", GARBAGE)
    def test_garbage_fails_the_connection(self, shared_server: DemoServerProcess, kind: str) -> None:
        async def outcome(connection: ClientConnection) -> Any:
            with pytest.raises(ConnectionClosedError) as caught:
                await connection.recv()
            return caught.value.sent and caught.value.sent.code

        assert visit(shared_server, f"/garbage?kind={kind}", outcome) == (1007 if kind == "utf8" else 1002)

    def test_sink_reads_and_pongs_but_sends_nothing(self, server: DemoServerProcess) -> None:
        async def exchange(connection: ClientConnection) -> None:
            for _ in range(100):
                await connection.send(b"x" * 1000)
            await (await connection.ping())

        visit(server, "/sink", exchange)
        stats = server.stats()["routes"]["/sink"]
        assert (stats["messages_in"], stats["bytes_in"], stats["messages_out"]) == (100, 100_000, 0)

    def test_silent_answers_neither_ping_nor_close(self, shared_server: DemoServerProcess) -> None:
        async def exchange(connection: ClientConnection) -> Any:
            await connection.send("hello?")
            pong = await connection.ping()
            await connection.close()
            with pytest.raises(ConnectionClosed):
                await pong
            return connection.close_code

        assert visit(shared_server, "/silent", exchange, close_timeout=0.3) == 1006

    def test_stalled_reads_nothing_for_a_while(self, shared_server: DemoServerProcess) -> None:
        async def exchange(connection: ClientConnection) -> None:
            pong = await connection.ping()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await asyncio.shield(pong)
            await pong

        visit(shared_server, f"/stalled?seconds={1 * SCALE}", exchange)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/ticker?rate=fast", "rate=fast: must be a number"),
        ("/ticker?rate=0", "rate=0.0: must be above 0 and at most 10000 pushes per second"),
        ("/pings?interval=0", "interval=0.0: must be above 0 seconds"),
        ("/fragments?parts=0", "parts=0: must be at least 1"),
        ("/close/1006", "code=1006: must be a close code that may be sent (RFC 6455 section 7.4)"),
        ("/garbage?kind=x", "kind=x: must be one of opcode, rsv, masked, utf8, ping, continuation, close"),
    ],
)
def test_a_wrong_question_is_answered_with_the_right_one(
    shared_server: DemoServerProcess, path: str, reason: str
) -> None:
    assert visit(shared_server, path, close_of) == (1008, reason)
