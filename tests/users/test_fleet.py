"""What all connections of master and workers count together: the same as the server, whatever becomes of a worker."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.support import eventually, unused_port

from .conftest import Server
from .running import LocustProcess, LocustRun
from .web import Web

pytestmark = pytest.mark.once

Run = Callable[..., LocustRun]
Start = Callable[..., LocustProcess]

QUICK_REPORTS = "from locust import runners\nrunners.WORKER_REPORT_INTERVAL = 0.2\n"

# Each user echoes ten messages, keeps its connection, and then waits.
ECHOES = """
from locust_ws_async import gauge

gauge("users that echo", lambda: Echo.running)

class Echo(AsyncWebSocketUser):
    wait_time = constant(1000)
    running = 0

    def __init__(self, environment):
        self.engine = next(ENGINES)
        super().__init__(environment)

    @task
    async def echo(self):
        Echo.running += 1
        self.connection = await self.ws.connect("/echo")
        for number in range(10):
            await self.connection.send("x" * number)
            await self.connection.recv()
        note("echoed", os.getpid())

    def on_stop(self):
        Echo.running -= 1
"""


STORM = """
runners.HEARTBEAT_LIVENESS = 100  # seconds; a busy machine takes long for this
from locust_ws_async.client import Backoff

class Cut(AsyncWebSocketUser):
    wait_time = constant(1000)
    reconnect = Backoff(0.01, 0.1)
    open_timeout = 60

    @task
    async def be_cut(self):
        await asyncio.gather(*(self.live(number) for number in range(10)))

    async def live(self, number):
        connection = await self.ws.connect(f"/drop?after=1&number={number}")
        for reconnects in range(2):
            await connection.send("x")
            await connection.recv()
            while connection.stats.reconnects == reconnects:
                await asyncio.sleep(0.05)
