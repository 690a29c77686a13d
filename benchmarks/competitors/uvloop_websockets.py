"""`websockets` on uvloop, without Locust and without statistics."""

from __future__ import annotations

import uvloop

from benchmarks.competitors.asyncio_websockets import users
from benchmarks.hosts import PythonHost
from benchmarks.workload import versions

NAME = "websockets on uvloop"
VERSION = versions("websockets", "uvloop")
HOST = PythonHost()
COMPRESSES = True

if __name__ == "__main__":
    uvloop.run(users())
