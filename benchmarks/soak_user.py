"""The locustfile of ``benchmarks.soak``: users that meet one fault after the other, and count what they see."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import gevent
import psutil
from locust import constant, events, task
from locust.exception import StopUser
from locust.runners import STATE_RUNNING

from benchmarks.soak import FAILED, REFUSED
from locust_ws_async import AsyncWebSocketUser
from locust_ws_async.client import WebSocketConnection, json_field
from locust_ws_async.exceptions import ConnectError, WebSocketError

FAULTS = os.environ["SOAK_FAULTS"].split()
HUNG = 60  # seconds without a step; the longest wait of a step is 30

counts: Counter[str] = Counter()
"""What the tasks saw: by row, and whether it was a success."""

last_step: dict[int, float] = {}
samples: list[dict[str, float]] = []
before: dict[str, float] = {}
_end = time.monotonic() + float(os.environ["SOAK_SECONDS"])
_process = psutil.Process()
_ids = itertools.count()


class SoakUser(AsyncWebSocketUser):
    engine = os.environ["SOAK_ENGINE"]
    wait_time = constant(0.05)
    connect_backoff = None

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.random = random.Random(len(last_step))
        last_step[id(self)] = time.monotonic()

    def on_stop(self) -> None:
        del last_step[id(self)]

    @task
    async def session(self) -> None:
        """One connection with some requests, until a fault ends it or this side does."""
        if time.monotonic() > _end:
            raise StopUser  # by itself: a stop by Locust may hit a task that has just begun
        path = "/soak"
        for refused in REFUSED:
            if refused in FAULTS and self.random.random() < 0.05:
                path = f"/{refused}"
        try:
            connection = await self.ws.connect(path)
        except ConnectError:
            self._count(f"WS CONNECT {path}", False)
            return
        self._count(f"WS CONNECT {path}", True)
        for _ in range(20):
            fault = self.random.choice(["echo", *(fault for fault in FAULTS if fault not in REFUSED)])
            if not await self._request(connection, fault) and fault in FAILED:
                await connection.wait_closed()
                self._count(f"WS SESSION {path}", False)
                return
        await connection.close()
        self._count(f"WS SESSION {path}", True)

    async def _request(self, connection: WebSocketConnection, fault: str) -> bool:
        quick = fault in ("late", "silence")
        late = connection.stats.late_replies
        try:
            await connection.request(
                {"id": next(_ids), "do": fault}, match=json_field("id"), name=fault, timeout=0.5 if quick else 30
            )
        except WebSocketError:
            succeeded = False
        else:
            succeeded = True
        self._count(f"WS REQUEST {fault}", succeeded)
        if fault == "late" and not succeeded:
            async with asyncio.timeout(30):
                while connection.stats.late_replies == late:
                    await asyncio.sleep(0.05)
            self._count("WS REQUEST late (late)", True)
        elif fault == "push" and succeeded:
            for _ in range(10):
                await connection.recv()
                self._count("WS RECV /soak", True)
        return succeeded

    def _count(self, row: str, succeeded: bool) -> None:
        counts[f"{row} {'ok' if succeeded else 'failed'}"] += 1
        last_step[id(self)] = time.monotonic()


def _measure() -> dict[str, float]:
    now = time.monotonic()
    return {
        "time": now,
        "memory": _process.memory_info().rss,
        "descriptors": _process.num_fds() if hasattr(_process, "num_fds") else 0,
        "hung": sum(now - step > HUNG for step in last_step.values()),
    }


@events.test_start.add_listener
def _start(**_: Any) -> None:
    before.update(_measure())

    def sample() -> None:
        while True:
            gevent.sleep(float(os.environ["SOAK_INTERVAL"]))
            samples.append(_measure())
            runner = _environment.runner
            if not runner.user_count and runner.state == STATE_RUNNING:
                gevent.spawn(runner.quit)
                return

    gevent.spawn(sample)


@events.quit.add_listener
def _quit(**_: Any) -> None:
    rows = {
        f"{kind} {name}": [entry.num_requests - entry.num_failures, entry.num_failures]
        for (name, kind), entry in _environment.stats.entries.items()
    }
    left = {"users": len(last_step), "descriptors": _measure()["descriptors"] - before["descriptors"]}
    result = {"rows": rows, "tasks": counts, "samples": samples, "left": left}
    Path(os.environ["SOAK_RESULT"]).write_text(json.dumps(result))


_environment: Any = None


@events.init.add_listener
def _init(environment: Any, **_: Any) -> None:
    global _environment
    _environment = environment
    for handler in logging.getLogger("locust.stats_logger").handlers:  # tables are no complaints
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stdout)
