"""The end of a run: every socket gets a close frame, nothing is left, nothing is printed, nothing hangs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import eventually

from .conftest import Server
from .running import LocustProcess, LocustRun

Run = Callable[..., LocustRun]
Start = Callable[..., LocustProcess]

# Users in every state that a stop can find them in: each has a connection, and most have background tasks.
EVERYWHERE = """
import gc
import psutil

busy = set()  # the users that are where the stop shall find them
quit_when(lambda: len(busy) == 36)

class Base(AsyncWebSocketUser):
    abstract = True

    def __init__(self, environment):
        self.engine = next(ENGINES)
        super().__init__(environment)

    async def on_start(self):
        self.connection = await self.ws.connect("/echo", name="echo")
        self.background = asyncio.create_task(self.receive())
        await self.connection.send("x")

    async def receive(self):
        async for message in self.connection:
            await asyncio.sleep(0)

    async def on_stop(self):
        await self.connection.send("bye")
        note("stopped")

class Waiting(Base):
    wait_time = constant(1000)

    @task
    async def work(self):
        busy.add(id(self))

class Receiving(Base):
    @task
    async def work(self):
        async with self.ws.connect("/ticker?rate=10", name="ticker") as ticker:
            async for message in ticker:
                busy.add(id(self))

class Spinning(Base):
    @task
    async def work(self):
        busy.add(id(self))
        await asyncio.sleep(0)

class Blocking(Base):
    @task
    def work(self):
        busy.add(id(self))
        time.sleep(0.3)

class BlockingInCoroutine(Base):
    @task
    async def work(self):
        busy.add(id(self))
        time.sleep(0.3)

class BlockingBeside(Base):
    @task
    async def work(self):
        busy.add(id(self))
        await asyncio.to_thread(time.sleep, 0.3)

class InGroup(Base):
    @task
    async def work(self):
        busy.add(id(self))
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(asyncio.sleep(0.3))

class Connecting(Base):
    @task
    async def work(self):
        busy.add(id(self))
        async with self.ws.connect("/slow-handshake?seconds=30", name="slow"):
            pass

class Nested(Base):
    @task
    class Steps(SequentialTaskSet):
        @task
        class Deeper(TaskSet):
            @task
            async def work(self):
                busy.add(id(self.user))
                await asyncio.sleep(0.3)

def alive():
    gc.collect()
    objects = gc.get_objects()
    return {
        "tasks": sum(isinstance(o, asyncio.Task) and not o.done() for o in objects),
        "greenlets": sum(isinstance(o, gevent.Greenlet) and not o.dead for o in objects),
        "loops": sum(isinstance(o, asyncio.AbstractEventLoop) and not o.is_closed() for o in objects),
        "descriptors": psutil.Process().num_fds() if hasattr(psutil.Process, "num_fds") else 0,
        "users": sum(isinstance(o, AsyncUser) for o in objects),
    }

before = {}

@events.test_start.add_listener
def started(**_):
    before.update(alive())

@events.test_stop.add_listener
def stopped(**_):
    for _ in range(200):
        now = alive()
        if all(now[name] <= number for name, number in before.items()):  # the spawning greenlet may have ended
            break
        gevent.sleep(0.05)  # for the greenlets that ended just now
    for name, number in now.items():
        note("left", name, number - before[name])
