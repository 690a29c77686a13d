"""asyncio code in tasks: what runs beside the task, what ends it, and what blocks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Server
from .running import LocustRun

Run = Callable[..., LocustRun]


def test_tasks_do_several_things_at_once(run: Run, server: Server) -> None:
    result = run(
        """
        quit_when_done()

        class Concurrent(AsyncWebSocketUser):
            @task
            class Steps(SequentialTaskSet):
                @task
                async def gathers(self):
                    connections = await asyncio.gather(*(self.client.connect("/echo") for _ in range(5)))
                    await asyncio.gather(*(connection.send(str(i)) for i, connection in enumerate(connections)))
                    note("gather", await asyncio.gather(*(connection.recv() for connection in connections)))
                    await asyncio.gather(*(connection.close() for connection in connections))

                @task
                async def groups(self):
                    async with self.client.connect("/ticker?rate=100", name="ticker") as ticker, \\
                            asyncio.TaskGroup() as group:
                        ticks = [group.create_task(ticker.recv_json()) for _ in range(1)]
                        group.create_task(ticker.ping())
                    note("group", [tick.result()["seq"] for tick in ticks])

                @task
                async def times_out(self):
                    async with self.client.connect("/sink", name="sink") as sink:
                        try:
                            async with asyncio.timeout(0.05):
                                await sink.recv()
                        except TimeoutError:
                            note("timeout")

                @task
                async def starts_background(self):
                    self.user.echoes = 0
                    self.user.connection = await self.client.connect("/echo", name="background")
                    self.user.background = asyncio.create_task(self.echo())

                async def echo(self):
                    while True:
                        await self.user.connection.send("x")
                        await self.user.connection.recv()
                        self.user.echoes += 1

                def wait_time(self):
                    return 0.1

                @task
                async def meets_it_later(self):
                    note("background in the wait", self.user.echoes > 0, self.user.background.done())

                @task
                def blocks(self):
                    before = self.user.echoes
                    while self.user.echoes == before:
                        time.sleep(0.01)
                    note("background while a plain task blocks")

                @task
                async def blocks_beside(self):
                    before = self.user.echoes
                    await asyncio.to_thread(self.block_until_more_than, before)
                    note("background beside a blocking call")

                def block_until_more_than(self, echoes):
                    while self.user.echoes == echoes:
                        time.sleep(0.01)

                @task
                async def ends(self):
                    raise StopUser
        """
    )
    assert (result.code, result.complaints) == (0, "")
    assert result.notes == [
        ["gather", ["0", "1", "2", "3", "4"]],
        ["group", [0]],
        ["timeout"],
        ["background in the wait", True, False],
        ["background while a plain task blocks"],
        ["background beside a blocking call"],
    ]
    assert result.failures == {}
    assert "WS RECV sink" not in result.rows  # a cancelled wait is neither a success nor a failure
    counts = server.counts()
    assert counts["opened"] == 8
    assert counts["closes"] == {"1000": 8}


def test_what_stops_a_user_stops_it_from_anywhere(run: Run, server: Server) -> None:
    """Raised in the task, in the background, by a request listener in either, or by one that nobody waits for."""
    result = run(
        """
        quit_when_done()

        class Base(AsyncWebSocketUser):
            abstract = True

            async def on_start(self):
                self.connection = await self.ws.connect("/echo", name=type(self).__name__)
                self.runs = 0

            async def forever(self):
                try:
                    await asyncio.Event().wait()
                finally:
                    note(type(self).__name__, "cancelled")

            async def on_stop(self):
                note(type(self).__name__, "stopped")

        class InTask(Base):
            @task
            async def work(self):
                await asyncio.sleep(0)
                raise StopUser

        class InBackground(Base):
            @task
            async def work(self):
                async def stop():
                    raise StopUser

                asyncio.create_task(stop())
                await self.forever()

        class InGroup(Base):
            @task
            async def work(self):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.connection.send("stop"))
                    group.create_task(self.forever())

        class InGroupsBody(Base):
            @task
            async def work(self):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.forever())
                    await asyncio.sleep(0)
                    raise StopUser

        class WhileWaiting(Base):
            wait_time = constant(1000)

            @task
            async def work(self):
                async def stop():
                    await self.connection.send("stop")

                asyncio.get_running_loop().call_later(0.1, lambda: asyncio.create_task(stop()))

        class WhileBlocking(Base):
            @task
            class Steps(SequentialTaskSet):
                @task
                async def begin(self):
                    self.background = asyncio.create_task(self.stop())

                async def stop(self):
                    await asyncio.sleep(0.1)
                    await self.user.connection.send("stop")

                @task
                def block(self):
                    while not self.background.done():
                        time.sleep(0.01)
                    note("WhileBlocking", "blocked")

        class AtSessionEnd(Base):
            @task
            async def work(self):
                self.other = await self.ws.connect("/close/1000", name="stop")
                await self.forever()

        class Rescheduling(Base):
            @task
            async def work(self):
                self.runs += 1
                if self.runs == 3:
                    raise StopUser
                if self.runs == 2:
                    self.background = asyncio.create_task(self.connection.send("immediately"))
                    await self.forever()
                await self.connection.send("reschedule")
                note("Rescheduling", "not reached")

            def wait_time(self):
                note("Rescheduling", "wait")
                return 0.01

        class ReschedulingWhileWaiting(Base):
            @task
            async def work(self):
                self.runs += 1
                if self.runs == 2:
                    raise StopUser
                note("ReschedulingWhileWaiting", "works")
                self.background = asyncio.create_task(self.reschedule())

            async def reschedule(self):
                await asyncio.sleep(0.1)
                await self.connection.send("reschedule")

            def wait_time(self):
                return 0.3

        class Interrupting(Base):
            @task
            class Nested(TaskSet):
                @task
                async def work(self):
                    self.background = asyncio.create_task(self.user.connection.send("interrupt"))
                    await self.user.forever()

                def on_stop(self):
                    note("Interrupting", "interrupted")

            def wait_time(self):
                raise StopUser

        ACTIONS = {
            "stop": StopUser,
            "reschedule": RescheduleTask,
            "immediately": RescheduleTaskImmediately,
            "interrupt": lambda: InterruptTaskSet(reschedule=False),
        }

        @events.request.add_listener
        def act(request_type, name, response_length, **_):
            if request_type == "WS SEND":
                for word, action in ACTIONS.items():
                    if response_length == len(word):
                        raise action()
            elif request_type == "WS SESSION" and name == "stop":
                raise StopUser
        """,
        "-u",
        "10",
    )
    assert (result.code, result.complaints) == (0, "")
    assert result.noted("InTask") == ["stopped"]
    assert result.noted("InBackground") == ["cancelled", "stopped"]
    assert result.noted("InGroup") == ["cancelled", "stopped"]
    assert result.noted("InGroupsBody") == ["cancelled", "stopped"]
    assert result.noted("WhileWaiting") == ["stopped"]
    assert result.noted("WhileBlocking") == ["blocked", "stopped"]
    assert result.noted("AtSessionEnd") == ["cancelled", "stopped"]
    assert result.noted("Rescheduling") == ["wait", "cancelled", "stopped"]
    assert result.noted("ReschedulingWhileWaiting") == ["works", "stopped"]
    assert result.noted("Interrupting") == ["cancelled", "interrupted", "stopped"]
    assert result.failures == {}
    assert server.counts()["closes"] == {"1000": 11}


def test_a_listener_that_stops_the_user_at_the_end_of_its_sessions(run: Run, server: Server) -> None:
    """Every connection is still closed properly, though each end raises StopUser once more."""
    result = run(
        """
        working = False
        quit_when(lambda: working)

        class Several(AsyncWebSocketUser):
            close_timeout = 60

            async def on_start(self):
                self.connections = [await self.ws.connect("/echo") for _ in range(4)]
                self.late = await self.ws.connect("/stalled?seconds=2", name="late")

            @task
            async def work(self):
                global working
                self.background = [asyncio.create_task(self.stopped_by_a_listener()) for _ in range(5)]
                await asyncio.sleep(0)
                working = True
                await asyncio.sleep(100)

            async def stopped_by_a_listener(self):
                try:
                    await asyncio.sleep(100)
                finally:
                    await self.connections[0].send("bye")

            async def on_stop(self):
                note("stops")

        def act(request_type, response_length, **_):
            if request_type == "WS SESSION" or response_length == 3:
                note(request_type)
                raise StopUser

        @events.init.add_listener
        def init(environment, **_):
            environment.events.request.add_listener(act)  # after Locust's own: what it raises ends the event
        """
    )
    assert (result.code, result.complaints) == (0, "")
    assert result.notes == [["stops"], *[["WS SEND"]] * 5, *[["WS SESSION"]] * 5]
    assert (result.counts["WS SESSION /echo"], result.counts["WS SESSION late"]) == (4, 1)
    assert server.counts()["closes"] == {"1000": 5}


def test_background_tasks_that_still_send_at_the_stop_make_no_failures(run: Run, server: Server) -> None:
    result = run(
        """
        sent = set()
        quit_when(lambda: len(sent) == 10)

        class Background(AsyncWebSocketUser):
            wait_time = constant(0.2)

            def __init__(self, environment):
                self.engine = next(ENGINES)
                super().__init__(environment)

            async def on_start(self):
                self.connection = await self.ws.connect("/echo")
                self.background = [asyncio.create_task(self.send()), asyncio.create_task(self.receive())]

            async def send(self):
                for number in itertools.count():
                    await self.connection.send("x")
                    await asyncio.sleep(0.001)
                    if number == 500:
                        sent.add(id(self))

            async def receive(self):
                async for _ in self.connection:
                    pass

            @task
            async def work(self):
                await asyncio.sleep(0.1)
        """,
        "-u",
        "10",
    )
    assert (result.code, result.complaints) == (0, "")
    counts = server.counts()
    assert counts["closes"] == {"1000": 10}
    assert counts["messages_in"] == result.counts["WS SEND /echo"]
    assert result.counts["WS SESSION /echo"] == 10


def test_a_request_listener_may_block(run: Run, server: Server) -> None:
    """In a task it delays its own user; at the end of a session, in a callback of the loop, as well. Nobody else."""
    result = run(
        """
        quit_when_done()
        others = 0

        class Blocked(AsyncWebSocketUser):
            fixed_count = 5

            @task
            async def echo(self):
                async with self.ws.connect("/echo") as connection:
                    await connection.send("x")
                    await connection.recv()
                    assert asyncio.current_task() is not None
                raise StopUser

        class Other(AsyncUser):
            fixed_count = 1

            @task
            async def spin(self):
                global others
                others += 1
                await asyncio.sleep(0.001)
                if self.environment.runner.user_count == 1:
                    raise StopUser

        @events.request.add_listener
        def block(request_type, **_):
            before = others
            while others == before:
                time.sleep(0.01)  # gevent's
            note(request_type)
        """,
        "-u",
        "6",
    )
    assert (result.code, result.complaints) == (0, "")
    assert sorted(result.notes) == [
        [request_type] for request_type in ("WS CONNECT", "WS RECV", "WS SEND", "WS SESSION") for _ in range(5)
    ]
    assert server.counts()["closes"] == {"1000": 5}


def test_a_task_that_cancels_itself_is_an_error_and_not_the_end_of_the_user(run: Run) -> None:
    result = run(
        """
        quit_when_done()

        class Cancelled(AsyncUser):
            @task
            class Steps(SequentialTaskSet):
                @task
                async def cancels(self):
                    asyncio.current_task().cancel()
                    await asyncio.sleep(1)

                @task
                async def ends(self):
                    note("goes on")
                    raise StopUser
        """
    )
    assert result.code == 1
    assert result.notes == [["goes on"]]
    assert result.exceptions == {"the task was cancelled, though Locust does not stop the user": 1}


@pytest.mark.parametrize("hub", ["libev-cext", "libuv"])
def test_a_loop_that_the_locustfile_runs_in_a_greenlet_of_its_own(run: Run, hub: str) -> None:
    """That loop waits by gevent's selector, which on libuv warns of each wait under a millisecond; ours does not."""
    result = run(
        """
        async def poll():
            while not polled:
                await asyncio.sleep(0.01)

        polled = []
        events.init.add_listener(lambda **_: gevent.spawn(asyncio.run, poll()))
        quit_when_done()

        class Beside(AsyncUser):
            async def on_start(self):
                await asyncio.sleep(0.05)

            @task
            async def task(self):
                note(asyncio.get_running_loop() is self._loop_host.loop)
                polled.append(True)
                raise StopUser
        """,
        python=("-W", "error", "-W", "ignore:libuv only supports millisecond timer resolution:UserWarning"),
        GEVENT_LOOP=hub,
    )
    assert (result.code, result.complaints) == (0, "")
    assert result.notes == [[True]]