"""


def echoed(total: dict[str, Any], users: int) -> bool:
    """Whether these are the numbers of so many users of ECHOES that are done, since the test began."""
    expected = {
        "users": users,
        "open": users,
        "opened": users,
        "ended": 0,
        "connecting": 0,
        "reconnecting": 0,
        "messages_in": 10 * users,
        "messages_out": 10 * users,
        "bytes_in": 45 * users,
        "bytes_out": 45 * users,
        "closes": {},
    }
    return {name: total.get(name) for name in expected} == expected


def test_one_process_is_reset_and_started_again(start: Start, server: Server) -> None:
    web = Web("/below")
    locust = start(ECHOES, "--autostart", "--users", "4", "--spawn-rate", "100", *web.arguments)
    eventually(lambda: echoed(web.total(), 4), seconds=30)
    assert web.workers().keys() == {"local"}
    assert web.total()["gauges"] == {"users that echo": 4}

    web.post("/stats/reset")
    after_reset = web.total()
    assert after_reset["open"] == after_reset["users"] == 4
    assert {after_reset[name] for name in ("opened", "ended", "messages_in", "messages_out", "bytes_in")} == {0}

    web.post("/stop")
    ended = eventually(lambda: (total := web.total())["ended"] == 4 and total)
    assert ended["closes"] == {"1000": 4} and ended["closed_by"] == {"us": 4, "peer": 0, "lost": 0}
    assert ended["open"] == ended["opened"] == 0
    assert server.open() == 0

    web.page("/swarm", user_count=2, spawn_rate=100)
    eventually(lambda: echoed(web.total(), 2), seconds=30)
    history = web.json("/websocket/history")
    assert max(history["open"]) == 2 and max(history["users"]) == 2  # nothing is left of the first test
    locust.process.terminate()
    assert locust.finish().complaints == ""
    assert server.counts()["opened"] == 6


def test_the_history_adds_up(start: Start) -> None:
    web = Web()
    locust = start(ECHOES, "--autostart", "--users", "4", "--spawn-rate", "100", *web.arguments)
    eventually(lambda: echoed(web.total(), 4), seconds=30)
    web.post("/stop")
    eventually(lambda: web.total()["ended"] == 4)
    history = web.json("/websocket/history")
    lengths = {name: len(column) for name, column in history.items() if name not in ("closes", "first", "spans")}
    assert len(set(lengths.values())) == 1
    times = history["time"]
    assert times == sorted(times)
    # A rate is a difference divided by the clock of the worker; by the time of the lines it is about the same.
    seconds = [later - earlier for earlier, later in zip([times[0] - 1, *times], times, strict=False)]
    sums = {
        name: sum(rate * each for rate, each in zip(history[name], seconds, strict=True))
        for name in ("opened", "ended", "messages_in", "bytes_out")
    }
    assert sums == pytest.approx({"opened": 4, "ended": 4, "messages_in": 40, "bytes_out": 180}, rel=0.5)
    assert sum(history["closes"]["1000"]) == pytest.approx(sum(history["ended"]))
    assert max(history["open"]) == 4 and history["open"][-1] == 0

    newer = web.json(f"/websocket/history?since={times[0]}")
    assert newer["time"] == times[1:] and newer["open"] == history["open"][1:]
    lines = list(csv.reader(web.page("/websocket/history.csv").splitlines()))
    assert len(lines) == 1 + len(times)
    assert [float(line[lines[0].index("Open")]) for line in lines[1:]] == history["open"]
    assert "./websocket/history.csv" in web.page("/")
    locust.process.terminate()
    assert locust.finish().complaints == ""


def test_a_worker_that_is_killed_and_one_that_joins(start: Start, server: Server) -> None:
    web, port = Web(), str(unused_port())
    source = QUICK_REPORTS + ECHOES
    users = ("--users", "6", "--spawn-rate", "100")
    master = start(source, "--master", "--autostart", "--expect-workers", "2", "--master-bind-port", port, *users,
                   *web.arguments)  # fmt: skip
    workers = [start(source, "--worker", "--master-port", port) for _ in range(2)]
    eventually(lambda: echoed(web.total(), 6), seconds=60)
    assert len(web.workers()) == 2
    assert web.total()["gauges"] == {"users that echo": 6}

    workers[0].kill()
    # What it has counted stays; what it had open is not open any more. Locust starts no users in their place.
    total = eventually(lambda: (total := web.total())["open"] == 3 and total, seconds=60)
    assert total["users"] == server.open() == 3 and total["gauges"] == {"users that echo": 3}
    assert (total["opened"], total["ended"], total["messages_in"]) == (6, 0, 60)
    assert [worker["left"] for worker in web.workers().values()].count(True) == 1

    workers.append(start(source, "--worker", "--master-port", port))
    eventually(lambda: len(web.workers()) == 3 and web.total()["open"] == web.total()["users"] == 6, seconds=60)
    web.post("/stop")
    eventually(lambda: web.total()["open"] == 0, seconds=30)
    total = web.total()
    assert total["opened"] - total["ended"] == 3  # of those of the worker that was killed nobody knows the end
    web.page("/swarm", user_count=4, spawn_rate=100)
    eventually(lambda: echoed(web.total(), 4), seconds=60)
    for process in (master, *workers[1:]):
        process.process.terminate()
    for process in (*workers[1:], master):
        process.finish()


def test_processes_are_reset(start: Start, server: Server) -> None:
    web, port = Web(), str(unused_port())
    ports = ("--master-bind-port", port, "--master-port", port)
    arguments = ("--processes", "2", "--autostart", "--users", "4", "--spawn-rate", "100", *ports, *web.arguments)
    locust = start(QUICK_REPORTS + ECHOES, *arguments)
    eventually(lambda: echoed(web.total(), 4), seconds=60)
    web.post("/stats/reset")
    total = web.total()
    assert (total["open"], total["opened"], total["messages_in"]) == (4, 0, 0)
    web.post("/stop")
    eventually(lambda: web.total()["closes"] == {"1000": 4}, seconds=30)
    locust.process.terminate()
    locust.finish()
    assert server.counts()["opened"] == 4


def test_a_reconnect_storm(start: Start, server: Server) -> None:
    """A thousand connections are cut, two times each: no loss, no recovery and no end is missing."""
    web, port = Web(), str(unused_port())
    ports = ("--master-bind-port", port, "--master-port", port)
    locust = start(
        QUICK_REPORTS + STORM, "--processes", "2", "--autostart", "--users", "100", "--spawn-rate", "20", *ports,
        *web.arguments,
    )  # fmt: skip
    eventually(lambda: web.total().get("recoveries") == 2000 and web.total()["open"] == 1000, seconds=120)
    total = web.total()
    assert total["opened"] == 3000 and total["ended"] == 2000 and total["reconnecting"] == total["connecting"] == 0
    assert total["closes"] == {"1006": 2000} and total["closed_by"] == {"us": 0, "peer": 0, "lost": 2000}
    assert total["messages_in"] == total["messages_out"] == 2000
    locust.process.terminate()
    locust.finish()
    assert server.counts()["opened"] == 3000


def test_each_state_and_each_end(start: Start, server: Server, engine: str) -> None:
    web = Web()
    locust = start(
        f"""
        from locust_ws_async.client import Backoff, json_field

        class Ends(AsyncWebSocketUser):
            engine = {engine!r}
            wait_time = constant(1000)

            @task
            async def end(self):
                self.background = [
                    asyncio.create_task(each)
                    for each in (self.connects(), self.reconnects(), self.overflows(), self.is_late())
                ]
                async with self.ws.connect("/echo"):
                    pass
                closed = await self.ws.connect("/close/4001")
                try:
                    await closed.recv()
                except ConnectionError:
                    pass
                await asyncio.gather(*self.background)

            async def connects(self):
                await self.ws.connect("/slow-handshake?seconds=60", open_timeout=None)

            async def reconnects(self):
                attempts = iter(["/drop"])
                connection = await self.ws.connect(lambda: next(attempts, "/reject/503"), name="lost",
                                                   reconnect=Backoff(1000, 1000))
                await connection.recv()

            async def overflows(self):
                self.full = await self.ws.connect("/echo", max_queue=3)
                for _ in range(5):
                    await self.full.send("xx")
                dropping = await self.ws.connect("/echo", max_queue=3, overflow="drop")
                for _ in range(5):
                    await dropping.send("xx")
                while dropping.stats.messages_dropped < 2:
                    await asyncio.sleep(0.01)
                await dropping.recv()

            async def is_late(self):
                self.slow = await self.ws.connect("/rpc")
                try:
                    await self.slow.request({{"id": 1, "delay": 0.5}}, match=json_field("id"), timeout=0.1)
                except TimeoutError:
                    pass
        """,
        "--autostart",
        "--users",
        "1",
        *web.arguments,
    )
    states = {"connecting": 1, "reconnecting": 1, "paused": 1, "dropped": 2, "late": 1, "ended": 3}

    def reached() -> Any:
        total = web.total()
        return {name: total.get(name) for name in states} == states and total

    total = eventually(reached, seconds=30)
    assert total["closes"] == {"1000": 1, "1006": 1, "4001": 1}
    assert total["closed_by"] == {"us": 1, "peer": 1, "lost": 1}
    assert total["queue_wait"]["count"] == 1 and 0 < total["queue_wait"]["mean_ms"] == total["queue_wait"]["max_ms"]
    web.post("/stop")
    total = eventually(lambda: (total := web.total())["open"] == 0 and total, seconds=30)
    assert total["connecting"] == total["reconnecting"] == total["paused"] == 0
    locust.process.terminate()
    locust.finish()


def test_what_is_cut_at_the_stop_has_ended(run: Run, engine: str) -> None:
    """Also where the server does not answer the close, and where an attempt to connect is under way."""
    result = run(
        f"""
        class Cut(AsyncWebSocketUser):
            engine = {engine!r}
            cancel_timeout = 0.5

            @task
            async def stay(self):
                self.stalled = await self.ws.connect("/stalled")
                note("connected")
                await self.ws.connect("/slow-handshake?seconds=60", open_timeout=None)

        def connected():
            with open(os.environ["LOCUST_NOTES"], "a+") as notes:
                notes.seek(0)
                return len(notes.readlines()) == 3

        quit_when(connected)

        from locust_ws_async.fleet import transport

        @events.test_stop.add_listener
        def tell(**_):
            note("total", transport.total().as_json())
        """,
        "--users",
        "3",
    )
    (total,) = result.noted("total")
    assert (total["opened"], total["ended"], total["open"], total["connecting"]) == (3, 3, 0, 0)
    assert total["closed_by"] == {"us": 3, "peer": 0, "lost": 0}
    assert total["cancelled_waits"] == 3


def test_behind_the_login(start: Start) -> None:
    web = Web()
    locust = start(ECHOES, "--web-login", "--autostart", "--users", "1", *web.arguments)
    eventually(lambda: ["echoed"] in [note[:1] for note in locust.notes()], seconds=30)
    for path in ("/websocket/stats", "/websocket/history", "/websocket/history.csv"):
        try:
            answer = web.page(path)
        except HTTPError as exc:
            answer = exc.read().decode()
        assert "opened" not in answer and "Opened" not in answer


def test_gauges_that_fail_are_left_out_and_told_once(run: Run) -> None:
    result = run(
        """
        from locust_ws_async import gauge
        from locust_ws_async.fleet import transport

        gauge("bad", lambda: 1 / 0)
        gauge("not a number", lambda: "many")
        gauge("good", lambda: 2)

        class One(AsyncWebSocketUser):
            @task
            async def stay(self):
                await self.ws.connect("/echo")
                while transport.total().gauges.get("gauges/good") != 2:
                    await asyncio.sleep(0.05)
                await asyncio.sleep(1.5)
                note("gauges", transport.total().as_json()["gauges"])
                raise StopUser

        for wrong in [("x" * 41, len), (1, len), ("x", 1)]:
            try:
                gauge(*wrong)
            except (TypeError, ValueError) as exc:
                note("refused", str(exc))

        quit_when_done()
        """,
        "--users",
        "1",
    )
    assert result.noted("gauges") == [{"good": 2}]
    assert result.stderr.count("gauge 'bad' is left out: ZeroDivisionError: division by zero") == 1
    assert result.stderr.count("gauge 'not a number' is left out: TypeError: it gave 'many'") == 1
    assert len(result.noted("refused")) == 3


def test_a_report_is_small(start: Start, server: Server) -> None:
    """Even with all gauges that there may be, and a server that closes with a thousand codes."""
    port = str(unused_port())
    source = (
        QUICK_REPORTS
        + """
