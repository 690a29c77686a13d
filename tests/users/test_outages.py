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
"""
NAMES = ["Expect", "Iterate", "Ping", "Recv", "Request", "Send", "Timed"]


def warnings_of(result: LocustRun, text: str) -> list[str]:
    return [line for line in result.stderr.splitlines() if "/WARNING/" in line and text in line]


@pytest.mark.parametrize("end", ["run time", "SIGTERM"])
def test_a_task_that_ignores_the_end_of_its_connection_stops_nobody(start: Start, end: str) -> None:
    run_time = f"{2 * SCALE:.0f}s" if end == "run time" else "1h"
    locust = start(SPINNING, "--headless", "-u", "7", "-r", "7", "--run-time", run_time, "--only-summary")
    if end == "SIGTERM":
        eventually(lambda: rows_of(locust))
        locust.process.send_signal(signal.SIGTERM)
    result = locust.finish()
    if end == "run time":
        told = warnings_of(result, "its connection is over")
        assert sorted(line.split(": ")[1] for line in told) == NAMES
        assert all("Spinning.spin goes on using it; set reconnect=Backoff(), or connect in the task" in x for x in told)


@pytest.mark.parametrize("use", ["close", "wait_closed", "until_ready"])
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
                    try:
                        await connection.{use}()
                    except Exception:
                        pass
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
        quit_when(lambda: len(waiting) == 36)

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
        """,
        "-u",
        "36",
    )
    told = [line for line in result.stderr.splitlines() if " had waited in " in line]
    levels = {line.split("/")[1] + ": " + line.split(": ", 1)[1].rsplit(" for ", 1)[0] for line in told}
    assert levels == {
        "WARNING: 12 users had waited in recv() of /sink, the longest",
        "INFO: 12 users had waited in recv() of /echo, the longest",
        "WARNING: 11 users had waited in request() of asked, the longest",
        "WARNING: 1 user had waited in connect() of slow, the longest",
    }
    assert len(told) == 4


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
