"""The soak of ``benchmarks/soak.py``: it runs, for some seconds, and it sees a row that is not the truth."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.soak import differences, slope

from .support import SCALE


@pytest.mark.parametrize("engine", ["websockets", "picows"])
def test_a_short_soak_has_no_problems(engine: str) -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--engine", engine, "--users", "5", "--minutes", "0.05"]
    root = Path(__file__).parents[1]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60 * SCALE, cwd=root)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"{engine}: 5 users" in ended.stdout and "; 0 problems" in ended.stdout


def test_a_row_that_is_not_the_truth_is_a_difference() -> None:
    server = Counter(opened=3, echo=5, close=1)
    rows: dict[str, Any] = {
        "WS CONNECT /soak": [3, 0],
        "WS REQUEST echo": [5, 0],
        "WS REQUEST close": [0, 1],
        "WS SESSION /soak": [2, 1],
    }
    tasks = {
        "WS CONNECT /soak ok": 3,
        "WS REQUEST echo ok": 5,
        "WS REQUEST close failed": 1,
        "WS SESSION /soak ok": 2,
        "WS SESSION /soak failed": 1,
    }
    assert differences({"rows": rows, "tasks": tasks}, server) == []
    (lost,) = differences({"rows": rows | {"WS REQUEST echo": [4, 0]}, "tasks": tasks}, server)
    assert lost == "WS REQUEST echo: Locust has (4, 0) (successes, failures), the tasks (5, 0), the server (5, 0)"
    (unseen,) = differences({"rows": rows, "tasks": tasks}, server + Counter(silence=1))
    assert unseen.startswith("WS REQUEST silence: Locust has (0, 0)") and unseen.endswith("the server (0, 1)")


def test_the_slope_is_that_of_the_second_half() -> None:
    samples = [{"time": float(t), "memory": 2**20 * (1000.0 if t < 10 else 50 + t)} for t in range(20)]
    assert slope(samples) == pytest.approx(3600)
