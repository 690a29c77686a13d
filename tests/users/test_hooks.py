"""on_start and on_stop: async def or plain, failing, stopped, and tried again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support import demo_server_process, eventually, unused_port

from .conftest import Server
from .running import LocustProcess, LocustRun

Run = Callable[..., LocustRun]
Start = Callable[..., LocustProcess]


def test_hooks_of_either_kind(run: Run, server: Server) -> None:
    result = run(
        """
        there = set()
        quit_when(lambda: len(there) == 5)

        class Base(AsyncWebSocketUser):
            abstract = True

            @task
            async def work(self):
                if type(self) is not AgainByHand:
                    there.add(type(self))
                await asyncio.sleep(0.01)

        class Async(Base):
            async def on_start(self):
                await super().on_start()
                await asyncio.sleep(0)
                note("Async", "starts")

            async def on_stop(self):
                await super().on_stop()
                await asyncio.sleep(0)
                note("Async", "stops")

        class Plain(Base):
            def on_start(self):
                super().on_start()
                note("Plain", "starts")

            def on_stop(self):
                super().on_stop()
                note("Plain", "stops")

        class AgainByHand(Base):
            async def on_start(self):
                await asyncio.sleep(0)
                note("AgainByHand", "starts")

            @task
            async def relogin(self):
                await self.on_start()
                there.add(AgainByHand)
                raise StopUser

        class Hidden(Base):
            def decorator(function):
                return lambda self: function(self)

            @decorator
            async def on_start(self):
                await asyncio.sleep(0)
                note("Hidden", "starts")

        class KilledInOnStart(Base):
            async def on_start(self):
                self.connection = await self.ws.connect("/echo")
                note("KilledInOnStart", "connected")
                there.add(KilledInOnStart)
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0)
                    note("KilledInOnStart", "cleaned up")

            async def on_stop(self):
                await self.connection.send("bye")
                note("KilledInOnStart", await self.connection.recv())
        """,
        "-u",
        "5",
    )
    assert (result.code, result.complaints) == (0, "")
    assert result.noted("Async") == ["starts", "stops"]
    assert result.noted("Plain") == ["starts", "stops"]
    assert result.noted("AgainByHand") == ["starts", "starts"]
    assert result.noted("Hidden") == ["starts"]
    assert result.noted("KilledInOnStart") == ["connected", "cleaned up", "bye"]
    assert server.counts()["closes"] == {"1000": 1}


def test_what_on_start_sets_in_a_contextvar_the_users_tasks_see(run: Run) -> None:
    """And whatever else runs for the user, plain or not; but no other user."""
    result = run(
        """
        from contextvars import ContextVar

        account = ContextVar("account", default=None)
        quit_when_done()

        class Base(AsyncWebSocketUser):
            abstract = True

            def note(self, where):
                note(type(self).__name__, where, account.get())

            @task
            class Steps(SequentialTaskSet):
                @task
                async def first(self):
                    self.user.note("task")
                    self.user.background = asyncio.create_task(self.later())

                async def later(self):
                    account.set("background")
                    await asyncio.sleep(0.05)

                @task
                def second(self):
                    time.sleep(0.01)
                    self.user.note("plain task")
                    account.set("plain task")

                @task
                async def third(self):
                    self.user.note("after plain task")
                    async with self.user.ws.connect("/echo"):
                        pass
                    await self.user.background
                    await asyncio.to_thread(self.user.note, "thread")
                    raise StopUser

            def wait_time(self):
                self.note("wait")
                return 0.01

            async def on_stop(self):
                account.reset(self.token)  # in another context that were an error
                self.note("reset")

        class Async(Base):
            async def on_start(self):
                await asyncio.sleep(0)
                self.token = account.set("async")

        class Plain(Base):
            def on_start(self):
                self.token = account.set("plain")

        @events.request.add_listener
        def request(request_type, context, **_):
            if request_type == "WS CONNECT":
                note("listener", account.get())
        """,
        "-u",
        "2",
    )
    assert (result.code, result.complaints) == (0, "")
    for user, value in (("Async", "async"), ("Plain", "plain")):
        assert result.noted(user) == [
            ["task", value],
            ["wait", value],
            ["plain task", value],
            ["wait", "plain task"],
            ["after plain task", "plain task"],
            ["thread", "plain task"],
            ["reset", None],
        ]
    assert result.noted("listener") == ["plain task"] * 2


def test_a_user_whose_hooks_fail_closes_its_connections(run: Run, server: Server) -> None:
    """Locust ends a user whose on_start fails, without on_stop."""
    result = run(
        """
        quit_when_done()

        class Base(AsyncWebSocketUser):
            abstract = True

            async def on_start(self):
                self.connection = await self.ws.connect("/echo")

            @task
            async def stop(self):
                raise StopUser

            async def on_stop(self):
                note(type(self).__name__, "stops")

        class Starting(Base):
            async def on_start(self):
                await super().on_start()
                raise ValueError("no start")

        class StopsAtOnce(Base):
            async def on_start(self):
                await super().on_start()
                raise StopUser

        class Stopping(Base):
            async def on_stop(self):
                await super().on_stop()
                raise ValueError("no stop")
        """,
        "-u",
        "3",
    )
    assert result.code == 1
    assert sorted(result.notes) == [["Stopping", "stops"], ["StopsAtOnce", "stops"]]
    assert result.exceptions == {"no start": 1, "no stop": 1}
    assert "ValueError: no stop" in result.complaints
    assert server.counts()["closes"] == {"1000": 3}
    assert result.counts["WS SESSION /echo"] == 3


@pytest.mark.parametrize(
    "connect",
    ["await {}", "await in_group({})"],
    ids=["alone", "in a group"],
)
def test_an_on_start_that_cannot_connect_is_called_again(start: Start, server: Server, connect: str) -> None:
    port = unused_port()
    locust = start(
        f"""
        from locust_ws_async.client import Backoff

        async def in_group(coro):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(coro)
            return task.result()

        class Patient(AsyncWebSocketUser):
            connect_backoff = Backoff(initial=0.1, maximum=0.2)

            async def on_start(self):
                self.background = asyncio.create_task(self.wait())
                self.first = await self.ws.connect("/echo", name="first")
                note("connects")
                self.second = {connect.format("self.connect_second()")}
                note("connected")

            async def wait(self):
                try:
                    await asyncio.Event().wait()
                finally:
                    note("background task ends")

            async def connect_second(self):
                return await self.ws.connect("ws://127.0.0.1:{port}/echo", name="second")

            @task
            async def echo(self):
                await self.second.send("x")
                await self.second.recv()
                await asyncio.sleep(1)
        """,
        "--headless",
    )
    eventually(lambda: locust.notes().count(["connects"]) == 3)
    with demo_server_process("--port", str(port)) as late:
        eventually(lambda: ["connected"] in locust.notes())
        assert server.open() == 1  # what the attempts before had opened is closed
        notes = locust.notes()
        assert notes.count(["background task ends"]) == notes.count(["connects"]) - 1
        locust.process.terminate()
        result = locust.finish()
        assert late.stats()["total"]["closes"] == {"1000": 1}
    attempts = result.notes.count(["connects"])
    assert result.complaints == ""
    assert result.failures == {"WS CONNECT second": {"ConnectionRefused('connection refused')": attempts - 1}}
    assert result.exceptions == {}
    assert result.counts["WS CONNECT first"] == result.counts["WS SESSION first"] == attempts
    assert server.counts()["closes"] == {"1000": attempts}


def test_an_on_start_that_cannot_connect_ends_the_user_after_its_attempts(run: Run) -> None:
    result = run(
        f"""
        from locust_ws_async.client import Backoff

        quit_when_done()

        class Impatient(AsyncWebSocketUser):
            connect_backoff = Backoff(initial=0.01, attempts=3)

            async def on_start(self):
                note("connects")
                await self.ws.connect("ws://127.0.0.1:{unused_port()}/", name="nowhere")

            @task
            def work(self):
                note("works")
        """
    )
    assert result.code == 1
    assert result.notes == [["connects"]] * 3
    assert result.exceptions == {}
    assert result.complaints.count("ERROR/locust.user.users: connection refused") == 1


def test_a_stop_does_not_wait_for_an_on_start_that_cannot_connect(start: Start, server: Server) -> None:
    locust = start(
        f"""
        from locust_ws_async.client import Backoff

        class Hopeless(AsyncWebSocketUser):
            host = "ws://127.0.0.1:{unused_port()}"
            connect_backoff = Backoff(initial=1000, maximum=1000)

            async def on_start(self):
                note("connects")
                await self.ws.connect("/")

            async def on_stop(self):
                note("stops")

            @task
            def work(self):
                note("works")

        class Slow(Hopeless):
            # Its first attempt is on its way when the stop comes; no second follows.
            open_timeout = 2

            async def on_start(self):
                note("tries")
                await self.ws.connect("{server.url}/slow-handshake")

        class Tidying(Hopeless):
            # What its first attempt has left is still ending when the stop comes, and does so at the second request.
            cancel_timeout = 1000

            async def on_start(self):
                note("tries")
                self.background = asyncio.create_task(self.tidy_up())
                await asyncio.sleep(0)
                await self.ws.connect("/")

            async def tidy_up(self):
                try:
                    await asyncio.Event().wait()
                finally:
                    note("tidies up")
                    await asyncio.Event().wait()

        @events.init.add_listener
        def init(environment, **_):
            environment.host = None  # instead of --host
        """,
        "--headless",
        "--users",
        "3",
        "--stop-timeout",
        "1000",
    )
    waiting = [["connects"], ["connects"], ["tidies up"], ["tries"], ["tries"]]
    eventually(lambda: sorted(locust.notes()) == waiting)
    locust.process.terminate()
    result = locust.finish()
    assert result.complaints == ""
    assert sorted(result.notes) == sorted([*waiting, *[["stops"]] * 3])
