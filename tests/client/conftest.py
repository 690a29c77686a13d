from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from locust_ws_async.client import ENGINES
from tests.support import DemoServerProcess, demo_server_process

from .helpers import Bench

# No limits of time that a busy machine exceeds.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def demo() -> Iterator[DemoServerProcess]:
    """The demo server, in a process of its own."""
    with demo_server_process() as server:
        yield server


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    return str(request.param)


@pytest.fixture
def bench(engine: str, demo: DemoServerProcess) -> Bench:
    """Makes clients on this engine for the demo server, and keeps what they report."""
    return Bench(engine, demo.url)


@pytest.fixture
def unix_path(tmp_path: Path) -> str:
    """Where a test may listen on a unix socket."""
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("the platform has no unix sockets")
    path = str(tmp_path / "server.sock")
    if len(path) > 100:
        pytest.skip("the temporary folder's path is too long for a unix socket")
    return path
