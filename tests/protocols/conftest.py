from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from locust_ws_async.client import ENGINES
from tests.client.helpers import Bench


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """Servers of these protocols, in a process of their own."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.users.protocol_servers"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as servers:
        assert servers.stdin is not None and servers.stdout is not None
        yield f"ws://127.0.0.1:{servers.stdout.readline().strip()}"
        servers.stdin.close()


@pytest.fixture(params=ENGINES)
def bench(request: pytest.FixtureRequest, host: str) -> Bench:
    """Makes clients on each engine in turn, and keeps what they report."""
    return Bench(str(request.param), host)
