"""Blocking work beside the loop, in greenlets, and calls into the loop from other greenlets and threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import os
import signal
import socket
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.local import local
from gevent.monkey import get_original

from locust_ws_async.bridge import LoopHost
from locust_ws_async.bridge.executor import GreenletExecutor

from .helpers import hosting, native_thread, result, spawn, together, until

FOREVER = 1000

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")


def test_blocking_work_runs_beside_the_loop_in_the_same_thread(host: LoopHost) -> None:
    release = Event()

    def blocking(word: str, *, times: int) -> tuple[str, Any, Any]:
        release.wait()
        return word * times, gevent.getcurrent(), get_original("threading", "get_ident")()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.001, release.set)  # which the loop calls while it blocks
        word, greenlet, thread = await asyncio.to_thread(blocking, "ab", times=2)
        assert word == "abab"
        assert greenlet is not gevent.getcurrent()
        assert thread == get_original("threading", "get_ident")()
        assert await loop.run_in_executor(None, len, "four") == 4

    host.run(main())


def test_a_thousand_blocking_calls_take_as_long_as_one(host: LoopHost) -> None:
    begun = 0
    everybody = Event()

    def blocking() -> None:
        nonlocal begun
        begun += 1
        if begun == 1000:
            everybody.set()
        assert everybody.wait(20)

    async def main() -> None:
        await asyncio.gather(*(asyncio.to_thread(blocking) for _ in range(1000)))

    host.run(main())


def test_contextvars_locals_and_exceptions_are_as_with_threads(host: LoopHost) -> None:
    data = local()

    def look() -> tuple[str, bool]:
        found = variable.get(), hasattr(data, "mine")
        variable.set("changed beside")
        data.mine = 1
        return found

    def fail() -> None:
        raise KeyError("beside")

    async def main() -> None:
        variable.set("of the task")
        data.mine = 0
        assert await asyncio.to_thread(look) == ("of the task", False)
        assert (variable.get(), data.mine) == ("of the task", 0)
        with pytest.raises(KeyError, match="beside"):
            await asyncio.to_thread(fail)

    host.run(main())


def test_a_cancelled_wait_leaves_the_call_running_as_with_threads(host: LoopHost) -> None:
    release, begun, ended = Event(), [], []

    def blocking() -> None:
        begun.append(True)
        release.wait()
        ended.append(True)

    async def main() -> None:
        call = asyncio.create_task(asyncio.to_thread(blocking))
        while not begun:
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, 0.001)
        assert ended == []
        release.set()
        while not ended:
            await asyncio.sleep(0)

    host.run(main())


def test_a_call_that_has_not_begun_can_be_cancelled(host: LoopHost) -> None:
    called = []

    async def main() -> None:
        future = asyncio.get_running_loop().run_in_executor(None, called.append, True)
        future.cancel()
        await asyncio.sleep(0.001)

    host.run(main())
    assert called == []


def test_closing_ends_the_calls_that_still_block() -> None:
    ended = []
    begun = Event()

    def blocking() -> None:
        begun.set()
        try:
            gevent.sleep(FOREVER)
        finally:
            ended.append(True)

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, blocking)
        asyncio.get_running_loop().run_in_executor(None, blocking)
        while not begun.is_set():
            await asyncio.sleep(0)

    with hosting() as host:
        host.run(main())
    gevent.sleep(0.001)
    assert ended == [True, True]


def test_the_default_executor_can_be_shut_down_and_replaced(host: LoopHost) -> None:
    release = Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        blocking = loop.run_in_executor(None, release.wait)
        loop.call_later(0.001, release.set)
        await loop.shutdown_default_executor()
        assert blocking.done()
        with pytest.raises(RuntimeError, match="shutdown"):
            await loop.run_in_executor(None, int)

    host.run(main())
    host.close()

    async def replace() -> None:
        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            loop.set_default_executor(threads)
            assert await loop.run_in_executor(None, int, "3") == 3
            await loop.shutdown_default_executor()

    host.run(replace())


def test_a_shutdown_that_takes_too_long_warns_and_goes_on(host: LoopHost) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        blocking = loop.run_in_executor(None, gevent.sleep, FOREVER)
        with pytest.warns(RuntimeWarning, match="0.001 seconds"):
            await loop.shutdown_default_executor(0.001)  # type: ignore[call-arg] # asyncio's own since Python 3.12
        blocking.cancel()

    host.run(main())


def test_asyncios_runner_shuts_its_executor_down() -> None:
    """What ``asyncio.run()`` does at its end, with our loop."""
    from locust_ws_async.bridge import GreenletEventLoop

    async def main() -> int:
        return await asyncio.to_thread(len, "four")

    with asyncio.Runner(loop_factory=GreenletEventLoop) as runner:
        assert runner.run(main()) == 4


def test_an_executor_outside_of_asyncio() -> None:
    with GreenletExecutor() as executor:
        futures = [executor.submit(pow, number, 2) for number in range(3)]
    assert [future.result() for future in futures] == [0, 1, 4]
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(int)

    executor = GreenletExecutor()
    begun = executor.submit(gevent.sleep, 0.001)
    gevent.sleep(0)
    waiting = executor.submit(gevent.sleep, FOREVER)
    executor.shutdown(cancel_futures=True)
    assert begun.done()
    assert waiting.cancelled()


def test_names_are_resolved_without_stopping_the_loop(host: LoopHost) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        assert {info[4][0] for info in infos} & {"127.0.0.1", "::1"}
        assert await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV) == (
            "127.0.0.1",
            "80",
        )
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("name.invalid", 80)

    host.run(main())


def test_a_slow_name_server_stops_nobody(host: LoopHost, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = Event(), Event()

    class SlowResolver:
        """A resolver for gevent, as one may be set."""

        def getaddrinfo(self, *question: Any, **hints: Any) -> list[Any]:
            asked.set()
            assert answer.wait(20)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]

        def getnameinfo(self, *question: Any) -> tuple[str, str]:
            asked.set()
            assert answer.wait(20)
            return ("name.example", "http")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for question in (loop.getaddrinfo("name.example", 80), loop.getnameinfo(("192.0.2.1", 80))):
            asked.clear()
            answer.clear()
            asking = asyncio.ensure_future(question)
            while not asked.is_set():
                await asyncio.sleep(0)
            answer.set()
            assert "192.0.2.1" in str(await asking) or "name.example" in str(await asking)

    monkeypatch.setattr(gevent.get_hub(), "resolver", SlowResolver())
    host.run(main())


# Into the loop


def test_calls_from_threads_of_gevents_pool(host: LoopHost) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        gevent.get_hub().threadpool.spawn(loop.call_soon_threadsafe, future.set_result, 1)
        answers = [await future]

        async def answer(number: int) -> int:
            assert asyncio.get_running_loop() is loop
            await asyncio.sleep(0.001)
            return number

        def ask() -> int:
            return asyncio.run_coroutine_threadsafe(answer(2), loop).result(20)

        pool = gevent.get_hub().threadpool
        asked = pool.spawn(ask)
        while not asked.ready():
            await asyncio.sleep(0.001)
        answers.append(asked.get())
        return sum(answers)

    assert host.run(main()) == 3


def test_coroutines_from_other_greenlets(host: LoopHost) -> None:
    async def answer(number: int) -> int:
        await asyncio.sleep(0.001)
        return number

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()

        def ask(number: int) -> None:
            concurrent = asyncio.run_coroutine_threadsafe(answer(number), loop)
            concurrent.add_done_callback(lambda future: answers.append(future.result()))

        for number in range(10):
            gevent.spawn(ask, number)
        while len(answers) < 10:
            await asyncio.sleep(0.001)
        return sorted(answers)

    answers: list[int] = []
    assert host.run(main()) == list(range(10))


def test_calls_from_threads_while_no_coroutine_runs(host: LoopHost) -> None:
    called: list[str] = []
    host.run(asyncio.sleep(0))
    assert host.loop is not None
    until(native_thread(lambda: host.loop and host.loop.call_soon_threadsafe(called.append, "between")))
    assert called == []
    host.sleep(0.001)
    assert called == ["between"]


def test_a_call_from_the_wrong_thread_is_an_error(host: LoopHost) -> None:
    """As in asyncio's debug mode, here whenever the loop would not wake up."""
    errors: list[Exception] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def thread() -> None:
            while loop._selector.parked is None:  # type: ignore[attr-defined] # the thread came first
                get_original("time", "sleep")(0.001)
            for call in (lambda: loop.call_soon(print, "not called"), lambda: loop.call_later(0, print, "not called")):
                try:
                    call()
                except RuntimeError as exc:
                    errors.append(exc)
            loop.call_soon_threadsafe(done.set_result, None)

        done = loop.create_future()
        native_thread(thread)
        await done

    host.run(main())
    assert len(errors) == 2
    assert all("call_soon_threadsafe()" in str(error) for error in errors)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="Windows has no signal to send to oneself")
