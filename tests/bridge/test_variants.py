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


@pytest.mark.parametrize("loop", ["libev", "libuv"])  # the second is the one that Locust gets on Windows
def test_the_bridge_in_a_patched_process(loop: str) -> None:
    command = [sys.executable, "-c", PATCHED, str(HERE), "-q", "-p", "no:cacheprovider"]
    command += [f"--ignore={HERE / name}" for name in (Path(__file__).name, "test_cpython.py")]
    ended = subprocess.run(
        command,
        cwd=HERE.parent.parent,
        env=os.environ | {"GEVENT_LOOP": {"libev": "libev-cext", "libuv": "libuv"}[loop]},
        capture_output=True,
        text=True,
        timeout=300 * SCALE,
    )
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr
    passed = re.search(r"(\d+) passed", ended.stdout)
    assert passed is not None and int(passed[1]) > 150
