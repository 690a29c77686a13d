"""``self.pace()``: when ticks come, what spawn does with errors, how it ends, and what is told at the end."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from .running import LocustRun

pytestmark = pytest.mark.once

Run = Callable[..., LocustRun]


def told(run: LocustRun) -> dict[str, dict[str, str]]:
    """The block at the end, by row and column."""
    _, title, block = run.stdout.partition("Offered and achieved")
    if not title:
        return {}
    head, _, *rows = block.split("\n\n")[0].splitlines()
    columns = head.replace("late p99", "late").split()
    width = len(columns)
    return {
        " ".join(row.removesuffix(" ms").split()[:-width]): dict(
            zip(columns, row.removesuffix(" ms").split()[-width:], strict=True)
        )
        for row in rows
    }


def test_ticks_are_given_at_their_rate(run: Run) -> None:
    """From a random point of the first period on, and however late one was: nothing drifts."""
    result = run(
        """
        class Paced(AsyncUser):
            @task
            async def count(self):
                began = time.perf_counter()
                ticks = []
                async for tick in self.pace(50):
                    assert float(tick) == tick.intended <= time.perf_counter()
                    ticks.append([tick.number, tick.intended, tick.late])
                    if tick.number == 3:
                        time.sleep(0.1)
                    if tick.number == 20:
                        break
                note(began, ticks)
                raise StopUser()

        quit_when_done()
        """,
        "--users",
        "4",
    )
    assert result.complaints == ""
    assert len(result.notes) == 4
    phases = set()
    for began, ticks in result.notes:
        numbers, instants, late = zip(*ticks, strict=True)
        assert numbers == tuple(range(21))
        assert [b - a for a, b in pairwise(instants)] == pytest.approx([0.02] * 20)
        assert instants[0] >= began
        assert min(late) >= 0
        assert late[4] >= 0.08  # the one after the user slept
        phases.add(round(instants[0] % 0.02, 9))
    assert len(phases) == 4
    assert told(result)["pace"] | {"offered/s": "", "started/s": "", "late": ""} == {
        "offered": "84",
        "started": "84",
        "skipped": "0",
        "dropped": "0",
        "running": "-",
        "offered/s": "",
        "started/s": "",
        "late": "",
    }


def test_late_ticks_are_skipped_or_given_at_once(run: Run) -> None:
    result = run(
        """
        class Late(AsyncUser):
            @task
            async def count(self):
                for late in ("catch-up", "skip"):
                    given = []
                    async for tick in self.pace(100, late=late):
                        given.append(tick.number)
                        if tick.number == 0:
                            await asyncio.sleep(0.205)
                        if tick.number >= 30:
                            break
                    note(late, given)
                raise StopUser()

        quit_when_done()
        """,
        "--users",
        "1",
    )
    caught_up, skipping = result.noted("catch-up")[0], result.noted("skip")[0]
    assert caught_up == list(range(31))
    assert skipping[:1] == [0] and skipping[1] >= 20
    skipped = skipping[-1] + 1 - len(skipping)
    assert told(result)["pace"]["skipped"] == str(skipped)
    assert told(result)["pace"]["started"] == str(31 + len(skipping))


def test_what_was_due_and_not_given_was_offered(run: Run) -> None:
    result = run(
        """
        class Slow(AsyncUser):
            @task
            async def once(self):
                async for tick in self.pace(100):
                    await asyncio.sleep(0.505)
                    break
                raise StopUser()

        quit_when_done()
        """,
        "--users",
        "1",
    )
    pace = told(result)["pace"]
    assert pace["started"] == "1"
    assert int(pace["offered"]) > 50


def test_a_rate_may_be_a_function_of_the_time(run: Run) -> None:
    """None for a while, then many; and all users count from the same beginning."""
    result = run(
        """
        class Ramp(AsyncUser):
            @task
            async def count(self):
                async for tick in self.pace(lambda t: 0 if t < 1 else 200):
                    note("first", tick.intended)
                    break
                async for tick in self.pace(lambda t: 1000, law="poisson"):
                    note("random", tick.intended)
                    if tick.number == 50:
                        break
                raise StopUser()

        from locust_ws_async.pacing import clock
        events.test_start.add_listener(lambda **_: note("began", clock.began()))
        quit_when_done()
        """,
        "--users",
        "2",
    )
    (began,) = result.noted("began")
    for first in result.noted("first"):
        assert 1 <= first - began < 1.02  # the instant that was meant, not when it was given
    instants = sorted(result.noted("random"))
    assert len({round(b - a, 4) for a, b in pairwise(instants)}) > 10


def test_spawn_does_not_wait_and_tells_errors_once(run: Run) -> None:
    result = run(
        """
        class Spawning(AsyncWebSocketUser):
            async def on_start(self):
                self.feed = await self.ws.connect("/echo")

            async def fail(self):
                raise ValueError("of mine")

            async def stop_me(self):
                raise StopUser()

            @task
            async def spawn(self):
                together = asyncio.Barrier(3)
                async for tick in self.pace(100):
                    match tick.number:
                        case 0 | 1:
                            tick.spawn(together.wait())
                        case 2:
                            await tick.spawn(together.wait())
                            note("together")
                        case 3:
                            tick.spawn(self.fail())
                        case 4:
                            await tick.spawn(self.feed.expect(lambda message: False, timeout=0.01, name="never"))
                        case 5:
                            await tick.spawn(self.feed.request("x", since=tick))
                        case 6:
                            tick.spawn(asyncio.sleep(1000))
                        case 7:
                            tick.spawn(self.stop_me())

            async def on_stop(self):
                note("stopped")

        quit_when_done()
        """,
        "--users",
        "1",
    )
    assert ["together"] in result.notes and ["stopped"] in result.notes
    assert result.exceptions == {"of mine": 1}
    assert result.failures == {
        "WS RECV never": {"MessageTimeout('no message that matches within the timeout')": 1},
    }
    assert result.counts["WS REQUEST /echo"] == 1
    assert "of mine" in result.stderr and "MessageTimeout" not in result.stderr


def test_spawn_is_bounded(run: Run) -> None:
    result = run(
        """
        class Bounded(AsyncUser):
            @task
            async def spawn(self):
                release = asyncio.Event()
                async for tick in self.pace(200, limit=2):
                    if tick.spawn(release.wait()) is None:
                        note("dropped", tick.number)
                    if tick.number == 9:
                        break
                release.set()
                raise StopUser()

        quit_when_done()
        """,
        "--users",
        "1",
    )
    assert result.noted("dropped") == list(range(2, 10))
    assert told(result)["pace"]["dropped"] == "8"
    assert result.complaints.count("the limit of this pace") == 1
    assert "never awaited" not in result.stderr


def test_a_graceful_stop_ends_the_loop_and_waits_for_what_was_spawned(run: Run) -> None:
    """At once, though the next tick is far; and far sooner than Locust's patience."""
    result = run(
        """
        class Slow(AsyncUser):
            @task
            async def spawn(self):
                async for tick in self.pace(100):
                    tick.spawn(self.finish())
                    break
                async for tick in self.pace(0.0001):
                    pass
                note("loop ended")

            async def finish(self):
                while self._state != "stopping":
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.05)

            async def on_stop(self):
                note("stopped")

        class Waiting(AsyncUser):
            @task
            async def spawn(self):
                async for tick in self.pace(100):
                    if tick.number == 0:
                        tick.spawn(self.finish())
                    if tick.number == 5:
                        note("busy")

            async def finish(self):
                while self._state != "stopping":
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.05)
                note("finished")

            async def on_stop(self):
                note("stopped after what was spawned")

        def busy():
            with open(os.environ["LOCUST_NOTES"], "a+") as notes:
                notes.seek(0)
                return "busy" in notes.read()

        quit_when(busy)
        """,
        "--users",
        "2",
        "--stop-timeout",
        "1000",
    )
    assert result.code == 0
    notes = [note for (note,) in result.notes]
    assert "loop ended" in notes and "stopped" in notes
    assert notes.index("finished") < notes.index("stopped after what was spawned")