def test_a_call_from_a_signal_handler_wakes_the_loop(host: LoopHost) -> None:
    """Of ``signal.signal()``; those of the loop come another way."""

    async def main() -> str:
        loop = asyncio.get_running_loop()
        caught = loop.create_future()

        def thread() -> None:
            while loop._selector.parked is None:  # type: ignore[attr-defined] # the thread came first
                get_original("time", "sleep")(0.001)
            os.kill(os.getpid(), signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, lambda *_: loop.call_soon_threadsafe(caught.set_result, "caught"))
        try:
            native_thread(thread)
            return await caught
        finally:
            signal.signal(signal.SIGUSR1, before)

    assert host.run(main()) == "caught"


def test_greenlets_of_the_same_thread_may_call_as_they_like(host: LoopHost) -> None:
    """In debug mode too, where asyncio would take them for threads."""

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = FOREVER
        future = loop.create_future()
        called: list[int] = []
        gevent.spawn(loop.call_soon, called.append, 1)
        gevent.spawn(loop.call_later, 0.001, called.append, 2)

        def end() -> None:
            try:
                until(lambda: len(called) == 2)
            finally:
                loop.call_soon(future.set_result, None)

        gevent.spawn(end)
        await future
        loop.set_debug(False)
        return called

    assert host.run(main()) == [1, 2]


def test_users_answer_each_other() -> None:
    """A future of one loop, resolved from another's coroutine by way of call_soon."""

    def user(number: int) -> int:
        async def main() -> int:
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            waiting[number] = (loop, future)
            while len(waiting) < 10:
                await asyncio.sleep(0.0005)
            other_loop, other_future = waiting[(number + 1) % 10]
            other_loop.call_soon(other_future.set_result, number)
            return int(await future)

        with hosting() as host:
            return int(host.run(main()))

    waiting: dict[int, Any] = {}
    answers = together(*(lambda number=number: user(number) for number in range(10)))
    assert answers == [(number - 1) % 10 for number in range(10)]
    result(spawn(lambda: None))
