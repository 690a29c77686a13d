"""TLS by simple settings: own authorities, client certificates, no verification, the name to verify."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve

from locust_ws_async.client import ConnectOptions
from locust_ws_async.exceptions import ConnectError, HandshakeError, TLSError

from .helpers import Bench, run, tcp_server
from .test_handshake import Site, redirect_to

pytestmark = pytest.mark.once


class Authority:
    """A certificate authority, a server it vouches for, and its files."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(self.file)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server = self.ca.issue_cert("localhost", "127.0.0.1", "shop.example")
        server.configure_cert(self.server)
        self.server_file = folder / "server.pem"
        server.private_key_and_cert_chain_pem.write_to_path(self.server_file)
        self.client_file = folder / "client.pem"
        client = self.ca.issue_cert("user@shop.example")
        client.private_key_and_cert_chain_pem.write_to_path(self.client_file)
        self.key_file = folder / "key.pem"
        client.private_key_pem.write_to_path(self.key_file)
        self.chain_file = folder / "chain.pem"
        self.chain_file.write_bytes(b"".join(pem.bytes() for pem in client.cert_chain_pems))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    yield Authority(tmp_path_factory.mktemp("certificates"))


class Server:
    """An echo server on TLS that keeps what its clients said about themselves."""

    def __init__(self, context: ssl.SSLContext, host: str = "127.0.0.1") -> None:
        self.names: list[str | None] = []
        self.certificates: list[Any] = []
        context.sni_callback = lambda connection, name, context: self.names.append(name)
        self._context = context
        self._host = host

    async def __aenter__(self) -> Server:
        async def echo(connection: ServerConnection) -> None:
            self.certificates.append(connection.transport.get_extra_info("peercert"))
            async for message in connection:
                await connection.send(message)

        self._server = await serve(echo, self._host, 0, ssl=self._context)
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await self._server.wait_closed()


def echoes(bench: Bench, server: Server, host: str = "localhost", **options: Any) -> None:
    async def main() -> None:
        async with server, bench.client().connect(f"wss://{host}:{server.port}", **options) as connection:
            await connection.send("x" * 100_000)
            assert await connection.recv() == "x" * 100_000

    run(main())
    assert not bench.failures()


def fails(bench: Bench, server: Server, text: str, **options: Any) -> None:
    async def main() -> None:
        async with server:
            with pytest.raises(TLSError, match=text):
                await bench.client().connect(f"wss://localhost:{server.port}", **options)
            await asyncio.sleep(0)

    run(main())
    assert set(bench.failures()) == {"WS CONNECT"}


def test_own_authorities_in_a_file(bench: Bench, authority: Authority) -> None:
    echoes(bench, Server(authority.server), verify=str(authority.file))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_own_authorities_in_a_folder(bench: Bench, authority: Authority, tmp_path: Path) -> None:
    # OpenSSL finds them by the hash of their subject: the name of the file.
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(authority.file)]
    digest = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / f"{digest}.0").write_bytes(authority.file.read_bytes())
    echoes(bench, Server(authority.server), verify=str(tmp_path))


def test_without_verification(bench: Bench, authority: Authority) -> None:
    echoes(bench, Server(authority.server), verify=False)
    echoes(bench, Server(authority.server), host="127.0.0.1", verify=False)


def test_the_default_verifies(bench: Bench, authority: Authority) -> None:
    fails(bench, Server(authority.server), "TLS certificate not accepted: ")


def test_the_name_is_verified(bench: Bench, authority: Authority) -> None:
    fails(
        bench,
        Server(authority.server),
        "^TLS certificate not accepted: hostname mismatch$",
        verify=str(authority.file),
        server_hostname="other.example",
    )


def test_another_name_to_verify(bench: Bench, authority: Authority) -> None:
    server = Server(authority.server)
    echoes(bench, server, verify=str(authority.file), server_hostname="shop.example")
    assert server.names == ["shop.example"]


