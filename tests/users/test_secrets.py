"""Secrets are planted in a locustfile, and looked for in all that Locust writes."""

from __future__ import annotations

import json
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode

import pytest

from tests.support import SCALE, eventually, unused_port

from .conftest import Server
from .running import LocustProcess, LocustRun

pytestmark = pytest.mark.once

Run = Callable[..., LocustRun]
Start = Callable[..., LocustProcess]


def test_no_secret_is_in_what_locust_writes(run: Run, server: Server, tmp_path: Path, engine: str) -> None:
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
                host = self.host.replace("S3C-13", "S3C-4")
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
        *("--host", server.url.replace("://", "://me:S3C-13@")),
    )
    assert result.code == 1 and any("no host name" in message for message in result.exceptions)
    files = [*tmp_path.glob("run*.csv"), tmp_path / "report.html", *(tmp_path / "websocket-recordings").iterdir()]
    assert len(files) > 5
    written = [result.stdout, result.stderr, *(path.read_text() for path in files)]
    assert [line for text in written for line in text.splitlines() if "S3C" in line] == []
    assert f"ws://***@{server.url.partition('://')[2]}" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("by", ["--host", "class"])
def test_the_web_ui_shows_no_password_of_a_host_and_takes_the_host_back_as_it_was_shown(
    start: Start, server: Server, by: str
) -> None:
    port, address = unused_port(), server.url.partition("://")[2]
    shown = f"ws://***@{address}"
    locust = start(
        f"""
        class Seen(AsyncWebSocketUser):
            host = "ws://me:S3C'&1@{address}"

            @task
            async def connect(self):
                async with self.ws.connect("/headers") as connection:
                    note((await connection.recv_json())["authorization"])
                await asyncio.sleep(0.05)
        """,
        *("--class-picker", "--web-host", "127.0.0.1", "--web-port", str(port)),
        *("--host", f"ws://me:S3C'&2@{address}" if by == "--host" else ""),
    )

    def page(path: str, data: bytes | None = None, kind: str = "application/x-www-form-urlencoded") -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=10 * SCALE) as response:
            text: str = response.read().decode()
            seen.extend([text, str(response.headers)])
            return text

    def is_up() -> bool:
        try:
            return bool(page("/stats/requests"))
        except URLError:
            return False

    seen: list[str] = []
    eventually(is_up)
    assert shown in page("/")
    page("/user", json.dumps({"user_class_name": "Seen", "host": shown}).encode(), "application/json")
    form: dict[str, Any] = {"user_count": 1, "spawn_rate": 1, "host": shown if by == "--host" else ""}
    for _ in range(2):  # while it runs, too
        answer = json.loads(page("/swarm", urlencode(form).encode()))
        assert (answer["success"], answer["host"]) == (True, form["host"])
    eventually(locust.notes)
    assert shown in page("/stats/report")
    for download in ("/stats/report?download=1", "/stats/requests/csv", "/tasks", "/"):
        page(download)
    assert (shown in seen[-7]) == (by == "--host")  # the name of the file
    locust.process.terminate()
    result = locust.finish()
    assert "Traceback" not in result.stderr
    seen += [result.stderr, result.stdout]
    login = b64encode(b"me:S3C'&" + (b"2" if by == "--host" else b"1")).decode()
    assert {note[0] for note in result.notes} == {f"Basic {login}"}
    assert [line for text in seen for line in text.splitlines() if "S3C" in line] == []