import msgpack
from locust_ws_async import gauge

for number in range(20):
    gauge(f"{number:040}", lambda: 1234567.875)

class Closed(AsyncWebSocketUser):
    @task
    async def be_closed(self):
        for code in [*range(1000, 1004), *range(3000, 3100)]:
            async with self.ws.connect(f"/close/{code}", name="closed") as connection:
                try:
                    await connection.recv()
                except ConnectionError:
                    pass
        note("done")
        raise StopUser

@events.report_to_master.add_listener
def measure(data, **_):
    report = data.get("ws_fleet")
    if report and sum(report["counts"].get(key, 0) for key in report["counts"] if "closes/" in key) >= 104:
        note("size", len(msgpack.dumps(report)), report["counts"].get("closes/other"))
"""
    )
    ports = ("--master-bind-port", port, "--master-port", port)
    locust = start(source, "--processes", "1", "--headless", *ports, "--users", "1")
    eventually(lambda: any(note[0] == "size" for note in locust.notes()), seconds=60)
    locust.process.terminate()
    result = locust.finish()
    for size, other in result.noted("size"):
        assert size < 2048 and other == 104 - 4 - 16
    closes = server.counts()["closes"]
    assert len(closes) == 104
    assert f"{84} with other" in result.stdout


def test_the_file_and_the_block_of_a_headless_run(run: Run, server: Server, tmp_path: Path) -> None:
    result = run(
        """
        from locust_ws_async.client import Backoff

        class Lost(AsyncWebSocketUser):
            reconnect = Backoff(0.01, 0.01)

            @task
            async def lose(self):
                paths = itertools.chain(["/drop"], itertools.repeat("/echo"))
                async with self.ws.connect(lambda: next(paths), name="lost") as connection:
                    while not connection.stats.reconnects:
                        await asyncio.sleep(0.01)
                    await connection.send("x" * 1000)
                    await connection.recv()
                    await asyncio.sleep(1.5)
                raise StopUser

        quit_when_done()
        """,
        "--users",
        "3",
    )
    block = result.stdout.partition("WebSocket connections\n")[2].split("\n\n")[0].splitlines()[1:]
    told = {line[:18].strip(): line[18:] for line in block}
    assert told["opened"] == "6, at most 3 at a time"
    assert told["ended"] == "6: 3 with 1000, 3 with 1006 (3 closed by this side, 3 lost)"
    assert told["recoveries"].startswith("3; outages lasted 0.")
    assert told["messages"] == "3 in (3,000 bytes), 3 out (3,000 bytes)"
    assert (told["late replies"], told["dropped messages"], told["waits at the end"]) == ("0", "0", "0")
    with (tmp_path / "run_websocket_history.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert max(int(line["Open"]) for line in lines) == 3 and lines[-1]["Open"] == "0"
    assert sum(float(line["Recoveries/s"]) for line in lines) > 0
    assert any("1006=" in line["Closes/s"] for line in lines)


def test_nothing_without_websocket_users(run: Run, tmp_path: Path) -> None:
    result = run(
        """
        class Silent(AsyncUser):
            @task
            async def work(self):
                await asyncio.sleep(1.5)
                raise StopUser

        quit_when_done()
        """,
        "--users",
        "1",
    )
    assert "WebSocket connections" not in result.stdout
    assert not (tmp_path / "run_websocket_history.csv").exists()
