"""Primitives of the event loop, hosted by a greenlet against plain asyncio, timed by pyperf.

    python -m benchmarks.micro                 both loops, side by side
    python -m benchmarks.micro -o FILE.json    and keep the numbers, for `python -m pyperf compare_to`

Every benchmark does its operation N times in one run of the loop, so that starting and stopping it does not count.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any

import pyperf

from locust_ws_async.bridge import GreenletEventLoop


async def call_soon(times: int) -> None:
    """A callback that schedules itself again: one pass of the loop each."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def again(left: int) -> None:
        if left:
            loop.call_soon(again, left - 1)
        else:
            done.set_result(None)

    again(times)
    await done


async def sleep_0(times: int) -> None:
    """A pass of the loop that also polls for I/O."""
    for _ in range(times):
        await asyncio.sleep(0)


async def timer_made_and_cancelled(times: int) -> None:
    """What a timeout costs that does not expire."""
    loop = asyncio.get_running_loop()
    for _ in range(times):
        loop.call_later(60, print).cancel()


async def timer_that_fires(times: int) -> None:
    """A wait of the shortest kind, through the selector's timeout."""
    for _ in range(times):
        await asyncio.sleep(1e-6)


async def future_wakes_task(times: int) -> None:
    """A task that waits for a future which a callback sets."""
    loop = asyncio.get_running_loop()
    for _ in range(times):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future


async def fd_wakes_task(times: int) -> None:
    """Two tasks that send each other a byte: two waits for readiness each."""
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)

        async def answer() -> None:
            for _ in range(times):
                right.send(await loop.sock_recv(right, 1))

        task = asyncio.create_task(answer())
        for _ in range(times):
            left.send(b".")
            await loop.sock_recv(left, 1)
        await task


BENCHMARKS: list[Callable[[int], Coroutine[Any, Any, None]]] = [
    call_soon,
    sleep_0,
    timer_made_and_cancelled,
    timer_that_fires,
    future_wakes_task,
    fd_wakes_task,
]
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "plain": asyncio.SelectorEventLoop,
    "hosted": GreenletEventLoop,
}


def seconds(
    times: int,
    benchmark: Callable[[int], Coroutine[Any, Any, None]],
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> float:
    loop = new_loop()
    try:
        start = perf_counter()
        loop.run_until_complete(benchmark(times))
        return perf_counter() - start
    finally:
        loop.close()


if __name__ == "__main__":
    runner = pyperf.Runner(processes=3)
    for benchmark in BENCHMARKS:
        for kind, new_loop in LOOPS.items():
            runner.bench_time_func(f"{benchmark.__name__}: {kind}", seconds, benchmark, new_loop)
