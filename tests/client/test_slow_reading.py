"""``pause``, ``resume`` and ``read_rate``: a client that reads slowly, or not at all, slows its server down."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import pytest
import trustme

from locust_ws_async.client import WebSocketConnection
from locust_ws_async.exceptions import MessageTimeout, PingTimeout

from .helpers import Bench, eventually, frame, raw_server, run

MESSAGE = frame(2, bytes(1000))


@pytest.fixture(scope="module", params=["ws", "wss"])
def tls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ssl.SSLContext | None]:
    """The server's TLS, if any."""
    if request.param == "ws":
        yield None
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    yield context


class Flood:
    """A server that writes as fast as TCP takes it, up to a limit, and counts; then it closes."""

    def __init__(self, limit: int = 10**9) -> None:
        self.written = 0
        self._limit = limit

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def end_with_client() -> None:
            while await reader.read(65536):
                pass
            writer.transport.abort()

        watching = asyncio.create_task(end_with_client())
        try:
            while self.written < self._limit:
                writer.write(MESSAGE)
                await writer.drain()
                self.written += len(MESSAGE)
            writer.write(frame(8, b"\x03\xe8"))
            await writer.drain()
            await watching
        finally:
            watching.cancel()

    async def stuck(self) -> int:
        """Wait until nothing more is taken; gives what was written by then."""
        while True:
            before = self.written
            await asyncio.sleep(0.3)
            if self.written == before:
                return before


def connect(bench: Bench, url: str, **options: Any) -> Any:
    return bench.client().connect(url, verify=False, close_timeout=5, **options)


async def take(line: WebSocketConnection) -> int:
    return sum([len(message) async for message in line])


