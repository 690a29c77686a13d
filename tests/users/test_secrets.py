"""Secrets are planted in a locustfile, and looked for in all that Locust writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .running import LocustRun

pytestmark = pytest.mark.once

Run = Callable[..., LocustRun]


def test_no_secret_is_in_what_locust_writes(run: Run, tmp_path: Path, engine: str) -> None:
    result = run(
        f"""
        quit_when_done()

        class Planted(AsyncWebSocketUser):
            engine = "{engine}"
            record_last = 9
            headers = {{"X-Api-Key": "S3C-1"}}
            cookies = {{"session": "S3C-2"}}
            subprotocols = ["S3C-3"]
            connect_backoff = None
            wrong = "ws://me:S3C-10@/chat?S3C-11#S3C-12"

            @task
            async def work(self):
                host = self.host.replace("://", "://me:S3C-4@")
                async with self.ws.connect(host + "/echo?token=S3C-5&S3C-6") as echo:
                    await echo.send('{{"password": "S3C-7"}}')
                    await echo.recv()
                for url in (host.rpartition(":")[0] + ":1/?S3C-8", host + "/close/1011?S3C-8"):
                    try:
                        async with self.ws.connect(url, bearer="S3C-9") as connection:
                            await connection.recv()
                    except (ConnectionError, OSError):
                        pass
                failed.append(self)
                if len(failed) == 1:
                    self.ws.connect(self.wrong)  # a traceback quotes this line
                raise StopUser

        failed = []
        """,
        *("-u", "2", "-L", "DEBUG", "--json", "--html", str(tmp_path / "report.html")),
    )
    assert result.code == 1 and any("no host name" in message for message in result.exceptions)
    files = [*tmp_path.glob("run*.csv"), tmp_path / "report.html", *(tmp_path / "websocket-recordings").iterdir()]
    assert len(files) > 5
    written = [result.stdout, result.stderr, *(path.read_text() for path in files)]
    assert [line for text in written for line in text.splitlines() if "S3C" in line] == []
