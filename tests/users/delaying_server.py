"""A server that knows how long it takes: it answers each message with the instant at which it did.

    python -m tests.users.delaying_server

    /constant     after 20 ms
    /sometimes    after 20 ms, but each twentieth message of a connection after 250 ms
    /standstill   after 20 ms, but not during one second of every five, which it stands still

The instants are of ``time.perf_counter()``, which is the same clock for all processes of a machine. It runs until its
standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter

from websockets.asyncio.server import ServerConnection, serve

DELAY = 0.020
LONG = 0.250
PERIOD, STANDSTILL = 5.0, 1.0


async def answer(connection: ServerConnection) -> None:
    assert connection.request is not None
    path = connection.request.path
    count = 0
    async for _ in connection:
        count += 1
        await asyncio.sleep(LONG if path == "/sometimes" and count % 20 == 0 else DELAY)
        if path == "/standstill":
            await asyncio.sleep(max(0.0, STANDSTILL - (perf_counter() - started) % PERIOD))
        await connection.send(repr(perf_counter()))


async def main() -> None:
    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        host, port = next(iter(server.sockets)).getsockname()
        print(f"ws://{host}:{port}", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


started = perf_counter()

if __name__ == "__main__":
    asyncio.run(main())
