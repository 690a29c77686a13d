"""Many connections, and peers that vanish."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest

from locust_ws_async.client import json_field
from locust_ws_async.exceptions import ConnectionClosedError
from tests.support import demo_server_process

from .helpers import Bench, eventually, frame, raw_server, run

pytestmark = pytest.mark.once


def test_nothing_is_lost_or_doubled(engine: str) -> None:
    """200 users with 5 connections each: the server has counted what the clients have."""

    async def use(bench: Bench, number: int) -> tuple[int, int]:
        client = bench.client()
        connections = [await client.connect(path) for path in ["/echo"] * 3 + ["/rpc"] * 2]
        for turn in range(3):
            for connection in connections[:3]:
                await connection.send(f"{number} {turn}")
            assert [await connection.recv() for connection in connections[:3]] == [f"{number} {turn}"] * 3
            for connection in connections[3:]:
                request = {"id": turn, "params": number}
                await connection.request(request, match=json_field("id"))
        sent = sum(connection.stats.messages_sent for connection in connections)
        received = sum(connection.stats.messages_received for connection in connections)
        await client.aclose()
        return sent, received

    async def main(bench: Bench) -> None:
        crowd = asyncio.Semaphore(50)  # connecting at once

        async def user(number: int) -> tuple[int, int]:
            async with crowd:
                return await use(bench, number)

        async with asyncio.TaskGroup() as group:
            users = [group.create_task(user(number)) for number in range(200)]
        sent, received = (sum(counts) for counts in zip(*(user.result() for user in users), strict=True))
        assert sent == received == 200 * 15

    with demo_server_process() as server:
        bench = Bench(engine, server.url)
        run(main(bench))
        counted = server.stats()["total"]
    assert counted["messages_in"] == counted["messages_out"] == 200 * 15
    assert counted["opened"] == 1000 and counted["closes"] == {"1000": 1000}
    assert not bench.failures()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")
def test_a_server_that_stops(engine: str) -> None:
    """As after a pulled cable: TCP stays, and nothing comes any more."""
    with demo_server_process() as server:
        bench = Bench(engine, server.url)

        async def main() -> None:
            connection = await bench.client().connect("/echo", ping_interval=0.05, ping_timeout=0.1, close_timeout=0.1)
            await connection.send("x")
            await connection.recv()
            server.process.send_signal(signal.SIGSTOP)
            try:
                with pytest.raises(ConnectionClosedError, match="answered no ping within ping_timeout"):
                    await connection.recv()
            finally:
                server.process.send_signal(signal.SIGCONT)

        run(main())
    assert "WS SESSION" in bench.failures()


def test_a_pong_that_comes_while_closing(bench: Bench) -> None:
    async def main() -> None:
        async def answer_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ping = await reader.readexactly(2 + 4 + 4)
            mask, payload = ping[2:6], ping[6:]
            await reader.readexactly(8)  # the close frame
            writer.write(frame(10, bytes(byte ^ key for byte, key in zip(payload, mask, strict=True))))
            await writer.drain()
            await asyncio.sleep(0.1)  # for the ping that must not follow
            assert not reader._buffer  # type: ignore[attr-defined]  # nothing more has come

        async with raw_server(answer_late) as url:
            connection = await bench.client().connect(url, ping_interval=0.02, ping_timeout=5, close_timeout=2)
            await eventually(lambda: connection.stats.pings_sent)
            await connection.close()

    run(main())
