"""Socket.IO by the packets of `python-socketio`, against its server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("socketio")

from socketio.exceptions import BadNamespaceError, ConnectionError

from locust_ws_async.client import Backoff
from locust_ws_async.exceptions import ConnectionClosed, MessageTimeout
from locust_ws_async.protocols.socketio import SocketIO
from tests.client.helpers import Bench, eventually, run


async def connected(bench: Bench, **arguments: Any) -> SocketIO:
    socket = SocketIO(bench.client())
    await socket.connect(**arguments)
    return socket


def test_a_call_is_a_request_with_the_time_until_its_acknowledgement(bench: Bench) -> None:
    async def main() -> None:
        socket = await connected(bench)
        assert await socket.call("ask", "why") == {"answer": "why"}
        assert await socket.call("nothing") is None
        assert await socket.call("several", (1, [2])) == ([2], 1)
        await socket.disconnect()

    run(main())
    assert [(row.type, row.name) for row in bench.rows] == [
        ("WS CONNECT", "/socket.io/"),
        ("WS REQUEST", "connect"),
        ("WS REQUEST", "ask"),
        ("WS REQUEST", "nothing"),
        ("WS REQUEST", "several"),
        ("WS SEND", "/socket.io/"),  # that it leaves
        ("WS SESSION", "/socket.io/"),
    ]
    assert bench.failures() == {}


def test_calls_in_flight_get_their_own_answers(bench: Bench) -> None:
    async def main() -> None:
        socket = await connected(bench)
        answers = await asyncio.gather(*(socket.call("ask", number) for number in range(100)))
        assert answers == [{"answer": number} for number in range(100)]
        await socket.disconnect()

    run(main())
    assert bench.failures() == {}


def test_bytes(bench: Bench) -> None:
    """There and back, in several attachments, with other packets between."""

    async def main() -> None:
        socket = await connected(bench)

        async def ask_bytes(number: int) -> None:
            one, two = bytes([number]) * number, b"two"
            answer = await socket.call("bytes", {"one": one, "two": two})
            assert answer == {"again": [one, two], "text": "and text"}

        async def ask_text(number: int) -> None:
            assert await socket.call("ask", number) == {"answer": number}

        await asyncio.gather(*(ask(number) for number in range(50) for ask in (ask_bytes, ask_text)))
        await socket.disconnect()

    run(main())
    assert bench.failures() == {}
    assert [row.name for row in bench.rows].count("bytes") == 50


def test_events_reach_their_handler_and_are_acknowledged(bench: Bench) -> None:
    async def main() -> None:
        socket = SocketIO(bench.client())
        asked: list[Any] = []

        async def question(*data: Any) -> Any:
            asked.append(data)
            await asyncio.sleep(0)
            return b"fine", list(data)

        socket.on("question", question)
        await socket.connect()
        assert await socket.call("ask me", b"are you") == (b"fine", ["how", b"are you"])
        assert asked == [("how", b"are you")]
        await socket.disconnect()

    run(main())
    assert [row.name for row in bench.rows if row.type == "WS PUSH"] == ["question"]
    assert bench.failures() == {}


def test_an_event_without_a_handler_is_dropped(bench: Bench) -> None:
    async def main() -> None:
        socket = await connected(bench)
        with pytest.raises(MessageTimeout):
            await socket.call("ask me", b"are you", timeout=0.2)
        assert not socket.connection.queue
        await socket.disconnect()

    run(main())


def test_no_acknowledgement_in_time(bench: Bench) -> None:
    async def main() -> None:
        socket = await connected(bench)
        with pytest.raises(MessageTimeout):
            await socket.call("silent", timeout=0.1)
        assert await socket.call("ask", 1) == {"answer": 1}
        await socket.disconnect()

    run(main())
    assert bench.failures() == {"WS REQUEST": "MessageTimeout('no message that matches within the timeout')"}


def test_namespaces_and_auth(bench: Bench) -> None:
    async def main() -> None:
        async def token() -> str:
            return "password"

        socket = await connected(bench, namespaces=["/", "/chat"], auth=token)
        assert await socket.call("ask", 1) == {"answer": 1}
        assert await socket.call("ask", 1, namespace="/chat") == ["chat", 1]
        with pytest.raises(BadNamespaceError):
            await socket.emit("ask", namespace="/other")
        await socket.disconnect()

    run(main())
    assert [row.name for row in bench.rows if row.name.startswith("connect")] == ["connect", "connect /chat"]


def test_a_refused_namespace(bench: Bench) -> None:
    async def main() -> None:
        client = bench.client()
        with pytest.raises(ConnectionError, match="refused the namespace /chat"):
            await SocketIO(client).connect(namespaces=["/chat"], auth="guessed")
        await eventually(lambda: not client.connections)

    run(main())
    (failed,) = [row for row in bench.rows if row.name == "connect /chat"]
    assert str(failed.error) == "the server refused the namespace"


def test_the_server_disconnects(bench: Bench) -> None:
    async def main() -> None:
        socket = await connected(bench)
        await socket.emit("leave")
        await eventually(lambda: not socket._joined)
        with pytest.raises((BadNamespaceError, ConnectionClosed)):
            await socket.call("ask", 1)
        await socket.disconnect()

    run(main())


def test_a_lost_connection_joins_again(bench: Bench) -> None:
    async def main() -> None:
        socket = await connected(bench, reconnect=Backoff(0.01))
        asked: list[Any] = []
        socket.on("question", lambda *data: asked.append(data))
        socket.connection.wire.abort()
        await eventually(lambda: not socket.connection.ready)
        assert await socket.call("ask", 1) == {"answer": 1}
        assert await socket.call("ask me", 2) is None
        assert asked == [("how", 2)]
        await socket.disconnect()

    run(main())
    assert [row.name for row in bench.rows].count("connect") == 2
    assert "WS RECOVERY" in bench.types()


def test_pings_are_answered_while_nobody_looks(bench: Bench) -> None:
    """The server pings each 50 ms, and cuts who does not answer for a second."""

    async def main() -> None:
        socket = await connected(bench)
        await eventually(lambda: socket.connection.stats.texts_sent > 30)
        assert await socket.call("ask", 1) == {"answer": 1}
        await socket.disconnect()

    run(main())
    assert bench.failures() == {}


def test_before_it_is_connected(bench: Bench) -> None:
    async def main() -> None:
        socket = SocketIO(bench.client())
        with pytest.raises(RuntimeError, match="has no connection yet"):
            await socket.emit("ask")
        await socket.disconnect()

    run(main())


@pytest.mark.parametrize(("adapter", "library"), [("socketio", "socketio"), ("gql", "gql")])
def test_without_its_library(adapter: str, library: str) -> None:
    program = f"""
import sys
sys.modules[{library!r}] = None
try:
    import locust_ws_async.protocols.{adapter}
except ImportError as exc:
    print(exc)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f'pip install "locust-ws-async[{adapter}]"' in result.stdout
