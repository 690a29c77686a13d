"""CPython's own tests of event loops, run against ours; what is skipped, and why, stands in ``cpython.py``."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

from ..support import SCALE

SUITES = {
    # the loop
    "test_events": 60,
    "test_unix_events": 80,
    "test_runners": 20,
    # sockets
    "test_sock_lowlevel": 10,
    "test_sendfile": 15,
    "test_server": 1,
    "test_buffered_proto": 1,
    "test_streams": 40,
    "test_sslproto": 10,
    "test_ssl": 15,
    "test_subprocess": 40,
    # what stands on a loop
    "test_taskgroups": 30,
    "test_threads": 5,
    "test_timeouts": 10,
    "test_waitfor": 10,
}
"""Module of ``test.test_asyncio``, and how many of its tests must have passed at the least, on each Python."""

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="they are asyncio's tests for Unix"),
    pytest.mark.skipif(
        importlib.util.find_spec("test") is None or importlib.util.find_spec("test.test_asyncio") is None,
        reason="this Python ships without its tests",
    ),
]


@pytest.mark.parametrize("suite", SUITES)
def test_cpythons_own_tests_pass(suite: str) -> None:
    command = [sys.executable, "-m", "tests.bridge.cpython", suite]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120 * SCALE)
    if "os.pidfd_open(pid)\nProcessLookupError" in ended.stderr:
        # gevent, which patches subprocess, has reaped a child that ended at once before asyncio (3.12) looked for it.
        # It may do so under asyncio's own loop as well.
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120 * SCALE)
    passed = len(re.findall(r"\bok$", ended.stderr, re.MULTILINE))
    assert ended.returncode == 0 and passed >= SUITES[suite], ended.stderr[-10_000:]
