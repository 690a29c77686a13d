"""Recorded by mitmproxy, as its HAR has it, converted, and run by a real Locust.

mitmproxy pins the versions of much that the tests need too, so it is no part of the ``test`` extra: it is found by
``MITMDUMP``, or on PATH, where it is installed in an environment of its own. ``mitmproxy.har`` is what it wrote once.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import websockets

from locust_ws_async.recording import locustfile, parse
from tests.support import SCALE, eventually, unused_port

from .helpers import WritingServer, run_once, well_formed, without

MITMDUMP = os.environ.get("MITMDUMP") or shutil.which("mitmdump")
FIXTURE = Path(__file__).with_name("mitmproxy.har")
PASSWORD = "correct-horse-17"

unix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without telling it")


async def talk(url: str, proxy: str) -> None:
    """What a client does through the proxy."""
    async with websockets.connect(f"{url}/rpc", proxy=proxy, compression=None) as rpc:
        for number in range(3):
            await rpc.send(json.dumps({"id": number, "params": ["balance"]}))
            await rpc.recv()
    async with websockets.connect(f"{url}/echo?room=7", proxy=proxy, subprotocols=["chat.v2"]) as echo:  # type: ignore[list-item]
        for message in (json.dumps({"user": "anna", "password": PASSWORD}), "hello", b"\x00\x01\xff"):
            await echo.send(message)
            await echo.recv()
            await asyncio.sleep(0.2)


@pytest.fixture
def har(server: WritingServer, folder: Path) -> str:
    """The HAR that mitmproxy writes of it."""
    if MITMDUMP is None:
        pytest.skip("no mitmproxy: install it in an environment of its own, and set MITMDUMP to its mitmdump")
    port, path = unused_port(), folder / "session.har"
    options = f"--quiet --listen-host 127.0.0.1 --listen-port {port} --set hardump={path} --set confdir={folder / 'ca'}"
    with subprocess.Popen([MITMDUMP, *options.split()], stdin=subprocess.DEVNULL) as proxy:
        try:
            eventually(lambda: (folder / "ca").exists() and answers(port), seconds=30)
            asyncio.run(talk(server.url, f"http://127.0.0.1:{port}"))
        finally:
            proxy.terminate()
            proxy.wait(timeout=30 * SCALE)
    return path.read_text()


def answers(port: int) -> bool:
    import socket

    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@unix_only
def test_recorded_by_mitmproxy(har: str, server: WritingServer, folder: Path) -> None:
    first = server.seen()
    server.forget()
    again(har, first_messages=[connection.messages for connection in first], server=server, folder=folder)


@unix_only
def test_what_mitmproxy_wrote_once(server: WritingServer, folder: Path) -> None:
    text = FIXTURE.read_text()
    sent = [
        [message["data"] for message in entry["_webSocketMessages"] if message["type"] == "send"]
        for entry in json.loads(text)["log"]["entries"]
        if "_webSocketMessages" in entry
    ]
    sent[1][2] = "base64:" + sent[1][2]
    recorded_at = json.loads(text)["log"]["entries"][0]["request"]["url"].split("/")[2]
    again(text.replace(recorded_at, server.url.removeprefix("ws://")), sent, server, folder)


def again(har: str, first_messages: list[list[str]], server: WritingServer, folder: Path) -> None:
    """Convert it, run it, and compare what the server received."""
    source = locustfile(parse(har))
    (folder / "out").mkdir()
    (folder / "out" / "locustfile.py").write_text(source)
    well_formed(folder / "out")
    assert PASSWORD in har and PASSWORD not in source
    assert 'match=json_field("id")' in source and 'subprotocols=["chat.v2"]' in source
    run = run_once(source, server, folder, 2, RECORDED_PASSWORD=PASSWORD, RECORDED_USER="anna")
    run.assert_no_failures()
    comparable = without("id")
    assert [list(map(comparable, connection.messages)) for connection in run.seen] == [
        list(map(comparable, messages)) for messages in first_messages
    ]
    assert [connection.path for connection in run.seen] == ["/rpc", "/echo?room=7"]
