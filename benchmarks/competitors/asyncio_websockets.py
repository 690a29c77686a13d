"""`websockets` on plain asyncio, without Locust and without statistics."""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import connect

from benchmarks.hosts import PythonHost, run_users
from benchmarks.workload import Workload, versions

NAME = "websockets on asyncio"
VERSION = versions("websockets")
HOST = PythonHost()
COMPRESSES = True


async def users() -> None:
    workload = Workload.of_this_process()
    compression, tls = workload.compression, workload.ssl_context
    await run_users(workload, lambda: connect(workload.url, ssl=tls, compression=compression, ping_interval=None))


if __name__ == "__main__":
    asyncio.run(users())
