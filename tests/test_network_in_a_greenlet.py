"""What the client does with sockets by itself, before an engine has them, works on a greenlet's loop as well."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from locust_ws_async.client import ENGINES
from tests.support import SCALE, DemoServerProcess, demo_server_process

PROGRAM = """
import gevent.monkey; gevent.monkey.patch_all()
import asyncio, sys
from gevent import get_hub
from gevent.event import Event
from gevent.monkey import get_original
from locust_ws_async.bridge import LoopHost
from locust_ws_async.client import WebSocketClient
from locust_ws_async.exceptions import ConnectTimeout, HandshakeError, ProxyError, TLSError
from tests.client.helpers import tcp_server, until_eof
from tests.client.proxies import Proxy

class SilentResolver:
    def getaddrinfo(self, *arguments):
        Event().wait()

    def close(self):
        pass

engine, url = sys.argv[1:]
new_socket = get_original("socket", "socket")
client = WebSocketClient(base_url=url, report=lambda *row: None, engine=engine, new_socket=new_socket)

async def echo(path, **options):
    async with client.connect(path, **options) as connection:
        await connection.send("x" * 100_000)
        assert await connection.recv() == "x" * 100_000
        return connection.stats.connect

async def main():
    for kind, scheme in (("http", "http"), ("socks5", "socks5h"), ("socks5", "socks5"), ("socks4", "socks4a")):
        async with Proxy(kind, credentials=None if kind == "socks4" else ("me", "secret")) as proxy:
            assert (await echo("/echo", proxy=proxy.url(scheme, "me:secret@"), local_address="127.0.0.1")).proxy
            if kind != "socks4":
                try:
                    await echo("/echo", proxy=proxy.url(scheme, "me:wrong@"))
                except ProxyError:
                    pass
                else:
                    raise AssertionError(kind)
    assert (await echo(url.replace("127.0.0.1", "localhost") + "/echo")).dns
    async with tcp_server(until_eof) as silent:
        for options in ({}, {"proxy": silent.replace("ws", "http")}, {"proxy": silent.replace("ws", "socks5h")}):
            for scheme in ("ws", "wss"):
                try:
                    await echo(silent.replace("ws", scheme), open_timeout=0.1, **options)
                except ConnectTimeout:
                    continue
                raise AssertionError(options)
    async def end(reader, writer):
        await reader.read(1)
    async with tcp_server(end) as ending:
        for scheme, kind in (("ws", HandshakeError), ("wss", TLSError)):
            try:
                await echo(ending.replace("ws", scheme))
            except kind:
                continue
            raise AssertionError(scheme)
    get_hub().resolver = SilentResolver()
    try:
        await echo("ws://server.invalid", open_timeout=0.1)
    except ConnectTimeout as exc:
        assert "name lookup" in str(exc)
    else:
        raise AssertionError("no timeout")

host = LoopHost()
try:
    host.run(main())
finally:
    host.close()
print("all of it")
"""


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoServerProcess]:
    with demo_server_process() as server:
        yield server


@pytest.mark.parametrize("engine", ENGINES)
def test_proxies_names_and_time_limits(engine: str, demo: DemoServerProcess) -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM, engine, demo.url]
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root}
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=60 * SCALE)
    assert (result.stdout, result.stderr) == ("all of it\n", "")
