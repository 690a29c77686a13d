"""What a connection counts, how a session's row tells its end, and what rows are called."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from locust_ws_async.client import Session, json_field
from locust_ws_async.client.observing.names import row_name
from locust_ws_async.exceptions import MessageTimeout

from .helpers import Bench, eventually, frame, raw_server, run, until_eof


def test_counts_by_kind(bench: Bench) -> None:
    async def main() -> None:
        async def talk(connection: ServerConnection) -> None:
            async for message in connection:
                await connection.send(message)
                await connection.send(message)
                await (await connection.ping(b"abc"))

        async with (
            serve(talk, "127.0.0.1", 0) as server,
            bench.client().connect(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}") as connection,
        ):
            stats = connection.stats
            for message in ("é", "xyz", b"\x00" * 200):
                await connection.send(message)
            await connection.send(b"text", text=True)
            for _ in range(8):
                await connection.recv()
            await connection.ping()
            await eventually(lambda: stats.pings_received == 4)
        counts = stats.as_dict()
        assert 0 <= counts.pop("queue_high_water") <= 2
        phases = counts.pop("connect")
        assert {name for name, ms in phases.items() if ms is not None} == {"tcp", "upgrade"}
        assert phases["tcp"] > 0 and phases["upgrade"] > 0
        assert counts == {
            "texts_sent": 3,
            "text_bytes_sent": 9,
            "binaries_sent": 1,
            "binary_bytes_sent": 200,
            "messages_sent": 4,
            "bytes_sent": 209,
            "texts_received": 6,
            "text_bytes_received": 18,
            "binaries_received": 2,
            "binary_bytes_received": 400,
            "messages_received": 8,
            "bytes_received": 418,
            "pings_sent": 1,
            "pongs_received": 1,
            "pings_received": 4,
            "pongs_sent": 4,
            "closes_sent": 1,
            "closes_received": 1,
            "reconnects": 0,
            "late_replies": 0,
            "messages_dropped": 0,
            "keepalives_skipped": 0,
        }
        json.dumps(stats.as_dict())

    run(main())


def test_the_high_water_of_the_queue(bench: Bench) -> None:
    async def main() -> None:
        async with raw_server(until_eof, then=frame(1, b"x") * 5) as url:
            connection = await bench.client().connect(url, close_timeout=0.05)
            await eventually(lambda: connection.stats.messages_received == 5)
            assert connection.stats.queue_high_water == 5
            for _ in range(5):
                await connection.recv()
            assert connection.stats.queue_high_water == 5
            await connection.close()

    run(main())


def test_heartbeats_are_counted(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo", ping_interval=0.01) as connection:
            await eventually(lambda: connection.stats.pongs_received >= 3)
            assert connection.stats.pings_sent >= 3

    run(main())


def test_a_ping_after_the_close_frame(bench: Bench) -> None:
    """As many pongs are counted as the server gets, whether or not the engine answers this ping."""
    pongs = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal pongs
        writer.write(frame(9, b"before"))
        closed = False
        while header := await reader.read(2):
            mask = await reader.readexactly(4)
            payload = bytes(
                byte ^ mask[index % 4] for index, byte in enumerate(await reader.readexactly(header[1] & 127))
            )
            pongs += header[0] & 15 == 10
            if header[0] & 15 == 8 and not closed:
                closed = True
                writer.write(frame(9, b"after") + frame(8, payload))
                writer.write_eof()

    async def main() -> None:
        async with raw_server(script) as url:
            connection = await bench.client().connect(url)
            await eventually(lambda: connection.stats.pings_received == 1)
            assert connection.stats.pongs_sent == 1
            await connection.close()
            await eventually(lambda: pongs == connection.stats.pongs_sent)
            assert connection.stats.pings_received == 2

    run(main())


def test_late_replies_are_counted(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo?delay=0.2") as connection:
            with pytest.raises(MessageTimeout):
                await connection.request({"id": 1}, match=json_field("id"), timeout=0.01)
            await eventually(lambda: connection.stats.late_replies == 1)

    run(main())


@pytest.mark.parametrize(
    ("path", "code", "reason", "received", "sent"),
    [
        ("/echo", 1000, "", 1, 1),
        ("/close/4001?reason=go", 4001, "go", 1, 1),
        ("/drop", 1006, "", 0, 0),
    ],
)
def test_the_end_of_a_session(bench: Bench, path: str, code: int, reason: str, received: int, sent: int) -> None:
    async def main() -> Any:
        async with bench.client().connect(path) as connection:
            if path != "/echo":
                await connection.wait_closed()
            await asyncio.sleep(0.02)
        assert connection.close_code == code
        return connection.stats

    stats = run(main())
    row = bench.only("WS SESSION")
    session = row.response
    assert isinstance(session, Session)
    assert (session.close_code, session.close_reason) == (code, reason)
    assert session.stats is stats and (stats.closes_received, stats.closes_sent) == (received, sent)
    assert row.time is not None and session.duration == pytest.approx(row.time / 1000)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/room/123?token=1", "/room/{id}"),
        ("/123/a/4", "/{id}/a/{id}"),
        ("/1/2/3", "/{id}/{id}/{id}"),
        ("/user/5f0c1b9e-0c1d-4c3e-8f7a-1a2B3c4d5e6f/chat", "/user/{id}/chat"),
        ("/v2/rooms", "/v2/rooms"),
        ("/room/12a", "/room/12a"),
        ("7", "{id}"),
    ],
)
def test_folded_names(path: str, name: str) -> None:
    assert row_name(path, fold_ids=True) == name
    assert "{id}" not in row_name(path)


def test_names_by_setting_and_by_function(bench: Bench) -> None:
    async def main() -> None:
        client = bench.client()
        async with client.connect("/echo", name=lambda url: url.rsplit("/", 1)[1].upper()):
            pass
        async with client.connect("/close/1000", fold_ids=True):
            pass
        with pytest.raises(ZeroDivisionError):
            client.connect("/echo", name=lambda url: str(1 / 0))
        with pytest.raises(TypeError, match="name must be a str, or a function from the URL to a str"):
            client.connect("/echo", name=lambda url: None)  # type: ignore[arg-type,return-value]

    run(main())
    assert {row.name for row in bench.rows} == {"ECHO", "/close/{id}"}
