"""What goes wrong in a run is told: outages, hangs, and connections that are over."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import SCALE, DemoServerProcess, eventually, unused_port

from .running import LocustProcess, LocustRun, locustfile

pytestmark = pytest.mark.once

Run = Callable[..., LocustRun]
Start = Callable[..., LocustProcess]

SPINNING = """
class Spinning(AsyncWebSocketUser):
    abstract = True
    connect_backoff = None

    async def on_start(self):
        self.connection = await self.ws.connect("/close/1011", name=type(self).__name__)
        await self.connection.wait_closed()

    @task
    async def spin(self):
        while True:
            try:
                await self.use(self.connection)
            except Exception:
                pass

async def iterate(connection):
    async for message in connection:
        pass

def user(name, use):
    return type(name, (Spinning,), {"use": staticmethod(use), "fixed_count": 1, "engine": next(ENGINES)})

Send = user("Send", lambda connection: connection.send("x"))
Recv = user("Recv", lambda connection: connection.recv())
Timed = user("Timed", lambda connection: connection.recv(timeout=1))
Request = user("Request", lambda connection: connection.request("x"))
Expect = user("Expect", lambda connection: connection.expect(lambda message: True))
Ping = user("Ping", lambda connection: connection.ping())
Iterate = user("Iterate", iterate)
Ready = user("Ready", lambda connection: connection.until_ready())
"""
NAMES = ["Expect", "Iterate", "Ping", "Ready", "Recv", "Request", "Send", "Timed"]


def warnings_of(result: LocustRun, text: str) -> list[str]:
    return [line for line in result.stderr.splitlines() if "/WARNING/" in line and text in line]


@pytest.mark.parametrize("end", ["run time", "SIGTERM"])
def test_a_task_that_ignores_the_end_of_its_connection_stops_nobody(start: Start, end: str) -> None:
    run_time = f"{2 * SCALE:.0f}s" if end == "run time" else "1h"
    locust = start(SPINNING, "--headless", "-u", "8", "-r", "8", "--run-time", run_time, "--only-summary")
    if end == "SIGTERM":
        eventually(lambda: rows_of(locust))
        locust.process.send_signal(signal.SIGTERM)
    result = locust.finish()
    if end == "run time":
        told = warnings_of(result, "its connection is over")
        assert sorted(line.split(": ")[1] for line in told) == NAMES
        assert all("Spinning.spin goes on using it; set reconnect=Backoff(), or connect in the task" in x for x in told)


@pytest.mark.parametrize("use", ["close", "wait_closed"])
def test_a_task_that_closes_what_is_closed_stops_nobody(run: Run, use: str) -> None:
    result = run(
        f"""
        class Closing(AsyncWebSocketUser):
            @task
            async def spin(self):
                connection = await self.ws.connect("/close/1011")
                await connection.wait_closed()
                asyncio.get_running_loop().call_later(0.2, self.environment.runner.quit)
                while True:
                    await connection.{use}()
        """,
        *("--exit-code-on-error", "0"),
    )
    assert (result.code, result.complaints) == (0, "")


def rows_of(locust: LocustProcess) -> str:
    """Locust's file of rows, as far as it is written."""
    path = locust._csv.with_name("run_stats.csv")
    text = path.read_text() if path.exists() else ""
    return text if all(name in text for name in ("WS SEND,Send", "WS PING,Ping")) else ""


def test_the_operations_of_a_connection_that_is_over_back_off(run: Run, engine: str) -> None:
    result = run(
        f"""
        failures = []
        quit_when(lambda: len(failures) == 3)
        events.request.add_listener(
            lambda request_type, exception, **_: request_type == "WS REQUEST" and failures.append(time.monotonic())
        )
        events.quitting.add_listener(lambda **_: note(failures[2] - failures[1]))

        class Chatting(AsyncWebSocketUser):
            engine = {engine!r}

            async def on_start(self):
                self.connection = await self.ws.connect("/close/1011", name="over")
                await self.connection.wait_closed()

            @task
            async def talk(self):
                await self.connection.request("hello")
        """,
    )
    # The first fails at once, the second takes half a second to one before it raises.
    assert result.notes[0][0] > 0.4
    (told,) = warnings_of(result, "its connection is over")
    assert told.endswith(
        "over: its connection is over (connection closed by the server: 1011 internal error), and Chatting.talk goes "
        "on using it; set reconnect=Backoff(), or connect in the task. What is done with it now fails, the more slowly "
        "the longer it goes on. (Told once for each name.)"
    )


