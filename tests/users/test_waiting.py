"""Users that wait: their sockets stay served, and nobody waits for them."""

from __future__ import annotations

from collections.abc import Callable

from tests.support import SCALE

from .conftest import Server
from .running import LocustRun

Run = Callable[..., LocustRun]


def test_users_that_wait_or_block_answer_pings(run: Run, server: Server) -> None:
    """The server pings each 0.5 s and cuts off who does not answer in that time: only the one that stalls."""
    result = run(
        f"""
        class Base(AsyncWebSocketUser):
            abstract = True
            fixed_count = 4

            def __init__(self, environment):
                self.engine = next(ENGINES)
                super().__init__(environment)

            async def on_start(self):
                self.connection = await self.ws.connect("/pings?interval={0.5 * SCALE}", name=type(self).__name__)

        class Waiting(Base):
            wait_time = constant(1000)

            @task
            async def work(self):
                pass

        class WaitingShortly(Base):
            wait_time = constant(0.1)

            @task
            async def work(self):
                await asyncio.sleep(0.05)

        class BlockingInPlain(Base):
            @task
            def work(self):
                time.sleep(1000)

        class BlockingBeside(Base):
            @task
            async def work(self):
                await asyncio.to_thread(time.sleep, 1000)

        class Stalling(Base):
            fixed_count = 1

            @task
            async def work(self):
                time.sleep(1000)  # blocks the loop of this user, and of no other
        """,
        "-u",
        "17",
        "--run-time",
        f"{8 * SCALE:.0f}s",
    )
    assert (result.code, result.complaints) == (1, "")
    assert result.failures.keys() == {"WS SESSION Stalling"}
    for name in ("Waiting", "WaitingShortly", "BlockingInPlain", "BlockingBeside"):
        row = result.rows[f"WS SESSION {name}"]
        assert (row.requests, row.failures) == (4, 0)
        assert row.minimum > 2000 * SCALE  # four pings
    counts = server.counts()
    assert counts["pongs_missed"] == 1
    assert counts["closes"]["1000"] == 16


def test_wait_time_may_be_async(run: Run, server: Server) -> None:
    """It is awaited in the user's loop, and a stop finds it there as it finds a task."""
    result = run(
        """
        waiting = []
        quit_when(lambda: waiting and waiting[0].state == "running" and waiting[0].user_count == 1)

        class Base(AsyncWebSocketUser):
            abstract = True

            async def on_start(self):
                self.connection = await self.ws.connect("/echo")

            def note(self, *values):
                note(type(self).__name__, *values)

            async def on_stop(self):
                self.note("stops")

        class OfTheUser(Base):
            runs = 0

            async def wait_time(self):
                await self.connection.send("0.2")
                self.ended = time.monotonic()
                return float(await self.connection.recv())

            @task
            async def work(self):
                self.runs += 1
                if self.runs == 3:
                    self.note("waited", time.monotonic() - self.ended > 0.19)
                    raise StopUser

        class OfTheTaskSet(Base):
            wait_time = constant(1000)

            @task
            class Steps(SequentialTaskSet):
                async def wait_time(self):
                    await asyncio.sleep(0)
                    return await asyncio.to_thread(lambda: 0.01)

                @task
                def plain(self):
                    self.user.note("plain")

                @task
                async def works(self):
                    self.user.note("async")
                    raise RescheduleTask

                @task
                async def ends(self):
                    raise StopUser

        class StopsInIt(Base):
            @task
            async def work(self):
                self.note("works")

            async def wait_time(self):
                raise StopUser

        class FindsNoTime(Base):
            @task
            async def work(self):
                self.note("works")

            async def wait_time(self):
                waiting.append(self.environment.runner)
                try:
                    await asyncio.sleep(1000)
                finally:
                    await asyncio.sleep(0)
                    self.note("cancelled")

        class Waiting(Base):
            # The user asks for its own pace, as a task may do.
            async def wait_time(self):
                return 0.01

            @task
            async def work(self):
                await asyncio.sleep(await self.wait_time())
                self.note("waited")
                raise StopUser
        """,
        "-u",
        "5",
        "--stop-timeout",
        "1000",
    )
    assert (result.code, result.complaints) == (0, "")
    assert result.noted("OfTheUser") == [["waited", True], "stops"]
    assert result.noted("OfTheTaskSet") == ["plain", "async", "stops"]
    assert result.noted("StopsInIt") == ["works", "stops"]
    assert result.noted("FindsNoTime") == ["works", "cancelled", "stops"]
    assert result.noted("Waiting") == ["waited", "stops"]
    assert server.counts()["closes"] == {"1000": 5}


def test_two_hundred_users_in_one_process_wait_for_each_other(run: Run, server: Server) -> None:
    """Each waits until all are connected: a sleep that held up another user would never end."""
    result = run(
        """
        inside = 0
        echoes = 0
        quit_when(lambda: echoes > 1000)

        class Crowd(AsyncWebSocketUser):
            wait_time = between(0.1, 0.2)

            async def on_start(self):
                global inside
                self.connection = await self.ws.connect("/echo")
                inside += 1
                while inside < 200:
                    await asyncio.sleep(0.01)
                note("met")

            @task
            async def echo(self):
                global echoes
                await self.connection.send("x" * 100)
                assert await self.connection.recv() == "x" * 100
                echoes += 1
        """,
        "-u",
        "200",
    )
    assert (result.code, result.complaints) == (0, "")
    assert result.notes == [["met"]] * 200
    counts = server.counts()
    assert counts["closes"] == {"1000": 200}
    assert result.counts["WS CONNECT /echo"] == result.counts["WS SESSION /echo"] == counts["opened"] == 200
    assert result.counts["WS SEND /echo"] == counts["messages_in"]
    # An answer may still have been on its way at the stop.
    assert counts["messages_out"] - 200 <= result.counts["WS RECV /echo"] <= counts["messages_out"]
