"""The metrics: scraped by a real Prometheus where there is one, and exported by OpenTelemetry."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import SCALE, eventually, unused_port

from .running import LocustProcess
from .test_fleet import ECHOES, QUICK_REPORTS, echoed
from .web import Web

pytestmark = pytest.mark.once

Start = Callable[..., LocustProcess]


def read(url: str) -> str:
    """What is at this URL; nothing while nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=10 * SCALE) as answer:
            return str(answer.read().decode())
    except HTTPError:
        raise
    except URLError:
        return ""


def samples(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """The values by metric and by the values of the labels, without the worker's."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for name, value in sorted(sample.labels.items()) if name != "worker")
            values = found.setdefault(sample.name, {})
            values[labels] = values.get(labels, 0) + sample.value
    return found


def check(found: dict[str, dict[tuple[str, ...], float]]) -> None:
    """What four users of ECHOES give."""
    assert found["locust_users"] == {(): 4}
    assert found["locust_websocket_connections"] == {("open",): 4, ("connecting",): 0, ("reconnecting",): 0}
    assert found["locust_websocket_opened_total"] == {(): 4}
    assert found["locust_websocket_messages_total"] == {("in",): 40, ("out",): 40}
    assert found["locust_websocket_payload_bytes_total"] == {("in",): 180, ("out",): 180}
    assert found["locust_author_value"] == {("users that echo",): 4}
    assert found["locust_requests_total"]["/echo", "WS SEND"] == 40
    assert found["locust_request_failures_total"]["/echo", "WS SEND"] == 0
    assert found["locust_request_duration_seconds_count"]["/echo", "WS SEND"] == 40
    assert found["locust_request_duration_seconds_bucket"]["+Inf", "/echo", "WS SEND"] == 40
    assert found["locust_request_duration_seconds_sum"]["/echo", "WS SEND"] > 0


def test_the_web_ui_gives_those_of_all_workers(start: Start) -> None:
    web, port = Web("/below"), str(unused_port())
    ports = ("--master-bind-port", port, "--master-port", port)
    start(QUICK_REPORTS + ECHOES, "--processes", "2", "--autostart", "--users", "4", "--spawn-rate", "100", *ports,
          *web.arguments)  # fmt: skip
    eventually(lambda: echoed(web.total(), 4), seconds=60)
    text = web.page("/metrics")
    check(samples(text))
    if promtool := shutil.which("promtool"):
        subprocess.run([promtool, "check", "metrics"], input=text, text=True, check=True)


def test_headless_on_a_port_of_its_own(start: Start) -> None:
    port = str(unused_port())
    locust = start(ECHOES, "--headless", "--users", "4", "--spawn-rate", "100", "--ws-metrics-port", port)
    url = f"http://127.0.0.1:{port}/metrics"

    def complete() -> Any:
        found = samples(read(url))
        return found.get("locust_websocket_messages_total") == {("in",): 40, ("out",): 40} and found

    check(eventually(complete, seconds=30))
    locust.process.terminate()
    assert locust.finish().complaints == ""


def test_a_port_that_is_taken_is_told_before_the_run(start: Start) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        locust = start(ECHOES, "--headless", "--users", "1", "--ws-metrics-port", str(port))
        result = locust.finish()
    assert result.code != 0 and result.noted("echoed") == []
    assert f"--ws-metrics-port: cannot listen on port {port}" in result.stderr


WITHOUT = "import sys\nsys.modules['prometheus_client'] = None\n"


def test_without_prometheus_client_it_is_told(start: Start) -> None:
    web = Web()
    start(WITHOUT + ECHOES, "--autostart", "--users", "1", *web.arguments)
    eventually(lambda: web.total()["opened"] == 1, seconds=30)  # everything else is as ever
    with pytest.raises(HTTPError) as told:
        web.page("/metrics")
    assert told.value.code == 501
    assert "pip install 'locust-ws-async[prometheus]'" in told.value.read().decode()


def test_without_prometheus_client_the_option_ends_the_run(start: Start) -> None:
    locust = start(WITHOUT + ECHOES, "--headless", "--users", "1", "--ws-metrics-port", str(unused_port()))
    result = locust.finish()
    assert result.code != 0 and result.noted("echoed") == []
    assert "--ws-metrics-port: the metrics need prometheus-client" in result.stderr


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no Prometheus server on PATH")
def test_a_prometheus_server_scrapes_it(start: Start, tmp_path: Path) -> None:
    port, own = unused_port(), unused_port()
    start(ECHOES, "--headless", "--users", "4", "--spawn-rate", "100", "--ws-metrics-port", str(port))
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "locust", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    command = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{own}",
        "--log.level=warn",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as prometheus:
        try:

            def value_of(query: str) -> Any:
                answer = read(f"http://127.0.0.1:{own}/api/v1/query?{urlencode({'query': query})}")
                result = json.loads(answer)["data"]["result"] if answer else []
                return result and float(result[0]["value"][1])

            eventually(lambda: value_of('locust_websocket_messages_total{direction="in"}') == 40, seconds=60)
            assert value_of('locust_websocket_connections{state="open"}') == 4
            assert value_of('locust_request_duration_seconds_count{type="WS SEND",name="/echo"}') == 40
        finally:
            prometheus.terminate()


def test_opentelemetry_knows_the_type_of_a_row(start: Start) -> None:
    env = {
        "OTEL_METRICS_EXPORTER": "console",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }
    locust = start(
        ECHOES
        + """
from locust_ws_async.fleet import transport

def quit_soon():
    while transport.total().counts["messages_in"] < 40:
        gevent.sleep(0.1)
    gevent.sleep(1.5)  # an export or two
    return True

quit_when(quit_soon)
""",
        "--otel", "--headless", "--users", "4", "--spawn-rate", "100", python=(), **env,
    )  # fmt: skip
    output = locust.finish().stdout
    decoder, exports, position = json.JSONDecoder(), [], output.find("{\n")
    while position >= 0:
        value, end = decoder.raw_decode(output, position)
        exports.append(value)
        position = output.find("{\n", end)
    points: dict[str, list[Any]] = {}
    for export in exports:
        for resource in export["resource_metrics"]:
            for scope in resource["scope_metrics"]:
                for metric in scope["metrics"]:
                    points.setdefault(metric["name"], []).extend(metric["data"]["data_points"])
    sent = [point for point in points["locust.requests"] if point["attributes"]["type"] == "WS SEND"]
    assert {point["attributes"]["name"] for point in sent} == {"/echo"}
    assert max(point["value"] for point in sent) == 40
    quantiles = {point["attributes"]["quantile"] for point in points["locust.request.duration"]}
    assert quantiles == {0.5, 0.9, 0.99, 0.999}
    states = [point for point in points["locust.websocket.connections"] if point["attributes"]["state"] == "open"]
    assert max(point["value"] for point in states) == 4