def test_what_the_stop_ends_is_not_late(run: Run) -> None:
    result = run(
        """
        asking = set()
        quit_when(lambda: len(asking) == 20)

        class Asking(AsyncWebSocketUser):
            def __init__(self, environment):
                super().__init__(environment)

            @task
            async def ask(self):
                self.rpc = await self.ws.connect("/rpc")
                asking.add(self)
                await self.rpc.request({"id": 1, "delay": 0.4}, name="asked")

            async def on_stop(self):
                await asyncio.sleep(1)
                note(self.rpc.stats.late_replies)
        """,
        "-u",
        "20",
    )
    assert result.notes == [[1]] * 20  # they came
    assert not [row for row in result.rows if "asked" in row]


def test_what_waited_at_the_end_is_told(run: Run) -> None:
    result = run(
        """
        waiting = set()
        from locust_ws_async.client import Backoff, any_message

        quit_when(lambda: len(waiting) == 51)

        class Waiting(AsyncWebSocketUser):
            abstract = True

            def __init__(self, environment):
                super().__init__(environment)

            async def wait(self, awaitable):
                asyncio.get_running_loop().call_later(0.2, waiting.add, self)
                await awaitable

        class Receiving(Waiting):
            fixed_count = 12

            @task
            async def receive(self):
                connection = await self.ws.connect("/sink")
                await self.wait(connection.recv())

        class InTheBackground(Waiting):
            fixed_count = 12
            wait_time = constant(1000)

            @task
            async def receive(self):
                connection = await self.ws.connect("/echo")
                await connection.send("x")
                await connection.recv()
                self.background = asyncio.create_task(self.wait(connection.recv()))

        class Asking(Waiting):
            fixed_count = 11

            @task
            async def ask(self):
                connection = await self.ws.connect("/sink")
                await self.wait(connection.request("x", name="asked"))

        class Connecting(Waiting):
            fixed_count = 1

            @task
            async def connect(self):
                await self.wait(self.ws.connect("/slow-handshake?seconds=1000", name="slow", open_timeout=None))

        class Logging(Waiting):
            fixed_count = 2

            async def bearer(self):
                await self.wait(asyncio.Event().wait())

            @task
            async def connect(self):
                await self.ws.connect("/echo", name="login")

        class Watching(Waiting):
            fixed_count = 3

            @task
            async def watch(self):
                connection = await self.ws.connect("/sink", name="watched")
                await self.wait(connection.wait_closed())

        class Away(Waiting):
            fixed_count = 1
            reconnect = Backoff(initial=1000, maximum=1000)

            @task
            async def come_back(self):
                connection = await self.ws.connect("/drop?after=1", name="away")
                await connection.request("x")
                while connection.state == 1:
                    await asyncio.sleep(0.01)
                await self.wait(connection.until_ready())

        class Handling(Waiting):
            fixed_count = 5
            wait_time = constant(1000)

            async def hang(self, message):
                await self.wait(asyncio.Event().wait())

            @task
            async def handle(self):
                connection = await self.ws.connect("/echo")
                connection.on(any_message, self.hang, name="hanging")
                await connection.send("x")

        class HandlingOne(Waiting):
            fixed_count = 4
            wait_time = constant(1000)

            async def hang_later(self, message):
                if message == "2":
                    await self.wait(asyncio.Event().wait())

            @task
            async def handle(self):
                connection = await self.ws.connect("/echo", name="hanging later")
                connection.on(any_message, self.hang_later, name=None)
                await connection.send("1")
                await connection.send("2")
        """,
        "-u",
        "51",
    )
    told = [line for line in result.stderr.splitlines() if " had waited in " in line]
    levels = {line.split("/")[1] + ": " + line.split(": ", 1)[1].rsplit(" for ", 1)[0] for line in told}
    assert levels == {
        "WARNING: 12 users had waited in recv() of /sink, the longest",
        "INFO: 12 users had waited in recv() of /echo, the longest",
        "WARNING: 11 users had waited in request() of asked, the longest",
        "WARNING: 1 user had waited in connect() of slow, the longest",
        "WARNING: 2 users had waited in connect() of login, the longest",
        "INFO: 3 users had waited in wait_closed() of watched, the longest",
        "INFO: 1 user had waited in until_ready() of away, the longest",
        "WARNING: 5 users had waited in a handler of on() of hanging, the longest",
        "INFO: 4 users had waited in a handler of on() of hanging later, the longest",
    }
    assert len(told) == 9
    assert {line.rpartition(", and ")[2] for line in told if "/WARNING/" in line} == {
        "nothing ever came",
        "it never returned",
    }


