"""``Fanout``: what is told of broadcasts is what the server did."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support import SCALE, eventually

from .conftest import Fleet, Rooms

Start = Callable[..., Fleet]

MEMBERS = """
numbers = itertools.count()
share, within = float(os.environ.get("SHARE", "1")), float(os.environ.get("WITHIN", "2"))
room = Fanout("room", id="id", share=share, timeout=within, settle=0)

class Member(AsyncWebSocketUser):
    reported = {"WS CONNECT", "WS SESSION"}

    def __init__(self, environment):
        self.engine = next(ENGINES)
        super().__init__(environment)

    async def on_start(self):
        self.number = next(numbers)
        group = os.getpid() if "BY_PROCESS" in os.environ else self.number
        self.line = await self.ws.connect(f"/member?of={group}", name="line")
        room.join(self.line)
        await self.line.send("ready")

    @task
    async def stay(self):
        await asyncio.sleep(10_000)

def told():
    return snapshot()["broadcasts"].get("room", {"messages": 0, "unfinished": 0})

@on_master
def end(environment):
    until(lambda: told()["messages"] >= int(os.environ["MESSAGES"]))
    note("told", told())
    environment.runner.quit()
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set(**variables: object) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    set(WITHIN=SCALE)
    return set


@pytest.mark.parametrize("workers", [0, 3])
def test_what_is_withheld_is_missing_and_what_is_late_is_spread(
    rooms: Rooms, fleet: Start, environment: Callable[..., None], workers: int
) -> None:
    environment(MESSAGES=20)
    locust = fleet(rooms.url, MEMBERS, users=30, workers=workers)
    rooms.meet(30)
    faults = {"withhold": [10, [3]], "delay": [10, [4, 5]], "seconds": 0.3}
    done = [rooms.publish(number, shift=number, **faults) for number in range(19)]
    done.append(rooms.publish(19))
    result = locust.main.finish()
    assert result.complaints == ""
    (told,) = locust.noted("told")
    assert told["messages"] == 20 and told["expected"] == 600
    assert told["received"] == 600 - 19 * 3 == 600 - sum(each["left_out"] for each in done)
    assert told["reach"] == told["received"] / 600
    assert told["duplicates"] == told["late"] == told["unfinished"] == told["clock_error_ms"] == 0
    assert result.rows["WS REACH room"].requests == result.rows["WS SPREAD room"].requests == 20
    assert result.failures["WS REACH room"] == {"NotReached('not everybody in the room got the message')": 19}
    spreads = sorted((each["last"] - each["first"]) * 1000 for each in done)
    assert spreads[0] < 300 <= spreads[1]
    # What a member's process reads later than the server writes is in the time.
    assert result.rows["WS SPREAD room"].maximum >= 300 > result.rows["WS SPREAD room"].minimum
    assert told["spread_ms"]["p50"] >= 300 - 5
    assert "room" in result.stdout.partition("Broadcasts")[2]
    for worker in locust.workers:
        assert worker.finish().complaints == ""


def test_a_worker_whose_members_get_nothing_is_missed(
    rooms: Rooms, fleet: Start, environment: Callable[..., None]
) -> None:
    environment(MESSAGES=3, SHARE=0.5, BY_PROCESS=1)
    locust = fleet(rooms.url, MEMBERS, users=9, workers=3)
    rooms.meet(9)
    forgotten = str(locust.workers[0].process.pid)
    for number in range(3):
        assert rooms.publish(number, skip=forgotten)["left_out"] == 3
    result = locust.main.finish()
    (told,) = locust.noted("told")
    assert (told["expected"], told["received"], told["failed"]) == (27, 18, 0)
    assert result.code == 0


