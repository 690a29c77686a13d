"""The locustfiles of docs/protocols.md, and of docs/coming-from-blocking.md, against servers of these protocols."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .running import LocustRun

DOCS = Path(__file__).parents[2] / "docs"
LOCUSTFILES = dict(
    re.findall(
        r"^## (.*?)\n.*?^```python\n(.*?)^```",
        (DOCS / "protocols.md").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
)
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
        ("Socket.IO", ["WS REQUEST connect", "WS REQUEST ask"]),
        ("GraphQL subscriptions", ["WS REQUEST connection_init", "WS REQUEST price", "WS PUSH price pushed"]),
        ("STOMP", ["WS REQUEST CONNECT", "WS REQUEST SUBSCRIBE", "WS REQUEST SEND", "WS PUSH prices"]),
    ],
)
def test_the_locustfile_of(protocol: str, rows: list[str], run: Callable[..., LocustRun], host: str) -> None:
    wanted = {row: 20 if row == rows[-1] else 2 for row in rows}
    result = run(LOCUSTFILES[protocol] + quit_after(wanted), "--users", "2", "--host", host)
    assert (result.code, result.complaints, result.failures, result.exceptions) == (0, "", {}, {})
    assert [number for row, number in result.counts.items() if row.startswith("WS SESSION")] == [2]


@pytest.mark.parametrize(("locustfile", "row"), [(BEFORE, "WSC ask"), (AFTER, "SIO CALL ask")], ids=["before", "after"])
def test_those_who_come_from_locusts_socketiouser(
    locustfile: str, row: str, run: Callable[..., LocustRun], host: str
) -> None:
    result = run(locustfile + quit_after({row: 4}), "--users", "2", "--host", host.replace("ws", "http"))
    assert (result.code, result.complaints, result.failures, result.exceptions) == (0, "", {}, {})
