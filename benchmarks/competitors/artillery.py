"""Artillery, when it is on PATH. It has no closed loop over connections, and reports no times for WebSockets."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.hosts import Percentiles
from benchmarks.workload import Workload

if not (PROGRAM := shutil.which("artillery")):
    raise ImportError("artillery is not on PATH")

os.environ["ARTILLERY_DISABLE_TELEMETRY"] = "true"  # it would tell its makers of every run
NAME = "Artillery"
VERSION = " ".join(
    re.findall(
        r"(?:Artillery|Node.js):\s*\S+", subprocess.run([PROGRAM, "version"], capture_output=True, text=True).stdout
    )
)
ACTIVITIES = {"echo", "idle"}


class Artillery:
    restarts_statistics = False
    reports = False

    def command(self, file: Path, workload: Workload, scratch: Path) -> list[str]:
        # A `capture` is what makes a send wait for the answer.
        echo = {
            "loop": [{"send": {"payload": workload.message, "capture": {"json": "$.pad", "as": "pad"}}}],
            "count": 10**9,
        }
        flow: list[Any] = [echo] if workload.activity == "echo" else [{"think": 10**6}]
        seconds = max(1, workload.users // workload.users_per_second)
        script = {
            "config": {"target": workload.url, "phases": [{"duration": seconds, "arrivalCount": workload.users}]},
            "scenarios": [{"engine": "ws", "flow": flow}],
        }
        (scratch / "echo.json").write_text(json.dumps(script))
        return [str(PROGRAM), "run", "--quiet", str(scratch / "echo.json")]

    def latency(self, scratch: Path) -> Percentiles:
        return {}


HOST = Artillery()
