"""Through HTTP and SOCKS proxies, plain and with TLS to the server."""

from __future__ import annotations

import ssl
import subprocess
import sys
from typing import Any

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve

from locust_ws_async.client import ConnectOptions
from locust_ws_async.exceptions import ProxyError, TLSError

from .helpers import Bench, run
from .proxies import Proxy
from .test_failures import unused_port


async def echoes(bench: Bench, url: str, **options: Any) -> Any:
    """Echo a long message; gives the connection's phases."""
    async with bench.client().connect(url, **options) as connection:
        await connection.send("é" * 100_000)
        assert await connection.recv() == "é" * 100_000
        return connection.stats.connect


KINDS = [("http", "http"), ("socks5", "socks5h"), ("socks5", "socks5"), ("socks4", "socks4a"), ("socks4", "socks4")]


@pytest.mark.parametrize(("kind", "scheme"), KINDS)
def test_through_a_proxy(bench: Bench, kind: str, scheme: str) -> None:
    assert bench.base_url is not None
    port = int(bench.base_url.rsplit(":", 1)[1])

    async def main() -> None:
        async with Proxy(kind) as proxy:
            phases = await echoes(bench, "/echo", proxy=proxy.url(scheme))
            assert proxy.asked == [("127.0.0.1", port)]
            assert phases.proxy > 0 and phases.tcp > 0 and phases.dns is None and phases.tls is None
            assert proxy.kind != "http" or b"locust-ws-async" not in proxy.requests[0]

    run(main())
    assert not bench.failures()


@pytest.mark.parametrize(("kind", "scheme"), KINDS)
def test_tls_inside(bench: Bench, kind: str, scheme: str) -> None:
    ca = trustme.CA()
    context, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("localhost").configure_cert(context)
    ca.configure_trust(trusting)

    async def main() -> None:
        async def echo(connection: ServerConnection) -> None:
            async for message in connection:
                await connection.send(message)

        async with serve(echo, "127.0.0.1", 0, ssl=context) as server, Proxy(kind) as proxy:
            url = f"wss://localhost:{next(iter(server.sockets)).getsockname()[1]}"
            phases = await echoes(bench, url, proxy=proxy.url(scheme), ssl=trusting)
            assert phases.tls > 0 and phases.upgrade > 0
            with pytest.raises(TLSError):
                await echoes(bench, url, proxy=proxy.url(scheme))

    run(main())


@pytest.mark.parametrize(("kind", "scheme"), [("http", "http"), ("socks5", "socks5h"), ("socks4", "socks4a")])
def test_names_are_looked_up_by_the_proxy(bench: Bench, kind: str, scheme: str) -> None:
    assert bench.base_url is not None
    port = bench.base_url.rsplit(":", 1)[1]

    async def main() -> None:
        for name, ascii_name in (("server.invalid", "server.invalid"), ("bücher.invalid", "xn--bcher-kva.invalid")):
            async with Proxy(kind, names={ascii_name: "127.0.0.1"}) as proxy:
                await echoes(bench, f"ws://{name}:{port}/echo", proxy=proxy.url(scheme))
                assert proxy.asked == [(ascii_name, int(port))]

    run(main())


@pytest.mark.parametrize(("kind", "scheme"), [("http", "http"), ("socks5", "socks5h")])
def test_credentials(bench: Bench, kind: str, scheme: str) -> None:
    async def main() -> None:
        async with Proxy(kind, credentials=("me", "p@ss")) as proxy:
            await echoes(bench, "/echo", proxy=proxy.url(scheme, "me:p%40ss@"))
            for user_info in ("", "me:wrong@"):
                with pytest.raises(ProxyError) as caught:
                    await echoes(bench, "/echo", proxy=proxy.url(scheme, user_info))
                if kind == "http":
                    text = "the proxy answered CONNECT with HTTP 407 Proxy Authentication Required"
                    assert str(caught.value) == text

    run(main())


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("http", "the proxy answered CONNECT with HTTP 502 Bad Gateway"),
        ("socks5", "the SOCKS proxy did not connect: Connection refused by destination host"),
        ("socks4", "the SOCKS proxy did not connect: Request rejected or failed"),
    ],
)
def test_a_proxy_that_cannot_connect(bench: Bench, kind: str, text: str) -> None:
    async def main() -> None:
        async with Proxy(kind) as proxy:
            with pytest.raises(ProxyError) as caught:
                await bench.client().connect(f"ws://127.0.0.1:{unused_port()}", proxy=proxy.url())
            assert str(caught.value) == text

    run(main())
    assert bench.only("WS CONNECT").error is not None