def test_a_recv_that_times_out_is_a_failed_row(run: Run, engine: str) -> None:
    result = run(
        f"""
        class Receiving(AsyncWebSocketUser):
            engine = {engine!r}
            recv_timeout = 0.1

            @task
            async def receive(self):
                async with self.ws.connect("/silent") as connection:
                    await connection.recv()

        quit_when(lambda: events_seen)
        events_seen = []
        events.request.add_listener(lambda request_type, **_: request_type == "WS RECV" and events_seen.append(1))
        """,
    )
    assert result.code == 1
    assert list(result.failures["WS RECV /silent"]) == ["MessageTimeout('no message within the timeout')"]


@pytest.fixture
def restarted() -> Iterator[tuple[str, Callable[[], DemoServerProcess], list[DemoServerProcess]]]:
    """The URL of a demo server, what starts it (again), and those that were started."""
    port = unused_port()
    started: list[DemoServerProcess] = []

    def begin() -> DemoServerProcess:
        started.append(DemoServerProcess("--port", str(port)))
        return started[-1]

    yield f"ws://127.0.0.1:{port}", begin, started
    for server in started:
        server.stop()


def test_charge_points_survive_a_server_that_is_killed(
    tmp_path: Path, restarted: tuple[str, Callable[[], DemoServerProcess], list[DemoServerProcess]]
) -> None:
    """The boot notification is in ``on_connected``, and heartbeats are under way: none is left behind."""
    url, begin, _ = restarted
    server = begin()
    source = """
        from examples.ocpp_charge_point import ChargePointUser as Example

        alive, back = set(), set()
        quit_when(lambda: len(back) == 200)

        class Surviving(Example):
            def __init__(self, environment):
                super().__init__(environment)

            @task
            async def heartbeat(self):
                await super().heartbeat()
                (back if self.connection.stats.reconnects else alive).add(self)
                if len(alive) == 200 and self in alive and not back:
                    note("alive")

        del Example
    """
    locust = LocustProcess(
        tmp_path,
        *("-f", locustfile(tmp_path, source), "--host", url, "--headless", "--only-summary", "--loglevel", "WARNING"),
        *("-u", "200", "-r", "100", "--run-time", f"{60 * SCALE:.0f}s"),
        python=(),
    )
    try:
        eventually(lambda: ["alive"] in locust.notes() or locust.process.poll() is not None, seconds=60)
        server.process.kill()
        server.process.wait()
        begin()
        result = locust.finish(seconds=90)
    finally:
        locust.kill()
    recovery = result.rows["WS RECOVERY /ocpp"]
    assert (recovery.requests, recovery.failures) == (200, 0)
    assert result.rows["WS CONNECT /ocpp"].requests == 200
    assert result.counts["WS RECONNECT /ocpp"] == 200
    assert result.counts["OCPP BootNotification"] == 400


def test_a_user_whose_first_on_connected_loses_its_connection_begins_again(run: Run, engine: str) -> None:
    result = run(
        f"""
        from locust_ws_async.client import Backoff

        quit_when_done()

        class Booting(AsyncWebSocketUser):
            engine = {engine!r}
            connect_backoff = Backoff(initial=0.01, maximum=0.02)
            boots = 0

            async def on_start(self):
                path = "/drop?after=0" if self.boots < 2 else "/echo"
                self.connection = await self.ws.connect(path, name="booted", on_connected=self.boot)

            async def boot(self, connection):
                self.boots += 1
                await connection.request("boot")

            @task
            async def work(self):
                note("boots", self.boots)
                raise StopUser
        """,
    )
    assert result.noted("boots") == [3], result.stderr
    (lost,) = result.failures["WS CONNECT booted"].items()
    assert lost[0].startswith("LostInOnConnected('the connection ended before on_connected was done: ") and lost[1] == 2
    assert result.exceptions == {}
