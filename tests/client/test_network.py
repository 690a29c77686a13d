"""Where connections come from and go to: source addresses, unix sockets, IPv6, and the time of each phase."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import struct
import sys
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve, unix_serve

from locust_ws_async.client import ConnectOptions, SourceAddresses
from locust_ws_async.client.observing.timing import ConnectPhases
from locust_ws_async.exceptions import ConnectError, ConnectionRefused, ConnectTimeout, HandshakeError, UnknownHost
from tests.support import SCALE, unknown_host, unused_port

from .helpers import Bench, eventually, run

loopback_network = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on loopback")


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


# Source addresses


@loopback_network
def test_a_local_address(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().connect("/echo", local_address="127.0.0.42") as connection:
            assert connection.local_address[0] == "127.0.0.42"

    run(main())


@loopback_network
def test_connections_take_turns(bench: Bench) -> None:
    """Also those of other clients, who are other users, with the same setting."""

    async def main() -> None:
        options = {"local_address": ["127.0.0.5", "127.0.0.8/30"]}
        clients = [bench.client(options=ConnectOptions(**options)) for _ in range(6)]
        came_from = []
        for client in clients:
            async with client.connect("/echo") as connection:
                came_from.append(connection.local_address[0])
        assert sorted(came_from) == sorted(["127.0.0.5", "127.0.0.9", "127.0.0.10"] * 2)
        assert came_from[:3] == came_from[3:]

    run(main())


@loopback_network
@pytest.mark.skipif(not hasattr(socket, "IP_BIND_ADDRESS_NO_PORT"), reason="the platform chooses the port at bind()")
def test_a_port_may_serve_two_servers(bench: Bench) -> None:
    """
    Without IP_BIND_ADDRESS_NO_PORT the port is taken when the socket is bound, before it is known what for. With it
    there is no port yet at that time.
    """
    with socket.socket() as sock:
        SourceAddresses(["127.0.0.1"]).bind(sock)
        assert sock.getsockname() == ("127.0.0.1", 0)


@loopback_network
def test_where_the_system_chooses_ports_early(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locust_ws_async.client.opening.source_addresses._BIND_ADDRESS_NO_PORT", None)
    test_a_local_address(bench)
    # An option that the kernel does not know.
    monkeypatch.setattr("locust_ws_async.client.opening.source_addresses._BIND_ADDRESS_NO_PORT", 255)
    test_a_local_address(bench)


def test_addresses_that_do_not_fit(bench: Bench) -> None:
    async def main() -> None:
        for address, text in (
            ("192.0.2.1", "local_address is not an address of this machine"),  # RFC 5737: nobody's
            ("::1", "local_address and the server have no address family (IPv4, IPv6) in common"),
        ):
            with pytest.raises(ConnectError) as caught:
                await bench.client().connect("/echo", local_address=address)
            assert str(caught.value) == text

    run(main())
    assert bench.types() == ["WS CONNECT", "WS CONNECT"]


@loopback_network
def test_the_next_address_has_ports_left(bench: Bench) -> None:
    """127.0.0.66 cannot reach the server: it has used up the one port that the test leaves it."""
    assert bench.base_url is not None
    port = int(bench.base_url.rsplit(":", 1)[1])
    with socket.socket() as probe:  # one of the range from which the system gives
        probe.bind(("127.0.0.1", 0))
        only_port = probe.getsockname()[1]
    option, one_port = 51, struct.pack("I", only_port | only_port << 16)  # IP_LOCAL_PORT_RANGE, of Linux 6.3

    async def main() -> None:
        def narrow(family: int, kind: int, protocol: int) -> socket.socket:
            sock = socket.socket(family, kind, protocol)
            sock.setsockopt(socket.IPPROTO_IP, option, one_port)
            return sock

        with narrow(socket.AF_INET, socket.SOCK_STREAM, 0) as taken:
            SourceAddresses(["127.0.0.66"]).bind(taken)
            taken.connect(("127.0.0.1", port))
            client = bench.client(new_socket=narrow)
            source = SourceAddresses(["127.0.0.66", "127.0.0.67"])
            async with client.connect("/echo", local_address=source) as connection:
                assert connection.local_address[0] == "127.0.0.67"
                with pytest.raises(ConnectError) as caught:
                    await client.connect("/echo", local_address=source)
                text = "no local port is free: let connections come from more addresses, with local_address"
                assert str(caught.value) == text

    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_IP, option, one_port)
        except OSError:
            pytest.skip("the kernel has no IP_LOCAL_PORT_RANGE")
    run(main())


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [
        ("localhost", ValueError, "local_address: 'localhost' is not an IP address or network"),
        ("10.0.0.0/8", ValueError, "local_address: '10.0.0.0/8' has over 65536 addresses"),
        ([], ValueError, "local_address holds no address"),
        (("127.0.0.1", 0), TypeError, "local_address must be an IP address or several of them"),
    ],
)
def test_wrong_addresses(address: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        ConnectOptions(local_address=address)


# Unix sockets


def test_a_unix_socket(unix_path: str) -> None:
    bench = Bench("websockets", "ws://shop.example")

    async def main() -> None:
        async with (
            unix_serve(echo, unix_path),
            bench.client().connect("/a?b=c", unix_socket=unix_path) as connection,
        ):
            await connection.send("x" * 100_000)
            assert await connection.recv() == "x" * 100_000
            assert connection.handshake_request.headers["Host"] == "shop.example"
            assert connection.handshake_request.path == "/a?b=c"
        with pytest.raises(ConnectError) as caught:
            await bench.client().connect("/", unix_socket=unix_path + ".not")
        assert str(caught.value) == "No such file or directory"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(unix_path + ".bound")
            with pytest.raises(ConnectionRefused):
                await bench.client().connect("/", unix_socket=unix_path + ".bound")

    run(main())


def test_tls_on_a_unix_socket(unix_path: str) -> None:
    bench = Bench("websockets", "wss://shop.example")
    ca = trustme.CA()
    context, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("shop.example").configure_cert(context)
    ca.configure_trust(trusting)

    async def main() -> None:
        async with (
            unix_serve(echo, unix_path, ssl=context),
            bench.client().connect("/", unix_socket=unix_path, ssl=trusting) as connection,
        ):
            await connection.ping()

    run(main())


def test_a_redirect_away_from_a_unix_socket(unix_path: str) -> None:
    bench = Bench("websockets", "ws://shop.example")

    async def main() -> None:
        def away(connection: ServerConnection, request: Any) -> Any:
            response = connection.respond(302, "")
            response.headers["Location"] = "/there" if request.path == "/" else "ws://other.example/"
            return response

        async with unix_serve(echo, unix_path, process_request=away):
            with pytest.raises(HandshakeError) as caught:
                await bench.client().connect("/", unix_socket=unix_path)
            assert str(caught.value) == "the server redirects the handshake to where unix_socket does not lead"

    run(main())


def test_unix_sockets_and_other_settings() -> None:
    for other in ({"proxy": "http://h"}, {"local_address": "127.0.0.1"}):
        with pytest.raises(ValueError, match=f"unix_socket and {next(iter(other))} exclude each other"):
            ConnectOptions(unix_socket="/run/server.sock", **other)
    with pytest.raises(ValueError, match='"picows" has no unix sockets: set unix_socket=None'):
        Bench("picows", "ws://h").client().connect("/", unix_socket="/run/server.sock")


# IPv6


def test_ipv6(bench: Bench) -> None:
    async def main() -> None:
        try:
            server = await serve(echo, "::1", 0)
        except OSError:
            pytest.skip("the machine has no IPv6")
        async with server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with bench.client().connect(f"ws://[::1]:{port}/a", local_address=["127.0.0.1", "::1"]) as connection:
                await connection.send("x")
                assert await connection.recv() == "x"
                assert connection.remote_address[:2] == ("::1", port)
                assert connection.handshake_request.headers["Host"] == f"[::1]:{port}"

    run(main())


def test_ipv6_and_tls(bench: Bench) -> None:
    ca = trustme.CA()
    context, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("::1").configure_cert(context)
    ca.configure_trust(trusting)

    async def main() -> None:
        try:
            server = await serve(echo, "::1", 0, ssl=context)
        except OSError:
            pytest.skip("the machine has no IPv6")
        async with server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with bench.client().connect(f"wss://[::1]:{port}/a", ssl=trusting) as connection:
                await connection.ping()

    run(main())


def test_the_other_address_of_a_name(bench: Bench) -> None:
    """localhost may be ::1 first, where nobody listens."""

    async def main() -> None:
        async with serve(echo, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with bench.client().connect(f"ws://localhost:{port}") as connection:
                await connection.ping()
        with pytest.raises(ConnectionRefused):
            await bench.client().connect(f"ws://localhost:{unused_port()}")

    run(main())


class LoopWithNames(asyncio.SelectorEventLoop):
    """Resolves pool.example to these addresses, at the port that was asked for."""

    addresses: tuple[str, ...] = ()

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        if host != "pool.example":
            return await super().getaddrinfo(host, port, **hints)
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in self.addresses]
        return [
            (family, socket.SOCK_STREAM, 6, "", (address, port))
            for family, address in zip(families, self.addresses, strict=True)
        ]


def names(*addresses: str) -> type[LoopWithNames]:
    return type("LoopWithTheseNames", (LoopWithNames,), {"addresses": addresses})


@contextlib.contextmanager
def dead(*addresses: str, port: int) -> Iterator[None]:
    """Addresses that accept no TCP connection: their backlog is full, so SYN packets are dropped."""
    with contextlib.ExitStack() as sockets:
        for address in addresses:
            listener = sockets.enter_context(socket.socket())
            listener.bind((address, port))
            listener.listen(0)
            for _ in range(4):
                filler = sockets.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex((address, port))
        yield


@loopback_network
@pytest.mark.parametrize("source", [None, "127.0.0.42"])
def test_dead_addresses_of_a_name(bench: Bench, source: str | None) -> None:
    """The next address is tried after 250 ms (RFC 8305 section 5); what the others left open is closed."""

    async def main() -> None:
        async with serve(echo, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            with dead("127.0.0.2", "127.0.0.3", port=port):
                async with bench.client().connect(
                    f"ws://pool.example:{port}", open_timeout=None, local_address=source
                ) as connection:
                    assert connection.remote_address[0] == "127.0.0.1"
                    assert connection.local_address[0] == (source or "127.0.0.1")
                    phases = connection.stats.connect
                    assert phases.tcp is not None and phases.tcp >= 2 * 250 - 20
                    assert phases.dns is not None and phases.dns < phases.tcp

    run(main(), new_loop=names("127.0.0.2", "127.0.0.3", "127.0.0.1"))


@loopback_network
def test_an_address_that_refuses_is_passed_over_at_once(bench: Bench) -> None:
    async def main() -> None:
        async with serve(echo, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            with dead("127.0.0.3", port=port):
                async with bench.client().connect(f"ws://pool.example:{port}") as connection:
                    assert connection.remote_address[0] == "127.0.0.1"
                    tcp = connection.stats.connect.tcp
                    assert tcp is not None and tcp < 250 * SCALE  # neither waited for
            with pytest.raises(ConnectionRefused), dead("127.0.0.3", port=unused_port()):
                await bench.client().connect(f"ws://pool.example:{unused_port()}")

    run(main(), new_loop=names("127.0.0.2", "127.0.0.1", "127.0.0.3"))


@loopback_network
def test_no_address_of_a_name_accepts(bench: Bench) -> None:
    async def main() -> None:
        with pytest.raises(ConnectionRefused):
            await bench.client().connect(f"ws://pool.example:{unused_port()}")
        port = unused_port()
        with dead("127.0.0.2", "127.0.0.3", port=port), pytest.raises(ConnectTimeout, match="the TCP connection"):
            await bench.client().connect(f"ws://pool.example:{port}", open_timeout=0.4)

    run(main(), new_loop=names("127.0.0.2", "127.0.0.3"))


@loopback_network
def test_the_families_take_turns(bench: Bench) -> None:
    """A host whose IPv6 is broken does not have to wait for all of its IPv6 addresses (RFC 8305 section 4)."""

    async def main() -> None:
        async with serve(echo, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            with dead("127.0.0.2", "127.0.0.3", "127.0.0.4", port=port):
                # The first family has the dead ones; the second refuses at once, and then has what accepts.
                async with bench.client().connect(f"ws://pool.example:{port}", open_timeout=None) as connection:
                    tcp = connection.stats.connect.tcp
                    assert tcp is not None and 230 <= tcp < 500 * SCALE

    run(main(), new_loop=names("127.0.0.2", "::ffff:127.0.0.1", "127.0.0.3", "127.0.0.4"))


def test_lookups_wait_for_each_other(bench: Bench) -> None:
    """Of four lookups two run at a time; that the others waited is told apart from the resolver's time."""
    running = most = 0
    answers = asyncio.Event()

    class SlowResolver(asyncio.SelectorEventLoop):
        async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await answers.wait()
            running -= 1
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def main() -> None:
        async with serve(echo, "127.0.0.1", 0) as server:
            url = f"ws://pool.example:{next(iter(server.sockets)).getsockname()[1]}"

            async def connect(timeout: float | None = None) -> ConnectPhases:
                async with bench.client().connect(url, lookups=2, open_timeout=timeout) as connection:
                    return connection.stats.connect

            async with asyncio.TaskGroup() as group:
                connecting = [group.create_task(connect()) for _ in range(4)]
                await eventually(lambda: running == 2)  # and in this turn of the loop the others began to wait
                asked = perf_counter()
                await asyncio.sleep(0.05)
                answered = perf_counter()
                answers.set()
            ended = perf_counter()
            assert most == 2
            first, second, third, fourth = sorted(
                (task.result().lookup_queue or 0.0, task.result().dns or 0.0) for task in connecting
            )
            while_they_ran, after = (answered - asked) * 1000, (ended - answered) * 1000
            assert first[1] >= while_they_ran and second[1] >= while_they_ran
            assert third[0] >= while_they_ran and fourth[0] >= while_they_ran
            assert third[1] <= after and fourth[1] <= after

            # Those that are given up leave no place taken.
            answers.clear()
            async with asyncio.TaskGroup() as group:
                places = [group.create_task(connect()) for _ in range(2)]
                await asyncio.sleep(0)
                late = group.create_task(connect())
                hurried = asyncio.create_task(connect(0.01))
                with pytest.raises(ConnectTimeout) as caught:
                    await hurried
                for task in places:
                    task.cancel()
                answers.set()
                await late
            assert "a place among the name lookups (the setting lookups)" in str(caught.value)
            assert (await connect()).dns

    run(main(), new_loop=SlowResolver)