def test_pause_stops_the_server(bench: Bench, tls: ssl.SSLContext | None) -> None:
    async def main() -> None:
        flood = Flood()
        async with raw_server(flood, tls=tls) as url, connect(bench, url) as line:
            await line.recv()
            line.pause()
            line.pause()
            assert line.reading_paused
            written = await flood.stuck()
            received = line.stats.messages_received
            await asyncio.sleep(0.1)
            assert line.stats.messages_received == received
            line.resume()
            assert not line.reading_paused
            for _ in range(written // len(MESSAGE)):
                await line.recv()
            assert flood.written > written
            line.resume()

    run(main())
    assert bench.failures().keys() <= {"WS SESSION"}  # the server answers no close frame


def test_a_full_queue_and_a_pause_are_two_reasons(bench: Bench) -> None:
    async def main() -> None:
        flood = Flood()
        async with raw_server(flood) as url, connect(bench, url, max_queue=4) as line:
            await eventually(lambda: line.reading_paused)
            line.pause()
            line.discard()
            assert line.reading_paused  # by hand, still
            line.resume()
            await eventually(lambda: line.queue)
            await eventually(lambda: line.reading_paused)
            line.pause()
            line.resume()
            assert line.reading_paused  # by the queue, still

    run(main())
    assert bench.failures().keys() <= {"WS SESSION"}


def test_close_reads_on(bench: Bench, tls: ssl.SSLContext | None) -> None:
    async def main() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(frame(8, b"\x03\xe8"))
            await writer.drain()

        async with raw_server(answer, tls=tls) as url:
            line = await bench.client().connect(url, verify=False, close_timeout=1000)
            line.pause()
            await line.close()
            assert line.close_code == 1000
            line.pause()
            assert not line.reading_paused
            line.resume()

    run(main())
    assert not bench.failures()


def test_what_waits_for_an_answer_meanwhile_says_why_there_is_none(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo") as line:
            line.pause()
            with pytest.raises(MessageTimeout, match=r"and none was read: pause\(\) was called"):
                await line.request("x", timeout=0.05)
            with pytest.raises(PingTimeout):
                await line.ping(timeout=0.05)
            line.resume()
            await eventually(lambda: line.stats.late_replies)
            assert await line.request("y") == "y"

    run(main())


def test_pings_go_on_and_fail_nothing(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/pings?interval=1000", ping_interval=0.02, ping_timeout=0.04) as line:
            await eventually(lambda: line.stats.pongs_received)
            line.pause()
            await asyncio.sleep(0.3)
            line.resume()
            pongs = line.stats.pongs_received
            await eventually(lambda: line.stats.pongs_received > pongs)

    run(main())
    assert not bench.failures()


def test_a_loss_ends_the_pause(bench: Bench) -> None:
    """A paused connection learns of its loss when it writes; the one that is made again reads."""
    from locust_ws_async.client import Backoff

    async def main() -> None:
        async with bench.client().connect("/drop?after=1", reconnect=Backoff(initial=0.01, jitter=0)) as line:
            line.pause()

            async def write() -> None:
                while not line.stats.reconnects:
                    await line.send("x")
                    await asyncio.sleep(0.01)

            await write()
            assert not line.reading_paused
            assert await line.recv() == "x"

    run(main())


def test_a_rate_is_kept(bench: Bench, tls: ssl.SSLContext | None) -> None:
    """A server that could write all at once takes as long as the client's rate says."""
    size, rate = 500_000, 400_000

    async def main() -> None:
        async with raw_server(Flood(size), tls=tls) as url:
            line = await connect(bench, url, read_rate=rate)
            began = perf_counter()
            assert await take(line) == size // len(MESSAGE) * 1000 + 1000 * (size % len(MESSAGE) > 0)
            # The last read, of up to a quarter of a megabyte with TLS, needs no pause behind it.
            slack = 300_000 if tls else 50_000
            assert perf_counter() - began >= (size - slack) / rate

    run(main())
    assert not bench.failures()


def test_a_rate_slows_the_server_down(bench: Bench, tls: ssl.SSLContext | None) -> None:
    async def main() -> None:
        flood = Flood()
        async with raw_server(flood, tls=tls) as url, connect(bench, url, read_rate=20_000) as line:
            await line.recv()
            await flood.stuck()
            began, received = perf_counter(), line.stats.bytes_received
            await asyncio.sleep(1)
            rate = (line.stats.bytes_received - received) / (perf_counter() - began)
            assert rate < 20_000 + 70_000 * (tls is not None)  # of TLS a whole record comes at a time
        assert line.close_code is not None

    run(main())


def test_a_long_message_comes_at_the_rate_too(bench: Bench) -> None:
    async def main() -> None:
        async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(frame(2, bytes(200_000)))
            await reader.read(1000)

        async with raw_server(send) as url, connect(bench, url, read_rate=400_000) as line:
            began = perf_counter()
            await line.send("")
            assert len(await line.recv()) == 200_000
            assert perf_counter() - began >= 0.35

    run(main())


def test_a_rate_lets_requests_through(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo", read_rate=100_000, ping_interval=0.05, ping_timeout=5) as line:
            for number in range(20):
                assert await line.request(f"{number}" * 500) == f"{number}" * 500
            assert await line.ping() > 0

    run(main())
    assert not bench.failures()


def test_a_rate_holds_in_each_session(bench: Bench) -> None:
    from locust_ws_async.client import Backoff

    async def main() -> None:
        again = Backoff(initial=0.01, jitter=0)
        async with bench.client().connect("/drop?after=1", reconnect=again, read_rate=50_000) as line:
            for _ in range(3):
                sessions = line.stats.reconnects
                await line.send("x" * 10_000)
                assert len(await line.recv()) == 10_000
                await eventually(lambda sessions=sessions: line.stats.reconnects > sessions)

    run(main())


@pytest.mark.parametrize(
    ("rate", "error"),
    [(0, ValueError), (-1, ValueError), (float("nan"), ValueError), (float("inf"), ValueError), ("1", TypeError)],
)
def test_a_wrong_rate_is_refused(bench: Bench, rate: Any, error: type[Exception]) -> None:
    async def main() -> None:
        with pytest.raises(error, match="read_rate must be"):
            bench.client().connect("/echo", read_rate=rate)

    run(main())
