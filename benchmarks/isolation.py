"""What it costs each message that asyncio's per-thread state is kept per greenlet, where nobody blocks.

    python -m benchmarks.isolation

A loop that parks for a message clears the running loop, and puts it and the hooks for asynchronous generators back
(bridge/isolation.py). That is timed beside a whole park and wake-up of the same loop. What makes blocking calls safe
wraps ``hub.switch()``, which a loop that parks does not call.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import sys
from time import perf_counter

from locust_ws_async.bridge import LoopHost
from locust_ws_async.bridge.private import set_running_loop

ROUNDS, MESSAGES = 7, 20_000


async def isolation() -> float:
    loop, hooks = asyncio.get_running_loop(), sys.get_asyncgen_hooks()
    started = perf_counter()
    for _ in range(MESSAGES):
        set_running_loop(None)
        set_running_loop(loop)
        sys.set_asyncgen_hooks(*hooks)
    return (perf_counter() - started) / MESSAGES


async def messages(ours: socket.socket, theirs: socket.socket) -> float:
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()

    def read() -> None:
        theirs.recv(1)
        arrived.set_result(None)

    loop.add_reader(theirs, read)
    started = perf_counter()
    for _ in range(MESSAGES):
        arrived = loop.create_future()
        ours.send(b"x")
        await arrived
    elapsed = perf_counter() - started
    loop.remove_reader(theirs)
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
