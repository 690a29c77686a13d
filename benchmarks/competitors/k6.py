"""k6, when it is on PATH: one VU per connection, with a Trend that times each echo as testers write it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from benchmarks.hosts import Percentiles
from benchmarks.workload import Workload

if not (PROGRAM := shutil.which("k6")):
    raise ImportError("k6 is not on PATH")

NAME = "k6"
VERSION = " ".join(subprocess.run([PROGRAM, "version"], capture_output=True, text=True).stdout.split()[:2])

SCRIPT = """
import {{ WebSocket }} from "k6/experimental/websockets";
import {{ Trend }} from "k6/metrics";

export const options = {{
  vus: {users},
  duration: "1h",
  insecureSkipTLSVerify: true,
  summaryTrendStats: ["p(50)", "p(95)", "p(99)"],
}};
const message = {message};
const activity = {activity};
const echo = new Trend("echo", true);

export default function () {{
  const socket = new WebSocket({url});
  let sent = 0;
  let first = true; // its echo is held back until every user is connected
  const send = () => {{ sent = Date.now(); socket.send(message); }};
  socket.onopen = () => {{
    if (activity === "echo") send();
    if (activity === "connect") socket.close();
  }};
  socket.onmessage = () => {{
    if (!first) echo.add(Date.now() - sent);
    first = false;
    send();
  }};
}}
"""


class K6:
    restarts_statistics = False
    reports = True

    def command(self, file: Path, workload: Workload, scratch: Path) -> list[str]:
        script = scratch / "echo.js"
        script.write_text(
            SCRIPT.format(
                users=workload.users,
                message=json.dumps(workload.message),
                activity=json.dumps(workload.activity),
                url=json.dumps(workload.url),
            )
        )
        return [
            str(PROGRAM),
            "run",
            "--quiet",
            "--no-usage-report",
            "--summary-export",
            str(scratch / "summary.json"),
            str(script),
        ]

    def latency(self, scratch: Path) -> Percentiles:
        summary = scratch / "summary.json"
        if not summary.exists():
            return {}
        times = json.loads(summary.read_text())["metrics"].get("echo", {})
        return {f"p{percent}": times[f"p({percent})"] for percent in (50, 95, 99) if times}


HOST = K6()
