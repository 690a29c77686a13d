"""The table of a connection's life: real connections walk it on both engines, and so does the object without I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.frames import Close
from websockets.protocol import State as RFCState

from locust_ws_async.client import CONNECT, RECONNECT, RECOVERY, SESSION, Backoff, WebSocketClient, WebSocketConnection
from locust_ws_async.client.session.backoff import Retry
from locust_ws_async.client.session.state import (
    RFC_STATES,
    TRANSITIONS,
    ConnectionState,
    Decisions,
    Do,
    Event,
    ReportRecovery,
    State,
    next_state,
)
from locust_ws_async.client.wire.interface import CloseInfo
from locust_ws_async.exceptions import ConnectionClosedOK

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
        assert connection.state is RFCState.OPEN
        closing = asyncio.create_task(connection.close())
        await asyncio.sleep(0)
        assert connection.state is RFCState.CLOSING
        await closing
        return connection


async def close_while_the_server_closes(client: WebSocketClient) -> WebSocketConnection:
    async def keep_tcp_open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(8, b"\x03\xf4"))
        await until_eof(reader, writer)

    async with raw_server(keep_tcp_open) as url:
        connection = await client.connect(url, close_timeout=0.1)
        await eventually(lambda: connection.state is RFCState.CLOSING)
        await connection.close()
        return connection


async def close_while_initializing(client: WebSocketClient) -> WebSocketConnection:
    async with server(echo) as url:
        return await client.connect(url, on_connected=lambda connection: connection.close())


async def come_back(client: WebSocketClient, *sessions: Any, **options: Any) -> WebSocketConnection:
    async with server(*sessions) as url:
        connection = await client.connect(url, reconnect=SOON, **options)
        await connection.send("end")
        await eventually(lambda: connection.stats.reconnects == 1)
        assert connection.state is RFCState.OPEN
        await connection.close()
        return connection


async def close_while_waiting(client: WebSocketClient) -> WebSocketConnection:
    async with server(cut) as url:
        connection = await client.connect(url, reconnect=Backoff(60, 60))
        await eventually(lambda: connection.state is RFCState.CONNECTING)
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
        assert connection.state is RFCState.CONNECTING
        await connection.close()
        return connection


class Scenario(NamedTuple):
    """
    A walk; its rows, C for ``WS CONNECT``, S for ``WS SESSION``, A for ``WS RECONNECT`` ("again"), R for
    ``WS RECOVERY``, in small letters when they are failures; and what leads a connection through it.
    """

    walk: str
    rows: str
    lead: Callable[[WebSocketClient], Awaitable[WebSocketConnection | None]]


LETTERS = {CONNECT: "C", SESSION: "S", RECONNECT: "A", RECOVERY: "R"}

SCENARIOS = {
    "close": Scenario("CONNECTED INITIALIZED CLOSE ENDED", "CS", close),
    "be rejected": Scenario("FAILED", "c", lambda client: fail_to_connect(client, 503)),
    "be cut": Scenario("CONNECTED INITIALIZED ENDED", "Cs", lambda client: be_ended(client, cut)),
    "be closed": Scenario("CONNECTED INITIALIZED DISCONNECTING ENDED", "Cs", lambda client: be_ended(client, restart)),
    "close while the server closes": Scenario(
        "CONNECTED INITIALIZED DISCONNECTING CLOSE ENDED", "Cs", close_while_the_server_closes
    ),
    "close while initializing": Scenario("CONNECTED CLOSE ENDED", "CS", close_while_initializing),
    "be cut while initializing": Scenario("CONNECTED ENDED", "Csc", lambda client: fail_to_connect(client, cut)),
    "be closed while initializing": Scenario(
        "CONNECTED DISCONNECTING ENDED", "Csc", lambda client: fail_to_connect(client, restart)
    ),
    "come back after a close and a failed attempt": Scenario(
        "CONNECTED INITIALIZED DISCONNECTING LOST RETRY FAILED RETRY CONNECTED INITIALIZED CLOSE ENDED",
        "CsaARS",
        lambda client: come_back(client, restart_when_told, 503, echo),
    ),
    "come back after a cut and one while initializing": Scenario(
        "CONNECTED INITIALIZED LOST RETRY CONNECTED LOST RETRY CONNECTED INITIALIZED CLOSE ENDED",
        "CsAsaARS",
        lambda client: come_back(client, cut_when_told, cut, echo, on_connected=log_in),
    ),
    "give up": Scenario(
        "CONNECTED INITIALIZED LOST RETRY FAILED RETRY EXHAUSTED",
        "Csaar",
        lambda client: be_ended(client, cut, 503, reconnect=Backoff(0.01, attempts=2)),
    ),
    "close while waiting": Scenario("CONNECTED INITIALIZED LOST CLOSE", "Csr", close_while_waiting),
    "close while reconnecting": Scenario("CONNECTED INITIALIZED LOST RETRY CLOSE", "Csr", close_while_reconnecting),
}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_walk_of_a_real_connection(bench: Bench, scenario: Scenario) -> None:
    client = bench.client(reported=frozenset(LETTERS))
    connection = run(scenario.lead(client))
    assert connection is None or connection.state is RFCState.CLOSED
    assert not client.connections
    rows = [(LETTERS[row.type], row.error is None) for row in bench.rows]
    letters = "".join(letter if succeeded else letter.lower() for letter, succeeded in rows)
    # Without on_connected a connection is open in the moment of the handshake, whose row follows.
    assert letters.replace("RA", "AR") == scenario.rows


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_the_same_walk_without_io_has_the_same_rows(scenario: Scenario) -> None:
    walk = [Event[name] for name in scenario.walk.split()]
    attempts = walk.count(Event.FAILED) + 1 if Event.EXHAUSTED in walk else None
    retry = Retry(Backoff(0, 0, attempts=attempts)) if Event.LOST in walk else None
    life = ConnectionState(close_timeout=10.0, has_on_connected=True, retry=retry)
    rows = ""

    def rows_of(decisions: Decisions) -> str:
        found = ""
        for decision in decisions:
            match decision:
                case Do.REPORT_SESSION:
                    found += "S" if isinstance(life.closed_error(), ConnectionClosedOK) else "s"
                case ReportRecovery(failure):
                    found += "R" if failure is None else "r"
        return found

    again = initialized = False
    for event in walk:
        expected = next_state(life.state, event)
        match event:
            case Event.CONNECTED:
                initialized = False
                life.handshake_done()
                rows += ("A" if again else "C") + rows_of(life.connect_reported())
            case Event.FAILED | Event.EXHAUSTED:
                rows += "a" if again else "c"
                rows += rows_of(life.attempt_failed() if again else life.give_up())
            case Event.INITIALIZED:
                initialized = True
                rows += rows_of(life.on_connected_done())
            case Event.DISCONNECTING:
                life.closing()
            case Event.LOST | Event.ENDED:
                answer = Close(1000, "") if life.closed_by_us else None
                rows += rows_of(life.closed(CloseInfo(answer, answer, None)))
                if not (initialized or life.closed_by_us):
                    rows += "a" if again else "c"  # `_initialize` reports it
            case Event.RETRY:
                again = True
                life.delay_over()
            case Event.CLOSE:
                rows += rows_of(life.close(Close(1000, ""), 10.0, by_on_connected=False))
        assert life.state is expected
    assert life.state is State.CLOSED
    assert rows == scenario.rows


@pytest.mark.parametrize(("state", "event"), TRANSITIONS)
def test_every_line_is_walked(state: State, event: Event) -> None:
    walked = set()
    for scenario in SCENARIOS.values():
        at = State.CONNECTING
        for name in scenario.walk.split():
            walked.add((at, Event[name]))
            at = next_state(at, Event[name])
    assert (state, event) in walked


NO_TRANSITIONS = [(state, event) for state in State for event in Event if (state, event) not in TRANSITIONS]


@pytest.mark.parametrize(("state", "event"), NO_TRANSITIONS)
def test_every_other_pair_is_refused(state: State, event: Event) -> None:
    with pytest.raises(RuntimeError, match=f"{state.name} cannot get {event.name}"):
        next_state(state, event)


def test_the_table_has_no_dead_ends() -> None:
    """Everything can be reached, and from everywhere a connection can be closed."""
    reached = {State.CONNECTING}
    for _ in State:
        reached |= {target for (state, _), target in TRANSITIONS.items() if state in reached}
    assert reached == set(State) == set(RFC_STATES)
    closing = {State.CLOSED}
    for _ in State:
        closing |= {state for (state, _), target in TRANSITIONS.items() if target in closing}
    assert closing == set(State)
    assert not [event for state, event in TRANSITIONS if state is State.CLOSED]
    # close() is accepted in all states in which a task holds the connection.
    accepting = {state for state, event in TRANSITIONS if event is Event.CLOSE}
    assert accepting == set(State) - {State.CONNECTING, State.CLOSING, State.CLOSED}


def test_nothing_leads_back_from_close() -> None:
    reached = {target for (_, event), target in TRANSITIONS.items() if event is Event.CLOSE}
    for _ in State:
        reached |= {target for (state, _), target in TRANSITIONS.items() if state in reached}
    assert reached == {State.CLOSING, State.CLOSED}
