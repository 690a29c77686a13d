"""
What the client can do, against servers that share no code with either engine: aiohttp's, and uvicorn's with wsproto.

Everything by TCP and by TLS. Faults are orders to the server; ``tests/servers/routes.py`` lists them.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.protocol import State

from locust_ws_async.client import Backoff, ConnectOptions, WebSocketConnection, echo, every, json_field, json_subset
from locust_ws_async.exceptions import (
    ConnectionClosedError,
    ConnectionClosedOK,
    ConnectTimeout,
    HandshakeError,
    HandshakeRejected,
    MessageTimeout,
    TLSError,
)
from tests.servers import LIBRARIES, OtherServer, other_server
from tests.support import SCALE

from .helpers import Bench, eventually, frame, run
from .proxies import Proxy
from .test_network import loopback_network
from .test_recorder import recordings
from .test_tls import Authority

pytestmark = pytest.mark.once

ALIVE = json_subset({"type": "alive"})
KEEPALIVE = json_subset({"type": "keepalive"})


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session", params=LIBRARIES)
def server(request: pytest.FixtureRequest, authority: Authority) -> Iterator[OtherServer]:
    """Each server in turn."""
    with other_server(request.param, authority.server_file, authority.server_file, authority.file) as server:
        yield server


class OtherBench(Bench):
    """A bench for one of these servers, by TCP or by TLS."""

    def __init__(self, engine: str, url: str, authority: Authority) -> None:
        super().__init__(engine, url)
        self.secure = url.startswith("wss")
        self._options = ConnectOptions(verify=str(authority.file)) if self.secure else ConnectOptions()

    def connect(self, path: str = "/", **options: Any) -> Any:
        return self.client(options=self._options).connect(path, **options)


@pytest.fixture(params=["ws", "wss"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bench(engine: str, scheme: str, server: OtherServer, authority: Authority) -> OtherBench:
    url = server.tls_url if scheme == "wss" else server.url
    assert url is not None
    return OtherBench(engine, url, authority)


def order(do: str, **fields: Any) -> str:
    """A message that makes the server do this."""
    return json.dumps({"do": do, **fields})


def write(*frames: bytes, step: int | None = None) -> str:
    """The order to write these frames, in chunks of so many bytes."""
    return order("write", hex=b"".join(frames).hex(), step=step)


# Messages


def test_messages_of_every_size(bench: OtherBench) -> None:
    sizes = (0, 1, 125, 126, 65_535, 65_536, 1_000_000)

    async def main() -> None:
        async with bench.connect("/echo") as connection:
            for size in sizes:
                for message in ("é" * (size // 2), b"\xff" * size):
                    await connection.send(message)
                    assert await connection.recv() == message
            stats = connection.stats
            assert stats.texts_received == stats.binaries_received == stats.texts_sent == len(sizes)
            assert stats.binary_bytes_received == stats.binary_bytes_sent == sum(sizes)

    run(main())
    assert not bench.failures()


@pytest.mark.parametrize("scheme", ["ws"])
def test_a_message_of_64_mib(bench: OtherBench) -> None:
    async def main() -> None:
        message = bytes(2**26)
        async with bench.connect("/echo", max_size=None) as connection:
            await connection.send(message)
            assert await connection.recv() == message

    run(main())


def test_a_message_over_max_size(bench: OtherBench) -> None:
    async def main() -> None:
        async with bench.connect("/echo", max_size=1000) as connection:
            await connection.send("x" * 1000)
            assert await connection.recv() == "x" * 1000
            await connection.send("x" * 1001)
            with pytest.raises(ConnectionClosedError, match="over max_size"):
                await connection.recv()

    run(main())


@pytest.mark.parametrize("step", [1, 7, None])
def test_fragments_with_pings_between(bench: OtherBench, step: int | None) -> None:
    """However the network cuts them."""
    frames = (
        frame(1, "é".encode()[:1], fin=False),
        frame(9, b"one"),
        frame(0, "é".encode()[1:], fin=False),
        frame(9, b"two"),
        frame(0, b"x" * 200),
        frame(2, b"next"),
    )

    async def main() -> None:
        async with bench.connect() as connection:
            await connection.send(write(*frames, step=step))
            assert await connection.recv() == "é" + "x" * 200
            assert await connection.recv() == b"next"
            assert json.loads(await connection.request(order("pongs"))) == {"pongs": ["one", "two"]}

    run(main())
    assert not bench.failures()


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (frame(1, b"\xc3("), "sent a text message that is not UTF-8"),
        (frame(1, b"\xc3", fin=False) + frame(0, b"("), "sent a text message that is not UTF-8"),
        (frame(3), "sent a malformed frame"),
        (frame(0), "sent a malformed frame"),
    ],
)
def test_frames_that_are_wrong(bench: OtherBench, bad: bytes, text: str) -> None:
    async def main() -> None:
        async with bench.connect() as connection:
            await connection.send(write(frame(1, b"good"), bad))
            assert await connection.recv() == "good"
            with pytest.raises(ConnectionClosedError, match=text):
                await connection.recv()

    run(main())
    assert text in bench.failures()["WS SESSION"]


def test_a_task_that_is_slower_than_the_server(bench: OtherBench) -> None:
    async def main() -> None:
        async with bench.connect(max_queue=16) as connection:
            await connection.send(order("push", count=3000))
            await eventually(lambda: connection.reading_paused)
            assert [(await connection.recv_json())["number"] for _ in range(3000)] == list(range(3000))
            assert connection.stats.queue_high_water < 3000

    run(main())
    assert not bench.failures()


@pytest.mark.parametrize("engine", ["websockets"])
def test_compression(bench: OtherBench) -> None:
    async def main() -> None:
        async with bench.connect("/echo", compression="deflate") as connection:
            assert "permessage-deflate" in connection.response.headers["Sec-WebSocket-Extensions"]
            for message in ("é" * 5000, b"x" * 1_000_000, ""):
                await connection.send(message)
                assert await connection.recv() == message

    run(main())
    assert [row.length for row in bench.rows if row.type == "WS RECV"] == [10_000, 1_000_000, 0]


def test_the_server_counts_the_same(bench: OtherBench, server: OtherServer) -> None:
    async def use() -> None:
        async with bench.connect("/echo") as connection:
            for number in range(50):
                await connection.send(str(number))
            assert [await connection.recv() for _ in range(50)] == [str(number) for number in range(50)]

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(use())

    server.counts()
    run(main())
    assert server.counts() == {"opened": 20, "received": 1000, "sent": 1000, "closes": {"1000": 20}}
    assert bench.types().count("WS SEND") == bench.types().count("WS RECV") == 1000
    assert not bench.failures()


# Requests and expectations


def test_replies_out_of_order(bench: OtherBench) -> None:
    async def main() -> None:
        async with bench.connect() as connection, asyncio.TaskGroup() as group:
            requests = {
                number: group.create_task(ask(connection, number, hold=100), name=str(number)) for number in range(100)
            }
            await asyncio.wait(requests.values())
            assert {number: task.result()["id"] for number, task in requests.items()} == {n: n for n in range(100)}

    run(main())
    assert bench.types().count("WS REQUEST") == 100 and not bench.failures()


async def ask(connection: WebSocketConnection, id: int, *, timeout: float = 30, **fields: Any) -> Any:
    return json.loads(
        await connection.request(order("reply", id=id, **fields), match=json_field("id"), timeout=timeout)
    )


def test_a_reply_that_comes_twice(bench: OtherBench) -> None:
    async def main() -> None:
        async with bench.connect() as connection:
            assert await ask(connection, 1, copies=2) == {"id": 1}
            assert await ask(connection, 2) == {"id": 2}
            assert await connection.recv_json() == {"id": 1}

    run(main())
    assert not bench.failures()


def test_silence_and_a_late_reply(bench: OtherBench) -> None:
    async def main() -> None:
        async with bench.connect() as connection:
            with pytest.raises(MessageTimeout):
                await ask(connection, 1, copies=0, timeout=0.05)
            with pytest.raises(MessageTimeout):
                await ask(connection, 2, hold=2, timeout=0.05)
            await ask(connection, 3, hold=2)  # with the reply to the one before behind its own
            await eventually(lambda: connection.stats.late_replies == 1)

    run(main())
    assert bench.types().count("WS REQUEST") == 4
    silent, timed_out, in_time = (row for row in bench.rows if (row.type, row.name) == ("WS REQUEST", "/"))
    assert isinstance(silent.error, MessageTimeout) and isinstance(timed_out.error, MessageTimeout)
    (late,) = (row for row in bench.rows if row.name == "/ (late)")
    assert in_time.error is late.error is None
    assert late.time is not None and timed_out.time is not None and late.time >= timed_out.time


def test_expectations(bench: OtherBench) -> None:
    async def main() -> None:
        async with bench.connect() as connection:
            await connection.send(order("push", count=3))
            assert json.loads(await connection.expect(json_subset({"number": 1})))["number"] == 1
            assert await connection.expect(ALIVE, timeout=0.01, optional=True) is None
            assert [(await connection.recv_json())["number"] for _ in range(2)] == [0, 2]

    run(main())
    assert not bench.failures()


def test_checks(bench: OtherBench) -> None:
    async def main() -> None:
        async with bench.connect() as connection:
            async with connection.request(order("reply", id=1), catch_response=True) as reply:
                assert reply.json()["id"] == 2, "wrong id"
            async with connection.request(order("reply", id=1), catch_response=True) as reply:
                reply.success()

    run(main())
    assert [row.error is None for row in bench.rows if row.type == "WS REQUEST"] == [False, True]


# Pushes


def test_handlers(bench: OtherBench) -> None:
    seen: list[int] = []

    async def note(message: str | bytes) -> None:
        await asyncio.sleep(0)
        seen.append(json.loads(message)["number"])
        assert seen[-1] != 3

    async def main() -> None:
        async with bench.connect() as connection:
            connection.on(json_subset({}), note)
            await connection.send(order("push", count=50))
            await eventually(lambda: len(seen) == 50)

    run(main())
    assert seen == list(range(50))
    pushes = [row for row in bench.rows if row.type == "WS PUSH"]
    assert len(pushes) == 50 and sum(row.error is not None for row in pushes) == 1


@pytest.mark.parametrize("age", [0, 5, -5])
def test_push_latency(bench: OtherBench, age: float) -> None:
    async def main() -> float:
        async with bench.connect() as connection:
            connection.measure_push(json_subset({}), sent_at="sent")
            started = time.time()
            await connection.send(order("push", count=10, age=age))
            await eventually(lambda: len(bench.rows) > 10)
            return 1000 * (time.time() - started)

    longest = run(main())
    latencies = [row.time for row in bench.rows if row.type == "WS PUSH"]
    assert len(latencies) == 10
    # The clocks of a machine agree to the millisecond.
    assert all(latency is not None and -1 < latency - 1000 * age < longest + 1 for latency in latencies)


# Staying connected


def test_keepalives_are_echoed(bench: OtherBench) -> None:
    async def main() -> None:
        async with bench.connect(keepalive=echo(KEEPALIVE)) as connection:
            assert ALIVE(await connection.request(order("keepalive", beats=5)))

    run(main())
    assert not bench.failures()


def test_without_its_keepalives_the_server_closes(bench: OtherBench) -> None:
    async def main() -> None:
        async with bench.connect() as connection:
            await connection.send(order("keepalive", beats=5))
            await connection.send("something else")
            await connection.expect(KEEPALIVE)
            with pytest.raises(ConnectionClosedError, match="closed by the server: 4408"):
                await connection.recv()

    run(main())


def test_sending_every_so_often(bench: OtherBench) -> None:
    async def main() -> None:
        async with bench.connect("/echo", keepalive=every(0.01, "beat")) as connection:
            assert [await connection.recv() for _ in range(3)] == ["beat"] * 3

    run(main())


def test_pings_both_ways(bench: OtherBench) -> None:
    async def main() -> None:
        async with bench.connect() as connection:
            assert await connection.ping() > 0
            await connection.send(order("ping", payloads=["", "a", "b" * 125]))
            await eventually(lambda: connection.stats.pings_received == 3)
            assert json.loads(await connection.request(order("pongs"))) == {"pongs": ["", "a", "b" * 125]}

    run(main())
    assert bench.only("WS PING").error is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")
def test_a_server_that_stops(bench: OtherBench, server: OtherServer) -> None:
    async def main() -> None:
        options = {"ping_interval": 0.02, "ping_timeout": 0.2 * SCALE, "close_timeout": 0.05}
        async with bench.connect(**options) as connection:
            await eventually(lambda: connection.stats.pongs_received >= 2)
            server.process.send_signal(signal.SIGSTOP)
            try:
                with pytest.raises(ConnectionClosedError, match="answered no ping within ping_timeout"):
                    await connection.recv()
            finally:
                server.process.send_signal(signal.SIGCONT)

    run(main())
    assert "WS SESSION" in bench.failures()


def test_a_connection_that_is_cut_and_comes_back(bench: OtherBench) -> None:
    async def log_in(connection: WebSocketConnection) -> None:
        assert await connection.request(order("echo", text="welcome")) == "welcome"

    async def main() -> None:
        async with bench.connect(reconnect=Backoff(0.01, 0.05), on_connected=log_in) as connection:
            for number, end in enumerate((order("cut"), order("close", code=1012)), start=1):
                with pytest.raises(ConnectionClosedError):
                    await connection.request(end)
                assert await ask(connection, 7) == {"id": 7}
                assert connection.stats.reconnects == number

    run(main())
    assert (bench.types().count("WS CONNECT"), bench.types().count("WS RECONNECT")) == (1, 2)
    assert [row.error is None for row in bench.rows if row.type == "WS SESSION"] == [False, False, True]


# The end


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
def test_close_codes_of_the_server(bench: OtherBench, server: OtherServer, code: int) -> None:
    kind = ConnectionClosedOK if code < 1002 else ConnectionClosedError

    async def main() -> None:
        async with bench.connect() as connection:
            await connection.send(order("close", code=code, reason="bye"))
            with pytest.raises(kind, match=str(code)):
                await connection.recv()
            assert (connection.close_code, connection.close_reason) == (code, "bye")

    run(main())
    session = bench.only("WS SESSION")
    assert (session.error is None) == (kind is ConnectionClosedOK)
    assert (session.response.close_code, session.response.close_reason) == (code, "bye")  # type: ignore[attr-defined]


def test_close_codes_of_the_client(bench: OtherBench, server: OtherServer) -> None:
    async def main() -> None:
        for code in (1000, 1001, 4321):
            connection = await bench.connect()
            await connection.close(code, "bye")

    server.counts()
    run(main())
    assert server.counts()["closes"] == {"1000": 1, "1001": 1, "4321": 1}
    assert not bench.failures()


def test_a_server_that_does_not_read_any_more(bench: OtherBench) -> None:
    async def main() -> None:
        async with bench.connect(close_timeout=0.1) as connection:
            await connection.request(order("read_no_more"))

    run(main())
    assert "which the server did not answer with a close frame" in bench.failures()["WS SESSION"]


def test_a_connection_that_is_cut(bench: OtherBench) -> None:
    ends_without_a_close_frame(bench, "cut")


@pytest.mark.parametrize("scheme", ["ws"])  # asyncio cannot half-close TLS
def test_a_connection_that_is_half_closed(bench: OtherBench) -> None:
    ends_without_a_close_frame(bench, "half_close")


def ends_without_a_close_frame(bench: OtherBench, end: str) -> None:
    async def main() -> None:
        async with bench.connect() as connection:
            await connection.send(order(end))
            with pytest.raises(ConnectionClosedError, match="lost without a close frame"):
                await connection.recv()
            assert connection.state is State.CLOSED

    run(main())
    assert bench.failures().keys() == {"WS RECV", "WS SESSION"}


# The handshake


def test_what_the_server_sees_of_the_handshake(bench: OtherBench) -> None:
    options = {
        "headers": {"X-Tenant": "7"},
        "cookies": {"a": "1", "b": "2"},
        "auth": ("me", "secret"),
        "origin": "https://shop.example",
        "user_agent": "Firefox",
        "subprotocols": ["graphql", "chat"],
    }

    async def main() -> Any:
        async with bench.connect("/?token=x", **options) as connection:
            assert connection.subprotocol == "chat"
            assert connection.response.headers["Set-Cookie"] == "visited=yes"
            return await connection.request(order("handshake"))

    headers = dict(json.loads(run(main()))["headers"])
    assert headers["x-tenant"] == "7"
    assert headers["cookie"] == "a=1; b=2"
    assert headers["authorization"] == "Basic bWU6c2VjcmV0"
    assert headers["origin"] == "https://shop.example"
    assert headers["user-agent"] == "Firefox"
    assert bench.only("WS CONNECT").name == "/"


def test_log_in_by_http_and_share_its_cookie(bench: OtherBench, server: OtherServer) -> None:
    with requests.Session() as session:
        session.get(server.url.replace("ws", "http", 1) + "/login").raise_for_status()

        async def main() -> Any:
            client = bench.client(http_session=session)
            async with client.connect(server.url, share_cookies=True) as connection:
                return await connection.request(order("handshake"))

        headers = dict(json.loads(run(main()))["headers"])
        assert headers["cookie"] == "sid=11303"
        assert session.cookies["visited"] == "yes"


def test_redirects(bench: OtherBench) -> None:
    async def main() -> None:
        async with bench.connect("/redirect?to=/redirect?to=/echo") as connection:
            await connection.ping()
        with pytest.raises(HandshakeError, match="more often than redirect_limit"):
            await bench.connect("/redirect?to=/redirect?to=/echo", redirect_limit=1)

    run(main())


def test_a_redirect_to_tls(engine: str, server: OtherServer, authority: Authority) -> None:
    bench = OtherBench(engine, server.url, authority)

    async def main() -> None:
        async with bench.connect(f"/redirect?to={server.tls_url}/echo", verify=str(authority.file)) as connection:
            await connection.ping()

    run(main())


@pytest.mark.parametrize("status", [401, 404, 503])
def test_a_handshake_that_is_rejected(bench: OtherBench, status: int) -> None:
    async def main() -> None:
        with pytest.raises(HandshakeRejected) as caught:
            await bench.connect(f"/reject/{status}")
        assert caught.value.status_code == status

    run(main())
    assert bench.types() == ["WS CONNECT"]


def test_a_handshake_that_is_not_answered(bench: OtherBench) -> None:
    async def main() -> None:
        with pytest.raises(ConnectTimeout, match="waiting for the answer"):
            await bench.connect("/silence", open_timeout=0.2)

    run(main())


# The network


@pytest.mark.parametrize("scheme", ["wss"])
def test_tls_settings(bench: OtherBench, authority: Authority) -> None:
    async def main() -> None:
        async with bench.connect(cert=str(authority.client_file)) as connection:
            seen = json.loads(await connection.request(order("handshake")))
            assert seen["certificate"] == ["user@shop.example"]
        async with bench.connect(verify=False) as connection:
            assert json.loads(await connection.request(order("handshake")))["certificate"] == []
        with pytest.raises(TLSError, match="certificate not accepted"):
            await bench.connect(verify=True)

    run(main())


@loopback_network
def test_source_addresses(bench: OtherBench) -> None:
    async def main() -> None:
        for _ in range(2):
            async with bench.connect(local_address=["127.0.0.21", "127.0.0.22"]) as connection:
                seen.add(json.loads(await connection.request(order("handshake")))["address"][0])

    seen: set[str] = set()
    run(main())
    assert seen == {"127.0.0.21", "127.0.0.22"}


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_proxies(bench: OtherBench, kind: str) -> None:
    async def main() -> None:
        async with Proxy(kind) as proxy, bench.connect("/echo", proxy=proxy.url()) as connection:
            await connection.send("x" * 100_000)
            assert await connection.recv() == "x" * 100_000

    run(main())


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_unix_socket(library: str, unix_path: str) -> None:
    bench = Bench("websockets", "ws://shop.example")

    async def main() -> None:
        async with bench.client().connect("/echo", unix_socket=unix_path) as connection:
            await connection.send("x")
            assert await connection.recv() == "x"

    with other_server(library, unix_socket=unix_path):
        run(main())


# Seeing what happened


def test_the_phases_of_a_connect(bench: OtherBench) -> None:
    async def main() -> dict[str, float | None]:
        async with bench.connect() as connection:
            return connection.stats.connect.as_dict()

    phases = {name: time for name, time in run(main()).items() if time is not None}
    assert phases.keys() == {"tcp", "upgrade"} | ({"tls"} if bench.secure else set())
    (connect,) = (row.time for row in bench.rows if row.type == "WS CONNECT")
    assert connect is not None and 0 < sum(phases.values()) <= connect


def test_the_flight_recorder(bench: OtherBench, tmp_path: Path) -> None:
    async def main() -> None:
        async with bench.connect(record_last=10, record_to=tmp_path) as connection:
            assert await ask(connection, 1) == {"id": 1}
            with pytest.raises(ConnectionClosedError):
                await connection.request(order("cut"))

    run(main())
    ((head, *frames),) = recordings(tmp_path)
    assert head["failed"] == "WS SESSION"
    assert [(frame["direction"], frame["kind"]) for frame in frames] == [
        ("sent", "text"),
        ("received", "text"),
        ("sent", "text"),
    ]
