"""Descriptors and timers on the hub: nothing is lost, nobody starves, and waiting costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import psutil
import pytest
from gevent.event import Event
from gevent.monkey import get_original
from greenlet import getcurrent, settrace

from locust_ws_async.bridge import GreenletEventLoop, LoopHost
from locust_ws_async.bridge.selector import POLLS_PER_HUB_TURN

from ..support import SCALE
from .helpers import hosting, native_thread, result, spawn, together, until, watchers

FOREVER = 1000

plain_socketpair = get_original("socket", "socketpair")  # as gevent's would only be in the way


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets that do not block."""
    here, there = plain_socketpair()
    here.setblocking(False)
    there.setblocking(False)
    with here, there:
        yield here, there


@contextlib.contextmanager
def hub_turns() -> Iterator[Callable[[], int]]:
    """Counts the hub's turns."""
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1

    watcher = gevent.get_hub().loop.check(ref=False)
    watcher.start(count)
    try:
        yield lambda: turns
    finally:
        watcher.stop()
        watcher.close()


# Readiness


def test_a_turn_of_the_loop_polls(host: LoopHost, pair: Any) -> None:
    """As code relies on that says ``await asyncio.sleep(0)`` to let I/O in."""
    here, there = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        received: list[bytes] = []
        loop.add_reader(here, lambda: received.append(here.recv(10)))
        for turn in range(3 * POLLS_PER_HUB_TURN):  # in whichever turn it arrives
            there.send(b"x")
            for _ in range(2):  # one to poll, one to call
                await asyncio.sleep(0)
            assert len(received) == turn + 1
            for _ in range(turn):
                await asyncio.sleep(0)
        loop.remove_reader(here)

    host.run(main())


def test_readiness_that_comes_while_the_greenlet_blocks_is_remembered_without_spinning(
    host: LoopHost, pair: Any
) -> None:
    here, there = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        readable, writable = asyncio.Event(), asyncio.Event()
        loop.add_reader(here, readable.set)
        await asyncio.sleep(0.001)
        there.send(b"x")
        with hub_turns() as turns:
            gevent.sleep(0.05)
            assert turns() < 10
        await readable.wait()
        loop.add_writer(here, writable.set)
        await writable.wait()
        loop.remove_writer(here)
        assert here.recv(10) == b"x"
        readable.clear()
        gevent.sleep(0.01)
        there.send(b"y")
        await readable.wait()
        loop.remove_reader(here)

    host.run(main())


def test_what_comes_after_remembered_readiness_is_noticed_too(host: LoopHost, pair: Any) -> None:
    here, there = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        received: asyncio.Queue[bytes] = asyncio.Queue()
        loop.add_reader(here, lambda: received.put_nowait(here.recv(10)))
        for _ in range(3):
            there.send(b"blocked")
            gevent.sleep(0.005)
            assert await asyncio.wait_for(received.get(), 20) == b"blocked"
            loop.call_later(0.001, there.send, b"parked")
            assert await asyncio.wait_for(received.get(), 20) == b"parked"
        loop.remove_reader(here)

    host.run(main())


@pytest.mark.parametrize("change", ["remove", "replace", "add a writer"])
def test_a_change_of_mind_while_readiness_is_remembered(change: str, host: LoopHost, pair: Any) -> None:
    here, there = pair
    called: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(here, called.append, "first")
        await asyncio.sleep(0.001)
        there.send(b"x")
        gevent.sleep(0.01)
        if change == "remove":
            loop.remove_reader(here)
            for _ in range(2 * POLLS_PER_HUB_TURN):
                await asyncio.sleep(0)
            assert called == []
        elif change == "replace":
            loop.remove_reader(here)
            loop.add_reader(here, called.append, "second")
            await asyncio.sleep(0.005)
            assert set(called) == {"second"}
        else:
            loop.add_writer(here, called.append, "writable")
            await asyncio.sleep(0.005)
            assert set(called) == {"first", "writable"}
            loop.remove_writer(here)
        loop.remove_reader(here)

    host.run(main())


