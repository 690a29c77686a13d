"""The locustfiles of docs/protocols.md, and of docs/coming-from-blocking.md, against servers of these protocols."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .running import LocustRun

pytestmark = pytest.mark.once

DOCS = Path(__file__).parents[2] / "docs"
LOCUSTFILES = dict(
    re.findall(
        r"^## ([^\n]*)\n(?:(?!^## ).)*?^```python\n(.*?)^```",
        (DOCS / "protocols.md").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
)
LIBRARIES = {
    "Libraries that call websockets.connect": "pysignalr",
    "GraphQL with gql": "gql",
    "MQTT": "aiomqtt",
    "Server-sent events": "httpx_sse",
}
WITHOUT_A_CONNECTION_OF_OURS = {"MQTT", "Server-sent events"}
COMING_FROM = (DOCS / "coming-from-blocking.md").read_text(encoding="utf-8")
BEFORE, AFTER = re.findall(r"^```python\n(.*?)^```", COMING_FROM, re.MULTILINE | re.DOTALL)[2:]


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.users.protocol_servers"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as servers:
        assert servers.stdin is not None and servers.stdout is not None
        yield f"ws://127.0.0.1:{servers.stdout.readline().strip()}"
        servers.stdin.close()


def quit_after(wanted: dict[str, int]) -> str:
    """What ends a run as soon as there are so many requests of each of these rows."""
    return f"""
left = {wanted}

@events.request.add_listener
def count_down(request_type, name, **_):
    row = request_type + " " + name
    left[row] = left.get(row, 0) - 1

quit_when(lambda: all(number <= 0 for number in left.values()))
"""


@pytest.mark.parametrize(
    ("protocol", "rows"),
    [
        ("Libraries that call websockets.connect", ["WS RECV /hub", "ASYNC echo"]),
        ("Socket.IO", ["WS REQUEST connect", "WS REQUEST ask", "WS PUSH question", "WS REQUEST ask me"]),
        ("GraphQL with gql", ["GRAPHQL price", "GRAPHQL price pushed"]),
        ("MQTT", ["MQTT connect", "MQTT subscribe", "MQTT publish", "MQTT delivered"]),
        ("Server-sent events", ["SSE first event", "SSE gap"]),
        ("GraphQL subscriptions", ["WS REQUEST connection_init", "WS REQUEST price", "WS PUSH price pushed"]),
        ("STOMP", ["WS REQUEST CONNECT", "WS REQUEST SUBSCRIBE", "WS REQUEST SEND", "WS PUSH prices"]),
        ("Phoenix channels", ["WS REQUEST phx_join", "WS REQUEST new_msg", "WS PUSH new_msg"]),
        ("JSON-RPC", ["WS REQUEST public/subscribe", "WS REQUEST public/ticker", "WS PUSH trades pushed"]),
    ],
)
def test_the_locustfile_of(protocol: str, rows: list[str], run: Callable[..., LocustRun], host: str) -> None:
    if (library := LIBRARIES.get(protocol)) and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    wanted = {row: 20 if row == rows[-1] else 2 for row in rows}
    # Libraries may use what Python deprecates.
    python = () if library else ("-W", "error")
    result = run(LOCUSTFILES[protocol] + quit_after(wanted), "--users", "2", "--host", host, python=python)
    assert (result.code, result.complaints, result.failures, result.exceptions) == (0, "", {}, {})
    sessions = [number for row, number in result.counts.items() if row.startswith("WS SESSION")]
    assert sessions == ([] if protocol in WITHOUT_A_CONNECTION_OF_OURS else [2])


@pytest.mark.parametrize(("locustfile", "row"), [(BEFORE, "WSC ask"), (AFTER, "SIO CALL ask")], ids=["before", "after"])
def test_those_who_come_from_locusts_socketiouser(
    locustfile: str, row: str, run: Callable[..., LocustRun], host: str
) -> None:
    result = run(locustfile + quit_after({row: 4}), "--users", "2", "--host", host.replace("ws", "http"))
    assert (result.code, result.complaints, result.failures, result.exceptions) == (0, "", {}, {})
