"""run_single_user(), which Locust has for debuggers: no runner, the main greenlet, every request printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support import SCALE

from .conftest import Server
from .running import ROOT, locustfile


def test_run_single_user(tmp_path: Path, server: Server) -> None:
    source = f"""
        class Single(AsyncWebSocketUser):
            host = {server.url!r}

            async def on_start(self):
                self.connection = await self.ws.connect("/echo")

            @task
            async def echo(self):
                await self.connection.send("x")
                await self.connection.recv()
                try:
                    await self.ws.connect("/reject/401", name="rejected")
                except ConnectionError:
                    raise StopUser

            async def on_stop(self):
                note("stopped")

            def context(self):
                return {{"who": "me"}}

        if __name__ == "__main__":
            from locust import run_single_user

            run_single_user(Single, include_length=True, include_time=True, include_context=True)
        """
    done = subprocess.run(
        [sys.executable, "-W", "error", locustfile(tmp_path, source)],
        capture_output=True,
        text=True,
        timeout=60 * SCALE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LOCUST_NOTES": str(tmp_path / "notes")},
        check=True,
    )
    assert done.stderr == ""
    assert (tmp_path / "notes").read_text() == '["stopped"]\n'
    rows = [line.split("\t") for line in done.stdout.splitlines() if "\tWS " in line]
    assert [(row[1], row[2].strip()) for row in rows] == [
        ("WS CONNECT", "/echo"),
        ("WS SEND", "/echo"),
        ("WS RECV", "/echo"),
        ("WS CONNECT", "rejected"),
        ("WS SESSION", "/echo"),
    ]
    assert all("{'who': 'me'}" in row for row in rows)
    assert "HTTP 401 Unauthorized" in done.stdout
    assert server.counts()["closes"] == {"1000": 1}