def test_two_descriptors_that_become_ready_together_are_both_served(host: LoopHost) -> None:
    pairs = [plain_socketpair() for _ in range(20)]
    received: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def read(number: int) -> None:
            received.append(pairs[number][0].recv(1)[0])
            loop.remove_reader(pairs[number][0])
            if len(received) == len(pairs):
                done.set()

        for number, (here, _) in enumerate(pairs):
            loop.add_reader(here, read, number)
        loop.call_later(0.001, lambda: [there.send(bytes([number])) for number, (_, there) in enumerate(pairs)])
        await done.wait()

    host.run(main())
    assert sorted(received) == list(range(20))
    for here, there in pairs:
        here.close()
        there.close()


def test_a_hang_up_is_reported_to_reader_and_writer(host: LoopHost) -> None:
    """Both by parking and by polling."""

    async def main(spin: bool) -> None:
        loop = asyncio.get_running_loop()
        here, there = plain_socketpair()
        here.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:  # until it is not writable
                here.send(bytes(65536))
        called: set[str] = set()
        loop.add_reader(here, called.add, "reader")
        loop.add_writer(here, called.add, "writer")
        await asyncio.sleep(0.001)
        assert called == set()
        there.close()
        while called != {"reader", "writer"}:
            await asyncio.sleep(0 if spin else 0.001)
        loop.remove_reader(here)
        loop.remove_writer(here)
        here.close()

    host.run(main(spin=False))
    host.run(main(spin=True))


def test_a_descriptor_that_is_closed_without_notice_hurts_nobody_else(host: LoopHost, pair: Any) -> None:
    here, there = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for spin in (False, True):
            asked = asyncio.Event()
            reading, writing = os.pipe()
            loop.add_reader(reading, lambda: None)
            # The system must have been asked about it by now: libuv aborts if it does not know a new descriptor.
            loop.add_writer(there, asked.set)
            await asked.wait()
            loop.remove_writer(there)
            get_original("os", "close")(reading)
            received: list[bytes] = []
            loop.add_reader(here, lambda received=received: received.append(here.recv(10)))
            there.send(b"x")
            while not received:
                await asyncio.sleep(0 if spin else 0.001)
            assert loop.remove_reader(reading)
            get_original("os", "close")(writing)
            loop.remove_reader(here)
            # The numbers are given out again.
            again = os.pipe()
            assert reading in again
            readable = asyncio.Event()
            loop.add_reader(again[0], readable.set)
            os.write(again[1], b"x")
            await readable.wait()
            loop.remove_reader(again[0])
            for descriptor in again:
                get_original("os", "close")(descriptor)

    host.run(main())


def test_a_bad_descriptor_is_refused(host: LoopHost) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        get_original("os", "close")(reading)
        get_original("os", "close")(writing)
        with pytest.raises((ValueError, OSError)):
            loop.add_reader(reading, lambda: None)
        assert not loop.remove_reader(reading)
        await asyncio.sleep(0.001)

    host.run(main())


# Waking up


