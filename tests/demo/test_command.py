"""``locust-ws-async`` and the locustfiles that come with the project, run as a user runs them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chromium import CHROMIUM
from tests.support import SCALE, DemoServerProcess, eventually, run_until, unused_port

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "import sys; from locust_ws_async.command import main; sys.exit(main())"]
TIMEOUT = 60 * SCALE


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command; Locust prints its table to the standard error, here it is all one output."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )


def test_demo_prints_the_table_and_writes_the_report(tmp_path: Path) -> None:
    result = run("demo", "--users", "6", "--run-time", f"{5 * SCALE:.0f}s", cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    requests = dict(re.findall(r"^(WS \w+) +cart +(\d+) +0\(0.00%\)", result.stdout, re.MULTILINE))
    assert requests.keys() == {"WS CONNECT", "WS SEND", "WS RECV", "WS SESSION"}
    connections = requests["WS CONNECT"]
    assert requests["WS SESSION"] == connections
    assert f"{connections} connections (0 closed abnormally), {requests['WS SEND']} messages received" in result.stdout
    assert "WS RECV" in (tmp_path / "demo-report.html").read_text()


def test_the_exit_code_is_that_of_locust(tmp_path: Path) -> None:
    assert run("demo", "--run-time", "nonsense", cwd=tmp_path).returncode == 2


def test_a_certificate_that_does_not_load(tmp_path: Path) -> None:
    result = run("server", "--port", "0", "--key", "key.pem", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (
        2,
        "locust-ws-async: --key needs --cert, the certificate that it belongs to\n",
    )
    result = run("server", "--port", "0", "--cert", "none.pem", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout.startswith("locust-ws-async: --cert and --key did not load: ")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without telling it")
@pytest.mark.parametrize("by", ["Ctrl-C", "SIGTERM"])
def test_a_demo_that_is_ended_still_prints_the_table(tmp_path: Path, by: str) -> None:
    command = [*COMMAND, "demo", "--run-time", "1h"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while "All users spawned" not in "".join(lines[-1:]):
            lines.append(process.stdout.readline())
            assert lines[-1], f"the demo ended by itself: {lines}"
        if by == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        else:
            process.terminate()
        output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    # The last user may have been stopped before it was connected.
    assert re.search(r"^WS SESSION +cart +(9|10) +0\(", output, re.MULTILINE)
    assert re.search(r"^The server counted (9|10) connections", output, re.MULTILINE)


@contextlib.contextmanager
def demo_web(cwd: Path) -> Iterator[str]:
    """``locust-ws-async demo --web`` on a free port; gives the URL of the web UI."""
    port = unused_port()
    environment = {**os.environ, "LOCUST_WEB_PORT": str(port)}
    with (
        open(cwd / "log", "w") as log,
        subprocess.Popen([*COMMAND, "demo", "--web"], cwd=cwd, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            yield f"http://127.0.0.1:{port}/"
        except AssertionError as exc:
            exc.add_note((cwd / "log").read_text())
            raise
        finally:
            process.terminate()
    assert process.returncode == 0, (cwd / "log").read_text()


def rows(web_ui: str) -> dict[str, Any]:
    """The web UI's statistics by request type, once there are rows of both user classes."""

    def stats() -> dict[str, Any] | None:
        with contextlib.suppress(OSError), urllib.request.urlopen(web_ui + "stats/requests") as response:
            found = {row["method"]: row for row in json.load(response)["stats"]}
            return found if {"WS RECV", "WS REQUEST"} <= found.keys() else None
        return None

    return dict(eventually(stats, seconds=30))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without telling it")
def test_demo_web_opens_the_web_ui(tmp_path: Path) -> None:
    with demo_web(tmp_path) as web_ui:
        assert rows(web_ui)["WS CONNECT"]["num_requests"] > 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without telling it")
def test_demo_web_shows_an_outage_and_its_recovery(tmp_path: Path) -> None:
    """Connections are lost without a close frame, and each is made again: what is worth a look at the tab."""
    with demo_web(tmp_path) as web_ui:

        def recovered() -> dict[str, Any] | None:
            with contextlib.suppress(OSError), urllib.request.urlopen(web_ui + "websocket/stats") as response:
                total: dict[str, Any] = json.load(response)["total"]
                return total if total["recoveries"] and total["open"] == 50 else None
            return None

        total = eventually(recovered, seconds=60)
        lost = total["closed_by"]["lost"]
        assert (total["opened"], total["recoveries"], total["closes"]) == (50 + lost, lost, {"1006": lost})
        with urllib.request.urlopen(web_ui + "websocket/history") as response:
            history = json.load(response)
        assert max(history["reconnecting"]) > 0


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
def test_the_rows_appear_in_a_browser(tmp_path: Path) -> None:
    quiet = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    quiet += " --disable-component-update --disable-sync --virtual-time-budget=8000"
    with demo_web(tmp_path) as web_ui:
        rows(web_ui)
        command = [str(CHROMIUM), *quiet.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", web_ui]

        def shown() -> bool:
            """On a busy machine the browser may give up the page before its rows are there."""
            page = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT).stdout
            return {"WS CONNECT", "WS REQUEST", "WS RECV"} <= set(re.findall(r"WS [A-Z]+", page))

        eventually(shown, seconds=60)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without telling it")
@pytest.mark.parametrize("locustfile", ["examples/keepalive.py", "benchmarks/blocking_client.py"])
def test_locust_and_the_server_count_the_same(server: DemoServerProcess, tmp_path: Path, locustfile: str) -> None:
    options = f"-f {ROOT / locustfile} --host {server.url} --headless -u 4 -r 4 --json-file out".split()
    command = [sys.executable, "-m", "locust", *options]
    result = run_until(lambda: server.is_busy(connections=4, messages=9), command, tmp_path)
    assert result.returncode == 0, result.stderr
    # Not --csv: its writer runs once a second, and the rows of the last one may be missing.
    stats = json.loads((tmp_path / "out.json").read_text())
    counts = {row["method"]: row["num_requests"] for row in stats}
    total = server.stats()["total"]
    assert (total["opened"], total["open"], total["closes"]) == (4, 0, {"1000": 4})
    assert counts["WS CONNECT"] == 4
    assert counts["WS SEND"] == total["messages_in"] > 8
    # A message that was under way when the users were stopped is not received by anybody.
    assert total["messages_out"] - 4 <= counts["WS RECV"] <= total["messages_out"]


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short(example: Path) -> None:
    assert len(example.read_text().splitlines()) <= 40
