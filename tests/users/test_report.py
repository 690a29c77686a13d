"""The section "WebSocket" of Locust's report, in a real browser that has no network."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chromium import CHROMIUM, page

from .conftest import Server
from .running import LocustRun
from .section import Section

pytestmark = pytest.mark.once

Run = Callable[..., LocustRun]

GREEN = "#00ca5a"

SOURCE = """
from locust_ws_async import gauge

runners = []
events.init.add_listener(lambda runner, **_: runners.append(runner))

def all_reported():
    requests = sum(row.num_requests for row in runners[0].stats.entries.values())
    if requests == 123:  # all but the sessions
        gevent.sleep(3)  # some lines of the history
        runners[0].stop()
    return requests == 126

quit_when(all_reported)
gauge("</script><b>bold", lambda: 1)

class Echo(AsyncWebSocketUser):
    wait_time = constant(1000)

    @task
    async def echo(self):
        connection = await self.ws.connect("/echo")
        for _ in range(20):
            await connection.send("x")
            await connection.recv()
"""
USERS = ("--users", "3", "--spawn-rate", "3")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
@pytest.mark.parametrize("processes", [(), ("--processes", "2")])
def test_the_file_shows_the_whole_run_without_a_network(
    run: Run, server: Server, tmp_path: Path, processes: tuple[str, ...]
) -> None:
    report = tmp_path / "report.html"
    result = run(SOURCE, "--html", str(report), *USERS, *processes)
    assert result.complaints == ""
    assert "MIT License" in report.read_text()  # of uPlot, which is in the file
    counts = server.counts()
    assert (counts["opened"], counts["messages_in"], counts["closes"]) == (3, 60, {"1000": 3})

    async def look() -> None:
        async with page(tmp_path) as seen:
            await seen.look(1280, 800)
            await seen.devtools.call(
                "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1
            )
            await seen.go(report.as_uri())
            section = Section(seen)
            await section.until(Opened=3, Messages_in=60, Messages_out=60, Closes="1000: 3")
            headings = await seen.js("[...document.querySelectorAll('h2')].map(heading => heading.textContent)")
            assert headings[-2:] == ["WebSocket", "Final ratio"]
            connections, *others = await section.colours()
            assert connections[GREEN] > 50 and len(others) == 3
            assert [error for error in seen.errors() if "favicon" not in error] == []  # Locust's, beside its own page
            assert {url.partition(":")[0] for url in seen.loaded_from()} <= {"file", "data"}

    asyncio.run(look())


def test_the_file_of_an_earlier_run_is_left_alone(run: Run, server: Server, tmp_path: Path) -> None:
    """Locust writes no report when it is terminated."""
    report = tmp_path / "report.html"
    report.write_text("<body>an earlier one</body>")
    terminated = """
    from tests.users import scenario

    events.quit.remove_listener(scenario._write_files)  # which would give Locust the time to write a report after all
    quit_when(lambda: all_reported() and (os.kill(os.getpid(), 15) or gevent.sleep(1000)))
    """
    source = SOURCE.replace("quit_when(all_reported)\n", textwrap.dedent(terminated))
    result = run(source, "--html", str(report), *USERS)
    assert result.complaints == ""
    assert server.counts()["messages_in"] == 60
    assert report.read_text() == "<body>an earlier one</body>"


def test_a_run_without_a_connection_has_no_section(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    run(
        """
        class Plain(User):
            @task
            def nothing(self):
                self.environment.runner.quit()
        """,
        *("--html", str(report), "--users", "1"),
    )
    assert "Locust Test Report" in report.read_text() and "websocket-data" not in report.read_text()
