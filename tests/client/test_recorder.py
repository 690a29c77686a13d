"""The flight recorder: what is written when something fails, and what is not."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from locust_ws_async.client import ConnectOptions
from locust_ws_async.exceptions import ConnectionClosedError, MessageTimeout

from .helpers import Bench, eventually, frame, raw_server, run

pytestmark = pytest.mark.once


def recordings(folder: Path) -> list[list[dict[str, Any]]]:
    return [
        [json.loads(line) for line in path.read_text("utf-8").splitlines()] for path in sorted(folder.glob("*.jsonl"))
    ]


def test_a_failed_session_is_written(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"

    async def main() -> None:
        async def talk(connection: ServerConnection) -> None:
            await (await connection.ping(b"are you there"))
            async for message in connection:
                await connection.send(message)
                if message == "bye":
                    await connection.close(4000, "enough")

        async with (
            serve(talk, "127.0.0.1", 0) as server,
            bench.client().connect(
                f"ws://me:secret@127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/room?token=secret&x=secret&room=blue&c2VjcmV0",
                record_last=50,
                record_to=folder,
                cookies={"a": "secret"},
                record_unmasked=["x-tenant", "room"],
                headers={"X-Api-Key": "secret", "X-Tenant": "7", "X-Other": "secret"},
                subprotocols=["chat", "bearer", "c2VjcmV0"],
            ) as connection,
        ):
            await connection.send("é" * 1000)
            await connection.recv()
            await connection.send(b"\x01\x02")
            await connection.recv()
            await connection.ping(b"ping")
            await connection.send("bye")
            await connection.wait_closed()

    run(main())
    (recording,) = recordings(folder)
    head, *frames = recording
    assert head["failed"] == "WS SESSION" and head["name"] == "/room"
    assert head["error"] == repr(bench.only("WS SESSION").error)
    assert head["request"]["path"] == "/room?token=***&x=***&room=blue&***"
    assert head["url"].startswith("ws://127.0.0.1:") and head["url"].endswith("/room?token=***&x=***&room=blue&***")
    request = dict(head["request"]["headers"])
    assert request["Authorization"] == request["Cookie"] == request["X-Api-Key"] == "***"
    assert request["X-Tenant"] == "7" and request["User-Agent"] == "locust-ws-async"
    assert request["Sec-WebSocket-Protocol"] == "chat, bearer, ***"
    assert head["response"]["status"] == 101
    assert head["stats"]["messages_sent"] == 3
    (path,) = folder.glob("*.jsonl")
    assert "secret" not in path.read_text("utf-8") and "c2VjcmV0" not in path.read_text("utf-8")

    seen = [(frame["direction"], frame["kind"], frame["size"], frame.get("text", frame.get("hex"))) for frame in frames]
    assert set(seen[:3]) == {  # in whichever order they went by each other
        ("received", "ping", 13, b"are you there".hex()),
        ("sent", "pong", 13, b"are you there".hex()),
        ("sent", "text", 2000, "é" * 64),
    }
    assert seen[3:] == [
        ("received", "text", 2000, "é" * 128),
        ("sent", "binary", 2, "0102"),
        ("received", "binary", 2, "0102"),
        ("sent", "ping", 4, b"ping".hex()),
        ("received", "pong", 4, b"ping".hex()),
        ("sent", "text", 3, "bye"),
        ("received", "text", 3, "bye"),
        ("received", "close", 8, "4000 enough"),
        ("sent", "close", 8, "4000 enough"),
    ]
    times = [frame["time"] for frame in frames]
    assert times == sorted(times)


def test_only_the_last_are_kept(bench: Bench, tmp_path: Path) -> None:
    async def main() -> None:
        connection = await bench.client().connect("/echo", record_last=3, record_to=str(tmp_path))
        for number in range(10):
            await connection.send(str(number))
            await connection.recv()
        connection.abort()
        await connection.wait_closed()

    run(main())
    ((_, *frames),) = recordings(tmp_path)
    assert [frame["text"] for frame in frames] == ["8", "9", "9"]


def test_each_failed_check_is_written(bench: Bench, tmp_path: Path) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo", record_last=9, record_to=tmp_path) as connection:
            async with connection.request("one", name="check", catch_response=True) as reply:
                reply.failure("wrong")
            async with connection.request("two", catch_response=True):
                pass
            with pytest.raises(MessageTimeout):
                await connection.expect(lambda message: False, timeout=0.01, name="never/there")

    run(main())
    checks = recordings(tmp_path)
    assert [(head["failed"], head["name"]) for head, *_ in checks] == [
        ("WS REQUEST", "check"),
        ("WS RECV", "never/there"),
    ]
    # What a file holds is not in the next.
    assert [[frame["text"] for frame in frames] for _, *frames in checks] == [["one"] * 2, ["two"] * 2]
    assert [path.name.split("-", 1)[1].split("-")[0] for path in sorted(tmp_path.iterdir())] == ["check", "never"]


def test_success_writes_nothing(bench: Bench, tmp_path: Path) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo", record_last=9, record_to=tmp_path) as connection:
            await connection.request("x")

    run(main())
    assert list(tmp_path.iterdir()) == []


def test_the_connection_of_this_side_failing(bench: Bench, tmp_path: Path) -> None:
    """The close frame that the engine sends by itself is in the recording."""

    async def main() -> None:
        async with serve(lambda connection: connection.send(b"x" * 100), "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            connection = await bench.client().connect(url, max_size=10, record_last=9, record_to=tmp_path)
            with pytest.raises(ConnectionClosedError):
                await connection.recv()

    run(main())
    (_, *frames), *_ = recordings(tmp_path)
    assert ("sent", "close") in [(frame["direction"], frame["kind"]) for frame in frames]
    assert any(frame.get("text", "").startswith("1009") for frame in frames)


def test_headers_of_a_server_that_are_not_ascii(bench: Bench, tmp_path: Path) -> None:
    """They stand in the way of nothing, and are the same on both engines."""

    async def main() -> None:
        async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(1, b"last"))

        async with raw_server(end, headers="X-Name: é\r\n") as url:
            connection = await bench.client().connect(
                url, record_last=5, record_to=tmp_path, record_unmasked=["X-Name"]
            )
            assert connection.response.headers["X-Name"] == "é".encode().decode("iso-8859-1")
            assert await connection.recv() == "last"
            with pytest.raises(ConnectionClosedError):
                await connection.recv()

    run(main())
    assert bench.failures().keys() == {"WS RECV", "WS SESSION"}
    ((head, *_),) = recordings(tmp_path)
    assert ["X-Name", "Ã©"] in head["response"]["headers"]


def test_a_folder_that_cannot_be(bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")

    async def main() -> None:
        async with bench.client().connect("/drop", record_last=9, record_to=tmp_path / "file") as connection:
            with pytest.raises(ConnectionClosedError):
                await connection.send("x")
                await connection.recv()

    run(main())
    assert "A recording could not be written to record_to=" in caplog.text


def test_trace(bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCUST_WS_TRACE", "1")
    caplog.set_level(logging.INFO, "locust_ws_async.trace")

    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            await connection.send("x" * 200)
            await connection.recv()
            await connection.send(b"\x00\x01")
            await connection.recv()

    run(main())
    logged = [record.getMessage() for record in caplog.records if record.name == "locust_ws_async.trace"]
    assert logged == [
        f"/echo -> text, 200 bytes: {'x' * 128} ...",
        f"/echo <- text, 200 bytes: {'x' * 128} ...",
        "/echo -> binary, 2 bytes: 0001",
        "/echo <- binary, 2 bytes: 0001",
        "/echo -> close, 2 bytes: 1000",
        "/echo <- close, 2 bytes: 1000",
    ]
    assert list(tmp_path.iterdir()) == []  # it records nothing


@pytest.mark.parametrize("value", [None, "", "0"])
def test_off_by_default(bench: Bench, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """The engine calls the connection itself, the connection the engine: nothing in between."""
    monkeypatch.delenv("LOCUST_WS_TRACE", raising=False)
    if value is not None:
        monkeypatch.setenv("LOCUST_WS_TRACE", value)

    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            assert "recorder" not in type(connection.wire).__module__

    run(main())


def test_wrong_settings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="record_to is where record_last writes: set record_last"):
        ConnectOptions(record_to=tmp_path)
    with pytest.raises(ValueError, match="record_last must be greater than 0"):
        ConnectOptions(record_last=0)
    with pytest.raises(TypeError, match="record_to must be the path of a folder"):
        ConnectOptions(record_last=1, record_to=3)  # type: ignore[arg-type]


def test_messages_pass_unchanged(bench: Bench, tmp_path: Path) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo", record_last=2, record_to=tmp_path, ping_interval=0.01) as connection:
            for message in ("é" * 70_000, b"x" * 300_000, "", b""):
                await connection.send(message)
                assert await connection.recv() == message
            await eventually(lambda: connection.stats.pongs_received)
            assert connection.subprotocol is None and connection.response.status_code == 101

    run(main())
    assert not bench.failures()