def test_duplicates_and_late_ones_and_messages_without_an_id(
    rooms: Rooms, fleet: Start, environment: Callable[..., None]
) -> None:
    environment(MESSAGES=4, WITHIN=0.5)
    locust = fleet(rooms.url, MEMBERS, users=10)
    rooms.meet(10)
    rooms.publish(1, twice=[10, [7]])
    rooms.publish(2, delay=[10, [1, 2]], seconds=1.5)
    rooms.publish(0, text={"no": "id"})
    rooms.publish(0, text={"id": None})
    rooms.publish(3)
    rooms.publish(0, text={"id": [1, 2]})
    rooms.publish(4)
    result = locust.main.finish()
    (told,) = locust.noted("told")
    assert (told["duplicates"], told["late"], told["without_id"]) == (1, 2, 20)
    assert (told["expected"], told["received"], told["failed"]) == (40, 38, 1)
    text = "UnusableId('the id of a message must be text, a number, bytes, a UUID, or a tuple of these, not list')"
    assert result.failures["WS REACH room"][text] == 10


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("room.leave(self.line)", 9),
        ("await self.line.close()", 9),
        ("self.line.abort()", 9),
        ("raise StopUser", 9),
        ("self.line.wire.transport.abort()", 10),
    ],
)
def test_who_leaves_before_a_message_is_there_is_not_missed_and_who_is_lost_is(
    rooms: Rooms, fleet: Start, environment: Callable[..., None], how: str, expected: int
) -> None:
    environment(MESSAGES=2, WITHIN=SCALE)
    stay = f"""
        while self.number != 0 or not os.path.exists("go"):
            await asyncio.sleep(0.02)
        note("goes")
        {how}
        await asyncio.sleep(10_000)
    """
    locust = fleet(rooms.url, MEMBERS.replace("        await asyncio.sleep(10_000)\n", stay), users=10)
    rooms.meet(10)
    rooms.publish("x", skip="0")
    (locust.folder / "go").touch()
    eventually(lambda: locust.noted("goes"))
    eventually(lambda: rooms.state()["members"] == (10 if "leave" in how else 9))
    rooms.publish("y")
    locust.main.finish()
    (told,) = locust.noted("told")
    assert (told["messages"], told["expected"], told["received"]) == (2, expected + 9, 9 + 9)


def test_a_member_that_reconnects_stays(rooms: Rooms, fleet: Start, environment: Callable[..., None]) -> None:
    environment(MESSAGES=3, SHARE=0.5)
    source = (
        MEMBERS
        + """
@on_master
def lose_one(environment):
    until(lambda: told()["messages"] == 1)
    storm(environment, 0.5)
    note("lost")

Member.reconnect = Backoff(initial=2 * float(os.environ["WITHIN"]), jitter=0)
    """
    )
    locust = fleet(rooms.url, source, users=2)
    rooms.meet(2)
    rooms.publish(1)
    eventually(lambda: locust.noted("lost") and rooms.state()["members"] == 1)
    rooms.publish(2)
    rooms_again = rooms.state()["members"]
    assert rooms_again == 1
    eventually(lambda: rooms.state()["members"] == 2, seconds=30)
    rooms.publish(3)
    locust.main.finish()
    (told,) = locust.noted("told")
    assert (told["expected"], told["received"], told["members"]) == (6, 5, 2)


def test_what_the_end_of_the_test_cuts_off_is_not_judged(
    rooms: Rooms, fleet: Start, environment: Callable[..., None]
) -> None:
    environment(MESSAGES=1, WITHIN=1000)
    source = MEMBERS.replace(
        'note("told", told())',
        "until(lambda: os.path.exists('end'))\n    events.quitting.add_listener(lambda **_: note('told', told()))",
    )
    locust = fleet(rooms.url, source, users=6, workers=2)
    rooms.meet(6)
    rooms.publish(1)
    rooms.publish(2, withhold=[6, [5]])
    (locust.folder / "end").touch()
    result = locust.main.finish()
    assert result.code == 0
    (told,) = locust.noted("told")
    assert (told["messages"], told["unfinished"], told["expected"], told["received"]) == (1, 1, 6, 6)


PUBLISHER = MEMBERS.replace(
    "        await asyncio.sleep(10_000)\n",
    """
        if self.number == 0:
            while not os.path.exists("go"):
                await asyncio.sleep(0.02)
            room.published("nobody gets this")
            room.published("slow")
            note("published", time.perf_counter())
        await asyncio.sleep(10_000)
""",
)


def test_from_the_publication(rooms: Rooms, fleet: Start, environment: Callable[..., None]) -> None:
    environment(MESSAGES=2)
    locust = fleet(rooms.url, PUBLISHER, users=4, workers=2)
    rooms.meet(4)
    (locust.folder / "worker-0" / "go").touch()
    (locust.folder / "worker-1" / "go").touch()
    eventually(lambda: len(locust.noted("published")) == 2)  # each worker has a number 0
    done = rooms.publish("slow")
    result = locust.main.finish()
    (told,) = locust.noted("told")
    assert (told["messages"], told["expected"], told["received"], told["failed"]) == (2, 8, 4, 1)
    row = result.rows["WS REACH room"]
    assert (row.requests, row.failures) == (2, 1)
    assert row.maximum >= (done["last"] - max(locust.noted("published"))) * 1000
    assert result.rows["WS SPREAD room"].requests == 1


