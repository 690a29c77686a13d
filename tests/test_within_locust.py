"""The tests that import Locust, each file in a process that Locust has patched before all else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .support import SCALE

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "tests" / "within_locust").glob("test_*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.stem))
def test_within_locust(file: Path) -> None:
    program = "import locust, sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    ignored = "ignore::pytest.PytestAssertRewriteWarning"  # Locust is a plugin of pytest too, and already imported
    command = [sys.executable, "-c", program, str(file), "-q", "-p", "no:cacheprovider", "-W", ignored]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300 * SCALE)
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr
    assert re.search(r"\d+ passed", ended.stdout)
