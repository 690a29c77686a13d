"""Our connections in the words of ``websockets``: what a library finds that calls ``websockets.connect``."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from typing import Any

import pytest
import websockets.asyncio.client
from websockets.exceptions import ConnectionClosedOK, InvalidHandshake, InvalidStatus, InvalidURI, WebSocketException
from websockets.protocol import State

from locust_ws_async.client import WebSocketClient
from locust_ws_async.client.websockets_api import connect as users_connect

from .helpers import Bench, answer_handshake, eventually, frame, raw_server, run, tcp_server, until_eof


def test_it_is_awaited(bench: Bench) -> None:
    async def main() -> None:
        connection = await bench.client().websockets_connect(f"{bench.base_url}/echo")
        assert (connection.state, connection.close_code) == (State.OPEN, None)
        assert connection.response.status_code == 101
        assert connection.request.path == "/echo"
        assert connection.remote_address[1] == int(str(bench.base_url).rsplit(":", 1)[1])
        await connection.send("text")
        assert await connection.recv() == "text"
        await connection.send("text")
        assert await connection.recv(decode=False) == b"text"
        await connection.send(b"bytes", text=True)
        assert [piece async for piece in connection.recv_streaming()] == ["bytes"]
        latency = await (await connection.ping())
        assert latency == connection.latency > 0
        await connection.close()
        await connection.wait_closed()
        assert (connection.state, connection.close_code, connection.close_reason) == (State.CLOSED, 1000, "")
        with pytest.raises(ConnectionClosedOK):
            await connection.recv()

    run(main())
    assert bench.types() == ["WS CONNECT", *["WS SEND", "WS RECV"] * 3, "WS PING", "WS SESSION", "WS RECV"]


def test_it_is_entered(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().websockets_connect(f"{bench.base_url}/echo") as connection:
            await connection.send("1")
            async for message in connection:
                assert message == "1"
                break

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SEND", "WS RECV", "WS SESSION"]


def test_it_is_iterated_over(bench: Bench) -> None:
    """Until it is enough; each turn has a new connection, and a server that is away is tried again."""

    async def main() -> None:
        answers = iter([503, 101, 101])

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if next(answers) == 503:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
                return
            await answer_handshake(reader, writer)
            writer.write(frame(1, b"hello"))
            await until_eof(reader, writer)

        turns = 0
        async with tcp_server(script) as url:
            keywords: dict[str, Any] = {}
            if "reconnect_delays" in websockets.asyncio.client.connect.__init__.__annotations__:
                keywords["reconnect_delays"] = lambda: iter([0.0])
            async for connection in bench.client(connect_backoff=None).websockets_connect(url, **keywords):
                assert await connection.recv() == "hello"
                turns += 1
                if turns == 2:
                    break
            await connection.close()

    run(main())
    assert bench.types().count("WS CONNECT") == 3
    assert bench.types().count("WS SESSION") == 2


def test_what_is_not_there_is_not_tried_again(bench: Bench) -> None:
    async def main() -> None:
        with pytest.raises(InvalidStatus) as caught:
            async for _ in bench.client().websockets_connect(f"{bench.base_url}/reject/404"):
                pass
        assert caught.value.response.status_code == 404

    run(main())
    assert bench.types() == ["WS CONNECT"]


def test_errors_are_those_that_libraries_catch(bench: Bench) -> None:
    async def main() -> None:
        client = bench.client()
        with pytest.raises(InvalidURI):
            client.websockets_connect("http://example.org")
        with pytest.raises(InvalidHandshake):
            await client.websockets_connect(f"{bench.base_url}/reject/403")
        with pytest.raises(OSError):
            await client.websockets_connect("ws://127.0.0.1:1")
        async with tcp_server(until_eof) as url:
            with pytest.raises(TimeoutError):
                await client.websockets_connect(url, open_timeout=0.05)
        with pytest.raises(WebSocketException):
            await client.websockets_connect(f"{bench.base_url}/reject/403")

    run(main())


def test_what_a_library_gives_reaches_the_server(bench: Bench) -> None:
    async def main() -> None:
        requests: list[str] = []

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            requests.append(await answer_handshake(reader, writer, "Sec-WebSocket-Protocol: b\r\n"))
            await until_eof(reader, writer)

        async with tcp_server(script) as url:
            connect = bench.client().websockets_connect
            connection = await connect(
                f"{url}/path?query",
                additional_headers=[("X-One", "1"), ("X-One", "2")],
                subprotocols=["a", "b"],
                origin="https://shop.example",
                user_agent_header="library/1",
                compression=None,
                max_queue=(16, 4),
                max_size=(2**24, None),
                write_limit=(4096, 1024),
                close_timeout=None,
                ssl=None,
                proxy=None,
                extensions=None,
            )
            assert connection.subprotocol == "b"
            assert connection.transport.get_write_buffer_limits() == (1024, 4096)
            await connection.close()
        assert requests[0].startswith("GET /path?query HTTP/1.1\r\n")
        for header in (
            "X-One: 1",
            "X-One: 2",
            "Sec-WebSocket-Protocol: a, b",
            "Origin: https://shop.example",
            "User-Agent: library/1",
        ):
            assert f"\r\n{header}\r\n" in requests[0]
        assert "permessage-deflate" not in requests[0]

    run(main())


def test_what_it_does_not_give_is_as_the_user_says(bench: Bench) -> None:
    from locust_ws_async.client import Backoff, ConnectOptions, echo

    async def main() -> None:
        options = ConnectOptions(
            headers={"X-User": "1"}, reconnect=Backoff(0.01), keepalive=echo(lambda message: True), user_agent="ours"
        )
        seen: list[str] = []

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await answer_handshake(reader, writer))
            writer.write(frame(1, b"for the library") + frame(8, b"\x03\xf3"))
            await until_eof(reader, writer)

        async with tcp_server(script) as url:
            connection = await bench.client(options=options).websockets_connect(url)
            assert await connection.recv() == "for the library"  # and no rule of the user's takes it
            with pytest.raises(WebSocketException):
                await connection.recv()  # and it is not made again
        assert "X-User: 1" in seen[0] and "User-Agent: ours" in seen[0]

    run(main())


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"retries": 3}, "'retries' has no counterpart here"),
        ({"sock": None}, "'sock' has no counterpart here"),
        ({"create_connection": websockets.asyncio.client.ClientConnection}, "create_connection is about the insides"),
        ({"extensions": [object()]}, "extensions is about the insides"),
        ({"max_size": (1, 1)}, "no limit for a fragment"),
        ({"local_addr": ("127.0.0.1", 80)}, "a pair of an address and 0"),
    ],
)
def test_what_has_no_counterpart_is_refused(keywords: dict[str, Any], words: str, bench: Bench) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match=words):
            bench.client().websockets_connect(f"{bench.base_url}/echo", **keywords)

    run(main())
    assert bench.rows == []


def test_a_context_of_ones_own_replaces_what_the_user_has_of_tls(bench: Bench) -> None:
    async def main() -> None:
        from locust_ws_async.client import ConnectOptions

        client = bench.client(options=ConnectOptions(verify=False))
        connecting = client.websockets_connect("wss://127.0.0.1:1", ssl=ssl.create_default_context())
        with pytest.raises(OSError):
            await connecting  # and no error about two ways to say the same

    run(main())


def test_fragments_are_one_message(bench: Bench) -> None:
    async def main() -> None:
        async def pieces() -> Any:
            yield b"as"
            yield b"ync"

        async with bench.client().websockets_connect(f"{bench.base_url}/echo") as connection:
            await connection.send(["a", "b"])
            assert await connection.recv() == "ab"
            await connection.send(pieces())
            assert await connection.recv() == b"async"
            await connection.send([])
            with pytest.raises(TypeError, match="one type"):
                await connection.send(["a", b"b"])
            with pytest.raises(TypeError, match="dict-like"):
                await connection.send({"a": 1})

    run(main())


def test_a_ping_that_nobody_waits_for_fails_silently(bench: Bench) -> None:
    async def main() -> None:
        async with raw_server(until_eof) as url:
            connection = await bench.client().websockets_connect(url)
            waiting = await connection.ping()
            await connection.close()
            await eventually(lambda: waiting.done())  # type: ignore[attr-defined]

    run(main())


def test_what_is_not_there_says_so(bench: Bench) -> None:
    async def main() -> None:
        async with bench.client().websockets_connect(f"{bench.base_url}/echo") as connection:
            with pytest.raises(AttributeError, match="'protocol' is not among what websockets_connect gives"):
                _ = connection.protocol

    run(main())


class Careful(users_connect):
    """A library's own, with rules for redirects."""

    def process_redirect(self, exc: Exception) -> Any:
        raise NotImplementedError


