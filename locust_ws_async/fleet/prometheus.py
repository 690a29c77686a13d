"""The metrics for Prometheus: ``/metrics`` in the web UI, or on a port of their own with ``--ws-metrics-port``.

Needs ``prometheus-client``, the extra ``prometheus`` of this package.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from flask import Response
from gevent import pywsgi
from locust.env import Environment
from locust.runners import WorkerRunner

from .metrics import BUCKETS, cumulative, metrics_of_connections, rows

__all__ = ["MISSING", "on_init", "on_init_command_line_parser", "page"]

MISSING = "the metrics need prometheus-client: pip install 'locust-ws-async[prometheus]'"

_logger = logging.getLogger(__name__)


def on_init_command_line_parser(parser: Any) -> None:
    parser.add_argument(
        "--ws-metrics-port",
        type=int,
        metavar="<port>",
        env_var="LOCUST_WS_METRICS_PORT",
        include_in_web_ui=False,
        help="Give Prometheus metrics at /metrics on this port, of all interfaces or of --web-host, without a login. "
        "With the web UI they are at its /metrics as well",
    )


def on_init(environment: Environment, **_: Any) -> None:
    port = getattr(environment.parsed_options, "ws_metrics_port", None)
    if port is None or isinstance(environment.runner, WorkerRunner):
        return
    try:
        from prometheus_client import make_wsgi_app
    except ImportError:
        raise SystemExit(f"--ws-metrics-port: {MISSING}") from None
    application: Any = make_wsgi_app(_registry(environment))
    address = (getattr(environment.parsed_options, "web_host", None) or "", port)
    server = pywsgi.WSGIServer(address, application, log=None, error_log=_logger)
    try:
        server.start()
    except OSError as exc:
        raise SystemExit(f"--ws-metrics-port: cannot listen on port {port}: {exc.strerror}") from None
    _logger.info("Metrics for Prometheus at port %d, /metrics", server.server_port)


def page(environment: Environment) -> Response:
    """What ``/metrics`` answers."""
    try:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
    except ImportError:
        return Response(f"{MISSING}\n", status=501, mimetype="text/plain")
    return Response(generate_latest(_registry(environment)), content_type=CONTENT_TYPE_LATEST)


def _registry(environment: Environment) -> Any:
    from prometheus_client.registry import Collector, CollectorRegistry

    class Fleet(Collector):
        def collect(self) -> Iterator[Any]:
            return _families(environment)

    registry = CollectorRegistry()
    registry.register(Fleet())
    return registry


def _families(environment: Environment) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    for metric in metrics_of_connections():
        kind: Any = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        words = [word for word in ("locust", *metric.name.split("."), metric.unit) if word]
        names = list(metric.samples[0][0]) if metric.samples else []
        family = kind("_".join(words), metric.help, labels=names)
        for labels, value in metric.samples:
            family.add_metric(list(labels.values()), value)
        yield family

    of_row = ("type", "name")
    requests = CounterMetricFamily("locust_requests", "Requests of a row, also those without a time.", labels=of_row)
    failures = CounterMetricFamily("locust_request_failures", "Failed requests of a row.", labels=of_row)
    times = HistogramMetricFamily("locust_request_duration_seconds", "Response times of a row.", labels=of_row)
    for row in rows(environment):
        key = [row.method, row.name]
        requests.add_metric(key, row.num_requests)
        failures.add_metric(key, row.num_failures)
        bounds = [*map(str, BUCKETS), "+Inf"]
        times.add_metric(key, list(zip(bounds, cumulative(row), strict=True)), row.total_response_time / 1000)
    yield from (requests, failures, times)
