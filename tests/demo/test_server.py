"""The demo server as a whole: its counts, its HTTP pages, its start and its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from locust_ws_async.demo.server import DemoServer
from tests.support import SCALE, DemoServerProcess, demo_server_process, eventually


def test_counts_messages_bytes_and_closes(server: DemoServerProcess) -> None:
    async def main() -> None:
        async with connect(server.url + "/echo") as connection:
            for message in ("h\N{LATIN SMALL LETTER E WITH ACUTE}", b"123", ["in ", "two ", "parts"]):
                await connection.send(message)
                await connection.recv()
            assert server.stats()["total"]["open"] == 1
        async with connect(server.url + "/echo") as connection:
            await connection.close(4001)
        async with connect(server.url + "/echo") as connection:
            connection.transport.abort()
        with contextlib.suppress(Exception):
            await connect(server.url + "/reject/403")

    asyncio.run(main())
    eventually(lambda: server.stats()["total"]["open"] == 0)
    stats = server.stats()
    assert stats["total"] == {
        "opened": 3,
        "open": 0,
        "messages_in": 3,
        "messages_out": 3,
        "bytes_in": 18,
        "bytes_out": 18,
        "pongs_missed": 0,
        "closes": {"1000": 1, "1006": 1, "4001": 1},
        "abnormal_closes": 1,
    }
    assert stats["routes"] == {"/echo": stats["total"]}
    assert stats["rejected"] == {"403": 1}


def test_an_outage_cuts_every_connection_and_rejects_new_ones_until_it_is_over() -> None:
    async def main() -> None:
        async with DemoServer() as server, connect(server.url + "/echo") as connection:
            outage = asyncio.create_task(server.outage(3600))
            await connection.wait_closed()
            assert connection.close_code == 1006
            with pytest.raises(InvalidStatus, match="503"):
                await connect(server.url + "/echo")
            outage.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await outage
            async with connect(server.url + "/echo") as connection:
                await connection.send("back")
                assert await connection.recv() == "back"

    asyncio.run(main())


def test_login_by_http_then_websocket_with_the_cookie(shared_server: DemoServerProcess) -> None:
    async def main() -> None:
        jar = aiohttp.CookieJar(unsafe=True)  # else aiohttp keeps no cookies of IP addresses
        async with aiohttp.ClientSession(shared_server.http_url, cookie_jar=jar) as http:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await http.ws_connect("/whoami")
            assert caught.value.status == 401

            async with http.get("/login?user=ada") as response:
                assert await response.json() == {"user": "ada"}
            for visits in ("1", "2"):
                async with http.ws_connect("/whoami") as connection:
                    assert "session=" in (await connection.receive_json())["cookie"]
                async with http.get("/cookies") as response:
                    assert (await response.json())["visits"] == visits

    asyncio.run(main())


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/nowhere", 404), ("/echo", 404)])
def test_other_pages_list_the_paths(shared_server: DemoServerProcess, path: str, status: int) -> None:
    async def main() -> tuple[int, str]:
        async with aiohttp.ClientSession() as http, http.get(shared_server.http_url + path) as response:
            return response.status, await response.text()

    assert asyncio.run(main())[0] == status
    assert "/cart/chat" in asyncio.run(main())[1]


def test_serves_wss(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def main(url: str) -> None:
        async with connect(url + "/echo", ssl=trusting) as connection:
            await connection.send("hi")
            assert await connection.recv() == "hi"

    with demo_server_process("--cert", str(tmp_path / "server.pem")) as server:
        assert server.url.startswith("wss://127.0.0.1:")
        asyncio.run(main(server.url))
        assert server.stats()["total"]["messages_in"] == 1


def test_in_process() -> None:
    async def main() -> None:
        async with DemoServer() as server:
            async with connect(server.url + "/echo") as connection:
                await connection.send("hi")
                assert await connection.recv() == "hi"
            assert server.counts["/echo"].messages_in == 1

    asyncio.run(main())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without telling it")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_every_connection_and_ends_it(number: signal.Signals) -> None:
    """Whatever its clients are doing: idle, being pushed to, deaf, stalled, or not done with the handshake."""

    async def main(server: DemoServerProcess) -> list[int | None]:
        paths = ["/echo", "/ticker?rate=1", "/cart/chat", "/silent", "/stalled"]
        connections = [await connect(server.url + path, close_timeout=0.1) for path in paths]
        opening = asyncio.ensure_future(connect(server.url + "/slow-handshake"))
        host, port = server.url.removeprefix("ws://").split(":")
        with socket.create_connection((host, int(port))):  # one who never asks anything
            await asyncio.sleep(0.1)
            server.process.send_signal(number)
            for connection in connections:
                await connection.wait_closed()
            await asyncio.gather(opening, return_exceptions=True)
            await asyncio.to_thread(server.process.wait, 20 * SCALE)
        return [connection.close_code for connection in connections]

    with demo_server_process() as server:
        assert asyncio.run(main(server)) == [1001, 1001, 1001, 1006, 1001]
        assert server.process.returncode == 0


def test_says_why_it_cannot_listen(shared_server: DemoServerProcess) -> None:
    port = shared_server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "locust_ws_async.demo.server", "--port", port]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30 * SCALE)
    assert result.returncode == 1
    assert result.stderr.startswith(f"locust-ws-async: cannot listen on 127.0.0.1:{port}: ")
    assert result.stderr.count("\n") == 1


def test_is_an_ordinary_asyncio_process() -> None:
    """gevent would patch the server's loop, and Locust would cost it a second to start."""
    code = "import sys, locust_ws_async.command; assert not {'gevent', 'locust'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30 * SCALE)
