"""``self.rendezvous(...)``: users of all workers go on at one instant, and nobody waits for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import SCALE, eventually
from tests.users.running import ROOT, locustfile

from .conftest import PREAMBLE, Fleet

Start = Callable[..., Fleet]

NOWHERE = "ws://127.0.0.1:1"  # nobody connects

MEET = """
class Meeting(AsyncUser):
    @task
    async def meet(self):
        number = next(places)
        await asyncio.sleep(0.5 if number == 1 else number * 0.01)  # one of each process comes much later
        note("came", time.perf_counter())
        waited = await self.rendezvous("all in", users=6, timeout=1000)
        note("went", time.perf_counter(), waited)
        await asyncio.sleep(0.05)

places = itertools.count()

def meeting():
    return snapshot()["rendezvous"].get("all in", {"releases": 0, "users": 0})

@on_master
def end(environment):
    until(lambda: meeting()["users"] >= 18)
    note("told", meeting())
    environment.runner.quit()
"""


@pytest.mark.parametrize("workers", [0, 3])
def test_all_go_on_at_one_instant(fleet: Start, workers: int) -> None:
    locust = fleet(NOWHERE, MEET, users=6, workers=workers)
    result = locust.main.finish()
    assert result.complaints == ""
    assert result.code == 0
    came, went = locust.noted("came"), locust.noted("went")
    (told,) = locust.noted("told")
    assert told["users"] == 6 * told["releases"] >= 18
    for number in range(3):
        instants = [instant for instant, _ in went[6 * number : 6 * number + 6]]
        assert max(came[6 * number : 6 * number + 6]) < min(instants)
        assert (max(instants) - min(instants)) * 1000 <= told["spread_ms"] + 1  # where all clocks are one
    assert told["clock_error_ms"] == 0
    row = result.rows["WS RENDEZVOUS all in"]
    assert row.failures == 0 and row.requests >= (18 if not workers else 6)  # the last reports may be on their way
    longest = max(waited for _, waited in went) * 1000
    assert row.maximum <= longest + 1
    assert "all in" in result.stdout.partition("Rendezvous")[2]
    for worker in locust.workers:
        assert worker.finish().complaints.count("\n") == 0


def test_too_few_users_are_a_failure_of_each_and_nobody_hangs(fleet: Start) -> None:
    source = """
class Meeting(AsyncUser):
    @task
    async def meet(self):
        try:
            await self.rendezvous("all in", users=3, timeout=0.3)
        except TimeoutError as exc:
            note("alone", type(exc).__name__, str(exc))
        await asyncio.sleep(10_000)

class Other(AsyncUser):
    fixed_count = 1

    @task
    async def stay(self):
        await asyncio.sleep(10_000)

@on_master
def end(environment):
    until(lambda: environment.stats.get("all in", "WS RENDEZVOUS").num_failures == 2)
    environment.runner.quit()
"""
    locust = fleet(NOWHERE, source, users=3, workers=2)
    result = locust.main.finish()
    text = "too few users came to the rendezvous within its timeout"
    assert result.failures == {"WS RENDEZVOUS all in": {f"RendezvousTimeout({text!r})": 2}}
    assert result.exceptions == {}
    assert locust.noted("alone") == [["RendezvousTimeout", text]] * 2


def test_who_gives_up_is_not_counted(fleet: Start) -> None:
    """One gives up before the third comes, so that the third waits for one more."""
    source = """
class Meeting(AsyncUser):
    @task
    async def meet(self):
        number = next(numbers)
        if number == 0:
            try:
                async with asyncio.timeout(0.2):
                    await self.rendezvous("all in", users=3)
            except TimeoutError:
                note("cancelled")
                Meeting.gone = True
        elif number == 1:
            await self.rendezvous("all in", users=3)
            note("went", number)
        else:
            while not Meeting.gone:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.5)
            note("comes")
            await self.rendezvous("all in", users=3)
            note("went", number)
        await asyncio.sleep(10_000)

Meeting.gone = False
numbers = itertools.count()

@on_master
def end(environment):
    until(lambda: snapshot()["rendezvous"].get("all in", {"users": 0})["users"] == 3)
    environment.runner.quit()
"""
    locust = fleet(NOWHERE, source, users=4)
    result = locust.main.finish()
    assert [note[0] for note in result.notes] == ["cancelled", "comes", "comes", "went", "went", "went"]
    row = result.rows["WS RENDEZVOUS all in"]
    assert (row.requests, row.failures) == (3, 0)  # what is cancelled is no row


WRONG = """
class Meeting(AsyncUser):
    @task
    async def meet(self):
        await self.rendezvous({arguments})

