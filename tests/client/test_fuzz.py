"""Whatever bytes a server sends: each outcome is a message or a clean failure, never a hang and never a traceback."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from locust_ws_async.client import ENGINES
from locust_ws_async.exceptions import ConnectError, ConnectionClosed

from .helpers import Bench, frame, raw_server, run, tcp_server

EXAMPLES = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

OK = "normal end"

opcodes = st.sampled_from([0, 1, 2, 8, 9, 10]) | st.integers(0, 15)
closes = st.sampled_from([b"\x03\xe8", b"\x03\xe9bye", b"\x03\xed", b"\x0f\xa0"])
payloads = st.binary(max_size=140) | st.text(max_size=40).map(str.encode) | closes
frames = st.builds(frame, opcodes, payloads, fin=st.booleans())
streams = st.lists(frames | st.binary(max_size=12), max_size=8).map(b"".join)
cuts = st.lists(st.integers(0, 10_000), max_size=4)

handshake_lines = st.sampled_from(
    [
        b"HTTP/1.1 101 x\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: Upgrade\r\n",
        b"Sec-WebSocket-Accept: x\r\n",
        b"Content-Length: 3\r\n",
        b"\r\n",
        b"abc",
        b": \r\n",
        b"\xff: x\r\n",
    ]
)
answers = st.binary(max_size=200) | st.lists(handshake_lines, max_size=8).map(b"".join)


async def outcome_of(bench: Bench, stream: bytes, cuts: list[int]) -> list[str]:
    """What a client makes of these bytes, cut at these places: its messages, and how it ended."""

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        position = 0
        for cut in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
            writer.write(stream[position:cut])
            await writer.drain()
            await asyncio.sleep(0)
            position = cut
        writer.write_eof()
        await reader.read()

    outcome: list[str] = []
    async with raw_server(send) as url:
        connection = await bench.client().connect(url, max_size=128, close_timeout=5)
        try:
            async for message in connection:
                outcome.append(repr(message))
        except ConnectionClosed as exc:
            outcome.append(repr(exc))
        else:
            outcome.append(OK)
    return outcome


def outcome(bench: Bench, stream: bytes, cuts: list[int]) -> list[str]:
    return run(outcome_of(bench, stream, cuts), collect=False)


@pytest.mark.parametrize("engine", ENGINES)
@given(streams, cuts)
@EXAMPLES
def test_frames_of_all_kinds(engine: str, stream: bytes, cuts: list[int]) -> None:
    bench = Bench(engine, None)
    end = outcome(bench, stream, cuts)[-1]
    assert end == OK or end.startswith("ConnectionClosedError(")
    assert bench.types()[0] == "WS CONNECT"
    assert set(bench.types()[1:]) <= {"WS RECV", "WS SESSION"}
    assert (bench.only("WS SESSION").error is None) == (end == OK)


@given(streams, cuts)
@EXAMPLES
def test_where_the_stream_is_cut_makes_no_difference(stream: bytes, cuts: list[int]) -> None:
    assert outcome(Bench("websockets", None), stream, cuts) == outcome(Bench("websockets", None), stream, [])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_long_frame_cut_anywhere_near_its_beginning(engine: str) -> None:
    payload = bytes(range(250)) * 280
    cuts = range(1, 150)

    async def main() -> None:
        async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for cut in cuts:
                writer.write(frame(2, payload)[:cut])
                for _ in range(3):
                    await asyncio.sleep(0)  # the client runs in this loop: it reads what is there
                writer.write(frame(2, payload)[cut:])
                await reader.readexactly(7)  # it has all of it

        async with raw_server(send) as url, Bench(engine, None).client().connect(url) as connection:
            for _ in cuts:
                assert await connection.recv() == payload
                await connection.send("x")

    run(main())


@given(streams)
@EXAMPLES
def test_both_engines_agree(stream: bytes) -> None:
    default, fast = (outcome(Bench(engine, None), stream, []) for engine in ENGINES)
    assert default[:-1] == fast[:-1]
    # A frame may be wrong in two ways, of which each engine finds another one first.
    assert (default[-1] == OK) == (fast[-1] == OK)


@pytest.mark.parametrize("engine", ENGINES)
@given(answers)
@EXAMPLES
def test_answers_to_the_handshake_of_all_kinds(engine: str, answer: bytes) -> None:
    bench = Bench(engine, None)

    async def main() -> None:
        async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.write_eof()
            await reader.read()

        async with tcp_server(send) as url:
            with pytest.raises(ConnectError):
                await bench.client().connect(url)

    run(main(), collect=False)
    assert bench.types() == ["WS CONNECT"]
