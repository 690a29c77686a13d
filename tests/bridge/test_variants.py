"""The bridge's tests once more in a monkey-patched process, as Locust's is, on each of gevent's event loops."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..support import SCALE

HERE = Path(__file__).parent
PATCHED = "from gevent import monkey; monkey.patch_all(); import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"


EVERYTHING = [str(HERE), *(f"--ignore={HERE / name}" for name in (Path(__file__).name, "test_cpython.py"))]


def run_patched(loop: str, tests: list[str], program: str = PATCHED) -> int:
    """How many of the tests passed, with none that failed."""
    ended = subprocess.run(
        [sys.executable, "-c", program, *tests, "-q", "-p", "no:cacheprovider"],
        cwd=HERE.parent.parent,
        env=os.environ | {"GEVENT_LOOP": {"libev": "libev-cext", "libuv": "libuv"}[loop]},
        capture_output=True,
        text=True,
        timeout=300 * SCALE,
    )
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr
    passed = re.search(r"(\d+) passed", ended.stdout)
    assert passed is not None
    return int(passed[1])


@pytest.mark.parametrize(
    "loop",
    ["libev", pytest.param("libuv", marks=pytest.mark.once)],  # the second is the one that Locust gets on Windows
)
def test_the_bridge_in_a_patched_process(loop: str) -> None:
    assert run_patched(loop, EVERYTHING) > 150


def test_the_selector_where_there_is_no_poll() -> None:
    """As on Windows."""
    without = "import select; del select.poll, select.epoll; " + PATCHED
    assert run_patched("libuv", [str(HERE / "test_selector.py")], without) > 20
