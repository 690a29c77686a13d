"""The parts of the engines that need no connection: closing handshake, settings, and what is checked on import."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close

from locust_ws_async.client import ENGINES
from locust_ws_async.client.wire.closing import ClosingHandshake, code_in_frame
from locust_ws_async.exceptions import TLSError

from .helpers import Bench, run, tcp_server

NORMAL, AWAY, BROKEN = Close(1000, ""), Close(1001, "bye"), Close(1002, "broken")

# The closing handshake


def test_this_side_closes() -> None:
    closing = ClosingHandshake()
    assert closing.start(NORMAL)
    assert not closing.discarding  # what the peer sent before it read that still counts
    assert not closing.receive(AWAY)
    assert closing.discarding
    info = closing.info()
    assert (info.rcvd, info.sent, info.rcvd_then_sent) == (AWAY, NORMAL, False)


def test_the_peer_closes() -> None:
    closing = ClosingHandshake()
    assert closing.receive(AWAY)
    assert closing.discarding
    assert not closing.start(NORMAL)
    info = closing.info()
    assert (info.rcvd, info.sent, info.rcvd_then_sent) == (AWAY, AWAY, True)


def test_a_close_frame_that_is_answered_with_an_error() -> None:
    closing = ClosingHandshake()
    assert closing.receive(AWAY, BROKEN)
    info = closing.info()
    assert (info.rcvd, info.sent, info.rcvd_then_sent) == (AWAY, BROKEN, True)


def test_the_connection_is_failed() -> None:
    closing = ClosingHandshake()
    error = ConnectionResetError()
    assert closing.fail(BROKEN)
    assert closing.discarding
    info = closing.info(error)
    assert (info.rcvd, info.sent, info.rcvd_then_sent, info.error) == (None, BROKEN, None, error)


def test_a_connection_that_is_lost_without_a_close_frame() -> None:
    info = ClosingHandshake().info()
    assert (info.rcvd, info.sent, info.rcvd_then_sent) == (None, None, None)


@given(st.lists(st.sampled_from(["start", "fail", "receive"])))
def test_one_close_frame_goes_out(events: list[str]) -> None:
    closing = ClosingHandshake()
    sent = [getattr(closing, event)(NORMAL) for event in events]
    assert sent == [True, *[False] * (len(events) - 1)][: len(events)]
    assert closing.discarding == bool({"fail", "receive"} & set(events))


def test_1005_stands_for_no_code() -> None:
    assert code_in_frame(Close(1005, "")) is None
    assert code_in_frame(AWAY) == 1001


# TLS handshakes that picows gives up


async def lost_in_the_tls_handshake(bench: Bench) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with tcp_server(cut) as url:
        with pytest.raises(TLSError):
            await bench.client().connect(url.replace("ws:", "wss:"))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [1, 3])
def test_the_exception_handler_of_the_loop_is_not_told_and_is_back(engine: str, count: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = loop.get_exception_handler()
        assert before is not None
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(lost_in_the_tls_handshake(Bench(engine, None)))
        assert loop.get_exception_handler() is before

    run(main())  # which fails if the handler was told anything


@pytest.mark.parametrize("engine", ENGINES)
def test_other_errors_in_the_meantime_are_told(engine: str) -> None:
    told: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = loop.get_exception_handler()
        loop.set_exception_handler(lambda loop, context: told.append(context))
        connecting = asyncio.ensure_future(lost_in_the_tls_handshake(Bench(engine, None)))
        while not connecting.done():
            loop.call_exception_handler({"message": "other"})
            await asyncio.sleep(0)
        await connecting
        loop.set_exception_handler(before)

    run(main())
    assert told
    assert {context["message"] for context in told} == {"other"}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_handler_that_is_set_in_the_meantime_stays(engine: str) -> None:
    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        pass

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            loop.set_exception_handler(handler)

        async with tcp_server(cut) as url:
            with pytest.raises(TLSError):
                await Bench(engine, None).client().connect(url.replace("ws:", "wss:"))
        assert loop.get_exception_handler() is handler

    run(main())


# What is checked on import


@pytest.mark.parametrize(
    ("module", "change", "sentence"),
    [
        (
            "cpython",
            "from asyncio import sslproto; del sslproto._SSLProtocolTransport",
            "asyncio.sslproto has no _SSLProtocolTransport any more",
        ),
        (
            "cpython",
            "from asyncio import sslproto; sslproto.SSLProtocol.__init__ = lambda self: None",
            "asyncio's TLS has no _eof_received any more",
        ),
        (
            "websockets",
            "from websockets import client; client.ClientProtocol = type('C', (), {'__init__': lambda *_: None})",
            "ClientProtocol of websockets .* has no close_rcvd, which locust_ws_async needs",
        ),
        (
            "picows",
            "import picows; picows.WSFrame = object",
            r"picows .* with aiofastnet .* has no picows.WSFrame.last_in_buffer, which the engine \"picows\" needs",
        ),
        (
            "picows",
            "from aiofastnet import ssl_transport; ssl_transport.SSLTransportBase = object",
            r"has no aiofastnet.ssl_transport.SSLTransportBase._retry_ssl_read, which the engine \"picows\" needs",
        ),
    ],
)
def test_a_missing_inside_is_told_with_the_versions(module: str, change: str, sentence: str) -> None:
    program = (
        f"{change}\n"
        "import re\n"
        "try:\n"
        f"    import locust_ws_async.internals.{module}\n"
        "except ImportError as exc:\n"
        f"    assert re.search({sentence!r}, str(exc)), exc\n"
        "else:\n"
        "    raise SystemExit('not noticed')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
