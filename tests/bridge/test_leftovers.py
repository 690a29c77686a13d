"""When a thousand users have come and gone, everything is as it was before."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import gevent
import greenlet
import psutil
import pytest

from locust_ws_async.bridge import GreenletEventLoop
from locust_ws_async.internals.cpython import SHARED_ATTRIBUTES

from .helpers import hosting, result, spawn, until, watchers

USERS = 1000
FOREVER = 1000


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    """An echo server on a loop of its own."""
    address: list[tuple[str, int]] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(line)
        except ConnectionResetError:  # of a user that is killed
            pass
        finally:
            writer.close()

    async def main() -> None:
        async with await asyncio.start_server(echo, "127.0.0.1", backlog=USERS) as listening:
            address.append(listening.sockets[0].getsockname())
            await listening.serve_forever()

    def serve() -> None:
        with hosting() as host:
            host.run(main())

    serving = gevent.spawn(serve)
    until(lambda: address)
    yield address[0]
    serving.kill(timeout=20)


async def visit(address: tuple[str, int], number: int) -> None:
    """A bit of everything that a loop can be asked to do."""
    loop = asyncio.get_running_loop()
    kept = asyncio.create_task(asyncio.sleep(FOREVER))
    loop.call_later(FOREVER, print)
    reader, writer = await asyncio.open_connection(*address)
    try:
        for _ in range(3):
            writer.write(b"%d\n" % number)
            async with asyncio.timeout(FOREVER):
                assert await reader.readline() == b"%d\n" % number
            await asyncio.sleep(0)
        gevent.sleep(0)
        await asyncio.to_thread(gevent.sleep, 0)
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0.001))
            group.create_task(asyncio.sleep(0))

        async def numbers() -> Any:
            try:
                while True:
                    yield 1
            finally:
                await asyncio.sleep(0)

        async for _ in numbers():
            break
        if number % 2:
            await asyncio.sleep(FOREVER)  # until it is killed
    finally:
        writer.close()
        del kept


def come_and_go(address: tuple[str, int], users: int) -> None:
    """A hundred at a time; half of them are killed, the others end by themselves."""

    def user(number: int) -> None:
        with hosting() as host:
            host.run(visit(address, number))
            host.sleep(0.001)
            host.call(gevent.sleep, 0.001)

    chance = random.Random(3)
    for first in range(0, users, 100):
        greenlets = [gevent.spawn(user, number) for number in range(first, first + 100)]
        gevent.joinall(greenlets[::2], timeout=60)
        rest = greenlets[1::2]
        chance.shuffle(rest)
        for each in rest:
            each.kill(block=False)
            if chance.random() < 0.1:
                gevent.sleep(0)
        gevent.joinall(rest, timeout=60)
        assert all(each.successful() for each in greenlets)


def inventory() -> dict[str, int]:
    """What may leak, counted; without gevent's threads for name lookups, which end by themselves when they idle."""
    gevent.get_hub().threadpool.kill()
    gevent.sleep(0.01)
    for _ in range(3):
        gc.collect()
    objects = gc.get_objects()
    process = psutil.Process()
    return {
        "descriptors": process.num_fds() if hasattr(process, "num_fds") else 0,
        "watchers": watchers(),
        "greenlets": sum(isinstance(each, greenlet.greenlet) and not each.dead for each in objects),
        "loops": sum(isinstance(each, GreenletEventLoop) for each in objects),
        "tasks": sum(isinstance(each, asyncio.Task) for each in objects),
        "handles": sum(isinstance(each, asyncio.Handle) for each in objects),
        "transports": sum(isinstance(each, asyncio.BaseTransport) for each in objects),
    }


def test_a_thousand_users_leave_nothing_behind(server: tuple[str, int]) -> None:
    come_and_go(server, USERS)  # what is made once, and room for them all
    before = inventory()
    for _ in range(3):  # the allocator may take more once; a leak comes back
        memory_before = psutil.Process().memory_info().rss
        come_and_go(server, USERS)
        assert inventory() == before
        grown = psutil.Process().memory_info().rss - memory_before
        if grown < USERS * 1024:
            break
    assert grown < USERS * 1024, f"{grown / USERS:.0f} bytes a user have stayed"


def test_a_task_that_begins_at_the_very_end_is_cancelled_too(caplog: pytest.LogCaptureFixture) -> None:
    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            tasks.append(asyncio.create_task(asyncio.sleep(1000)))

    async def main() -> None:
        iterators.append(generator())
        await anext(iterators[0])

    tasks: list[asyncio.Task[None]] = []
    iterators: list[AsyncIterator[int]] = []
    with hosting() as host:
        host.run(main())
    assert tasks[0].cancelled()
    assert caplog.text == ""


def test_a_loop_is_freed_without_the_garbage_collector() -> None:
    """A loop that is closed has no reference cycle left, or memory would grow until the collector's next round."""

    def loops() -> int:
        return sum(isinstance(each, GreenletEventLoop) for each in gc.get_objects())

    gc.collect()
    before = loops()
    gc.disable()
    try:
        for _ in range(10):
            with hosting() as host:
                host.run(asyncio.sleep(0.001))
        assert loops() <= before
    finally:
        gc.enable()


def test_a_connection_costs_one_descriptor_and_a_loop_none(server: tuple[str, int]) -> None:
    if not hasattr(psutil.Process, "num_fds"):
        pytest.skip("descriptors are not counted here")
    process = psutil.Process()
    connected = 0
    release = gevent.event.Event()

    def user() -> None:
        async def main() -> None:
            nonlocal connected
            writers = [(await asyncio.open_connection(*server))[1] for _ in range(2)]
            connected += 1
            while not release.is_set():
                await asyncio.sleep(0.001)
            for writer in writers:
                writer.close()

        with hosting() as host:
            host.run(main())

    before = process.num_fds()
    users = [gevent.spawn(user) for _ in range(20)]
    until(lambda: connected == len(users))
    assert process.num_fds() - before == len(users) * 2 * 2  # the server's end is here too
    release.set()
    gevent.joinall(users, timeout=20)
    until(lambda: process.num_fds() == before)


def test_the_attributes_of_a_loop_share_their_keys(server: tuple[str, int]) -> None:
    """Else each loop would have a table of its own, of 1.3 KiB."""

    def attributes() -> list[str]:
        with hosting() as host:
            host.run(visit(server, 2))
            host.call(gevent.sleep, 0)
            return list(vars(host.loop))

    used = result(spawn(attributes))
    assert len(used) <= SHARED_ATTRIBUTES, used


def test_how_many_attributes_share_their_keys() -> None:
    def size(attributes: int) -> int:
        kind = type("Kind", (), {})
        for _ in range(50):
            each = kind()
            for number in range(attributes):
                setattr(each, f"attribute_{number}", None)
        return sys.getsizeof(vars(each))

    assert size(SHARED_ATTRIBUTES) < 500 < 1000 < size(SHARED_ATTRIBUTES + 1)
