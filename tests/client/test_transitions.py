"""Real connections walk every line of the table in ``lifecycle.py``, on both engines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

from locust_ws_async.client import CONNECT, SESSION, Backoff, WebSocketClient, WebSocketConnection, link
from locust_ws_async.client.lifecycle import TRANSITIONS, Event, Phase, next_phase
from locust_ws_async.exceptions import ConnectionClosed, HandshakeRejected

from .helpers import Bench, answer_handshake, eventually, frame, raw_server, run, tcp_server, until_eof
from .test_reconnect import SOON, cut, echo, server

Script = Callable[[WebSocketClient], Awaitable[WebSocketConnection | None]]


class Scenario(NamedTuple):
    """What leads a connection through a walk, and the rows of it."""

    script: Script
    walk: list[Event]
    rows: str


SCENARIOS: list[Scenario] = []


def leads_through(walk: str, rows: str) -> Callable[[Script], Script]:
    """``rows``: C for ``WS CONNECT`` and S for ``WS SESSION``, in small letters when they are failures."""

    def add(script: Script) -> Script:
        SCENARIOS.append(Scenario(script, [Event[name] for name in walk.split()], rows))
        return script

    return add


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


# Connections that are not made again


@leads_through("CONNECTED RESTORED CLOSE ENDED", rows="CS")
async def close(client: WebSocketClient) -> WebSocketConnection:
    async with server(echo) as url:
        connection = await client.connect(url)
        assert connection.state is State.OPEN
        closing = asyncio.create_task(connection.close())
        await asyncio.sleep(0)
        assert connection.state is State.CLOSING
        await closing
        return connection


@leads_through("FAILED", rows="c")
async def be_rejected(client: WebSocketClient) -> None:
    async with server(503) as url:
        with pytest.raises(HandshakeRejected):
            await client.connect(url)


@leads_through("CONNECTED RESTORED ENDED", rows="Cs")
async def be_cut(client: WebSocketClient) -> WebSocketConnection:
    async with server(cut) as url:
        connection = await client.connect(url)
        await connection.wait_closed()
        return connection


@leads_through("CONNECTED RESTORED ENDING ENDED", rows="Cs")
async def be_closed(client: WebSocketClient) -> WebSocketConnection:
    async with server(restart) as url:
        connection = await client.connect(url)
        await connection.wait_closed()
        assert connection.close_code == 1012
        return connection


@leads_through("CONNECTED RESTORED ENDING CLOSE ENDED", rows="Cs")
async def close_while_the_server_closes(client: WebSocketClient) -> WebSocketConnection:
    async def keep_tcp_open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(8, b"\x03\xf4"))
        await until_eof(reader, writer)

    async with raw_server(keep_tcp_open) as url:
        connection = await client.connect(url, close_timeout=0.1)
        await eventually(lambda: connection.state is State.CLOSING)
        await connection.close()
        return connection


# While the first on_connected runs


@leads_through("CONNECTED CLOSE ENDED", rows="CS")
async def close_while_restoring(client: WebSocketClient) -> WebSocketConnection:
    async with server(echo) as url:
        return await client.connect(url, on_connected=lambda connection: connection.close())


@leads_through("CONNECTED ENDED", rows="Cs")
async def be_cut_while_restoring(client: WebSocketClient) -> None:
    async with server(cut) as url:
        with pytest.raises(ConnectionClosed):
            await client.connect(url, on_connected=log_in)


@leads_through("CONNECTED ENDING ENDED", rows="Cs")
async def be_closed_while_restoring(client: WebSocketClient) -> None:
    async with server(restart) as url:
        with pytest.raises(ConnectionClosed):
            await client.connect(url, on_connected=log_in)


# Connections that are made again


async def come_back(client: WebSocketClient, *sessions: Any, **options: Any) -> WebSocketConnection:
    async with server(*sessions) as url:
        connection = await client.connect(url, reconnect=SOON, **options)
        await connection.send("end")
        await eventually(lambda: connection.stats.reconnects == 1)
        assert connection.state is State.OPEN
        await connection.close()
        return connection


@leads_through("CONNECTED RESTORED ENDING LOST RETRY FAILED RETRY CONNECTED RESTORED CLOSE ENDED", rows="CscCS")
async def come_back_after_a_close_and_a_failed_attempt(client: WebSocketClient) -> WebSocketConnection:
    return await come_back(client, restart_when_told, 503, echo)


@leads_through("CONNECTED RESTORED LOST RETRY CONNECTED LOST RETRY CONNECTED RESTORED CLOSE ENDED", rows="CsCsCS")
async def come_back_after_a_cut_and_one_while_restoring(client: WebSocketClient) -> WebSocketConnection:
    return await come_back(client, cut_when_told, cut, echo, on_connected=log_in)


@leads_through("CONNECTED RESTORED LOST RETRY FAILED RETRY FAILED EXHAUSTED", rows="Cscc")
async def give_up(client: WebSocketClient) -> WebSocketConnection:
    async with server(cut, 503) as url:
        connection = await client.connect(url, reconnect=Backoff(0.01, attempts=2))
        await connection.wait_closed()
        return connection


@leads_through("CONNECTED RESTORED LOST CLOSE", rows="Cs")
async def close_while_waiting(client: WebSocketClient) -> WebSocketConnection:
    async with server(cut) as url:
        connection = await client.connect(url, reconnect=Backoff(60, 60))
        await eventually(lambda: connection.state is State.CONNECTING)
        await connection.close()
        return connection


@leads_through("CONNECTED RESTORED LOST RETRY CLOSE", rows="Cs")
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


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.script.__name__)
def test_a_walk(bench: Bench, monkeypatch: pytest.MonkeyPatch, scenario: Scenario) -> None:
    steps: list[tuple[Phase, Event, Phase]] = []

    def record(phase: Phase, event: Event) -> Phase:
        target = next_phase(phase, event)
        steps.append((phase, event, target))
        return target

    monkeypatch.setattr(link, "next_phase", record)
    client = bench.client(reported=frozenset({CONNECT, SESSION}))
    connection = run(scenario.script(client))

    assert [event for _, event, _ in steps] == scenario.walk
    assert [phase for phase, _, _ in steps] == [Phase.CONNECTING, *(target for _, _, target in steps[:-1])]
    assert steps[-1][2] is Phase.CLOSED
    assert connection is None or connection.state is State.CLOSED
    assert not client.connections
    letters = [row.type[3] if row.error is None else row.type[3].lower() for row in bench.rows]
    assert "".join(letters) == scenario.rows


@pytest.mark.parametrize(("phase", "event"), TRANSITIONS)
def test_every_line_is_walked(phase: Phase, event: Event) -> None:
    walked = set()
    for scenario in SCENARIOS:
        at = Phase.CONNECTING
        for step in scenario.walk:
            walked.add((at, step))
            at = next_phase(at, step)
    assert (phase, event) in walked