@on_master
def end(environment):
    until(lambda: environment.runner.exceptions)
    environment.runner.quit()
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_more_users_than_there_are_is_an_error_at_once(fleet: Start, workers: int) -> None:
    locust = fleet(NOWHERE, WRONG.format(arguments='"all in", users=5'), users=4, workers=workers)
    result = locust.main.finish()
    text = "rendezvous 'all in' is for 5 users, but the test has 4: they would wait in vain"
    assert set(result.exceptions) == {text}
    assert result.code != 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('"", users=2', "rendezvous: the name must be a text, not ''"),
        ('"x", users=0', "rendezvous: users must be a whole number of at least 1, not 0"),
        ('"x", users=1.5', "rendezvous: users must be a whole number of at least 1, not 1.5"),
        ('"x", users=1, timeout=0', "rendezvous: timeout must be a number of seconds above 0, not 0"),
        ('"x", users=1, timeout=None', "rendezvous: timeout must be a number of seconds above 0, not None"),
        (
            '"x", users=next(numbers)',
            "rendezvous 'x': users wait there for 2 users, so that nobody can wait for 3",
        ),
    ],
)
def test_wrong_arguments_are_refused(fleet: Start, arguments: str, text: str) -> None:
    source = "numbers = iter([2, 3, *[2] * 1000])\n" + WRONG.format(arguments=arguments)
    result = fleet(NOWHERE, source, users=3).main.finish()
    assert set(result.exceptions) == {text}


def test_other_numbers_on_other_workers_are_refused(fleet: Start) -> None:
    source = WRONG.format(arguments='"x", users=int(os.environ["USERS"])').replace(
        "class Meeting", 'os.environ["USERS"] = str(3 if os.getcwd().endswith("worker-0") else 4)\nclass Meeting'
    )
    result = fleet(NOWHERE, source, users=4, workers=2).main.finish()
    (text,) = result.exceptions
    assert text in (
        "rendezvous 'x': users wait there for 3 users, so that nobody can wait for 4",
        "rendezvous 'x': users wait there for 4 users, so that nobody can wait for 3",
    )


@pytest.mark.parametrize("stop_timeout", [(), ("--stop-timeout", "1000")])
def test_a_stop_ends_the_wait(fleet: Start, stop_timeout: tuple[str, ...]) -> None:
    source = """
class Meeting(AsyncUser):
    @task
    async def meet(self):
        note("waits")
        await self.rendezvous("all in", users=3, timeout=100_000)

    async def on_stop(self):
        note("stopped")

class Other(AsyncUser):
    fixed_count = 1

    @task
    async def end(self):
        while not (os.path.exists("../end") or os.path.exists("end")):
            await asyncio.sleep(0.02)
        await asyncio.sleep(10_000 if not self.environment.stop_timeout else 0)

@on_master
def end(environment):
    until(lambda: os.path.exists("end"))
    environment.runner.stop()
    note("over")
    environment.runner.quit()
"""
    locust = fleet(NOWHERE, source, *stop_timeout, users=3)
    eventually(lambda: len(locust.main.notes()) == 2, seconds=30)
    (locust.folder / "end").touch()
    result = locust.main.finish()
    assert result.notes == [["waits"]] * 2 + [["stopped"]] * 2 + [["over"]]
    assert result.code == 0
    assert result.rows.keys() == {"Aggregated"}
    if stop_timeout:
        assert result.complaints == ""
    else:
        assert "2 users had waited in rendezvous() of all in" in result.complaints


def test_a_killed_worker_does_not_hold_up_the_others(fleet: Start) -> None:
    """Its two users wait there. They count no more once Locust misses it, and four others are enough."""
    source = """
runners.HEARTBEAT_LIVENESS = 3

class Meeting(AsyncUser):
    @task
    async def meet(self):
        if not os.getcwd().endswith("worker-0"):
            while not os.path.exists("go"):
                await asyncio.sleep(0.02)
        note("comes", os.getcwd()[-1])
        await self.rendezvous("all in", users=4)
        note("went", os.getcwd()[-1])
        await asyncio.sleep(10_000)

@on_master
def end(environment):
    until(lambda: len(environment.runner.clients.missing) == 1)
    note("missing")
    until(lambda: snapshot()["rendezvous"].get("all in", {"users": 0})["users"] == 4)
    environment.runner.quit()
"""
    locust = fleet(NOWHERE, source, users=6, workers=3)
    eventually(lambda: locust.noted("comes") == ["0", "0"], seconds=60)
    locust.workers[0].kill()
    eventually(lambda: ["missing"] in locust.main.notes(), seconds=30)
    for number in (1, 2):
        (locust.folder / f"worker-{number}" / "go").touch()
    locust.main.finish()
    assert sorted(locust.noted("went")) == ["1", "1", "2", "2"]


def test_with_run_single_user(tmp_path: Path) -> None:
    source = (
        PREAMBLE
        + """
class Single(AsyncUser):
    host = "ws://127.0.0.1:1"

    @task
    async def meet(self):
        await self.rendezvous("alone", users=1)
        try:
            await self.rendezvous("all in", users=2)
        except ValueError as exc:
            note(str(exc))
        raise StopUser

if __name__ == "__main__":
    from locust import run_single_user

    run_single_user(Single)
"""
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", locustfile(tmp_path, source)],
        capture_output=True,
        text=True,
        timeout=60 * SCALE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LOCUST_NOTES": str(tmp_path / "notes")},
        check=True,
    )
    assert done.stderr == ""
    assert "is for 2 users, but the test has 1" in (tmp_path / "notes").read_text()
    assert done.stdout.count("WS RENDEZVOUS") == 1
