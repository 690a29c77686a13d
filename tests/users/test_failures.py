"""Failures: a row with a stable text each, no traceback on stderr, and no spinning."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tests.support import DemoServerProcess, unknown_host, unused_port

from .running import LocustProcess, LocustRun

pytestmark = pytest.mark.once

Run = Callable[..., LocustRun]
Start = Callable[..., LocustProcess]


def test_each_failure_is_a_row_with_a_stable_text(run: Run, tls_demo: DemoServerProcess, engine: str) -> None:
    result = run(
        f"""
        quit_when_done()

        class Failing(AsyncWebSocketUser):
            abstract = True
            engine = {engine!r}
            connect_backoff = None
            tasks_left = 3

            def wait_time(self):
                self.tasks_left -= 1
                if not self.tasks_left:
                    raise StopUser
                return 0.01

            @task
            async def fail(self):
                # The error leaves the task, as it does in most locustfiles.
                async with self.ws.connect(self.path, name=type(self).__name__) as connection:
                    await self.use(connection)

            async def use(self, connection):
                await connection.recv()

        class Refused(Failing):
            path = "ws://127.0.0.1:{unused_port()}/"

        class UnknownHost(Failing):
            path = "ws://nowhere.invalid/"

        class TLS(Failing):
            path = "{tls_demo.url}/echo"

        class Unauthorized(Failing):
            path = "/reject/401"

        class NotFound(Failing):
            path = "/nowhere"

        class Unavailable(Failing):
            path = "/reject/503"

        class NotHTTP(Failing):
            path = "/not-http"

        class HandshakeTimeout(Failing):
            path = "/slow-handshake"
            open_timeout = 1

        class Drop(Failing):
            path = "/drop"

        class InternalError(Failing):
            path = "/close/1011?reason=out%20of%20cheese"

        class Malformed(Failing):
            path = "/garbage"

        class TooBig(Failing):
            path = "/echo"
            max_size = 100

            async def use(self, connection):
                await connection.send("x" * 101)
                await connection.recv()

        class SendAfterClose(Failing):
            path = "/close/1000"

            async def use(self, connection):
                await connection.wait_closed()
                await connection.send("x")

        class InGroup(Failing):
            path = "/close/1008"

            async def use(self, connection):
                async with asyncio.TaskGroup() as group:
                    group.create_task(connection.recv())
                    group.create_task(asyncio.sleep(10))
        """,
        "-u",
        "14",
    )
    assert result.code == 1
    assert result.complaints == ""
    unknown = unknown_host()
    connect = {
        "Refused": "ConnectionRefused('connection refused')",
        "UnknownHost": f"{unknown[0].__name__}('{unknown[1]}')",
        "TLS": "TLSError('TLS certificate not accepted: ",
        "Unauthorized": "HandshakeRejected('the server answered the handshake with HTTP 401 Unauthorized')",
        "NotFound": "HandshakeRejected('the server answered the handshake with HTTP 404 Not Found')",
        "Unavailable": "HandshakeRejected('the server answered the handshake with HTTP 503 Service Unavailable')",
        "NotHTTP": "HandshakeError('no WebSocket server answered the handshake",
        "HandshakeTimeout": "ConnectTimeout('no connection within open_timeout",
    }
    closed = {
        "Drop": "connection lost without a close frame (1006)",
        "InternalError": "connection closed by the server: 1011 internal error",
        "Malformed": "connection failed: the server sent a malformed frame (1002 protocol error)",
        "TooBig": "connection failed: the server sent a message over max_size (1009 message too big)",
        "InGroup": "connection closed by the server: 1008 policy violation",
    }
    expected = {f"WS CONNECT {name}": error for name, error in connect.items()}
    for name, text in closed.items():
        expected[f"WS RECV {name}"] = expected[f"WS SESSION {name}"] = f"ConnectionClosedError('{text}')"
    # A session that the server closes normally has not failed; sending on it has.
    expected["WS SEND SendAfterClose"] = "ConnectionClosedOK('connection closed by the server: 1000 OK')"
    assert result.failures.keys() == expected.keys()
    for row, start in expected.items():
        assert len(result.failures[row]) == 1, result.failures[row]
        [(error, occurrences)] = result.failures[row].items()
        assert error.startswith(start) and occurrences == 3
    assert result.exceptions == {}  # each is a failed row already


def test_a_task_that_cannot_connect_backs_off(run: Run) -> None:
    """Also where the task catches the error; and the user goes on as soon as the server is there."""
    result = run(
        f"""
        from locust_ws_async.client import Backoff

        class Refused(AsyncWebSocketUser):
            abstract = True
            connect_backoff = Backoff(initial=0.2, jitter=0)
            host = "ws://127.0.0.1:{unused_port()}"
            attempts = 0

            async def attempt(self):
                started = time.monotonic()
                try:
                    await self.ws.connect("/", name=type(self).__name__)
                finally:
                    self.attempts += 1
                    if self.attempts == 4:
                        raise StopUser

        class Leaving(Refused):
            @task
            async def connect(self):
                await self.attempt()

        class Catching(Refused):
            @task
            async def connect(self):
                while True:
                    try:
                        await self.attempt()
                    except OSError:
                        pass

        class Together(Refused):
            @task
            async def connect(self):
                await asyncio.gather(*(self.ws.connect("/", name="Together") for _ in range(4)), return_exceptions=True)
                self.attempts += 1
                if self.attempts == 4:
                    raise StopUser

        @events.request.add_listener
        def request(name, start_time, **_):
            note(name, start_time)

        quit_when_done()
        """,
        "-u",
        "3",
    )
    assert (result.code, result.complaints) == (1, "")
    for name in ("Leaving", "Catching"):
        starts = result.noted(name)
        assert len(starts) == 4
        gaps = [b - a for a, b in itertools.pairwise(starts)]
        assert all(gap > delay for gap, delay in zip(gaps, (0.19, 0.39, 0.79), strict=True)), gaps
    assert len(result.noted("Together")) == 16
