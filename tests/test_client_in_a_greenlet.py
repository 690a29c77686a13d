"""The client's tests once more as Locust runs it: in a monkey-patched process, each in the loop of a greenlet."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .support import SCALE

ROOT = Path(__file__).parents[1]
PATCHED = "from gevent import monkey; monkey.patch_all(); import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
FILES = ["closing", "connection", "exchanges", "failures", "pushes", "reconnect", "streams"]  # those about waiting


@pytest.mark.parametrize("file", FILES)
def test_the_client_in_a_greenlet(file: str) -> None:
    command = [sys.executable, "-c", PATCHED, f"tests/client/test_{file}.py", "-q", "-p", "no:cacheprovider"]
    environment = os.environ | {"LOCUST_WS_TEST_LOOP": "greenlet"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300 * SCALE)
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr
    passed = re.search(r"(\d+) passed", ended.stdout)
    assert passed is not None and int(passed[1]) > 20
