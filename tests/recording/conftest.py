from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .helpers import WritingServer


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WritingServer]:
    """The demo server, which writes down what it receives."""
    server = WritingServer(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a locustfile runs."""
    return tmp_path
