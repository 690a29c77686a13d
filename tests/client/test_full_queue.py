"""What a full queue stops, the reading, must not hide or lose."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import pytest
import trustme

from locust_ws_async.client.session.pings import Heartbeat
from locust_ws_async.exceptions import ConnectionClosed

from .helpers import Bench, eventually, frame, raw_server, run

CLOSE = frame(8, b"\x03\xe8")  # 1000


class Tls:
    """A server's TLS, and what makes a client accept it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self.context)
        authority.cert_pem.write_to_path(folder / "authority.pem")
        self.options: dict[str, Any] = {"verify": folder / "authority.pem"}


class Plain:
    context = None
    options: ClassVar[dict[str, Any]] = {}


@pytest.fixture(scope="module", params=["ws", "wss"])
def transport(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls | Plain]:
    yield Tls(tmp_path_factory.mktemp("tls")) if request.param == "wss" else Plain()


@pytest.mark.parametrize("size", [100, 70_000], ids=["between frames", "within a frame"])
def test_what_came_before_the_end_is_read(bench: Bench, transport: Tls | Plain, size: int) -> None:
    async def main() -> None:
        paused, ended = asyncio.Event(), asyncio.Event()

        async def send_and_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            large = frame(1, b"y" * size)
            writer.write(frame(1, b"y") + large[:50])
            await paused.wait()
            writer.write(large[50:] + frame(1, b"x" * 100) * 1000 + CLOSE)
            await writer.drain()
            ended.set()

        async with raw_server(send_and_end, tls=transport.context) as url:
            connection = await bench.client().connect(url, max_queue=1, **transport.options)
            await eventually(lambda: connection.reading_paused)
            paused.set()
            await ended.wait()
            await asyncio.sleep(0.1)  # for the end of the stream to arrive, too; before, all of this is easier
            assert len([message async for message in connection]) == 1002
            assert connection.close_code == 1000

    run(main())
    assert not bench.failures()


def test_a_task_that_only_sends_learns_of_the_end(bench: Bench, transport: Tls | Plain) -> None:
    async def main() -> None:
        paused = asyncio.Event()

        async def send_and_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(1, b"x") * 10)
            await paused.wait()

        async with raw_server(send_and_end, tls=transport.context) as url:
            connection = await bench.client().connect(url, max_queue=5, **transport.options)
            await eventually(lambda: connection.reading_paused)
            paused.set()
            with pytest.raises(ConnectionClosed):
                while True:
                    await connection.send("x")
                    await asyncio.sleep(0.001)

    run(main())
    assert {"WS SEND", "WS SESSION"} == bench.failures().keys()


def test_a_close_frame_behind_it_ends_the_connection(bench: Bench, transport: Tls | Plain) -> None:
    """At once, and not after close_timeout."""

    async def send_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(1, b"x") * 10 + CLOSE)
        await writer.drain()

    async def main() -> None:
        async with raw_server(send_and_close, tls=transport.context) as url:
            connection = await bench.client().connect(url, max_queue=5, close_timeout=1000, **transport.options)
            await eventually(lambda: "WS SESSION" in bench.types())
            assert connection.close_code == 1000
            assert len([message async for message in connection]) == 10

    run(main())
    assert not bench.failures()


def test_the_heartbeat_waits_anew_when_reading_goes_on() -> None:
    """Its pong may be behind what was not read."""

    class Peer:
        reading_paused = True
        sent = 0
        failed_at = 0.0

        def send_heartbeat(self) -> None:
            self.sent += 1

        def fail_unresponsive(self) -> None:
            self.failed_at = perf_counter()

    async def main() -> None:
        peer = Peer()
        heartbeat = Heartbeat(peer, asyncio.get_running_loop(), interval=0.001, timeout=0.2)
        await eventually(lambda: peer.sent)
        await asyncio.sleep(0.15)
        peer.reading_paused = False
        heartbeat.restart_pong_timeout()
        resumed = perf_counter()
        await eventually(lambda: peer.failed_at)
        assert peer.failed_at - resumed >= 0.19
        heartbeat.stop()

    run(main())
