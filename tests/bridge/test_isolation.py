"""Running loop, current task and contextvars belong to a greenlet, whatever blocks inside of it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import gevent
import greenlet
import pytest
from gevent.event import AsyncResult, Event
from gevent.lock import Semaphore
from gevent.monkey import is_module_patched
from gevent.queue import Queue
from gevent.socket import socketpair

from locust_ws_async.bridge import LoopHost, watch_blocking

from .helpers import hosting, native_thread, result, spawn, together, until

user: ContextVar[int] = ContextVar("user", default=-1)


@contextlib.contextmanager
def restored(variable: ContextVar[Any]) -> Iterator[None]:
    """Give the variable its value back: tests share the context of their greenlet."""
    value = variable.get()
    try:
        yield
    finally:
        variable.set(value)


class Blocking:
    """Ways to block a greenlet through gevent, in whatever it is called."""

    def __init__(self) -> None:
        self.lock = Semaphore()

    def turn(self) -> None:
        gevent.sleep(0)

    def sleep(self) -> None:
        gevent.sleep(0.001)

    def hold_lock(self) -> None:
        with self.lock:
            gevent.sleep(0)

    def event(self) -> None:
        event = Event()
        gevent.spawn(event.set)
        event.wait()

    def result(self) -> None:
        answer: AsyncResult[int] = AsyncResult()
        gevent.spawn_later(0.001, answer.set_exception, ValueError())
        with pytest.raises(ValueError):
            answer.get()

    def queue(self) -> None:
        queue: Queue[int] = Queue()
        gevent.spawn_later(0, queue.put, 1)
        queue.get()

    def join(self) -> None:
        gevent.spawn(gevent.sleep, 0).join()

    def socket(self) -> None:
        here, there = socketpair()
        gevent.spawn(there.sendall, b"x")
        here.recv(1)
        here.close()
        there.close()

    def timeout(self) -> None:
        with gevent.Timeout(0.001, False):
            gevent.sleep(10)

    def thread(self) -> None:
        gevent.get_hub().threadpool.apply(int)

    def standard_library(self) -> None:
        if is_module_patched("time"):
            time.sleep(0)
            lock = threading.Lock()
            lock.acquire()
            gevent.spawn(lock.release)
            lock.acquire()
            if gevent.get_hub().loop.default:  # gevent's child processes need the main thread's hub
                subprocess.run([sys.executable, "-S", "-c", ""], check=True)

    def any(self, chance: random.Random) -> None:
        ways = [self.turn, self.sleep, self.hold_lock, self.event, self.result, self.queue, self.join, self.timeout]
        rare = [self.socket, self.thread, self.standard_library]
        chance.choice(ways if chance.random() < 0.98 else rare)()


class Actor:
    """One user that mixes awaits and blocking calls at random, and looks around after each."""

    def __init__(self, number: int, blocking: Blocking, steps: int) -> None:
        self.number, self.steps = number, steps
        self.blocking = blocking
        self.chance = random.Random(number)
        self.looks = 0

    def run(self) -> int:
        user.set(self.number)
        with hosting() as host:
            host.run(self.main(host))
            host.sleep(0.001)
            self.look_outside()
            host.run(self.main(host))
        self.look_outside()
        return self.looks

    def look_outside(self) -> None:
        assert asyncio._get_running_loop() is None
        with pytest.raises(RuntimeError):
            asyncio.current_task()
        assert user.get() == self.number

    def look(self, task: asyncio.Task[Any] | None) -> None:
        assert asyncio.get_running_loop() is self.loop
        assert asyncio.current_task() is task
        assert user.get() == self.number
        self.looks += 1

    async def main(self, host: LoopHost) -> None:
        self.loop = asyncio.get_running_loop()
        assert self.loop is host.loop
        background = asyncio.create_task(self.steps_of_a_task())
        await self.steps_of_a_task()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.steps_of_a_task())
            group.create_task(self.steps_of_a_task())
        await background

    async def steps_of_a_task(self) -> None:
        this = asyncio.current_task()
        for _ in range(self.steps):
            self.look(this)
            await self.chance.choice([self.block, self.turn, self.sleep, self.callback, self.child, self.timeout])()
            self.look(this)

    async def block(self) -> None:
        this = asyncio.current_task()
        self.blocking.any(self.chance)
        self.look(this)

    async def turn(self) -> None:
        await asyncio.sleep(0)

    async def sleep(self) -> None:
        await asyncio.sleep(self.chance.random() / 500)

    async def callback(self) -> None:
        called = self.loop.create_future()

        def callback() -> None:
            self.look(None)
            self.blocking.any(self.chance)
            self.look(None)
            called.set_result(None)

        self.loop.call_soon(callback)
        await called

    async def child(self) -> None:
        await asyncio.gather(self.block(), self.turn(), self.block())

    async def timeout(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                self.blocking.any(self.chance)
                await asyncio.sleep(30)


def test_users_that_block_and_await_at_random_never_see_each_other() -> None:
    blocking = Blocking()
    actors = [Actor(number, blocking, steps=5) for number in range(100)]
    done = Event()
    looks_from_outside = 0

    def outsider() -> None:
        nonlocal looks_from_outside
        while not done.is_set():
            assert asyncio._get_running_loop() is None
            gevent.sleep(0)
            looks_from_outside += 1

    def insiders() -> None:
        try:
            assert sum(together(*(actor.run for actor in actors), seconds=60)) > 10_000
        finally:
            done.set()

    together(insiders, *[outsider] * 5, seconds=70)
    assert looks_from_outside > 100


@pytest.mark.parametrize("way", [way for way in vars(Blocking) if not way.startswith("_") and way != "any"])
def test_each_way_to_block_gives_the_loop_back(way: str, host: LoopHost) -> None:
    async def main() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        getattr(Blocking(), way)()
        assert (asyncio.get_running_loop(), asyncio.current_task()) == (loop, task)

    seen = []

    def other() -> None:
        with hosting() as other_host:
            other_host.run(asyncio.sleep(0))
            seen.append(asyncio._get_running_loop())

    bystander = spawn(other)
    host.run(main())
    result(bystander)
    assert seen == [None]


def test_two_users_blocked_at_once_come_back_in_either_order(host: LoopHost) -> None:
    first, second = Event(), Event()
    order: list[str] = []

    def blocked(name: str, event: Event) -> None:
        async def main() -> None:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            event.wait()
            order.append(name)
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() is task
            await asyncio.sleep(0)
            async with asyncio.timeout(10):
                await asyncio.sleep(0.001)

        with hosting() as own:
            own.run(main())

    for opening in ([first, second], [second, first]):
        greenlets = [spawn(blocked, "first", first), spawn(blocked, "second", second)]
        gevent.sleep(0.01)
        for event in opening:
            event.set()
            gevent.sleep(0.01)
        for each in greenlets:
            result(each)
        first.clear()
        second.clear()
    assert order == ["first", "second", "second", "first"]


def test_a_greenlet_beside_the_loop_sees_no_loop_and_may_host_one(host: LoopHost) -> None:
    async def main() -> str:
        assert await asyncio.to_thread(asyncio._get_running_loop) is None

        def beside() -> str:
            with hosting() as another:
                return another.run(asyncio.sleep(0.001, "beside"))

        return await asyncio.to_thread(beside)

    assert host.run(main()) == "beside"


def test_a_greenlet_that_a_coroutine_switches_into_shares_its_loop(host: LoopHost) -> None:
    """What SQLAlchemy does to call synchronous code from a coroutine, and that may block."""

    async def main() -> tuple[Any, Any]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def synchronous() -> tuple[Any, Any]:
            gevent.sleep(0.001)
            return asyncio.get_running_loop(), asyncio.current_task()

        assert greenlet.greenlet(synchronous).switch() == (loop, task)
        assert (asyncio.get_running_loop(), asyncio.current_task()) == (loop, task)

    async def other() -> None:
        for _ in range(20):
            await asyncio.sleep(0.0001)

    def bystander() -> None:
        with hosting() as own:
            own.run(other())

    together(bystander, lambda: None)
    beside = spawn(bystander)
    host.run(main())
    result(beside)


def test_contextvars_of_a_task_survive_blocking(host: LoopHost) -> None:
    async def task(number: int) -> int:
        user.set(number)
        gevent.sleep(0.001)
        await asyncio.sleep(0.001)
        gevent.sleep(0)
        return user.get()

    async def main() -> list[int]:
        user.set(99)
        numbers = await asyncio.gather(*(task(number) for number in range(10)))
        assert user.get() == 99
        return numbers

    with restored(user):
        assert host.run(main()) == list(range(10))


async def set_user(number: int) -> Any:
    await asyncio.sleep(0)
    return user.set(number)


async def get_user() -> int:
    await asyncio.sleep(0)
    return user.get()


def test_contextvars_go_on_from_run_to_run_and_through_plain_code() -> None:
    """As with asyncio.Runner; and each greenlet has its own."""

    async def reset(token: Any) -> None:
        user.reset(token)

    def plain(number: int) -> int:
        before = user.get()
        user.set(number)
        gevent.sleep(0.001)  # now another greenlet serves the loop
        return before

    def users_greenlet(number: int) -> None:
        with hosting() as own:
            token = own.run(set_user(number))
            for _ in range(3):
                gevent.sleep(0.001)
                assert user.get() == own.run(get_user()) == own.call(user.get) == number
            assert own.call(plain, number + 1) == number
            assert user.get() == own.run(get_user()) == number + 1
            own.run(reset(token))  # which works in the context of set() only
            assert user.get() == own.run(get_user()) == -1

    with restored(user):
        user.set(-1)
        together(*(lambda n=n: users_greenlet(n) for n in range(0, 100, 10)))


def test_contextvars_of_background_tasks_are_copies(host: LoopHost) -> None:
    async def background() -> list[int]:
        before = user.get()
        user.set(3)
        while user_of_the_host() == 1:
            await asyncio.sleep(0.001)
        return [before, user.get()]

    async def start() -> asyncio.Task[list[int]]:
        user.set(1)
        return asyncio.create_task(background())

    async def end(task: asyncio.Task[list[int]]) -> list[int]:
        return await task

    def user_of_the_host() -> int:
        context = here.gr_context
        assert context is not None
        return context[user]

    here = greenlet.getcurrent()
    with restored(user):
        task = host.run(start())
        host.sleep(0.002)
        assert host.run(get_user()) == user.get() == 1
        host.call(user.set, 2)
        assert host.run(end(task)) == [1, 3]
        assert user.get() == 2


def test_contextvars_in_a_greenlet_that_had_none() -> None:
    def bare() -> None:
        assert greenlet.getcurrent().gr_context is None
        with hosting() as own:
            own.run(set_user(5))
            seen.append((own.run(get_user()), user.get()))

    seen: list[tuple[int, int]] = []
    started = greenlet.greenlet(bare, gevent.get_hub())
    gevent.get_hub().loop.run_callback(started.switch)
    until(lambda: started.dead)
    assert seen == [(5, 5)]


def test_a_host_where_a_context_is_entered() -> None:
    """No context can be entered twice: the coroutine works in a copy, as it would in asyncio.create_task()."""

    async def main() -> int:
        await asyncio.sleep(0)
        number = user.get()
        user.set(number + 1)
        return number

    def entered() -> None:
        user.set(7)
        with hosting() as own:
            assert [own.run(main()), own.run(main())] == [7, 7]

    contextvars.copy_context().run(entered)


def test_asynchronous_generators_end_in_the_loop_that_began_them() -> None:
    ended: list[tuple[Any, Any]] = []

    async def numbers() -> AsyncIterator[int]:
        loop = asyncio.get_running_loop()
        try:
            while True:
                yield 1
                gevent.sleep(0)
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            ended.append((loop, asyncio.get_running_loop()))

    async def main() -> None:
        kept = numbers()
        await anext(kept)
        for _ in range(3):
            dropped = numbers()
            await anext(dropped)
            gevent.sleep(0)
            await anext(dropped)
            del dropped
            gevent.sleep(0.001)
            await asyncio.sleep(0.001)
        kept_by_the_loop.append(kept)

    kept_by_the_loop: list[Any] = []

    def one() -> None:
        with hosting() as host:
            host.run(main())

    together(*[one] * 20)
    assert len(ended) == 20 * 4
    assert all(began is end for began, end in ended)
    assert len({began for began, _ in ended}) == 20
    assert sys.get_asyncgen_hooks() == (None, None)


def test_a_generator_may_be_driven_by_hand_while_loops_wait() -> None:
    """A greenlet without a loop does so, while a loop waits that descriptors have woken before."""
    here, there = socketpair()

    async def numbers() -> AsyncIterator[int]:
        yield 1

    async def main() -> None:
        reader, writer = await asyncio.open_connection(sock=here)
        for _ in range(4):
            assert await reader.readexactly(1) == b"x"
        writer.close()

    def user() -> None:
        with hosting() as host:
            host.run(main())

    waiting = spawn(user)
    gevent.sleep(0.001)
    for _ in range(3):
        there.send(b"x")
        gevent.sleep(0.001)
    with pytest.raises(StopIteration) as stopped:
        anext(numbers()).send(None)  # type: ignore[attr-defined]  # what await does
    assert stopped.value.value == 1
    there.send(b"x")
    result(waiting)
    there.close()


def test_a_loop_that_a_descriptor_wakes_gets_its_hooks_back() -> None:
    """Though other loops have begun and ended meanwhile."""
    here, there = socketpair()
    ended: list[Any] = []

    async def number() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            ended.append(asyncio.get_running_loop())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection(sock=here)
        for turn in range(3):
            for _ in range(2):  # before the second the timer is armed already: the loop takes its short cut
                await asyncio.wait_for(reader.readline(), 20)
            dropped = number()
            await anext(dropped)
            del dropped
            await asyncio.sleep(0.001)
            assert ended == [loop] * (turn + 1)
        writer.close()

    def user() -> None:
        with hosting() as host:
            host.run(main())

    def others() -> None:
        for _ in range(6):
            with hosting() as host:
                host.run(asyncio.sleep(0.005))
            there.sendall(b"line\n")
            gevent.sleep(0.005)

    together(user, others)
    there.close()


class Tracer:
    """A trace function of somebody else, which calls on to the one that it found."""

    def __init__(self) -> None:
        self.calls = 0

    def install(self) -> None:
        self.previous = greenlet.gettrace()
        greenlet.settrace(self)

    def remove(self) -> None:
        greenlet.settrace(self.previous)

    def __call__(self, event: str, args: Any) -> None:
        self.calls += 1
        if self.previous is not None:
            self.previous(event, args)


def test_trace_functions_of_others_keep_being_called(host: LoopHost) -> None:
    before, during, replacing = Tracer(), Tracer(), Tracer()

    async def main() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def look() -> None:
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() is task

        gevent.sleep(0)
        gevent.spawn(during.install)
        gevent.sleep(0.001)
        look()
        gevent.spawn(before.remove)  # out of order
        gevent.sleep(0.001)
        look()
        gevent.spawn(replacing.install)
        gevent.spawn(during.remove)
        gevent.sleep(0.001)
        look()
        await asyncio.sleep(0)

    def blocked() -> None:
        with hosting() as own:
            own.run(main())

    before.install()
    calls = before.calls
    gevent.sleep(0)
    assert before.calls > calls
    try:
        blocked()
        for tracer in (before, during):
            assert tracer.calls > 0
        during.install()
        calls = during.calls
        host.run(asyncio.sleep(0.001))
        assert during.calls > calls
    finally:
        greenlet.settrace(None)


def test_loops_in_threads_with_hubs_of_their_own() -> None:
    """A hub per OS thread; the threads of gevent's pool are real ones."""

    def in_a_thread(number: int) -> int:
        actors = [Actor(number, Blocking(), steps=2) for number in range(10 * number, 10 * number + 5)]
        looks = sum(together(*(actor.run for actor in actors)))
        gevent.get_hub().destroy()
        return looks

    looks: list[int] = []
    threads = [native_thread(lambda number=number: looks.append(in_a_thread(number))) for number in range(4)]
    here = spawn(Actor(99, Blocking(), steps=5).run)
    for ended in threads:
        until(ended)
    assert result(here) > 0
    assert len(looks) == 4
    assert all(looks)


