"""``GreenletEventLoop.wait_for_io_inline()``: a task waits inside of itself for the next descriptor."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from socket import socket
from typing import Any

import gevent
import pytest
from gevent import GreenletExit
from gevent.monkey import get_original
from greenlet import greenlet

from locust_ws_async.bridge import LoopHost
from locust_ws_async.bridge.loop import GreenletEventLoop
from locust_ws_async.fast_paths import PLAIN

from .helpers import hosting, native_thread, result, spawn, together, until

FOREVER = 1000

INLINE = not PLAIN
"""Whether tasks wait inside of themselves, or by the plain twin: each time by a future."""


@pytest.fixture
def pair() -> Iterator[tuple[socket, socket]]:
    """Two connected sockets of the standard library."""
    here, there = get_original("socket", "socketpair")()
    here.setblocking(False)
    yield here, there
    here.close()
    there.close()


class Mailbox:
    """Bytes that arrive at a socket. :meth:`get` waits as a library with a hot path would."""

    def __init__(self, sock: socket) -> None:
        self.loop = asyncio.get_running_loop()
        assert isinstance(self.loop, GreenletEventLoop)
        self.sock = sock
        self.received: list[bytes] = []
        self.waiter: asyncio.Future[None] | None = None
        self.waited = {True: 0, False: 0}
        self.on_arrival: Callable[[], object] = lambda: None
        self.loop.add_reader(sock, self.read)

    def read(self) -> None:
        assert asyncio.current_task() is None
        assert asyncio.get_running_loop() is self.loop
        self.received.append(self.sock.recv(100))
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
        self.on_arrival()

    async def get(self) -> bytes:
        task = asyncio.current_task()
        while not self.received:
            here = self.loop.wait_for_io_inline()
            assert asyncio.current_task() is task
            assert asyncio.get_running_loop() is self.loop
            self.waited[here] += 1
            if not here and not self.received:
                self.waiter = self.loop.create_future()
                await self.waiter
        return self.received.pop(0)

    def close(self) -> None:
        self.loop.remove_reader(self.sock)


async def arm() -> None:
    """Let the loop wait once as loops do, which arms its timer."""
    woken = asyncio.get_running_loop().create_future()
    gevent.spawn_later(0.001, woken.set_result, None)
    await woken


def test_messages_come_without_leaving_the_task(host: LoopHost, pair: Any) -> None:
    here, there = pair

    async def main() -> None:
        mailbox = Mailbox(here)
        await arm()
        for number in range(100):
            there.send(b"%d" % number)
            assert await mailbox.get() == b"%d" % number
        assert mailbox.waited == {INLINE: 100, not INLINE: 0}
        mailbox.close()

    host.run(main())


def test_tasks_that_wait_beside_each_other(host: LoopHost, pair: Any) -> None:
    """Whoever waits in place is woken for the other's descriptor too, serves it, and lets the other run."""
    here, there = pair
    rounds = 20

    async def listen(mailbox: Mailbox) -> list[bytes]:
        try:
            return [await mailbox.get() for _ in range(rounds)]
        finally:
            mailbox.close()

    async def main() -> None:
        mailboxes = Mailbox(here), Mailbox(there)

        def talk() -> None:
            for number in range(rounds):
                for mailbox in mailboxes:
                    mailbox.sock.send(b"%d" % number)
                    gevent.sleep(0.001)

        gevent.spawn_later(0.001, talk)
        async with asyncio.timeout(20):
            heard = await asyncio.gather(*map(listen, mailboxes))
        assert heard == [[b"%d" % number for number in range(rounds)]] * 2
        assert sum(mailbox.waited[INLINE] for mailbox in mailboxes) > 0

    host.run(main())


@pytest.mark.parametrize("who", ["timer", "callback of another greenlet", "thread"])
def test_everything_else_in_the_loop_goes_on(who: str, host: LoopHost, pair: Any) -> None:
    here, there = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        mailbox = Mailbox(here)
        await arm()

        def wake() -> None:
            assert asyncio.current_task() is None
            there.send(b"woken")

        if who == "timer":
            loop.call_later(0.001, wake)
        elif who == "thread":
            native_thread(lambda: loop.call_soon_threadsafe(wake))
        else:
            gevent.spawn_later(0.001, loop.call_soon, wake)
        assert await asyncio.wait_for(mailbox.get(), 20) == b"woken"
        mailbox.close()

    host.run(main())


