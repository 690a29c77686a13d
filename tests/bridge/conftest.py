"""The bridge's tests run in one process with pytest: greenlets, hubs and loops are the real ones.

They run three times: here as they are, and by ``test_variants.py`` in a monkey-patched process, as Locust's is, on each
of gevent's loops.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator

import gevent
import pytest

from locust_ws_async.bridge import LoopHost


@pytest.fixture(autouse=True)
def nothing_left(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No running loop, nothing logged, nothing on stderr, and no task that is destroyed while it is pending.

    A test that expects a log record takes it out with ``caplog.clear()``.
    """
    yield
    gevent.sleep(0)  # what was killed without waiting
    gc.collect()
    assert asyncio._get_running_loop() is None
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert capfd.readouterr().err == ""


@pytest.fixture
def host() -> Iterator[LoopHost]:
    """The host of the test's own greenlet."""
    host = LoopHost()
    yield host
    host.close()
