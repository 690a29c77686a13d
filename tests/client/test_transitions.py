"""Real connections walk every line of the table in ``lifecycle.py``, on both engines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

from locust_ws_async.client import CONNECT, SESSION, Backoff, WebSocketClient, WebSocketConnection
from locust_ws_async.client.session import lifecycle
from locust_ws_async.client.session.state import TRANSITIONS, Event, Phase, next_phase

from .helpers import Bench, answer_handshake, eventually, frame, raw_server, run, tcp_server, until_eof
from .test_reconnect import SOON, cut, echo, server


async def cut_when_told(connection: ServerConnection) -> None:
    while (message := await connection.recv()) != "end":
        await connection.send(message)
    connection.transport.abort()


async def restart(connection: ServerConnection) -> None:
    await connection.close(1012)


async def restart_when_told(connection: ServerConnection) -> None:
    assert await connection.recv() == "end"
    await restart(connection)


async def log_in(connection: WebSocketConnection) -> None:
    await connection.request("login")


async def be_ended(client: WebSocketClient, *sessions: Any, **options: Any) -> WebSocketConnection:
    async with server(*sessions) as url:
        connection = await client.connect(url, **options)
        await connection.wait_closed()
        return connection


async def fail_to_connect(client: WebSocketClient, session: Any) -> None:
    async with server(session) as url:
        with pytest.raises(ConnectionError):
            await client.connect(url, on_connected=log_in)


async def close(client: WebSocketClient) -> WebSocketConnection:
    async with server(echo) as url:
        connection = await client.connect(url)
        assert connection.state is State.OPEN
        closing = asyncio.create_task(connection.close())
        await asyncio.sleep(0)
        assert connection.state is State.CLOSING
        await closing
        return connection


async def close_while_the_server_closes(client: WebSocketClient) -> WebSocketConnection:
    async def keep_tcp_open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(8, b"\x03\xf4"))
        await until_eof(reader, writer)

    async with raw_server(keep_tcp_open) as url:
        connection = await client.connect(url, close_timeout=0.1)
        await eventually(lambda: connection.state is State.CLOSING)
        await connection.close()
        return connection


async def close_while_restoring(client: WebSocketClient) -> WebSocketConnection:
    async with server(echo) as url:
        return await client.connect(url, on_connected=lambda connection: connection.close())


async def come_back(client: WebSocketClient, *sessions: Any, **options: Any) -> WebSocketConnection:
    async with server(*sessions) as url:
        connection = await client.connect(url, reconnect=SOON, **options)
        await connection.send("end")
        await eventually(lambda: connection.stats.reconnects == 1)
        assert connection.state is State.OPEN
        await connection.close()
        return connection


async def close_while_waiting(client: WebSocketClient) -> WebSocketConnection:
    async with server(cut) as url:
        connection = await client.connect(url, reconnect=Backoff(60, 60))
        await eventually(lambda: connection.state is State.CONNECTING)
        await connection.close()
        return connection


async def close_while_reconnecting(client: WebSocketClient) -> WebSocketConnection:
    attempts = 0

    async def answer_the_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await answer_handshake(reader, writer)
        else:
            await until_eof(reader, writer)

    async with tcp_server(answer_the_first) as url:
        connection = await client.connect(url, reconnect=SOON)
        await eventually(lambda: attempts == 2)
        assert connection.state is State.CONNECTING
        await connection.close()
        return connection


class Scenario(NamedTuple):
    """
    A walk; its rows, C for ``WS CONNECT`` and S for ``WS SESSION``, in small letters when they are failures; and what
    leads a connection through it.
    """

    walk: str
    rows: str
    lead: Callable[[WebSocketClient], Awaitable[WebSocketConnection | None]]


SCENARIOS = {
    "close": Scenario("CONNECTED RESTORED CLOSE ENDED", "CS", close),
    "be rejected": Scenario("FAILED", "c", lambda client: fail_to_connect(client, 503)),
    "be cut": Scenario("CONNECTED RESTORED ENDED", "Cs", lambda client: be_ended(client, cut)),
    "be closed": Scenario("CONNECTED RESTORED ENDING ENDED", "Cs", lambda client: be_ended(client, restart)),
    "close while the server closes": Scenario(
        "CONNECTED RESTORED ENDING CLOSE ENDED", "Cs", close_while_the_server_closes
    ),
    "close while restoring": Scenario("CONNECTED CLOSE ENDED", "CS", close_while_restoring),
    "be cut while restoring": Scenario("CONNECTED ENDED", "Cs", lambda client: fail_to_connect(client, cut)),
    "be closed while restoring": Scenario(
        "CONNECTED ENDING ENDED", "Cs", lambda client: fail_to_connect(client, restart)
    ),
    "come back after a close and a failed attempt": Scenario(
        "CONNECTED RESTORED ENDING LOST RETRY FAILED RETRY CONNECTED RESTORED CLOSE ENDED",
        "CscCS",
        lambda client: come_back(client, restart_when_told, 503, echo),
    ),
    "come back after a cut and one while restoring": Scenario(
        "CONNECTED RESTORED LOST RETRY CONNECTED LOST RETRY CONNECTED RESTORED CLOSE ENDED",
        "CsCsCS",
        lambda client: come_back(client, cut_when_told, cut, echo, on_connected=log_in),
    ),
    "give up": Scenario(
        "CONNECTED RESTORED LOST RETRY FAILED RETRY FAILED EXHAUSTED",
        "Cscc",
        lambda client: be_ended(client, cut, 503, reconnect=Backoff(0.01, attempts=2)),
    ),
    "close while waiting": Scenario("CONNECTED RESTORED LOST CLOSE", "Cs", close_while_waiting),
    "close while reconnecting": Scenario("CONNECTED RESTORED LOST RETRY CLOSE", "Cs", close_while_reconnecting),
}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_walk(bench: Bench, monkeypatch: pytest.MonkeyPatch, scenario: Scenario) -> None:
    steps: list[tuple[Phase, Event, Phase]] = []

    def record(phase: Phase, event: Event) -> Phase:
        target = next_phase(phase, event)
        steps.append((phase, event, target))
        return target

    monkeypatch.setattr(lifecycle, "next_phase", record)
    client = bench.client(reported=frozenset({CONNECT, SESSION}))
    connection = run(scenario.lead(client))

    assert [event.name for _, event, _ in steps] == scenario.walk.split()
    assert [phase for phase, _, _ in steps] == [Phase.CONNECTING, *(target for _, _, target in steps[:-1])]
    assert steps[-1][2] is Phase.CLOSED
    assert connection is None or connection.state is State.CLOSED
    assert not client.connections
    letters = [row.type[3] if row.error is None else row.type[3].lower() for row in bench.rows]
    assert "".join(letters) == scenario.rows


@pytest.mark.parametrize(("phase", "event"), TRANSITIONS)
def test_every_line_is_walked(phase: Phase, event: Event) -> None:
    walked = set()
    for scenario in SCENARIOS.values():
        at = Phase.CONNECTING
        for name in scenario.walk.split():
            walked.add((at, Event[name]))
            at = next_phase(at, Event[name])
    assert (phase, event) in walked