def test_a_timeout_ends_it(host: LoopHost, pair: Any) -> None:
    here, there = pair

    async def main() -> None:
        mailbox = Mailbox(here)
        await arm()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await mailbox.get()
            there.send(b"after")
            assert await mailbox.get() == b"after"
        mailbox.close()

    host.run(main())


@pytest.mark.parametrize("who", ["a reader", "another greenlet"])
def test_a_cancellation_ends_it(who: str, pair: Any) -> None:
    here, there = pair
    waiting: list[asyncio.Task[Any]] = []

    async def main() -> None:
        mailbox = Mailbox(here)
        await arm()
        this = asyncio.current_task()
        assert this is not None
        waiting.append(this)
        try:
            if who == "a reader":
                mailbox.on_arrival = lambda: (mailbox.received.clear(), this.cancel())
                there.send(b"cancel")
            with pytest.raises(asyncio.CancelledError):
                await mailbox.get()
            this.uncancel()
            mailbox.on_arrival = lambda: None
            there.send(b"still alive")
            assert await mailbox.get() == b"still alive"
        finally:
            mailbox.close()

    def user() -> None:
        with hosting() as host:
            host.run(main())

    def other() -> None:
        if who == "another greenlet":
            until(lambda: waiting)
            gevent.sleep(0.001)
            assert waiting[0].cancel()

    together(user, other)


def test_a_plain_function_cancels_a_task_that_waits_in_the_background(host: LoopHost, pair: Any) -> None:
    """Such as a plain ``on_stop``; meanwhile another greenlet serves the loop."""
    here, there = pair
    ended: list[bool] = []

    async def listen() -> None:
        mailbox = Mailbox(here)
        try:
            while True:
                await mailbox.get()
                there.send(b"more")
                await arm()
        except asyncio.CancelledError:
            ended.append(True)
            raise
        finally:
            mailbox.close()

    async def start() -> asyncio.Task[None]:
        return asyncio.create_task(listen())

    listening = host.run(start())

    def plain() -> None:
        gevent.sleep(0.005)
        listening.cancel()
        until(lambda: ended)

    host.call(plain)
    assert listening.cancelled()


@pytest.mark.parametrize("exception", [GreenletExit, gevent.Timeout, ValueError])
def test_what_is_thrown_in_ends_the_run_and_cancels_the_task(exception: type[BaseException], pair: Any) -> None:
    here, _ = pair
    seen: list[Any] = []

    async def main() -> None:
        mailbox = Mailbox(here)
        await arm()
        seen.append("waits")
        try:
            await mailbox.get()
        except BaseException as exc:
            seen.append(type(exc))
            await asyncio.sleep(0.001)  # a farewell
            seen.append("said farewell")
            raise
        finally:
            mailbox.close()

    def user() -> None:
        with hosting() as host, pytest.raises(exception):
            host.run(main())

    victim = spawn(user)
    until(lambda: seen)
    gevent.sleep(0.001)
    victim.kill(exception, block=False)
    result(victim)
    assert seen == ["waits", asyncio.CancelledError, "said farewell"]


def test_a_reader_that_fails_is_reported_and_ends_nothing(host: LoopHost, pair: Any) -> None:
    here, there = pair
    reported: list[dict[str, Any]] = []

    async def main() -> None:
        mailbox = Mailbox(here)
        mailbox.loop.set_exception_handler(lambda loop, context: reported.append(context))
        await arm()
        mailbox.on_arrival = lambda: 1 / 0
        there.send(b"bad")
        assert await mailbox.get() == b"bad"
        assert mailbox.waited == {INLINE: 1, not INLINE: 0}
        mailbox.close()

    host.run(main())
    (context,) = reported
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["message"].startswith("Exception in callback")


