"""Mistakes get an error that says what to do: no hang, and no coroutine that "was never awaited"."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from locust_ws_async.bridge import GreenletEventLoop, LoopHost

from .helpers import hosting, native_thread, result, spawn, until

FOREVER = 1000


async def nothing() -> None:
    await asyncio.sleep(0)


def test_a_coroutine_inside_of_a_coroutine(host: LoopHost) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="await the coroutine instead"):
            host.run(nothing())
        with hosting() as another, pytest.raises(RuntimeError, match="await the coroutine there instead"):
            another.run(nothing())
        with pytest.raises(RuntimeError, match="await the coroutine instead"):
            host.close()

    host.run(main())
    assert host.call(int) == 0


def test_a_coroutine_inside_of_a_blocking_function(host: LoopHost) -> None:
    def function() -> None:
        gevent.sleep(0)
        with pytest.raises(RuntimeError, match="make it async"):
            host.run(nothing())

    host.run(nothing())
    host.call(function)
    assert host.run(asyncio.sleep(0, "next")) == "next"


def test_a_blocking_function_that_runs_the_loop_itself(host: LoopHost) -> None:
    """Whoever comes second finds the loop running, which would not pass however often it tried again."""

    def function() -> str:
        assert host.loop is not None
        # By another greenlet, so that the loop has to wait: the one that serves it has its turn then.
        return host.loop.run_until_complete(host.loop.run_in_executor(None, str, "to its end"))

    host.run(nothing())
    with pytest.raises(RuntimeError, match="already running"):
        host.call(function)
    assert host.call(int) == 0
    assert host.run(asyncio.sleep(0, "next")) == "next"


def test_a_coroutine_in_another_greenlet(host: LoopHost) -> None:
    def other() -> None:
        with pytest.raises(RuntimeError, match="belongs to another greenlet"):
            host.run(nothing())
        with pytest.raises(RuntimeError, match="belongs to another greenlet"):
            host.call(int)
        with pytest.raises(RuntimeError, match="belongs to another greenlet"):
            host.close()
        host.sleep(0.001)  # which is as good as any other sleep

    host.run(nothing())
    result(spawn(other))


def test_a_loop_in_another_greenlet_while_it_runs(host: LoopHost) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def other() -> None:
            coro = nothing()
            with pytest.raises(RuntimeError, match="already running"):
                loop.run_until_complete(coro)
            coro.close()
            with pytest.raises(RuntimeError, match="running"):
                loop.close()

        await asyncio.to_thread(other)
        # That has done no harm.
        assert asyncio.get_running_loop() is loop
        await asyncio.sleep(0.001)

    host.run(main())


def test_asyncio_run_inside_of_a_coroutine(host: LoopHost) -> None:
    async def main() -> str:
        coro = nothing()
        with pytest.raises(RuntimeError, match="running event loop"):
            asyncio.run(coro)
        coro.close()
        await asyncio.sleep(0)
        return "went on"

    assert host.run(main()) == "went on"


def test_a_host_inside_of_asyncio_run() -> None:
    async def main() -> None:
        with hosting() as host, pytest.raises(RuntimeError, match="await the coroutine there instead"):
            host.run(nothing())

    asyncio.run(main())
    asyncio.set_event_loop(None)


def test_a_loop_after_its_close() -> None:
    with hosting() as host:
        host.run(nothing())
        loop = host.loop
        assert loop is not None
    assert host.loop is None
    calls: list[Callable[[], Any]] = [
        lambda: loop.call_soon(print),
        lambda: loop.call_later(0, print),
        lambda: loop.call_soon_threadsafe(print),
        lambda: loop.run_in_executor(None, print),
        loop.run_forever,
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="closed"):
            call()
    coro = nothing()
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run_coroutine_threadsafe(coro, loop)
    coro.close()
    host.close()
    # The host itself makes another loop when it is asked to.
    assert host.run(asyncio.sleep(0, "again")) == "again"
    host.close()


def test_an_exception_after_the_close_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class StopUser(Exception):
        pass

    with hosting(propagated=(StopUser,)) as host:
        host.run(nothing())
        loop = host.loop
        assert loop is not None
    loop.call_exception_handler({"message": "late", "exception": StopUser()})
    assert "late" in caplog.text
    caplog.clear()


@pytest.mark.parametrize("what", ["future", "task", "queue", "lock", "event"])
def test_an_object_of_another_users_loop(what: str) -> None:
    objects: dict[str, Any] = {}
    ready, done = gevent.event.Event(), gevent.event.Event()

    def owner() -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            objects["future"] = loop.create_future()
            objects["task"] = asyncio.create_task(asyncio.sleep(FOREVER))
            objects["queue"], objects["event"], objects["lock"] = asyncio.Queue(), asyncio.Event(), asyncio.Lock()
            await objects["lock"].acquire()
            waiters = [asyncio.create_task(wait()) for wait in (objects["queue"].get, objects["event"].wait)]
            waiters.append(asyncio.create_task(objects["lock"].acquire()))
            await asyncio.sleep(0)
            ready.set()
            while not done.is_set():
                await asyncio.sleep(0.001)

        with hosting() as host:
            host.run(main())

    async def stranger() -> None:
        mine = objects[what]
        wait = {"queue": lambda: mine.get(), "event": lambda: mine.wait(), "lock": lambda: mine.acquire()}
        with pytest.raises(RuntimeError, match=r"different (event )?loop"):
            await (wait[what]() if what in wait else mine)

    greenlet = spawn(owner)
    ready.wait()
    try:
        with hosting() as host:
            host.run(stranger())
    finally:
        done.set()
        result(greenlet)


def test_a_loop_in_the_hub() -> None:
    errors: list[BaseException] = []

    def in_the_hub() -> None:
        loop = GreenletEventLoop()
        try:
            loop.run_forever()
        except RuntimeError as exc:
            errors.append(exc)
        loop.close()

    gevent.get_hub().loop.run_callback(in_the_hub)
    until(lambda: errors)
    assert "gevent.spawn()" in str(errors[0])


def test_a_loop_in_another_thread(host: LoopHost) -> None:
    errors: list[BaseException] = []
    host.run(nothing())

    def thread() -> None:
        assert host.loop is not None
        try:
            host.loop.run_forever()
        except RuntimeError as exc:
            errors.append(exc)
        gevent.get_hub().destroy()

    until(native_thread(thread))
    assert "another thread" in str(errors[0])


def test_stopping_the_loop_is_the_hosts_affair(host: LoopHost) -> None:
    async def main() -> str:
        for _ in range(3):
            asyncio.get_running_loop().stop()
            await asyncio.sleep(0.001)
        return "went on"

    assert host.run(main()) == "went on"
    assert host.loop is not None
    host.loop.stop()
    assert host.run(asyncio.sleep(0.001, "went on")) == "went on"


@pytest.mark.skipif(sys.platform == "win32", reason="asyncio has no signal handlers on Windows")
class TestSignalHandlersThatCannotBe:
    def test_signals_that_cannot_be_caught(self) -> None:
        loop = GreenletEventLoop()
        try:
            with pytest.raises(RuntimeError, match=f"signal {signal.SIGKILL:d} cannot be caught"):
                loop.add_signal_handler(signal.SIGKILL, print)
            assert not loop.remove_signal_handler(signal.SIGKILL)
            with pytest.raises(ValueError, match="invalid signal number"):
                loop.add_signal_handler(1000, print)
            with pytest.raises(TypeError, match="int"):
                loop.add_signal_handler("SIGINT", print)  # type: ignore[arg-type] # that is the mistake
        finally:
            loop.close()

    def test_coroutines(self) -> None:
        loop = GreenletEventLoop()
        coro = nothing()
        try:
            for callback in (nothing, coro):
                with pytest.raises(TypeError, match="coroutines cannot be used"):
                    loop.add_signal_handler(signal.SIGUSR1, callback)  # type: ignore[arg-type] # that is the mistake
            assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
        finally:
            coro.close()
            loop.close()

    def test_a_closed_loop(self) -> None:
        loop = GreenletEventLoop()
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            loop.add_signal_handler(signal.SIGUSR1, print)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL

    def test_not_in_the_main_thread(self) -> None:
        errors: list[BaseException] = []

        def thread() -> None:
            loop = GreenletEventLoop()
            try:
                loop.add_signal_handler(signal.SIGUSR1, print)
            except RuntimeError as exc:
                errors.append(exc)
            errors.extend([] if not loop.remove_signal_handler(signal.SIGUSR1) else [AssertionError("kept")])
            loop.close()
            gevent.get_hub().destroy()

        until(native_thread(thread))
        [error] = errors
        assert "main thread" in str(error)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_a_loop_that_nobody_closes_is_reported() -> None:
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        loop = GreenletEventLoop()
        loop.__del__()
    assert loop.is_closed()
