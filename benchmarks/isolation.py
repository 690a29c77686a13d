"""What it costs each message that asyncio's per-thread state is kept per greenlet, where nobody blocks.

    python -m benchmarks.isolation

A task that waits in place (``GreenletEventLoop.wait_for_io_inline()``) leaves no running loop and no current task
behind, and puts them and the hooks for asynchronous generators back afterwards. That is timed beside a whole wait and
wake-up of the same loop. What makes blocking calls safe wraps ``hub.switch()``, which a loop that waits does not call.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import sys
from time import perf_counter

from locust_ws_async.bridge import GreenletEventLoop, LoopHost
from locust_ws_async.internals.cpython import enter_task, leave_task, set_running_loop

ROUNDS, MESSAGES = 7, 20_000


async def isolation() -> float:
    loop, task, hooks = asyncio.get_running_loop(), asyncio.current_task(), sys.get_asyncgen_hooks()
    assert task is not None
    started = perf_counter()
    for _ in range(MESSAGES):
        leave_task(loop, task)
        set_running_loop(None)
        set_running_loop(loop)
        sys.set_asyncgen_hooks(*hooks)
        enter_task(loop, task)
    return (perf_counter() - started) / MESSAGES


async def messages(ours: socket.socket, theirs: socket.socket) -> float:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, GreenletEventLoop)
    unread, in_place = 0, 0
    waiter = loop.create_future()

    def read() -> None:
        nonlocal unread
        theirs.recv(1)
        unread -= 1
        if not waiter.done():
            waiter.set_result(None)

    loop.add_reader(theirs, read)
    started = perf_counter()
    for _ in range(MESSAGES):
        ours.send(b"x")
        unread += 1
        while unread:
            if loop.wait_for_io_inline():
                in_place += 1
            else:
                waiter = loop.create_future()
                await waiter
    elapsed = perf_counter() - started
    loop.remove_reader(theirs)
    assert in_place > 0.9 * MESSAGES
    return elapsed / MESSAGES


def main() -> None:
    host = LoopHost()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        rounds = [(host.run(isolation()), host.run(messages(ours, theirs))) for _ in range(ROUNDS)]
    host.close()
    part = statistics.median(isolated for isolated, _ in rounds)
    whole = statistics.median(message for _, message in rounds)
    print(f"isolation {part * 1e6:.2f} us of a message's {whole * 1e6:.2f} us through the loop: {part / whole:.1%}")


if __name__ == "__main__":
    main()