def test_no_wake_up_is_lost() -> None:
    """Loops without a timer or descriptor that could wake them by chance; greenlets and threads that call them."""
    calls = 300
    loops: list[GreenletEventLoop] = []
    ready = [Event() for _ in range(8)]

    def user(number: int) -> int:
        chance = random.Random(number)
        count = 0
        with hosting() as host:

            async def main() -> None:
                loop = asyncio.get_running_loop()
                assert isinstance(loop, GreenletEventLoop)
                done = loop.create_future()

                def called() -> None:
                    nonlocal count
                    count += 1
                    if chance.random() < 0.1:
                        gevent.sleep(chance.choice([0, 0.001]))  # so that calls come while it blocks
                    if count == 4 * calls:
                        done.set_result(None)

                loop.called = called  # type: ignore[attr-defined]
                loops.append(loop)
                ready[number].set()
                await done

            host.run(main())
        return count

    users = [spawn(user, number) for number in range(8)]
    for event in ready:
        event.wait()

    def from_a_thread(loop: Any) -> Callable[[], None]:
        def run() -> None:
            for number in range(calls):
                loop.call_soon_threadsafe(loop.called)
                if number % 50 == 0:
                    get_original("time", "sleep")(0.001)

        return run

    def from_a_greenlet(loop: Any, call: Callable[[Any], None], seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(calls):
            call(loop)
            if chance.random() < 0.3:
                gevent.sleep(chance.choice([0, 0, 0, 0.001]))

    threads = [native_thread(from_a_thread(loop)) for loop in loops]
    ways: list[Callable[[Any], None]] = [
        lambda loop: loop.call_soon(loop.called),
        lambda loop: loop.call_later(0.0001, loop.called),
        lambda loop: loop.call_soon_threadsafe(loop.called),
    ]
    greenlets = [
        spawn(from_a_greenlet, loop, way, seed) for loop in loops for seed, way in enumerate(ways, start=id(loop) % 97)
    ]
    for greenlet in greenlets:
        result(greenlet, seconds=60)
    for ended in threads:
        until(ended, seconds=60)
    assert [result(each, seconds=60) for each in users] == [4 * calls] * 8


@pytest.mark.parametrize("kill_first", [False, True])
def test_a_wake_up_survives_a_kill_that_comes_with_one(kill_first: bool) -> None:
    loops: list[Any] = []

    def user() -> str:
        with hosting() as host:
            with contextlib.suppress(gevent.GreenletExit):
                host.run(asyncio.sleep(0))
                loops.append(host.loop)
                host.run(asyncio.sleep(FOREVER))
            return host.run(woken_by_another_greenlet(loops[0]))

    async def woken_by_another_greenlet(loop: Any) -> str:
        future = loop.create_future()
        gevent.spawn_later(0.001, loop.call_soon, future.set_result, "woken")
        return str(await future)

    greenlet = spawn(user)
    until(lambda: loops)
    if kill_first:
        greenlet.kill(block=False)
    loops[0].call_soon(int)
    if not kill_first:
        greenlet.kill(block=False)
    assert result(greenlet) == "woken"


def test_a_loop_waits_for_other_threads_also_where_nothing_else_is_left() -> None:
    """gevent's hub would say that this blocks for ever: it does not know of the thread."""
    script = """
        import asyncio, _thread, time
        from locust_ws_async.bridge import LoopHost

        async def main():
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            def thread():
                time.sleep(0.05)
                loop.call_soon_threadsafe(future.set_result, "woken")
            _thread.start_new_thread(thread, ())
            return await future

        host = LoopHost()
        print(host.run(main()))
        host.close()
    """
    assert python(script) == "woken\n"


# Fairness


def test_a_coroutine_that_spins_leaves_others_running(host: LoopHost, pair: Any) -> None:
    """Greenlets that only want a turn, and those that wait for a socket."""
    done = Event()
    turns = {"plain": 0, "hosted": 0, "socket": 0}

    def plain() -> None:
        while not done.is_set():
            gevent.sleep(0)
            turns["plain"] += 1

    def hosted() -> None:
        async def main() -> None:
            while not done.is_set():
                await asyncio.sleep(0.0001)
                turns["hosted"] += 1

        with hosting() as own:
            own.run(main())

    def over_a_socket() -> None:
        here, there = gevent.socket.socketpair()
        with here, there:
            while not done.is_set():
                there.send(b"x")
                here.recv(1)
                turns["socket"] += 1
                gevent.sleep(0.001)

    async def spinning() -> None:
        while not all(count > 50 for count in turns.values()):
            await asyncio.sleep(0)

    others = [spawn(plain), spawn(hosted), spawn(over_a_socket)]
    try:
        host.run(asyncio.wait_for(spinning(), 20))
    finally:
        done.set()
    for other in others:
        result(other)


def test_a_flood_of_messages_leaves_timers_and_others_running(host: LoopHost, pair: Any) -> None:
    here, there = pair
    others = 0

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def read() -> None:  # never empty
            here.recv(1)
            there.send(b"x")

        def timer(count: int) -> None:
            if count == 0:
                done.set()
            else:
                loop.call_later(0.0005, timer, count - 1)

        there.send(b"x")
        loop.add_reader(here, read)
        timer(20)
        await done.wait()
        loop.remove_reader(here)

    def other() -> None:
        nonlocal others
        while True:
            gevent.sleep(0)
            others += 1

    beside = gevent.spawn(other)
    together(lambda: host_run(main))
    beside.kill()
    assert others > 20


def host_run(main: Callable[[], Any]) -> Any:
    with hosting() as host:
        return host.run(main())


def test_idle_loops_cost_nothing(host: LoopHost) -> None:
    ready = 0

    def user() -> None:
        with hosting() as own:
            own.run(idle())

    async def idle() -> None:
        nonlocal ready
        ready += 1
        await asyncio.get_running_loop().create_future()

    users = [gevent.spawn(user) for _ in range(1000)]
    until(lambda: ready == len(users))
    descriptors = psutil.Process().num_fds() if hasattr(psutil.Process, "num_fds") else 0
    with hub_turns() as turns:
        gevent.sleep(0.3)
        assert turns() < 10
    gevent.killall(users, timeout=60)
    if descriptors:
        assert psutil.Process().num_fds() == descriptors  # not one of a thousand loops had a descriptor


# Timers


def test_thousands_of_timers_need_one_watcher_and_no_more_work_each_than_hundreds(host: LoopHost) -> None:
    def calls(number: int) -> int:
        """How many calls of functions it takes to make *number* timers, to cancel most and to wait for the rest."""
        count = 0

        def profile(frame: Any, event: str, arg: Any) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        async def main() -> None:
            loop = asyncio.get_running_loop()
            chance = random.Random(1)
            before = watchers()
            done: list[int] = []
            sys.setprofile(profile)
            timers = [loop.call_later(FOREVER * chance.random() + 1, done.append, n) for n in range(number)]
            kept = [loop.call_later(0.01 * chance.random(), done.append, n) for n in range(number // 10)]
            for timer in timers:
                timer.cancel()
                if chance.random() < 0.01:
                    await asyncio.sleep(0)
            sys.setprofile(None)
            assert watchers() <= before + 2  # the loop's one timer, and a turn of the hub
            while len(done) < len(kept):
                await asyncio.sleep(0.001)

        host.run(main())
        return count

    host.run(asyncio.sleep(0.001))
    before = watchers()
    few, many = calls(1000), calls(10_000)
    assert watchers() == before
    assert many / 10_000 < 1.5 * few / 1000


def test_timers_go_off_in_order_and_not_early(host: LoopHost) -> None:
    """Among others that are cancelled, before and behind them."""
    chance = random.Random(2)
    late: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        order: list[float] = []
        dues = [loop.time() + chance.random() / 50 for _ in range(200)]
        done = asyncio.Event()

        def due(when: float) -> None:
            late.append(loop.time() - when)
            order.append(when)
            if len(order) == len(dues):
                done.set()

        cancelled = []
        for when in dues:
            cancelled.append(loop.call_at(when - 0.005, order.append, -1.0))
            loop.call_at(when, due, when)
            cancelled.append(loop.call_at(when + 0.001, order.append, -1.0))
            cancelled.pop(0).cancel()
        for timer in cancelled:
            timer.cancel()
        await done.wait()
        assert order == sorted(dues)

    host.run(main())
    assert min(late) > -0.001


def test_a_deadline_behind_a_cancelled_earlier_one_is_met(host: LoopHost) -> None:
    """The watcher is armed for the earlier one; it goes off, finds nothing, and must be armed again."""

    async def main() -> str:
        loop = asyncio.get_running_loop()
        for _ in range(2):
            future = loop.create_future()
            earlier = loop.call_later(0.1 * SCALE, future.set_exception, AssertionError)
            loop.call_later(0.1 * SCALE + 0.01, future.set_result, None)
            await asyncio.sleep(0.001)
            earlier.cancel()
            await future
        # And the other way round: armed for a later one.
        later = loop.call_later(FOREVER, print)
        await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)
        later.cancel()
        return await asyncio.wait_for(asyncio.sleep(0.001, "met"), 20)

    assert host.run(main()) == "met"
    assert host.run(asyncio.sleep(0.001, "again")) == "again"


def test_a_reader_that_takes_the_place_of_another_is_called(host: LoopHost, pair: Any) -> None:
    """Its descriptor is watched for the same as before, and by a wait that goes straight to the reader."""
    here, there = pair

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        called: list[str] = []
        for name in ("first", "second", "third"):
            read = loop.create_future()

            def reader(name: str = name, read: asyncio.Future[None] = read) -> None:
                here.recv(1)
                called.append(name)
                read.set_result(None)

            loop.add_reader(here, reader)
            gevent.spawn_later(0.001, there.send, b"x")
            await asyncio.wait_for(read, 20)
        loop.remove_reader(here)
        return called

    assert host.run(main()) == ["first", "second", "third"]


def test_timeouts_that_were_cancelled_wake_nobody(host: LoopHost) -> None:
    """Thousands of users whose connects had a timeout each would all be woken for nothing when it is over."""
    woken = 0

    def trace(event: str, switched: tuple[Any, Any]) -> None:
        nonlocal woken
        woken += switched[1] is here

    async def main() -> int:
        loop = asyncio.get_running_loop()
        connected, ended = loop.create_future(), loop.create_future()
        timeouts = [loop.call_later(0.03 + 0.001 * n, print, "not cancelled") for n in range(20)]
        gevent.spawn_later(0.001, connected.set_result, None)
        await connected
        for timeout in timeouts:
            timeout.cancel()
        gevent.spawn_later(0.1, ended.set_result, None)
        before = woken
        await ended
        return woken - before

    here = getcurrent()
    previous = settrace(trace)
    try:
        assert host.run(main()) == 1
    finally:
        settrace(previous)


def test_a_timer_that_goes_off_while_the_greenlet_blocks_is_not_forgotten(host: LoopHost) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_later(0.002, future.set_result, "called")
        gevent.sleep(0.01)
        return str(await future)

    assert host.run(main()) == "called"


# Where it ends


def test_closing_leaves_no_watcher(pair: Any) -> None:
    here, there = pair
    gevent.sleep(0.001)
    before = watchers()
    for _ in range(3):
        with hosting() as host:
            host.run(asyncio.sleep(0.001))
            assert host.loop is not None
            host.loop.add_reader(here, lambda: None)
            host.loop.add_writer(there, lambda: None)
            host.loop.call_later(FOREVER, print)
            assert watchers() > before
        assert watchers() == before


def test_a_thread_that_ends_its_hub_after_its_loop() -> None:
    ended: list[str] = []

    def thread() -> None:
        with hosting() as host:
            ended.append(host.run(asyncio.sleep(0.001, "run")))
        gevent.get_hub().destroy(destroy_loop=True)
        ended.append("destroyed")

    until(native_thread(thread))
    assert ended == ["run", "destroyed"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_host_made_before_a_fork_works_in_both_processes() -> None:
    script = """
        import asyncio, os, sys
        import gevent
        from locust_ws_async.bridge import LoopHost

        async def main():
            here, there = gevent.socket.socketpair()
            reader, writer = await asyncio.open_connection(sock=here)
            there.send(b"line\\n")
            line = await reader.readline()
            await asyncio.to_thread(there.close)
            writer.close()
            return line

        host = LoopHost()
        gevent.sleep(0.001)
        pid = os.fork()
        assert host.run(main()) == b"line\\n"
        host.close()
        if pid:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            print("both")
    """
    assert python(script) == "both\n"


def python(script: str) -> str:
    """What *script* prints, in a process of its own, patched if this one is."""
    if gevent.monkey.is_module_patched("socket"):
        script = "from gevent import monkey; monkey.patch_all()\n" + textwrap.dedent(script)
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout
