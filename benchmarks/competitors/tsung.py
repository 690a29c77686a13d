"""Tsung, when it is on PATH. Its own reports hold means and deviations, no percentiles."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from benchmarks.hosts import Percentiles
from benchmarks.workload import Workload

if not (PROGRAM := shutil.which("tsung")):
    raise ImportError("tsung is not on PATH")

NAME = "Tsung"
VERSION = subprocess.run([PROGRAM, "-v"], capture_output=True, text=True).stdout.strip()
ACTIVITIES = {"echo", "idle"}

CONFIGURATION = """<?xml version="1.0"?>
<!DOCTYPE tsung SYSTEM "/usr/share/tsung/tsung-1.0.dtd">
<tsung loglevel="warning">
  <clients><client host="localhost" use_controller_vm="true" maxusers="60000"/></clients>
  <servers><server host="127.0.0.1" port="{port}" type="tcp"/></servers>
  <load>
    <arrivalphase phase="1" duration="1" unit="hour">
      <users maxnumber="{users}" arrivalrate="{users_per_second}" unit="second"/>
    </arrivalphase>
  </load>
  <sessions>
    <session name="echo" probability="100" type="ts_websocket">
      <request><websocket type="connect" path="/"/></request>
      {activity}
    </session>
  </sessions>
</tsung>
"""
ECHO = """<for from="1" to="1000000000" var="turn">
        <request><websocket type="message" frame="text">{message}</websocket></request>
      </for>"""
IDLE = '<thinktime value="100000"/>'


class Tsung:
    restarts_statistics = False
    reports = False

    def command(self, file: Path, workload: Workload, scratch: Path) -> list[str]:
        echo = ECHO.format(message=escape(workload.message))
        configuration = CONFIGURATION.format(
            port=urlsplit(workload.url).port,
            users=workload.users,
            users_per_second=workload.users_per_second,
            activity=echo if workload.activity == "echo" else IDLE,
        )
        (scratch / "tsung.xml").write_text(configuration)
        return [str(PROGRAM), "-f", str(scratch / "tsung.xml"), "-l", f"{scratch}/", "start"]

    def latency(self, scratch: Path) -> Percentiles:
        return {}


HOST = Tsung()
