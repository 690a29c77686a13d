"""The locustfile of ``benchmarks.verdict``: asks at a rate, and writes down what was reported and what was true."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import defaultdict
from time import perf_counter, time
from typing import Any

import gevent
import locust
from locust import task

from locust_ws_async import AsyncWebSocketUser
from locust_ws_async.fleet import generator
from locust_ws_async.statistics import percentile

PLAN: dict[str, Any] = json.loads(os.environ["BENCHMARK_PLAN"])
EACH: float = PLAN["rate"] / PLAN["users"]  # requests a second of one user
SECONDS: float = PLAN["seconds"]
FRACTIONS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
DOCUMENT = json.dumps([{"id": n, "name": f"row {n}", "values": [n * 0.5] * 4} for n in range(PLAN["work"])])

began: float | None = None
"""When the load began: once all users are connected."""
connected = 0
server_times: defaultdict[str, list[float]] = defaultdict(list)
samples: list[dict[str, Any]] = []
verdicts: list[float] = []
"""Seconds from the beginning of the load to each verdict."""


class _Verdicts(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if "saturated since" in record.getMessage():
            verdicts.append(-1.0 if began is None else perf_counter() - began)


logging.getLogger("locust_ws_async").addHandler(_Verdicts())


class Asking(AsyncWebSocketUser):
    """Half of them ask for a constant delay, half for one that varies."""

    engine = PLAN["engine"]

    @task
    async def ask(self) -> None:
        global connected
        connected += 1
        kind = "constant" if connected % 2 else "spread"
        async with self.ws.connect(f"/{kind}") as server:
            while began is None:
                await asyncio.sleep(0.1)
            async for _ in self.pace(EACH, late="skip"):
                answer = await server.request("?", name=kind)
                server_times[kind].append(float(answer))
                json.loads(DOCUMENT)  # what a task does with an answer


def watch(environment: Any) -> None:
    global began
    while connected < PLAN["users"]:
        gevent.sleep(0.1)
    gevent.sleep(PLAN["settle"])
    for _ in range(600):  # at most a minute
        if not generator.as_json()["saturated"]:  # by the connects
            break
        gevent.sleep(0.1)
    began, began_at = perf_counter(), time()
    gevent.sleep(PLAN["warm_up"])
    environment.stats.reset_all()
    server_times.clear()
    since = perf_counter()
    while (left := since + SECONDS - perf_counter()) > 0:
        gevent.sleep(min(3.0, left))
        samples.append(generator.sample() or {})
    length = perf_counter() - since
    rows = {}
    for kind, times in server_times.items():
        row = environment.stats.get(kind, "WS REQUEST")
        times.sort()
        rows[kind] = {
            name: (percentile(row, fraction), times[max(0, round(fraction * len(times)) - 1)])
            for name, fraction in FRACTIONS.items()
        }
    result = {
        "rate": sum(map(len, server_times.values())) / length,
        "rows": rows,
        "samples": samples,
        "verdicts": [seconds for seconds in verdicts if seconds >= 0],
        "spans": [span for span in generator.spans() if span["to"] is None or span["to"] > began_at],
    }
    with open(PLAN["result"], "w") as file:
        json.dump(result, file)
    environment.runner.quit()


@locust.events.test_start.add_listener  # type: ignore[no-untyped-call] # Locust's has no types
def started(environment: Any, **_: Any) -> None:
    gevent.spawn(watch, environment)
