"""The numbers of the fleet and of Locust's rows, as metrics: what Prometheus and OpenTelemetry are given.

Everything is read when somebody asks. There is no listener of requests.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import gevent
from locust.env import Environment
from locust.stats import StatsEntry

from . import transport
from .numbers import table

__all__ = ["BUCKETS", "Labels", "Metric", "cumulative", "metrics_of_connections", "rows"]

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of response times, in seconds."""

Labels = dict[str, str]


@dataclass(frozen=True, slots=True)
class Metric:
    """
    Args:
        name: its words, with dots.
        help: what it is, in a sentence.
        kind: "counter" for what only grows, until the statistics are reset; "gauge" for what goes up and down.
        unit: "seconds", "bytes", or "" for a number of things.
        samples: the values, each with its labels.
    """

    name: str
    help: str
    kind: Literal["counter", "gauge"] = "counter"
    unit: str = ""
    samples: list[tuple[Labels, float]] = field(default_factory=list)


_MESSAGES = Metric("websocket.messages", "Messages.")
_PAYLOAD = Metric("websocket.payload", "Payload of messages, before compression.", unit="bytes")
# Each count, as what metric and with what label it is shown.
_COUNTS: dict[str, tuple[Metric, Labels]] = {
    "opened": (Metric("websocket.opened", "Opening handshakes that were complete, those of reconnects included."), {}),
    "recoveries": (Metric("websocket.recoveries", "Lost connections that were made again."), {}),
    "messages_in": (_MESSAGES, {"direction": "in"}),
    "messages_out": (_MESSAGES, {"direction": "out"}),
    "bytes_in": (_PAYLOAD, {"direction": "in"}),
    "bytes_out": (_PAYLOAD, {"direction": "out"}),
    "late": (Metric("websocket.late.replies", "Replies that came after the timeout of their request."), {}),
    "dropped": (Metric("websocket.dropped.messages", "Messages that nobody got, because a queue was full."), {}),
    "cancelled_waits": (Metric("websocket.cancelled.waits", "Waits that a stop has cancelled."), {}),
    "queue_waits": (Metric("websocket.queued.messages", "Messages that had waited when recv took them."), {}),
    "queue_wait": (Metric("websocket.queue.wait", "For how long these had waited, together.", unit="seconds"), {}),
}
_CLOSES = Metric("websocket.closes", "Ends of connections by close code; 1006 where the server sent no close frame.")
_ENDS = Metric("websocket.ends", "Ends of connections by who began: us, peer; or lost.")
_CONNECTIONS = Metric("websocket.connections", "Connections that are not over.", "gauge")
_PAUSED = Metric("websocket.paused", "Connections of which nothing is read, because a queue is full.", "gauge")
_USERS = Metric("users", "Users that run.", "gauge")
_AUTHORS = Metric("author.value", "What the functions of gauge() have given.", "gauge")
_HUB_LAG = Metric("hub.lag", "How late the event loop of a worker was: the 99th percentile.", "gauge", "seconds")
_ALL = (
    *(metric for metric, _ in _COUNTS.values()),
    *(_CLOSES, _ENDS, _CONNECTIONS, _PAUSED, _USERS, _AUTHORS, _HUB_LAG),
)


def metrics_of_connections() -> list[Metric]:
    """Those of all connections, each by worker: the counts also of workers that left, the gauges not."""
    found = {metric.name: Metric(metric.name, metric.help, metric.kind, metric.unit) for metric in _ALL}

    def add(metric: Metric, value: float, **labels: str) -> None:
        found[metric.name].samples.append((labels, value))

    for worker, (numbers, left) in transport.workers().items():
        for name, (metric, labels) in _COUNTS.items():
            add(metric, numbers.counts[name], worker=worker, **labels)
        for code, count in table(numbers.counts, "closes").items():
            add(_CLOSES, count, worker=worker, code=code)
        for by, count in table(numbers.counts, "closed_by").items():
            add(_ENDS, count, worker=worker, by=by)
        if not left:
            add(_USERS, numbers.users, worker=worker)
            for state in ("open", "connecting", "reconnecting"):
                add(_CONNECTIONS, numbers.gauges[state], worker=worker, state=state)
            add(_PAUSED, numbers.gauges["paused"], worker=worker)
            for name, value in table(numbers.gauges, "gauges").items():
                add(_AUTHORS, value, worker=worker, name=name)
    for worker, sample in transport.contributions("generator").items():
        if "hub_lag_p99_ms" in sample:
            add(_HUB_LAG, sample["hub_lag_p99_ms"] / 1000, worker=worker)
    return list(found.values())


def rows(environment: Environment) -> Iterator[StatsEntry]:
    """The rows of Locust's table, without *Aggregated*."""
    for entry in list(environment.stats.entries.values()):
        gevent.sleep(0)  # a row has thousands of different times: the messages of others come first
        yield entry


def cumulative(entry: StatsEntry) -> list[int]:
    """How many response times of a row do not exceed each of the :data:`BUCKETS`; and last, how many there are."""
    counts = [0] * (len(BUCKETS) + 1)
    for milliseconds, count in entry.response_times.items():
        counts[bisect_left(BUCKETS, milliseconds / 1000)] += count
    for index in range(1, len(counts)):
        counts[index] += counts[index - 1]
    return counts