def test_a_wrong_rate_is_told_where_it_is_given(run: Run) -> None:
    result = run(
        """
        wrong = [
            dict(rate=0), dict(rate=-1), dict(rate=float("nan")), dict(rate=float("inf")), dict(rate="20"),
            dict(rate=True), dict(rate=lambda t: -1), dict(rate=lambda: 1), dict(rate=lambda t: None),
            dict(rate=1, law="uniform"), dict(rate=1, late="never"), dict(rate=1, limit=0), dict(rate=1, limit=1.5),
        ]

        class Wrong(AsyncUser):
            @task
            async def try_them(self):
                for arguments in wrong:
                    try:
                        self.pace(**arguments)
                    except (TypeError, ValueError) as exc:
                        note(type(exc).__name__, str(exc))
                async for tick in self.pace(lambda t: 100 if time.perf_counter() < self.end else -5):
                    pass

            def on_start(self):
                self.end = time.perf_counter() + 0.3

            wait_time = constant(1000)

        quit_when(lambda: _user_errors)
        _user_errors = []
        events.user_error.add_listener(lambda exception, **_: _user_errors.append(exception))
        """,
        "--users",
        "1",
    )
    kinds = [kind for kind, _ in result.notes]
    assert len(kinds) == 13
    assert result.notes[0] == ["ValueError", "the rate of pace() must be a finite number above 0 a second, not 0"]
    assert result.notes[4][0] == "TypeError"
    assert result.exceptions == {"the function of the rate must give a finite number, 0 or more, not -5": 1}


def test_nothing_is_told_where_nothing_is_paced(run: Run) -> None:
    result = run(
        """
        class Plain(AsyncUser):
            @task
            async def nothing(self):
                raise StopUser()

        quit_when_done()
        """,
        "--users",
        "1",
    )
    assert told(result) == {}
