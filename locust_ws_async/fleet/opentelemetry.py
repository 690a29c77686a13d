"""The metrics for OpenTelemetry, with Locust's ``--otel``.

Locust's own histogram knows the name of a row only, so that a send and the lifetime of a session are one there. These
instruments have the row's type too. They are read when the exporter asks; there is no listener of requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from locust.env import Environment
from locust.runners import WorkerRunner
from locust.stats import StatsEntry

from ..statistics.percentiles import percentile
from .metrics import metrics_of_connections, rows

__all__ = ["on_init"]

_UNITS = {"seconds": "s", "bytes": "By", "": "1"}
_QUANTILES = (0.5, 0.9, 0.99, 0.999)


def on_init(environment: Environment, **_: Any) -> None:
    if not getattr(environment.parsed_options, "otel", False) or isinstance(environment.runner, WorkerRunner):
        return
    try:
        from opentelemetry.metrics import Observation, get_meter
    except ImportError:
        return  # which Locust has told, of --otel
    meter: Any = get_meter("locust_ws_async")

    def observe(name: str) -> Callable[[Any], Iterator[Any]]:
        def callback(_: Any) -> Iterator[Any]:
            (metric,) = (metric for metric in metrics_of_connections() if metric.name == name)
            return (Observation(value, labels) for labels, value in metric.samples)

        return callback

    def observe_rows(values: Callable[[StatsEntry], Iterator[tuple[float, dict[str, float]]]]) -> Any:
        def callback(_: Any) -> Iterator[Any]:
            for row in rows(environment):
                for value, labels in values(row):
                    yield Observation(value, {"type": row.method, "name": row.name, **labels})

        return callback

    for metric in metrics_of_connections():
        create = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
        create(f"locust.{metric.name}", [observe(metric.name)], unit=_UNITS[metric.unit], description=metric.help)
    meter.create_observable_counter(
        "locust.requests",
        [observe_rows(lambda row: iter([(row.num_requests, {})]))],
        unit="1",
        description="Requests of a row, also those without a time.",
    )
    meter.create_observable_counter(
        "locust.request.failures",
        [observe_rows(lambda row: iter([(row.num_failures, {})]))],
        unit="1",
        description="Failed requests of a row.",
    )
    meter.create_observable_gauge(
        "locust.request.duration",
        [observe_rows(_quantiles)],
        unit="s",
        description="Percentiles of the response times of a row, since the test began or was reset.",
    )


def _quantiles(row: StatsEntry) -> Iterator[tuple[float, dict[str, float]]]:
    for quantile in _QUANTILES:
        milliseconds = percentile(row, quantile)
        if milliseconds is not None:
            yield milliseconds / 1000, {"quantile": quantile}