@pytest.mark.parametrize("pair", [False, True])
def test_a_client_certificate(bench: Bench, authority: Authority, pair: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.ca.issue_cert("localhost").configure_cert(context)
    authority.ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    server = Server(context)
    cert = [authority.chain_file, authority.key_file] if pair else authority.client_file
    echoes(bench, server, verify=authority.file, cert=cert)
    text = (str(authority.chain_file), str(authority.key_file)) if pair else str(authority.client_file)
    echoes(bench, server, verify=str(authority.file), cert=text)
    for certificate in server.certificates:
        assert ("email", "user@shop.example") in certificate["subjectAltName"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("wrong", [False, True], ids=["missing", "refused"])
def test_without_the_client_certificate_that_is_wanted(
    bench: Bench, authority: Authority, tmp_path: Path, wrong: bool, version: ssl.TLSVersion
) -> None:
    """With TLS 1.3 the server says so after the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.ca.issue_cert("localhost").configure_cert(context)
    authority.ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    options: dict[str, Any] = {"verify": authority.file}
    if wrong:
        trustme.CA().issue_cert("me@other.example").private_key_and_cert_chain_pem.write_to_path(tmp_path / "other.pem")
        options["cert"] = tmp_path / "other.pem"
        text = "TLS handshake failed: TLSV1_ALERT_UNKNOWN_CA"
    else:
        alert = {ssl.TLSVersion.TLSv1_2: "SSLV3_ALERT_HANDSHAKE_FAILURE"}
        text = f"TLS handshake failed: {alert.get(version, 'TLSV13_ALERT_CERTIFICATE_REQUIRED')}"

    def serve_one(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True):
            pass
        # The client's request is read, lest the system answers it with a reset that overtakes the alert.
        with contextlib.suppress(OSError), sock:
            while sock.recv(65536):
                pass

    async def main() -> str:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(asyncio.to_thread(serve_one, listener))
            with pytest.raises(TLSError) as caught:
                await bench.client().connect(f"wss://localhost:{listener.getsockname()[1]}", **options)
            await serving
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        return str(caught.value)

    assert run(main()) == text


def test_a_server_that_says_nothing_of_the_certificate_that_is_missing(bench: Bench, authority: Authority) -> None:
    """As those of asyncio."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.ca.issue_cert("localhost").configure_cert(context)
    authority.ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED

    async def main() -> str:
        async with Server(context) as server:
            with pytest.raises(ConnectError) as caught:
                await bench.client().connect(f"wss://localhost:{server.port}", verify=authority.file)
            return str(caught.value)

    assert "does the server want a client certificate, which the setting cert gives?" in run(main())


def test_a_dot_at_the_end_of_a_host_is_for_the_resolver(bench: Bench, authority: Authority) -> None:
    asked: list[str] = []

    class Names(asyncio.SelectorEventLoop):
        async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    session = requests.Session()
    session.cookies.set("user", "7", domain="shop.example", path="/")

    async def main() -> None:
        server = authority.server
        names: list[str | None] = []
        server.sni_callback = lambda connection, name, context: names.append(name)
        async with Site(ssl=server) as site:
            url = site.url.replace("127.0.0.1", "shop.example.")
            client = bench.client(http_session=session)
            async with client.connect(url, verify=authority.file, share_cookies=True):
                assert site.headers["Host"] == url.removeprefix("wss://").replace(".:", ":")
                assert site.headers["Cookie"] == "user=7"
        assert names == ["shop.example"]
        assert asked == ["shop.example."]

    run(main(), new_loop=Names)
    with pytest.raises(ValueError, match="no host name"):
        bench.client().connect("wss://./")
    session.close()


def test_settings_share_a_context(authority: Authority) -> None:
    first = ConnectOptions(verify=str(authority.file), max_size=1)
    again = ConnectOptions(verify=str(authority.file), headers={"a": "b"})
    assert first.tls_context() is again.tls_context()
    assert ConnectOptions().tls_context() is ConnectOptions(max_queue=1).tls_context()
    assert ConnectOptions(verify=False).tls_context() is not first.tls_context()
    own = ssl.create_default_context()
    assert ConnectOptions(ssl=own).tls_context() is own


def test_wrong_settings(authority: Authority, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    for options, message in (
        (
            {"verify": missing},
            "verify must be True, False, or a PEM file or folder of authorities; '.*missing.pem' did",
        ),
        ({"verify": str(authority.key_file)}, "verify must be"),
        ({"cert": missing}, "cert must be a PEM file with certificate and private key, or a pair"),
        ({"cert": str(authority.file)}, "cert must be a PEM file"),
        (
            {"verify": False, "ssl": ssl.create_default_context()},
            "ssl is a whole TLS context: set verify and cert there",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            ConnectOptions(**options)
    for options, message in (
        ({"verify": None}, "verify must be True, False, or a path"),
        ({"cert": ("a", "b", "c")}, "cert must be a path or a pair of paths"),
    ):
        with pytest.raises(TypeError, match=message):
            ConnectOptions(**options)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "TLS handshake failed: WRONG_VERSION_NUMBER (does it speak TLS on this port? if not, connect to ws://)",
        ),
        (
            b"",
            "TLS handshake failed: the server closed the connection (does it speak TLS on this port? if not, connect to ws://)",
        ),
    ],
)
def test_tls_that_ends_early(bench: Bench, answer: bytes, text: str) -> None:
    async def main() -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(answer)

        async with tcp_server(script) as url:
            with pytest.raises(TLSError) as caught:
                await bench.client().connect(url.replace("ws", "wss", 1))
        assert str(caught.value) == text

    run(main())
    assert bench.types() == ["WS CONNECT"] and bench.rows[0].error is not None


@contextlib.asynccontextmanager
async def websockets_server(context: ssl.SSLContext | None) -> AsyncIterator[str]:
    async with serve(ServerConnection.wait_closed, "127.0.0.1", 0, ssl=context) as server:
        yield f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


@contextlib.asynccontextmanager
async def aiohttp_server(context: ssl.SSLContext | None) -> AsyncIterator[str]:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


NewServer = Callable[[ssl.SSLContext | None], contextlib.AbstractAsyncContextManager[str]]


@pytest.mark.parametrize("new_server", [websockets_server, aiohttp_server])
@pytest.mark.parametrize(
    ("scheme", "kind", "hint"),
    [
        ("wss", TLSError, "(does it speak TLS on this port? if not, connect to ws://)"),
        ("ws", HandshakeError, "(is it the right port, and does the server want wss:// or ws://?)"),
    ],
)
def test_the_wrong_scheme(
    bench: Bench, authority: Authority, new_server: NewServer, scheme: str, kind: type[ConnectError], hint: str
) -> None:
    async def main() -> None:
        async with new_server(authority.server if scheme == "ws" else None) as address:
            with pytest.raises(kind) as caught:
                await bench.client().connect(f"{scheme}://{address}/")
        assert type(caught.value) is kind and str(caught.value).endswith(hint)

    run(main())
    assert bench.types() == ["WS CONNECT"] and bench.rows[0].error is not None


def test_redirects_between_schemes(bench: Bench, authority: Authority) -> None:
    """To TLS they are followed, as to another origin; away from TLS never."""

    async def main() -> None:
        secure = Site(lambda request: redirect_to(plain.url) if request.path == "/down" else None, ssl=authority.server)
        plain = Site(lambda request: redirect_to(secure.url + request.path))
        options: dict[str, Any] = {"verify": str(authority.file), "bearer": "secret"}
        async with plain, secure:
            async with bench.client().connect(plain.url + "/up", **options) as connection:
                await connection.send("x")
                assert await connection.recv() == "x"
                assert "Authorization" in plain.headers and "Authorization" not in secure.headers
            with pytest.raises(HandshakeError) as caught:
                await bench.client().connect(secure.url + "/down", **options)
            text = "the server redirects the handshake from wss:// to ws://, which is not followed"
            assert str(caught.value) == text
            assert len(plain.requests) == 1

    run(main())


def test_secure_cookies_need_tls(bench: Bench, authority: Authority) -> None:
    session = requests.Session()

    async def main() -> None:
        client = bench.client(http_session=session)
        async with (
            Site(ssl=authority.server, set_cookie=("safe=1; Secure", "any=2")) as secure,
            Site() as plain,
        ):
            for path in ("/first", "/second"):
                async with client.connect(secure.url + path, share_cookies=True, verify=str(authority.file)):
                    pass
            assert sorted(secure.headers["Cookie"].split("; ")) == ["any=2", "safe=1"]
            async with client.connect(plain.url, share_cookies=True):
                assert plain.headers["Cookie"] == "any=2"

    run(main())
