from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import DemoServerProcess, demo_server_process


@pytest.fixture(scope="package")
def shared_server() -> Iterator[DemoServerProcess]:
    """One server for the tests that do not look at its counts."""
    with demo_server_process() as server:
        yield server


@pytest.fixture
def server() -> Iterator[DemoServerProcess]:
    """A server that nobody has used yet."""
    with demo_server_process() as server:
        yield server