def test_a_stop_of_the_loop_ends_the_run(pair: Any) -> None:
    here, there = pair

    def user() -> None:
        loop = GreenletEventLoop()
        mailboxes: list[Mailbox] = []

        async def main() -> None:
            mailboxes.append(Mailbox(here))
            await arm()
            mailboxes[0].on_arrival = loop.stop
            there.send(b"stop")
            await mailboxes[0].get()
            mailboxes[0].on_arrival = lambda: None
            await mailboxes[0].get()

        task = loop.create_task(main())
        loop.run_forever()
        assert not task.done()
        there.send(b"end")
        loop.run_until_complete(task)
        mailboxes[0].close()
        loop.close()

    result(spawn(user))


def test_the_greenlet_may_block_in_between(host: LoopHost, pair: Any) -> None:
    """What arrives meanwhile is remembered, not switched to a greenlet that waits for something else."""
    here, there = pair

    async def main() -> None:
        mailbox = Mailbox(here)
        await arm()
        for _ in range(3):
            there.send(b"early")
            gevent.sleep(0.005)
            assert await mailbox.get() == b"early"
            there.send(b"in time")
            assert await mailbox.get() == b"in time"
        mailbox.close()

    host.run(main())


def test_only_for_tasks_of_the_loop(host: LoopHost, pair: Any) -> None:
    here, there = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, GreenletEventLoop)
        mailbox = Mailbox(here)
        await arm()
        there.send(b"there")
        refused: list[bool] = []
        loop.call_soon(lambda: refused.append(loop.wait_for_io_inline()))
        await arm()
        greenlet(lambda: refused.append(loop.wait_for_io_inline())).switch()
        loop.set_debug(True)
        refused.append(loop.wait_for_io_inline())
        loop.set_debug(False)
        loop.call_soon(lambda: None)
        refused.append(loop.wait_for_io_inline())
        assert refused == [False] * 4
        mailbox.close()

    host.run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_not_for_tasks_of_another_factory(host: LoopHost, pair: Any) -> None:
    here, there = pair

    async def main() -> None:
        mailbox = Mailbox(here)
        mailbox.loop.set_task_factory(asyncio.eager_task_factory)
        await arm()
        there.send(b"eager")
        assert await asyncio.create_task(mailbox.get()) == b"eager"
        assert mailbox.waited == {True: 0, False: 1}
        mailbox.loop.set_task_factory(None)
        mailbox.close()

    host.run(main())


def eagerly(loop: Any, coro: Any, how: str) -> Any:
    """A task that is started eagerly, in one of the ways that this Python has."""
    if how == "loop.create_task":
        return loop.create_task(coro, eager_start=True)
    if how == "asyncio.create_task":
        start: Any = asyncio.create_task
        return start(coro, eager_start=True)
    loop.set_task_factory(getattr(asyncio, how))
    try:
        return loop.create_task(coro)
    finally:
        loop.set_task_factory(None)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(how, marks=pytest.mark.skipif(sys.version_info < since, reason=f"new in Python {since}"))
        for how, since in [
            ("loop.create_task", (3, 12)),
            ("eager_task_factory", (3, 12)),
            ("asyncio.create_task", (3, 14)),
        ]
    ],
)
def test_not_for_a_task_that_is_started_eagerly(how: str, host: LoopHost, pair: Any) -> None:
    """Its first step has the frames of its parent beneath, who has yet to send what is answered."""
    here, there = pair

    async def main() -> None:
        mailbox = Mailbox(here)
        await arm()
        there.send(b"first")
        assert await mailbox.get() == b"first"
        assert mailbox.waited == {INLINE: 1, not INLINE: 0}
        getting = eagerly(mailbox.loop, mailbox.get(), how)
        assert not getting.done()
        there.send(b"answer")
        assert await getting == b"answer"
        # And with another one beneath: a task of the usual kind, created in the first step of an eager one.
        nested = eagerly(mailbox.loop, nest(mailbox), how)
        there.send(b"nested")
        assert await nested == b"nested"
        mailbox.close()

    async def nest(mailbox: Mailbox) -> bytes:
        return await asyncio.create_task(mailbox.get())

    host.run(asyncio.wait_for(main(), 20))


def test_tasks_may_be_cancelled_after_their_loop_is_closed() -> None:
    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        return task

    with hosting() as host:
        task = host.run(main())
    assert not task.cancel()