def test_too_many_ids_are_sampled_and_reports_stay_small(
    rooms: Rooms, fleet: Start, environment: Callable[..., None]
) -> None:
    environment(MESSAGES=100)
    source = (
        MEMBERS
        + """
@events.init.add_listener
def watch(environment, **_):
    import msgpack
    runner = environment.runner
    send = runner.send_message

    def measured(message_type, data=None, client_id=None):
        if message_type == "ws_together_up" and data["part"] == "fanout":
            note("size", len(msgpack.packb(data)))
        send(message_type, data, client_id)

    runner.send_message = measured
"""
    )
    source = source.replace('note("told"', 'until(lambda: os.path.exists("over"))\n    note("told"')
    locust = fleet(rooms.url, source, users=4, workers=2)
    rooms.meet(4)
    rooms.order("flood", count=3000)
    (locust.folder / "over").touch()
    result = locust.main.finish()
    (told,) = locust.noted("told")
    assert told["one_of"] > 1
    assert told["reach"] == 1 and told["expected"] == 4 * told["messages"]
    sizes = locust.noted("size")
    assert 0 < max(sizes) < 20_000
    assert "ids; one of" in result.stdout
    assert (result.failures, result.exceptions, result.complaints, result.code) == ({}, {}, "", 0)


def test_who_has_just_joined_is_not_missed(rooms: Rooms, fleet: Start, environment: Callable[..., None]) -> None:
    environment(MESSAGES=1)
    source = """
late = Fanout("late", id="id", settle=3600, timeout=1)
""" + MEMBERS.replace("room.join(self.line)", "room.join(self.line, take=False); late.join(self.line)").replace(
        'told()["messages"] >= int(os.environ["MESSAGES"])',
        'told()["messages"] == 1 and not snapshot()["broadcasts"]["late"]["messages"]',
    )
    locust = fleet(rooms.url, source, users=4, workers=2)
    rooms.meet(4)
    rooms.publish("x", withhold=[4, [0]])
    result = locust.main.finish()
    (told,) = locust.noted("told")
    assert (told["expected"], told["received"]) == (4, 3)
    assert "WS REACH late" not in result.rows


@pytest.mark.parametrize("rooms_of_one", [250])
def test_very_many_rooms(rooms: Rooms, fleet: Start, environment: Callable[..., None], rooms_of_one: int) -> None:
    """One message is in each of them, and a report has room for some only."""
    environment(MESSAGES=1)
    source = MEMBERS.replace(
        "        room.join(self.line)\n",
        f"""
        room.join(self.line, take=False)
        for number in range({rooms_of_one}):
            name = f"a room with a rather long name, {{number}}"
            Fanout(name, id="id", timeout=1, settle=0).join(self.line, take=False)
        self.line.on(lambda message: True, lambda message: None, name=None)
""",
    )
    source = source.replace(
        "environment.runner.quit()",
        """
    until(lambda: all(each["messages"] for each in snapshot()["broadcasts"].values()))
    note("rooms", [each["reach"] for each in snapshot()["broadcasts"].values()])
    environment.runner.quit()
""",
    )
    locust = fleet(rooms.url, source, users=2, workers=2)
    rooms.meet(2)
    rooms.publish("x")
    locust.main.finish()
    (reached,) = locust.noted("rooms")
    assert len(reached) == rooms_of_one + 1 and set(reached) == {1}


def test_a_killed_worker_is_left_out(rooms: Rooms, fleet: Start, environment: Callable[..., None]) -> None:
    environment(MESSAGES=2)
    locust = fleet(rooms.url, "runners.HEARTBEAT_LIVENESS = 3\n" + MEMBERS, users=6, workers=3)
    rooms.meet(6)
    rooms.publish(1)
    locust.workers[0].kill()
    eventually(lambda: rooms.state()["members"] == 4)
    rooms.publish(2)
    result = locust.main.finish()
    (told,) = locust.noted("told")
    assert told["messages"] == 2 and told["reach"] == 1
    assert told["expected"] in (8 + 0, 6 + 4)  # the first may have been reported before the end, or not
    assert "WS REACH room" not in result.failures


