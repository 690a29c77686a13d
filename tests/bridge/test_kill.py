"""Kills, timeouts and propagated exceptions: wherever they arrive, the run ends, cleaned up and in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import GreenletExit
from gevent.event import Event

from locust_ws_async.bridge import LoopHost

from .helpers import hosting, result, spawn, together, until

FOREVER = 1000


class StopUser(Exception):
    """Stands for the exceptions that steer Locust."""


class Victim:
    """A user that gets into *place* and waits there to be killed."""

    def __init__(self, place: str, *, cancel_timeout: float = 20, cleanup: Callable[[], Awaitable[Any]] | None = None):
        self.place = getattr(self, place)
        self.cleanup = cleanup
        self.cancel_timeout = cancel_timeout
        self.events: list[Any] = []
        self.there = Event()
        self.raised: BaseException | None = None
        self.greenlet = gevent.spawn(self.run)
        assert self.there.wait(20)
        gevent.sleep(0)

    def run(self) -> None:
        with hosting(cancel_timeout=self.cancel_timeout, propagated=(StopUser,)) as self.host:
            try:
                self.host.run(self.main())
            except BaseException as exc:
                self.raised = exc
                self.events.append(type(exc))
            else:
                self.events.append("survived")

    async def main(self) -> None:
        try:
            await self.place()
            await asyncio.sleep(FOREVER)
        except BaseException as exc:
            self.events.append(type(exc))
            raise
        finally:
            self.events.append("finally")
            if self.cleanup is not None:
                await self.cleanup()
                self.events.append("cleaned up")

    def block(self) -> None:
        self.there.set()
        gevent.sleep(FOREVER)

    async def parked(self) -> None:
        self.there.set()

    async def blocked(self) -> None:
        self.block()

    async def blocked_deeper(self) -> None:
        async with asyncio.timeout(FOREVER), asyncio.TaskGroup():
            await self.blocked()

    async def blocked_in_a_background_task(self) -> None:
        async def background() -> None:
            self.block()

        self.background = asyncio.create_task(background())

    async def blocked_in_an_awaited_task(self) -> None:
        await self.blocked_in_a_background_task()
        await self.background

    async def blocked_in_a_callback(self) -> None:
        asyncio.get_running_loop().call_soon(self.block)

    async def blocked_in_a_timer(self) -> None:
        asyncio.get_running_loop().call_later(0.001, self.block)

    async def spinning(self) -> None:
        self.there.set()
        while True:
            await asyncio.sleep(0)

    async def gathering(self) -> None:
        self.there.set()
        await asyncio.gather(*(asyncio.sleep(FOREVER) for _ in range(10)))

    async def beside_a_blocking_call(self) -> None:
        await asyncio.to_thread(self.block)


PLACES = [
    "parked",
    "blocked",
    "blocked_deeper",
    "blocked_in_a_background_task",
    "blocked_in_an_awaited_task",
    "blocked_in_a_callback",
    "blocked_in_a_timer",
    "spinning",
    "gathering",
    "beside_a_blocking_call",
]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def kill(victim: Victim, exception: Any = GreenletExit) -> None:
    victim.greenlet.kill(exception, timeout=20)
    assert victim.greenlet.dead, "survived its kill"


def test_a_killed_coroutine_is_cancelled_and_cleans_up(place: str) -> None:
    victim = Victim(place, cleanup=lambda: asyncio.sleep(0.01))
    kill(victim)
    assert victim.events == [asyncio.CancelledError, "finally", "cleaned up", GreenletExit]


def test_the_exception_of_the_kill_arrives_as_it_is(place: str) -> None:
    victim = Victim(place)
    exit = GreenletExit("as it is")
    kill(victim, exit)
    assert victim.raised is exit


def test_cleaning_up_takes_no_longer_than_it_may(place: str, caplog: pytest.LogCaptureFixture) -> None:
    async def forever() -> None:
        while True:
            try:
                await asyncio.sleep(FOREVER)
            except asyncio.CancelledError:
                if closing:
                    raise

    closing: list[bool] = []
    victim = Victim(place, cancel_timeout=0.05, cleanup=forever)
    victim.greenlet.kill(block=False)
    until(lambda: GreenletExit in victim.events)
    assert victim.events == [asyncio.CancelledError, "finally", GreenletExit]
    closing.append(True)
    kill(victim)


def test_a_second_kill_ends_the_cleanup_at_once(place: str) -> None:
    cleaning = Event()

    async def cleanup() -> None:
        cleaning.set()
        await asyncio.sleep(FOREVER)

    victim = Victim(place, cancel_timeout=FOREVER, cleanup=cleanup)
    victim.greenlet.kill(block=False)
    assert cleaning.wait(20)
    kill(victim)
    assert victim.events == [asyncio.CancelledError, "finally", GreenletExit]


def test_a_second_kill_ends_a_cleanup_that_blocks(place: str) -> None:
    cleaning = Event()

    async def cleanup() -> None:
        cleaning.set()
        gevent.sleep(FOREVER)

    victim = Victim(place, cancel_timeout=FOREVER, cleanup=cleanup)
    victim.greenlet.kill(block=False)
    assert cleaning.wait(20)
    kill(victim)
    assert victim.events == [asyncio.CancelledError, "finally", GreenletExit]


def test_a_cleanup_that_blocks_delays_nobody_else(place: str) -> None:
    async def cleanup() -> None:
        gevent.sleep(0.02)
        await asyncio.sleep(0.02)
        gevent.sleep(0.02)

    victim = Victim(place, cleanup=cleanup)
    victim.greenlet.kill(block=False)
    turns = 0
    while not victim.greenlet.dead:
        gevent.sleep(0)
        turns += 1
    assert turns > 3
    assert victim.events[-2:] == ["cleaned up", GreenletExit]


def test_a_kill_while_tasks_are_cancelled_spares_what_runs_next() -> None:
    async def slow() -> None:
        try:
            await asyncio.sleep(FOREVER)
        finally:
            killed.set()
            await ended.wait()

    async def begin() -> None:
        tasks.append(asyncio.create_task(slow()))
        await asyncio.sleep(0)

    async def on_stop() -> str:
        ended.set()
        await asyncio.wait(tasks)
        for _ in range(10):
            await asyncio.sleep(0)
        return "done"

    def user() -> None:
        with hosting() as host:
            host.run(begin())
            gevent.spawn(lambda: killed.wait() and greenlets[0].kill(block=False))
            with pytest.raises(GreenletExit):
                host.cancel_tasks()
            assert host.run(on_stop()) == "done"

    tasks: list[asyncio.Task[None]] = []
    ended = asyncio.Event()
    killed = gevent.event.Event()
    greenlets = [spawn(user)]
    result(greenlets[0])


def test_callbacks_that_block_one_after_the_other_do_not_save_the_user() -> None:
    class Busy(Victim):
        async def blocked(self) -> None:
            for block in (self.block, *[lambda: gevent.sleep(FOREVER)] * 3):
                asyncio.get_running_loop().call_soon(block)

    victim = Busy("blocked", cancel_timeout=0.02)
    kill(victim)
    assert victim.events[0] is GreenletExit


@pytest.mark.parametrize("rude_place", ["blocked", "blocked_in_a_background_task", "blocked_in_a_callback"])
def test_who_swallows_the_kill_does_not_save_the_user(rude_place: str) -> None:
    class Rude(Victim):
        def block(self) -> None:
            try:
                super().block()
            except BaseException:
                self.events.append("swallowed")

    victim = Rude(rude_place, cancel_timeout=0.05)
    kill(victim)
    assert victim.events[0] == "swallowed"
    assert GreenletExit in victim.events


def test_a_timeout_right_behind_a_kill_does_not_take_its_place() -> None:
    seen: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as timeout:
                # The timeout is about to cancel the task when the kill arrives.
                loop.call_soon(timeout.reschedule, 0)
                loop.call_soon(gevent.getcurrent().kill, GreenletExit, False)
                loop.call_soon(gevent.sleep, FOREVER)
                await asyncio.sleep(FOREVER)
        except TimeoutError:
            seen.append("timeout")
            await asyncio.sleep(FOREVER)
        finally:
            seen.append("ended")

    def user() -> None:
        with hosting(cancel_timeout=0.1) as host:
            with pytest.raises(GreenletExit):
                host.run(main())
            assert seen == ["ended"]

    result(spawn(user))


def test_who_swallows_the_kill_is_cancelled_when_its_time_is_up() -> None:
    seen: list[str] = []

    async def main() -> None:
        try:
            gevent.getcurrent().kill(block=False)
            gevent.sleep(FOREVER)
        except BaseException:
            seen.append("swallowed")
        try:
            await asyncio.sleep(FOREVER)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    def user() -> None:
        with hosting(cancel_timeout=0.01) as host:
            with pytest.raises(GreenletExit):
                host.run(main())
            host.run(asyncio.sleep(0.001))  # as an async on_stop
            assert seen == ["swallowed", "cancelled"]

    result(spawn(user))


def test_background_tasks_live_until_the_host_is_closed() -> None:
    seen = []

    async def background() -> None:
        try:
            while True:
                seen.append("alive")
                await asyncio.sleep(0.001)
        finally:
            seen.append("cancelled")

    async def start() -> None:
        host.background = asyncio.create_task(background())
        await asyncio.sleep(FOREVER)

    def user() -> None:
        try:
            host.run(start())
        finally:
            before = len(seen)
            host.run(asyncio.sleep(0.02))  # as an async on_stop
            assert len(seen) > before
            assert "cancelled" not in seen
            host.close()

    host: Any = LoopHost()
    greenlet = gevent.spawn(user)
    until(lambda: seen)
    greenlet.kill(timeout=20)
    assert greenlet.successful()  # a GreenletExit
    assert seen[-1] == "cancelled"


@pytest.mark.parametrize("place", ["parked", "blocked", "blocked_deeper"])
def test_a_gevent_timeout_ends_the_run_that_it_surrounds_and_only_that(place: str, host: LoopHost) -> None:
    ended = []

    async def main() -> None:
        try:
            if place != "parked":
                async with asyncio.timeout(FOREVER):
                    gevent.sleep(FOREVER)
            await asyncio.sleep(FOREVER)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with pytest.raises(gevent.Timeout) as raised, gevent.Timeout(0.01) as timeout:
        host.run(main())
    assert raised.value is timeout
    assert ended == [True]
    assert host.run(asyncio.sleep(0, "next")) == "next"


def test_a_gevent_timeout_in_a_background_task_that_blocks_ends_the_run(host: LoopHost) -> None:
    async def background() -> None:
        gevent.sleep(FOREVER)

    async def main() -> None:
        keep = asyncio.create_task(background())
        await asyncio.sleep(FOREVER)
        del keep

    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        host.run(main())
    assert host.run(asyncio.sleep(0, "next")) == "next"


def test_a_gevent_timeout_inside_of_a_coroutine_is_its_own(host: LoopHost) -> None:
    async def main() -> str:
        with gevent.Timeout(0.001, False):
            gevent.sleep(FOREVER)
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.001):
            gevent.sleep(FOREVER)
        await asyncio.sleep(0)
        return "went on"

    assert host.run(main()) == "went on"


def test_a_kill_between_two_runs_arrives_in_the_second() -> None:
    seen: list[Any] = []

    async def never_begun() -> None:
        seen.append("begun")
        await asyncio.sleep(FOREVER)

    def user() -> None:
        with hosting() as host:
            host.run(asyncio.sleep(0))
            gevent.getcurrent().kill(block=False)
            try:
                host.run(never_begun())
            except GreenletExit:
                seen.append("killed")
                raise

    greenlet = gevent.spawn(user)
    greenlet.join(20)
    assert greenlet.dead
    assert seen[-1] == "killed"


def test_a_kill_while_sleeping_and_while_calling() -> None:
    """`sleep` and `call`, where no coroutine runs: the loop is fit for more afterwards."""
    for wait in (lambda host: host.sleep(FOREVER), lambda host: host.call(gevent.sleep, FOREVER)):
        seen: list[str] = []

        def user(wait: Callable[[LoopHost], None] = wait, seen: list[str] = seen) -> None:
            with hosting() as host:
                host.run(asyncio.sleep(0))
                try:
                    wait(host)
                except GreenletExit:
                    seen.append(host.run(asyncio.sleep(0.001, "went on")))

        greenlet = gevent.spawn(user)
        gevent.sleep(0.01)
        greenlet.kill(timeout=20)
        assert greenlet.dead
        assert seen == ["went on"]


def test_a_kill_during_close_ends_it_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(FOREVER)
        finally:
            closing.set()
            await asyncio.sleep(FOREVER)

    async def start() -> None:
        tasks.append(asyncio.create_task(stubborn()))
        await asyncio.sleep(0)

    def user() -> None:
        host.run(start())
        host.close()

    tasks: list[Any] = []
    closing = Event()
    host = LoopHost(cancel_timeout=FOREVER)
    greenlet = gevent.spawn(user)
    assert closing.wait(20)
    greenlet.kill(timeout=20)
    assert greenlet.dead
    assert host.loop is None
    assert "left behind" in caplog.text
    caplog.clear()


def test_a_task_that_ignores_its_cancellation_is_reported_and_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(FOREVER)
        except asyncio.CancelledError:
            await asyncio.sleep(FOREVER)

    async def start() -> None:
        tasks.append(asyncio.create_task(stubborn(), name="stubborn"))
        await asyncio.sleep(0)

    tasks: list[Any] = []
    with hosting(cancel_timeout=0.02) as host:
        host.run(start())
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "stubborn" in caplog.text
    assert "0.02 s" in caplog.text
    caplog.clear()


def test_the_time_of_a_stop_passes_once_for_all_that_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def stubborn() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(FOREVER)

    def user() -> None:
        with hosting(cancel_timeout=1) as host:
            assert host.time_left == 1
            gevent.getcurrent().kill(block=False)
            with pytest.raises(GreenletExit):
                host.run(stubborn())
            assert host.time_left == 0.5  # the first wait has used it up: the least that the rest has
            host.cancel_tasks()
            assert host.time_left == 0.5

    result(spawn(user))
    assert "stubborn" in caplog.text and "within cancel_timeout (1 s): left behind" in caplog.text
    caplog.clear()


def test_a_run_that_a_timeout_ends_is_no_stop_yet() -> None:
    async def slow_cleanup() -> None:
        try:
            await asyncio.sleep(FOREVER)
        finally:
            await asyncio.sleep(FOREVER)

    with hosting(cancel_timeout=0.7) as host:
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
            host.run(slow_cleanup())
        assert host.time_left == 0.5
        host.run(asyncio.sleep(0))
        assert host.time_left == 0.7


def test_tasks_that_are_started_while_others_end_are_ended_too(host: LoopHost) -> None:
    ended: list[int] = []

    async def chain(length: int) -> None:
        try:
            await asyncio.sleep(FOREVER)
        finally:
            ended.append(length)
            if length:
                kept.append(asyncio.create_task(chain(length - 1)))
                await asyncio.sleep(0)

    async def start() -> None:
        kept.append(asyncio.create_task(chain(3)))
        await asyncio.sleep(0)

    kept: list[Any] = []
    host.run(start())
    host.close()
    assert ended == [3, 2, 1, 0]


def test_an_error_in_the_cleanup_is_reported_and_the_kill_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def cleanup() -> None:
        raise ValueError("in the cleanup")

    victim = Victim("parked", cleanup=cleanup)
    kill(victim)
    assert victim.events == [asyncio.CancelledError, "finally", GreenletExit]
    assert "in the cleanup" in caplog.text
    caplog.clear()


# Carried exceptions


async def from_the_coroutine() -> None:
    raise StopUser


async def from_a_gathered_one() -> None:
    await asyncio.gather(asyncio.sleep(FOREVER), from_the_coroutine(), from_the_coroutine())


async def from_a_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(from_the_coroutine())
        group.create_task(from_the_coroutine())
        await asyncio.sleep(FOREVER)


async def from_a_background_task() -> None:
    kept = asyncio.create_task(from_the_coroutine())
    await asyncio.sleep(FOREVER)
    del kept


async def from_a_callback() -> None:
    asyncio.get_running_loop().call_soon(raise_stop_user)
    await asyncio.sleep(FOREVER)


async def from_a_timer() -> None:
    asyncio.get_running_loop().call_later(0.001, raise_stop_user)
    await asyncio.sleep(FOREVER)


async def from_a_done_callback() -> None:
    asyncio.create_task(asyncio.sleep(0)).add_done_callback(raise_stop_user)
    await asyncio.sleep(FOREVER)


async def from_beside() -> None:
    await asyncio.to_thread(raise_stop_user)


async def from_a_background_task_that_is_not_alone() -> None:
    kept = [asyncio.create_task(from_the_coroutine()) for _ in range(5)]
    await asyncio.sleep(FOREVER)
    del kept


def raise_stop_user(*_: Any) -> None:
    raise StopUser


SOURCES = [function for name, function in globals().items() if name.startswith("from_")]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("source", SOURCES)
def test_control_flow_leaves_the_run_from_wherever_it_is_raised(source: Callable[[], Any], after: bool) -> None:
    ended = []

    async def main() -> None:
        try:
            await source()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with hosting(propagated=(StopUser,)) as host:
        for turn in range(3):
            with pytest.raises(StopUser):
                host.run(main())
            assert len(ended) == turn + 1
            if after:  # nothing is left of it: neither the same exception of its fellows nor a stop of the loop
                assert host.run(asyncio.sleep(0.002, "next")) == "next"
    assert ended == [True] * 3


def test_control_flow_that_comes_together_with_the_end_of_the_run_is_raised_once() -> None:
    async def main() -> None:
        asyncio.create_task(from_the_coroutine())  # noqa: RUF006 # it ends in the same turn
        await asyncio.sleep(0)

    with hosting(propagated=(StopUser,)) as host:
        for _ in range(3):
            with pytest.raises(StopUser):
                host.run(main())
                host.sleep(0)
            assert host.run(asyncio.sleep(0.001, "next")) == "next"


def test_control_flow_that_comes_behind_the_end_of_the_run_is_raised_once() -> None:
    async def main() -> None:
        this = asyncio.current_task()
        assert this is not None
        this.add_done_callback(raise_stop_user)

    with hosting(propagated=(StopUser,)) as host:
        for _ in range(3):
            with pytest.raises(StopUser) as raised:
                host.run(main())
            assert raised.value.__context__ is None
            assert host.run(asyncio.sleep(0.001, "next")) == "next"


@pytest.mark.parametrize("waits", ["sleep", "call"])
def test_control_flow_of_a_background_task_reaches_who_waits(waits: str) -> None:
    async def background() -> None:
        await asyncio.sleep(0.001)
        raise StopUser

    async def start() -> None:
        host.background = asyncio.create_task(background())

    host: Any
    with hosting(propagated=(StopUser,)) as host:
        host.run(start())
        with pytest.raises(StopUser):
            if waits == "sleep":
                host.sleep(FOREVER)
            else:
                host.call(gevent.sleep, 0.02)
        host.sleep(0.001)
        assert host.run(asyncio.sleep(0.001, "next")) == "next"


def test_control_flow_reaches_the_run_that_comes_next() -> None:
    with hosting(propagated=(StopUser,)) as host:
        host.propagate(StopUser())  # there is no loop yet
        host.run(asyncio.sleep(0))
        host.propagate(StopUser())
        with pytest.raises(StopUser):
            host.run(asyncio.sleep(FOREVER))
        assert host.run(asyncio.sleep(0, "next")) == "next"


@pytest.mark.parametrize("ran_before", [True, False])
def test_no_control_flow_once_the_end_has_begun(ran_before: bool) -> None:
    async def on_stop() -> str:
        asyncio.get_running_loop().call_soon(raise_stop_user)
        background = asyncio.create_task(raises())
        await asyncio.wait([background])
        host.propagate(StopUser())
        return await asyncio.sleep(0.001, "to its end")

    async def raises() -> None:
        raise StopUser

    with hosting(propagated=(StopUser,)) as host:
        if ran_before:
            host.run(asyncio.sleep(0))
        host.stop_propagating()
        host.cancel_tasks()
        assert host.run(on_stop()) == "to its end"


def test_other_exceptions_of_background_tasks_are_reported_as_asyncio_does(
    host: LoopHost, caplog: pytest.LogCaptureFixture
) -> None:
    async def background() -> None:
        raise StopUser  # not propagated by this host

    async def main() -> str:
        asyncio.create_task(background())  # noqa: RUF006 # nobody looks at it: that is the point
        asyncio.get_running_loop().call_soon(raise_stop_user)
        await asyncio.sleep(0.001)
        return "went on"

    assert host.run(main()) == "went on"
    assert "Task exception was never retrieved" in caplog.text
    assert "Exception in callback" in caplog.text
    caplog.clear()


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit, GreenletExit, BaseException])
@pytest.mark.parametrize("source", ["coroutine", "background", "callback"])
def test_what_is_no_exception_leaves_the_run_too(source: str, exception: type[BaseException], host: LoopHost) -> None:
    def throw() -> None:
        raise exception

    async def background() -> None:
        throw()

    async def main() -> None:
        if source == "coroutine":
            throw()
        elif source == "background":
            kept.append(asyncio.create_task(background()))
        else:
            asyncio.get_running_loop().call_soon(throw)
        await asyncio.sleep(FOREVER)

    kept: list[Any] = []
    with pytest.raises(exception):
        host.run(main())
    assert host.run(asyncio.sleep(0.001, "next")) == "next"


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_is_raised_once(exception: type[BaseException], host: LoopHost) -> None:
    async def background() -> None:
        await sleeps.wait()
        raise exception

    async def start() -> None:
        kept.append(asyncio.create_task(background()))
        asyncio.get_running_loop().call_later(0.01, sleeps.set)

    kept: list[Any] = []
    sleeps = asyncio.Event()
    host.run(start())
    with pytest.raises(exception):
        host.sleep(FOREVER)
    host.sleep(0.001)
    assert host.run(asyncio.sleep(0.001, "next")) == "next"


def test_a_kill_outranks_control_flow() -> None:
    def both(greenlet: Any) -> None:
        greenlet.kill(block=False)
        asyncio.get_running_loop().call_exception_handler({"message": "both", "exception": StopUser()})
        gevent.sleep(FOREVER)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(both, gevent.getcurrent())
        await asyncio.sleep(FOREVER)

    def user() -> None:
        with hosting(propagated=(StopUser,)) as host:
            host.run(main())

    with pytest.raises(GreenletExit):
        result(spawn(user))


# LoopHost.call


def test_a_blocking_function_runs_in_the_hosts_greenlet_and_the_loop_goes_on(host: LoopHost) -> None:
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.001)

    async def start() -> None:
        kept.append(asyncio.create_task(tick()))

    def function(first: int, *, second: int) -> tuple[Any, int]:
        assert asyncio._get_running_loop() is None
        before = len(ticks)
        until(lambda: len(ticks) > before + 5)
        return gevent.getcurrent(), first + second

    kept: list[Any] = []
    host.run(start())
    assert host.call(function, 1, second=2) == (gevent.getcurrent(), 3)
    with pytest.raises(ZeroDivisionError):
        host.call(lambda: 1 / 0)
    before = len(ticks)
    host.sleep(0.02)
    assert len(ticks) > before


def test_a_blocking_function_may_come_back_to_the_host_at_once(host: LoopHost) -> None:
    async def main() -> None:
        raise AssertionError("runs")

    host.run(asyncio.sleep(0))
    host.call(host.sleep, 0.001)
    assert host.call(host.call, max, 1, 2) == 2
    with pytest.raises(RuntimeError, match="make it async"):
        host.call(host.run, main())
    with pytest.raises(RuntimeError, match="make it async"):
        host.call(host.close)
    assert host.run(asyncio.sleep(0, "next")) == "next"


def test_a_kill_after_a_function_that_returns_a_coroutine_leaves_it_closed() -> None:
    blocked = Event()

    def block() -> None:
        blocked.set()
        gevent.sleep(FOREVER)

    def function() -> Any:
        blocked.wait()
        return asyncio.sleep(0)

    def user() -> None:
        with hosting(cancel_timeout=0.01) as host:
            host.run(asyncio.sleep(0))
            host.loop.call_soon(block)
            host.call(function)

    greenlet = gevent.spawn(user)
    assert blocked.wait(20)
    gevent.sleep(0.01)
    greenlet.kill(timeout=20)
    assert greenlet.dead


def test_what_the_loop_propagates_outranks_an_error_of_the_function_but_not_its_kill() -> None:
    async def background() -> None:
        raise StopUser

    def function(exception: type[BaseException]) -> None:
        gevent.sleep(0.01)
        raise exception

    def user(exception: type[BaseException]) -> None:
        async def start() -> None:
            kept.append(asyncio.get_running_loop().create_task(background()))
            kept[-1].add_done_callback(lambda task: None)

        kept: list[Any] = []
        with hosting(propagated=(StopUser,)) as host:
            host.run(asyncio.sleep(0))
            host.loop.call_later(0.001, raise_stop_user)
            host.call(function, exception)

    with pytest.raises(StopUser) as raised:
        result(spawn(user, ValueError))
    assert isinstance(raised.value.__context__, ValueError)
    with pytest.raises(GreenletExit):
        result(spawn(user, GreenletExit))


def test_a_kill_of_a_function_waits_for_a_callback_that_blocks_but_not_for_ever() -> None:
    blocked = Event()

    def block() -> None:
        blocked.set()
        gevent.sleep(FOREVER)

    def user(seconds: float) -> None:
        with hosting(cancel_timeout=seconds) as host:
            host.run(asyncio.sleep(0))
            host.loop.call_later(0.001, block)
            host.call(gevent.sleep, FOREVER)

    greenlet = gevent.spawn(user, 0.01)
    assert blocked.wait(20)
    greenlet.kill(timeout=20)
    assert greenlet.dead

    blocked.clear()
    greenlet = gevent.spawn(user, FOREVER)
    assert blocked.wait(20)
    greenlet.kill(block=False)
    gevent.sleep(0.01)
    assert not greenlet.dead
    greenlet.kill(timeout=20)
    assert greenlet.dead


def test_a_kill_of_who_waits_for_a_callback_that_blocks_after_the_function() -> None:
    blocked = Event()

    def block() -> None:
        blocked.set()
        gevent.sleep(FOREVER)

    def user() -> None:
        with hosting(cancel_timeout=1) as host:
            host.run(asyncio.sleep(0))
            host.loop.call_later(0.001, block)
            host.call(blocked.wait)

    greenlet = gevent.spawn(user)
    assert blocked.wait(20)
    gevent.sleep(0.01)
    assert not greenlet.dead
    greenlet.kill(timeout=20)
    assert greenlet.dead


def test_many_users_killed_at_once() -> None:
    victims = [Victim(place, cleanup=lambda: asyncio.sleep(0.01)) for place in PLACES * 10]
    gevent.killall([victim.greenlet for victim in victims], timeout=30)
    assert all(victim.events[-1] is GreenletExit for victim in victims)
    assert all("cleaned up" in victim.events for victim in victims)
    together(lambda: None)