def test_a_foreign_loop_is_left_alone(host: LoopHost) -> None:
    async def foreign() -> str:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        gevent.sleep(0.001)
        assert (asyncio.get_running_loop(), asyncio.current_task()) == (loop, task)
        return "foreign"

    async def hosted() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(10):
            gevent.sleep(0)
            await asyncio.sleep(0)
            assert asyncio.get_running_loop() is loop

    def plain() -> str:
        answer = asyncio.run(foreign())
        asyncio.set_event_loop(None)
        return answer

    def user() -> None:
        with hosting() as own:
            own.run(hosted())

    assert together(plain, user, plain, user)[::2] == ["foreign", "foreign"]


class Watch:
    """Notes who blocks, and that it is back."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []

    def on_block(self) -> int:
        self.calls.append(("block", None))
        return len(self.calls)

    def on_unblock(self, before: object) -> None:
        assert asyncio.get_running_loop() is not None and asyncio.current_task() is not None
        caller = sys._getframe()
        while caller.f_code.co_filename != __file__ or caller.f_code.co_name == "on_unblock":
            assert caller.f_back is not None
            caller = caller.f_back
        self.calls.append((caller.f_code.co_name, before))


def test_who_watches_is_told_of_each_block_and_of_nothing_else() -> None:
    watch = Watch()

    async def blocks() -> None:
        gevent.sleep(0.001)

    async def awaits() -> None:
        await asyncio.sleep(0.001)
        await asyncio.to_thread(gevent.sleep, 0.001)

    async def is_killed() -> None:
        gevent.sleep(10)

    with hosting() as host:
        watch_blocking(watch)
        try:
            host.run(awaits())
            host.call(gevent.sleep, 0.001)
            gevent.sleep(0.001)
            assert watch.calls == []
            host.run(blocks())
            assert watch.calls == [("block", None), ("blocks", 1)]
        finally:
            watch_blocking(None)
        host.run(blocks())
    assert len(watch.calls) == 2

    def killed() -> None:
        with hosting() as host:
            host.run(is_killed())

    watch_blocking(watch)
    try:
        greenlet = spawn(killed)
        until(lambda: len(watch.calls) == 3)
        greenlet.kill()
    finally:
        watch_blocking(None)
    assert watch.calls[2:4] == [("block", None), ("is_killed", 3)]
