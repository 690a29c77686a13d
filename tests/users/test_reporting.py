"""What Locust is told: rows that equal the server's counts, and all that listeners may ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import LIBRARIES, other_server

from .conftest import Authority, Server
from .running import LocustRun, locust

pytestmark = pytest.mark.once

Run = Callable[..., LocustRun]

ECHOES = """
quit_when_done()

class Echo(AsyncWebSocketUser):
    engine = {engine!r}

    @task
    async def echo(self):
        async with self.ws.connect("/echo?token=" + str(id(self))) as connection:
            for number in range(20):
                await connection.send("é" * number)  # two bytes each
                assert await connection.recv() == "é" * number
                await connection.send(b"x" * number)
                assert await connection.recv() == b"x" * number
        raise StopUser
"""


def check_echoes(result: LocustRun, users: int) -> None:
    """What must be reported of so many users of ECHOES."""
    assert (result.code, result.complaints) == (0, "")
    messages = users * 40
    assert result.counts == {
        "WS CONNECT /echo": users,
        "WS SEND /echo": messages,
        "WS RECV /echo": messages,
        "WS SESSION /echo": users,
    }
    size = (sum(range(20)) * 2 + sum(range(20))) / 40
    assert result.rows["WS SEND /echo"].size == result.rows["WS RECV /echo"].size == pytest.approx(size)
    assert result.rows["Aggregated"].requests == users + 2 * messages  # a lifetime is no response time
    session, receive = result.rows["WS SESSION /echo"], result.rows["WS RECV /echo"]
    assert session.average > 20 * receive.average  # it is the connection's lifetime


def test_rows_equal_the_counts_of_the_demo_server(run: Run, server: Server, engine: str) -> None:
    result = run(ECHOES.format(engine=engine), "-u", "20")
    check_echoes(result, 20)
    counts = server.counts()
    assert counts["opened"] == 20
    assert counts["messages_in"] == counts["messages_out"] == 800
    assert counts["bytes_in"] == counts["bytes_out"] == 20 * 40 * result.rows["WS SEND /echo"].size
    assert counts["closes"] == {"1000": 20}


@pytest.mark.parametrize("library", LIBRARIES)
def test_rows_equal_the_counts_of_servers_that_are_not_ours(tmp_path: Path, authority: Authority, library: str) -> None:
    with other_server(library, authority.certificate, authority.key) as server:
        result = locust(
            tmp_path,
            f"""
            import ssl

            quit_when_done()

            class Echo(AsyncWebSocketUser):
                abstract = True
                fixed_count = 3

                @task
                async def echo(self):
                    async with self.ws.connect("/echo", name=type(self).__name__) as connection:
                        for number in range(20):
                            await connection.send("é" * number)
                            assert await connection.recv() == "é" * number
                            await connection.send(b"x" * number)
                            assert await connection.recv() == b"x" * number
                    raise StopUser

            class Plain(Echo):
                host = {server.url!r}

            class PlainFast(Plain):
                engine = "picows"

            class Secure(Echo):
                host = {server.tls_url!r}
                ssl = ssl.create_default_context(cafile={authority.file!r})

            class SecureFast(Secure):
                host = {str(server.tls_url).replace("wss", "https")!r}
                engine = "picows"
                ssl = None
                verify = {authority.file!r}
            """,
            "-u",
            "12",
        )
        assert (result.code, result.complaints) == (0, "")
        assert result.counts == {
            f"WS {kind} {name}": number
            for name in ("Plain", "PlainFast", "Secure", "SecureFast")
            for kind, number in (("CONNECT", 3), ("SEND", 120), ("RECV", 120), ("SESSION", 3))
        }
        assert server.counts() == {"opened": 12, "received": 480, "sent": 480, "closes": {"1000": 12}}


def test_what_listeners_are_told(run: Run, server: Server, engine: str) -> None:
    result = run(
        f"""
        quit_when_done()
        started = time.time()

        class Told(AsyncWebSocketUser):
            engine = {engine!r}
            number = 0

            def context(self):
                return {{"user": "me", "number": self.number}}

            @task
            async def work(self):
                async with self.ws.connect("/echo?secret=1", name="echo") as connection:
                    self.number = 1
                    await connection.send("text")
                    await connection.recv()
                    await connection.ping()
                raise StopUser

        @events.request.add_listener
        def listen(request_type, name, response_time, response_length, exception, context, start_time, url, response):
            assert started - 0.01 <= start_time <= time.time() - response_time / 1000 + 0.01
            note(request_type, name, response_length, exception, context, url, type(response).__name__)
        """
    )
    assert (result.code, result.complaints) == (0, "")
    url = server.url + "/echo?secret=1"
    zero, one = {"user": "me", "number": 0}, {"user": "me", "number": 1}
    assert result.notes == [
        ["WS CONNECT", "echo", 0, None, zero, url, "Response"],
        ["WS SEND", "echo", 4, None, one, url, "NoneType"],
        ["WS RECV", "echo", 4, None, one, url, "str"],
        ["WS PING", "echo", 4, None, one, url, "NoneType"],
        ["WS SESSION", "echo", 0, None, one, url, "Session"],
    ]


def test_events_are_whole_as_soon_as_anybody_but_the_statistics_listens(run: Run, server: Server, engine: str) -> None:
    result = run(
        f"""
        quit_when_done()

        @events.init.add_listener
        def watch(environment, **_):
            fire = environment.events.request.fire

            def watched(**arguments):
                note(arguments["request_type"], len(arguments))
                fire(**arguments)

            environment.events.request.fire = watched

        def listen(response, **_):
            note("heard", response)

        class Watched(AsyncWebSocketUser):
            engine = {engine!r}

            @task
            async def work(self):
                async with self.ws.connect("/echo") as connection:
                    await connection.send("text")
                    await asyncio.sleep(0.001)
                    events.request.add_listener(listen)
                    await connection.recv()
                    events.request.remove_listener(listen)
                    await connection.send("text")
                    await connection.recv()
                    try:
                        await connection.expect(str.isdigit, timeout=0.01)
                    except TimeoutError:
                        pass
                raise StopUser
        """,
        "--exit-code-on-error",
        "0",
    )
    assert (result.code, result.complaints) == (0, "")
    assert result.notes == [
        ["WS CONNECT", 4],
        ["WS SEND", 4],
        ["WS RECV", 9],
        ["heard", "text"],
        ["WS SEND", 4],
        ["WS RECV", 4],
        ["WS RECV", 9],  # a failure, which Locust also logs
        ["WS SESSION", 4],
    ]


def test_a_listener_hears_nothing_of_what_was_before_it_and_the_statistics_all(
    run: Run, server: Server, engine: str
) -> None:
    """Events wait for the end of the hub's turn while only the statistics listen; here there is none in between."""
    result = run(
        f"""
        quit_when_done()

        def listen(request_type, start_time, **_):
            note("heard", request_type)

        async def fail():
            raise ValueError

        class Counted(AsyncWebSocketUser):
            engine = {engine!r}

            @task
            async def work(self):
                statistics = self.environment.stats
                async with self.ws.connect("/echo") as connection:
                    await connection.send("before")
                    await connection.send("before")
                    events.request.add_listener(listen)
                    await connection.send("heard")
                    note("counted", statistics.num_requests, statistics.num_failures)
                    events.request.remove_listener(listen)
                    await connection.send("before a failure")
                    try:
                        await self.timed("failure", fail())
                    except ValueError:
                        pass
                    note("counted", statistics.num_requests, statistics.num_failures)
                raise StopUser
        """,
        "--exit-code-on-error",
        "0",
    )
    assert (result.code, result.complaints) == (0, "")
    assert result.notes == [["heard", "WS SEND"], ["counted", 4, 0], ["counted", 6, 1]]
    assert result.counts == {"WS CONNECT /echo": 1, "WS SEND /echo": 4, "ASYNC failure": 0, "WS SESSION /echo": 1}


def test_which_rows_are_reported_and_for_what_hosts(run: Run, server: Server) -> None:
    result = run(
        f"""
        quit_when_done()

        class Base(AsyncWebSocketUser):
            abstract = True

            @task
            async def work(self):
                assert self.client is self.ws
                async with self.ws.connect(self.path) as connection:
                    await connection.send("x")
                    await connection.recv()
                raise StopUser

        class Some(Base):
            reported = {{"WS CONNECT", "WS RECV"}}
            path = "/headers"

        class Http(Base):
            path = "/echo"

        class Absolute(Base):
            path = "{server.url}/fragments?parts=2"

        @events.init.add_listener
        def init(environment, **_):
            environment.host = {server.http_url!r}
        """,
        "-u",
        "3",
    )
    assert (result.code, result.complaints) == (0, "")
    assert result.counts == {
        "WS CONNECT /headers": 1,
        "WS RECV /headers": 1,
        **{
            f"WS {kind} {path}": 1
            for kind in ("CONNECT", "SEND", "RECV", "SESSION")
            for path in ("/echo", "/fragments")
        },
    }


def test_any_awaitable_can_be_a_row(run: Run) -> None:
    result = run(
        """
        quit_when_done()

        async def answer(value):
            await asyncio.sleep(0.05)
            if isinstance(value, Exception):
                raise value
            return value

        class Timing(AsyncUser):
            @task
            async def work(self):
                assert await self.timed("good", answer(1)) == 1
                try:
                    await self.timed("bad", answer(ValueError("no answer")), request_type="RPC")
                except ValueError as exc:
                    note(str(exc))
                try:
                    async with asyncio.timeout(0.01):
                        await self.timed("cancelled", answer(1))
                except TimeoutError:
                    note("timeout")
                raise StopUser
        """
    )
    assert (result.code, result.complaints) == (1, "")
    assert result.notes == [["no answer"], ["timeout"]]
    assert result.rows.keys() == {"ASYNC good", "RPC bad", "Aggregated"}
    assert result.failures == {"RPC bad": {"ValueError('no answer')": 1}}
    assert result.rows["ASYNC good"].minimum > 45


def test_settings_that_are_wrong_are_refused_before_the_first_user_runs(run: Run) -> None:
    result = run(
        """
        class Wrong(AsyncWebSocketUser):
            max_size = "1 MB"

            @task
            async def work(self):
                note("works")
        """,
        "--run-time",
        "1s",
    )
    assert result.code == 2
    assert result.notes == []
    assert "max_size must be an int or None, not '1 MB'" in result.complaints