def test_no_file_descriptor_for_a_lookup(bench: Bench) -> None:
    """The resolver itself says something else, which nobody recognizes."""

    class ResolverWithoutFiles(asyncio.SelectorEventLoop):
        async def getaddrinfo(self, *arguments: Any, **hints: Any) -> Any:
            raise OSError(errno.EBUSY, "Device or resource busy")

    def no_socket(*arguments: int) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> None:
        with pytest.raises(ConnectError) as caught:
            await bench.client(new_socket=no_socket).connect("ws://pool.example")
        assert str(caught.value) == "Too many open files: raise the limit, by ulimit -n for instance"
        with pytest.raises(ConnectError) as caught:
            await bench.client().connect("ws://pool.example")
        assert str(caught.value) == "the name lookup failed: Device or resource busy"

    run(main(), new_loop=ResolverWithoutFiles)


def test_a_constant_address_is_named(bench: Bench) -> None:
    """That of the user's host: texts with any other would be as many as there are hosts."""
    port = unused_port()
    kind, text = unknown_host()

    async def fails(base_url: str, path: str = "/") -> str:
        with pytest.raises(ConnectError) as caught:
            await bench.client(base_url=base_url).connect(path)
        return repr(caught.value)

    async def main() -> None:
        host = f"ws://127.0.0.1:{port}"
        assert await fails(host) == f"ConnectionRefused('connection refused by 127.0.0.1:{port}')"
        assert await fails(host, host + "/x?y=z") == f"ConnectionRefused('connection refused by 127.0.0.1:{port}')"
        assert await fails(host, f"ws://localhost:{port}") == "ConnectionRefused('connection refused')"
        assert await fails("no host", host) == "ConnectionRefused('connection refused')"
        constant = f"{text} no-such-host.invalid" if kind is UnknownHost else text
        assert await fails("https://me:secret@no-such-host.invalid") == f"{kind.__name__}({constant!r})"

    run(main())


# The phases of a connect


def test_the_phases_of_a_connect(bench: Bench) -> None:
    ca = trustme.CA()
    context, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("localhost").configure_cert(context)
    ca.configure_trust(trusting)

    async def slow(connection: ServerConnection, request: Any) -> None:
        await asyncio.sleep(0.05)

    async def main() -> None:
        async with serve(echo, "127.0.0.1", 0, ssl=context, process_request=slow) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with bench.client().connect(f"wss://localhost:{port}", ssl=trusting) as connection:
                phases = connection.stats.connect
                assert phases.proxy is None
                for phase in (phases.dns, phases.tcp, phases.tls, phases.upgrade):
                    assert phase is not None and phase > 0
                assert phases.upgrade is not None and phases.upgrade >= 50
                total = sum(ms for ms in phases.as_dict().values() if ms is not None)
                row = bench.only("WS CONNECT")
                assert row.time is not None and total <= row.time
        async with serve(echo, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with bench.client().connect(f"ws://127.0.0.1:{port}") as connection:
                phases = connection.stats.connect
                assert phases.dns is None and phases.tls is None
                assert phases.tcp and phases.upgrade
                assert repr(phases).startswith("<ConnectPhases tcp=")

    run(main())