def test_who_has_rules_for_redirects_gets_none(bench: Bench) -> None:
    async def main() -> None:
        from locust_ws_async.client.current import current_client

        async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 302 Found\r\nLocation: {bench.base_url}/echo\r\nContent-Length: 0\r\n\r\n".encode())

        current_client.set(bench.client())
        async with tcp_server(redirect) as url:
            async with users_connect(url) as connection:
                assert connection.request.path == "/echo"
            with pytest.raises(InvalidStatus) as caught:
                await Careful(url)
            assert caught.value.response.status_code == 302

    run(main())


def test_outside_of_a_user_it_is_the_original(bench: Bench) -> None:
    program = f"""
import asyncio, websockets
from locust_ws_async.protocols.websockets import replace_connect

replace_connect()
from websockets.asyncio.client import ClientConnection, connect

async def main():
    async with connect("{bench.base_url}/echo") as connection, websockets.connect("{bench.base_url}/echo") as other:
        assert isinstance(connection, ClientConnection) and isinstance(other, ClientConnection)
        await connection.send("1")
        assert await connection.recv() == "1"

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_the_client_needs_it_only_for_this() -> None:
    program = "import sys, locust_ws_async.client; assert 'websockets.asyncio.client' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert WebSocketClient.websockets_connect.__doc__