def test_a_second_run_and_a_reset_begin_anew(rooms: Rooms, fleet: Start, environment: Callable[..., None]) -> None:
    environment(MESSAGES=2)
    source = (
        MEMBERS.partition("@on_master")[0]
        + """
def runs(environment):
    until(lambda: told()["messages"] == 1)
    environment.events.reset_stats.fire()
    note("reset", told())
    until(lambda: told()["messages"] == 1)
    environment.runner.stop()
    note("first", told())
    until(lambda: environment.runner.state == runners.STATE_STOPPED or environment.runner.clients.ready)
    until(lambda: len(environment.runner.clients.ready) == 2)
    environment.runner.start(4, 100)
    until(lambda: told()["messages"] == 1)
    note("second", told())
    environment.runner.quit()

once = []

@on_master
def begin(environment):
    if not once:
        once.append(gevent.spawn(runs, environment))
"""
    )
    locust = fleet(rooms.url, source, users=4, workers=2)
    rooms.meet(4)
    rooms.publish(1)
    eventually(lambda: locust.noted("reset"))
    rooms.publish(2)
    eventually(lambda: locust.noted("first"), seconds=60)
    eventually(lambda: (now := rooms.state())["members"] == 4 and now["messages"] == 8, seconds=60)
    rooms.publish(1)
    eventually(lambda: locust.noted("second"), seconds=60)
    locust.main.finish()
    (reset,), (first,), (second,) = map(locust.noted, ("reset", "first", "second"))
    assert (reset["messages"], reset["expected"], reset["members"]) == (0, 0, 4)
    assert (first["messages"], first["expected"]) == (1, 4)
    assert (second["messages"], second["expected"], second["duplicates"], second["late"]) == (1, 4, 0, 0)


def has_time_namespaces() -> bool:
    try:
        done = subprocess.run(["unshare", "--time", "true"], capture_output=True, timeout=10 * SCALE)
    except OSError:
        return False
    return done.returncode == 0


@pytest.mark.skipif(not has_time_namespaces(), reason="needs the right to make a time namespace")
def test_a_worker_with_another_clock(rooms: Rooms, fleet: Start, environment: Callable[..., None]) -> None:
    """As on another machine: its clock is a day ahead."""
    environment(MESSAGES=5)
    ahead = ("unshare", "--time", "--monotonic", "86400", "--fork", "--kill-child")
    locust = fleet(rooms.url, MEMBERS, users=4, workers=2, prefix=ahead)
    rooms.meet(4)
    done = [rooms.publish(number, delay=[4, [0]], shift=number, seconds=0.2) for number in range(5)]
    result = locust.main.finish()
    (told,) = locust.noted("told")
    assert (told["expected"], told["received"]) == (20, 20)
    assert 0 < told["clock_error_ms"] < 1000
    error = told["clock_error_ms"]
    shortest = min(each["last"] - each["first"] for each in done) * 1000
    assert result.rows["WS SPREAD room"].minimum >= shortest - error - 5
    assert result.rows["WS SPREAD room"].maximum < 86_400_000 / 2
    assert f"±{error:.2f} ms" in result.stdout


ARGUMENTS = """
from locust_ws_async.together import Fanout

def refused(call):
    try:
        call()
    except (TypeError, ValueError) as exc:
        print(type(exc).__name__, exc)
    else:
        raise SystemExit("it was taken")

refused(lambda: Fanout("", id="id"))
refused(lambda: Fanout("a", id=None))
refused(lambda: Fanout("a", id=()))
refused(lambda: Fanout("a", id=("x", 1.5)))
refused(lambda: Fanout("a", id="id", match="x"))
refused(lambda: Fanout("a", id="id", share=0))
refused(lambda: Fanout("a", id="id", share=1.5))
refused(lambda: Fanout("a", id="id", timeout=0))
refused(lambda: Fanout("a", id="id", settle=-1))
room = Fanout("a", id="id")
assert Fanout("a", id=("x", "id"))
refused(lambda: Fanout("a", id="id", share=0.5))
refused(lambda: room.join(object()))
refused(lambda: room.published(["x"]))
refused(lambda: room.published(("x", {})))
refused(lambda: room.published(None))
"""


def test_wrong_arguments_are_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ARGUMENTS], capture_output=True, text=True, timeout=60 * SCALE
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 14
    assert "an id must be a text, a number, bytes, a UUID, or a tuple of these, not list" in lines[-3]
    assert "there is a room 'a' already, with another share, timeout or settle" in done.stdout