@pytest.mark.parametrize(
    ("kind", "answer", "text"),
    [
        ("http", b"", "the proxy did not answer CONNECT, or not in HTTP"),
        ("http", b"HTTP/1.1 2", "the proxy did not answer CONNECT, or not in HTTP"),
        ("http", b"nonsense\r\n\r\n", "the proxy did not answer CONNECT, or not in HTTP"),
        (
            "http",
            b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000,
            "the proxy's answer to CONNECT has headers of over 64 KiB",
        ),
        ("http", b"HTTP/1.1 200 OK\r\na: b\r\n", "the proxy did not answer CONNECT, or not in HTTP"),
        ("http", b"HTTP/1.0 502 Bad Gateway\r\na: b\r\n", "the proxy answered CONNECT with HTTP 502 Bad Gateway"),
        ("http", b"HTTP/1.1 200 OK\r\n\r\nmore", "the proxy sent more than its answer to CONNECT"),
        ("http", b"HTTP/1.1 403\r\n\r\n", "the proxy answered CONNECT with HTTP 403"),
        ("http", b"HTTP/1.1 403 \r\n\r\n", "the proxy answered CONNECT with HTTP 403"),
        ("socks5", b"", "the SOCKS proxy did not connect: Connection closed unexpectedly"),
        ("socks5", b"\x04\x00", "the SOCKS proxy did not connect: Unexpected SOCKS version number: 4"),
        ("socks5", b"\x05\xff", "the SOCKS proxy did not connect: No acceptable authentication methods were offered"),
    ],
)
def test_answers_of_no_proxy(bench: Bench, kind: str, answer: bytes, text: str) -> None:
    async def main() -> None:
        async with Proxy(kind, answer=answer) as proxy:
            with pytest.raises(ProxyError) as caught:
                await bench.client().connect("/echo", proxy=proxy.url())
            assert str(caught.value) == text

    run(main())


@pytest.mark.parametrize("scheme", ["http", "socks5h", "socks4a"])
def test_a_proxy_that_is_not_there(bench: Bench, scheme: str) -> None:
    async def main() -> None:
        for host, text in (
            ("127.0.0.1", "connection refused by 127.0.0.1:{port}"),
            ("proxy.invalid", "unknown host proxy.invalid"),
        ):
            port = unused_port()
            with pytest.raises(ProxyError) as caught:
                await bench.client().connect("/echo", proxy=f"{scheme}://{host}:{port}")
            assert str(caught.value) == f"no connection to the proxy: {text.format(port=port)}"

    run(main())


def test_the_systems_proxy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Proxy("http") as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url())
            monkeypatch.setenv("NO_PROXY", "")
            await echoes(bench, "/echo", proxy=True)
            assert len(proxy.asked) == 1
            await echoes(bench, "/echo")  # not unless it is asked for
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            await echoes(bench, "/echo", proxy=True)
            assert len(proxy.asked) == 1

    run(main())


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_a_proxy_is_reached_from_the_local_address(bench: Bench, kind: str) -> None:
    async def main() -> None:
        async with Proxy(kind) as proxy:
            await echoes(bench, "/echo", proxy=proxy.url(), local_address="127.0.0.9")
            assert proxy.peers == ["127.0.0.9"]

    run(main())


@pytest.mark.parametrize(
    ("proxy", "kind", "message"),
    [
        ("ftp://h", ValueError, "proxy must be http://host:port or socks5h://host:port"),
        ("http://", ValueError, "proxy must be http://host:port"),
        ("http://h:99999", ValueError, "proxy must be http://host:port"),
        ("http://h/path", ValueError, "path is meaningless"),
        ("https://h", ValueError, r"TLS to the proxy itself \(https://\) is not supported"),
        (False, TypeError, "proxy must be a URL, True for the system's, or None, not False"),
    ],
)
def test_a_wrong_proxy(proxy: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        ConnectOptions(proxy=proxy)


def test_socks_without_its_library() -> None:
    program = (
        "import sys; sys.modules['python_socks'] = None\n"
        "from locust_ws_async.client import ConnectOptions\n"
        "ConnectOptions(proxy='http://h')\n"
        "ConnectOptions(proxy='socks5h://h')\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "pip install python-socks" in result.stderr.splitlines()[-1]