"""


@pytest.mark.parametrize("stop_timeout", [0, 1])
def test_a_stop_finds_users_everywhere_and_leaves_nothing(run: Run, server: Server, stop_timeout: int) -> None:
    result = run(EVERYWHERE, "-u", "36", "--stop-timeout", str(stop_timeout))
    assert result.complaints == ""
    assert (result.code, result.failures, result.exceptions) == (0, {}, {})
    assert result.notes.count(["stopped"]) == 36
    counts = server.counts()
    assert counts["closes"] == {"1000": counts["opened"]}
    assert counts["opened"] == sum(number for row, number in result.counts.items() if "CONNECT" in row)
    assert counts["opened"] == sum(number for row, number in result.counts.items() if "SESSION" in row)
    left = dict(result.noted("left"))
    # The greenlet that spawned the users has ended meanwhile.
    assert {name: max(0, number) for name, number in left.items()} == dict.fromkeys(left, 0)


def test_a_stop_is_bounded_when_the_server_answers_nothing(start: Start, server: Server) -> None:
    """Neither closing handshakes nor coroutines that ignore their cancellation hold the stop up for ever."""
    locust = start(
        """
        from locust_ws_async.client import Backoff

        class Base(AsyncWebSocketUser):
            abstract = True
            close_timeout = 0.5
            cancel_timeout = 0.5

            def __init__(self, environment):
                self.engine = next(ENGINES)
                super().__init__(environment)

            async def on_start(self):
                self.connections = [await self.ws.connect("/silent") for _ in range(3)]
                note("connected")

        class Silent(Base):
            @task
            async def work(self):
                async with self.ws.connect("/silent", name="in a task") as connection:
                    note("waits")
                    await connection.recv()

        class Stubborn(Base):
            @task
            async def work(self):
                while True:
                    try:
                        await asyncio.sleep(1000)
                    except asyncio.CancelledError:
                        note("ignores")

        class KilledWhileClosing(Base):
            close_timeout = 1000

            @task
            async def work(self):
                await asyncio.sleep(1000)

            def on_stop(self):
                gevent.spawn_later(0.5, self.greenlet.kill)

        class KilledWhileBackgroundEnds(KilledWhileClosing):
            close_timeout = 0.5
            cancel_timeout = 1

            async def on_start(self):
                self.echo = await self.ws.connect("/echo", name="echo")
                self.background = asyncio.create_task(self.take_long())
                await super().on_start()

            async def take_long(self):
                try:
                    await asyncio.sleep(1000)
                finally:
                    await asyncio.sleep(1000)

        class Reconnecting(Base):
            reconnect = Backoff(initial=1000, maximum=1000)

            @task
            async def work(self):
                async with self.ws.connect("/close/1011", name="reconnecting") as connection:
                    lost = asyncio.create_task(self.note_the_loss(connection))
                    await connection.recv()

            async def note_the_loss(self, connection):
                while connection.state.name == "OPEN":
                    await asyncio.sleep(0.01)
                note("waits")
        """,
        "--headless",
        "--users",
        "10",
        "--spawn-rate",
        "10",
    )
    eventually(lambda: locust.notes().count(["connected"]) == 10 and locust.notes().count(["waits"]) == 4)
    locust.process.terminate()
    result = locust.finish()
    assert ["ignores"] in result.notes
    lines = result.complaints.splitlines()
    told = {line.split(": ", 1)[1].split(", the longest")[0] for line in lines if line.endswith("nothing ever came")}
    assert told == {f"2 users had waited in recv() of {name}" for name in ("in a task", "reconnecting")}
    left = [line for line in lines if not line.endswith("nothing ever came")]
    assert len(left) == 2 and all("left behind" in line and "Stubborn.work" in line for line in left)
    assert result.counts["WS SESSION echo"] == 2
    unanswered = "connection closed by this side, which the server did not answer with a close frame"
    assert result.failures == {
        "WS SESSION /silent": {f"ConnectionClosedError('{unanswered}')": 30},
        "WS SESSION in a task": {f"ConnectionClosedError('{unanswered}')": 2},
        "WS RECOVERY reconnecting": {"NotRecovered('still not connected when this side closed the connection')": 2},
        "WS SESSION reconnecting": {"ConnectionClosedError('connection closed by the server: 1011 internal error')": 2},
    }


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_a_task_may_stop_all_users(start: Start, server: Server, kind: str) -> None:
    """As in Locust: the kill reaches the task inside quit(), so that the process itself goes on."""
    locust = start(
        f"""
        class Base(AsyncWebSocketUser):
            abstract = True

            async def on_start(self):
                self.connection = await self.ws.connect("/echo")
                connected.append(self)

            async def on_stop(self):
                note("stopped", quitting)

        quitting = False
        connected = []

        class Quitting(Base):
            fixed_count = 1
            wait_time = constant(0.2)

            @task
            {kind} quit(self):
                global quitting
                if len(connected) == 4:
                    quitting = True
                    self.environment.runner.quit()
                    note("not reached")

        class Other(Base):
            fixed_count = 3

            @task
            async def work(self):
                await asyncio.sleep(1000)
        """,
        "--headless",
        "--only-summary",
        "--users",
        "4",
        "--spawn-rate",
        "4",
    )
    eventually(lambda: locust.notes().count(["stopped", True]) == 4)
    locust.process.terminate()
    result = locust.finish()
    assert result.code == 0
    assert "Traceback" not in result.complaints  # Locust logs one line about a user that it has stopped itself
    assert result.notes == [["stopped", True]] * 4
    assert server.counts()["closes"] == {"1000": 4}


def test_a_user_may_stop_itself_and_others(run: Run, server: Server) -> None:
    result = run(
        """
        quit_when_done()

        class Base(AsyncWebSocketUser):
            abstract = True

            async def on_start(self):
                self.connection = await self.ws.connect("/echo")
                type(self).instance = self

            async def on_stop(self):
                note(type(self).__name__, "stopped")

        class Async(Base):
            abstract = True

            @task
            async def work(self):
                await self.end()
                note(type(self).__name__, "task done")

        class ByForce(Async):
            async def end(self):
                self.stop(force=True)
                note("not reached")

        class ByForceInPlain(Base):
            @task
            def work(self):
                self.stop(force=True)
                note("not reached")

        class Gracefully(Async):
            async def end(self):
                self.stop()

        class Beside(Async):
            async def end(self):
                asyncio.get_running_loop().call_later(0.1, self.stop)
                await asyncio.sleep(0.2)

        class Victim(Async):
            async def end(self):
                await asyncio.sleep(1000)

        class Killer(Async):
            async def end(self):
                while not hasattr(Victim, "instance"):
                    await asyncio.sleep(0.01)
                Victim.instance.stop(force=True)
                raise StopUser

        class KilledTwice(Async):
            async def end(self):
                gevent.spawn_later(0.1, self.greenlet.kill)
                gevent.spawn_later(0.2, self.greenlet.kill)
                try:
                    await asyncio.sleep(1000)
                finally:
                    await asyncio.sleep(1000)
        """,
        "-u",
        "7",
    )
    assert (result.code, result.complaints) == (0, "")
    assert sorted(result.notes) == [
        ["Beside", "stopped"],
        ["Beside", "task done"],
        ["ByForce", "stopped"],
        ["ByForceInPlain", "stopped"],
        ["Gracefully", "stopped"],
        ["Gracefully", "task done"],
        ["KilledTwice", "stopped"],
        ["Killer", "stopped"],
        ["Victim", "stopped"],
    ]
    assert server.counts()["closes"] == {"1000": 7}


def test_a_stop_during_on_start(start: Start, server: Server) -> None:
    """With a stop timeout on_start may end, no task follows, and on_stop runs: as in Locust, whatever the kind."""
    locust = start(
        """
        class Base(AsyncWebSocketUser):
            abstract = True

            def note(self, *values):
                note(type(self).__name__, *values)

            @task
            async def work(self):
                self.note("works")

            async def on_stop(self):
                self.note("stops")
                async with self.ws.connect("/echo"):
                    pass

        class Ends(Base):
            async def on_start(self):
                self.connection = await self.ws.connect("/echo")
                self.note("begins")
                while self._state != "stopping":
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.2)
                self.note("ends")

        class EndsPlain(Base):
            def on_start(self):
                self.note("begins")
                while self._state != "stopping":
                    time.sleep(0.01)
                self.note("ends")

        class Hangs(Base):
            async def on_start(self):
                self.note("begins")
                async with self.ws.connect("/echo"):
                    await asyncio.sleep(1000)

        class HangsPlain(Base):
            def on_start(self):
                self.note("begins")
                time.sleep(1000)

        class Fails(Base):
            async def on_start(self):
                self.note("begins")
                try:
                    await asyncio.sleep(1000)
                finally:
                    raise ValueError("in the cleanup")
        """,
        "--headless",
        "--users",
        "5",
        "--spawn-rate",
        "5",
        "--stop-timeout",
        "1",
    )
    eventually(lambda: sum("begins" in note for note in locust.notes()) == 5)
    locust.process.terminate()
    result = locust.finish()
    assert result.code == 1 and result.exceptions == {"in the cleanup": 1}
    for user in ("Ends", "EndsPlain"):
        assert result.noted(user) == ["begins", "ends", "stops"]
    for user in ("Hangs", "HangsPlain", "Fails"):
        assert result.noted(user) == ["begins", "stops"]
    assert result.complaints.count("ERROR") == result.complaints.count("ValueError: in the cleanup") == 1
    assert server.counts()["closes"] == {"1000": 7}


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_an_on_stop_that_does_not_end_is_told_by_name_and_line(start: Start, server: Server, kind: str) -> None:
    wait = "await asyncio.sleep(1000)" if kind == "async def" else "gevent.sleep(1000)"
    locust = start(
        f"""
        class Stuck(AsyncWebSocketUser):
            cancel_timeout = 0.5

            @task
            class Steps(TaskSet):
                {kind} on_stop(self):
                    self.user.began.set()
                    {wait}

                @task
                async def work(self):
                    await asyncio.sleep(1000)

            def on_start(self):
                note("started")
                self.began = gevent.event.Event()
                gevent.spawn(self.end_the_first)

            def end_the_first(self):
                self.began.wait()
                gevent.sleep(1)
                self.greenlet.kill(block=False)
                gevent.sleep(1)
                self.greenlet.kill(block=False)

            {kind} on_stop(self):
                {wait}
        """,
        "--headless",
    )
    eventually(lambda: locust.notes() == [["started"]])
    locust.process.terminate()
    result = locust.finish()
    assert result.code == 0
    first, second = (line for line in result.complaints.splitlines() if "WARNING" in line)
    told = "has not ended within cancel_timeout (0.5 s): the stop waits for it, at "
    assert f"Stuck.Steps.on_stop {told}" in first and f"Stuck.on_stop {told}" in second
    lines = Path(locust.process.args[locust.process.args.index("-f") + 1]).read_text().splitlines()
    for line in (first, second):
        assert wait in lines[int(line.rpartition(":")[2]) - 1]


def test_a_close_takes_no_longer_than_is_left_of_the_stop(start: Start, server: Server) -> None:
    locust = start(
        """
        class Silent(AsyncWebSocketUser):
            close_timeout = 1000
            cancel_timeout = 0.5

            def __init__(self, environment):
                self.engine = next(ENGINES)
                super().__init__(environment)

            async def on_start(self):
                self.connection = await self.ws.connect("/silent")
                note("connected")

            @task
            async def work(self):
                await asyncio.sleep(1000)
        """,
        "--headless",
        "--users",
        "2",
        "--spawn-rate",
        "2",
    )
    eventually(lambda: locust.notes().count(["connected"]) == 2)
    locust.process.terminate()
    result = locust.finish()
    assert result.complaints == ""
    assert sum(sum(errors.values()) for errors in result.failures.values()) == 2
