"""README and docs against the code: what they name exists, what exists they name, what they show runs."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import pytest

from locust_ws_async import exceptions
from locust_ws_async.client import ALL_ROWS, ConnectOptions
from tests.support import demo_server_process, run_until

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *(ROOT / "docs").glob("*.md")]
DEMO_SERVER = (ROOT / "docs" / "demo-server.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("setting", [field.name for field in dataclasses.fields(ConnectOptions)])
def test_the_reference_has_every_setting(setting: str) -> None:
    assert re.search(rf"^\|.*`{setting}`.*\|", REFERENCE, re.MULTILINE)


@pytest.mark.parametrize("row", sorted(ALL_ROWS))
def test_the_reference_has_every_row(row: str) -> None:
    assert f"| `{row}` |" in REFERENCE


@pytest.mark.parametrize("error", exceptions.__all__)
def test_the_reference_has_every_error(error: str) -> None:
    assert re.search(rf"\b{error}\b", REFERENCE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_measured_row_has_a_figure(document: Path) -> None:
    """A dash is what a run did not measure: in all of a row, and results have been lost."""
    for block in re.findall(r"<!-- measured: .*?<!-- end -->", document.read_text(encoding="utf-8"), re.DOTALL):
        for row in re.findall(r"^\| (?!---).*\|$", block, re.MULTILINE):
            assert set(row.strip("| ").split(" | ")[1:]) != {"-"}, row


def test_the_demo_server_has_every_path_that_its_page_names(tmp_path: Path) -> None:
    from locust_ws_async.demo.server import listing

    paths = set(re.findall(r"^\| `(/[^`?]*)", DEMO_SERVER, re.MULTILINE)) - {"/"}
    assert paths == {line for line in listing().splitlines() if line.startswith("/")}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without telling it")
def test_the_locustfile_of_the_readme_runs(tmp_path: Path) -> None:
    code = re.search(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert code is not None and len(code[1].splitlines()) <= 15
    (tmp_path / "locustfile.py").write_text(code[1])
    with demo_server_process() as server:
        command = [sys.executable, "-m", "locust", *f"--host {server.url} --headless -u 2 -r 2".split()]
        result = run_until(lambda: server.is_busy(connections=2, messages=3), command, tmp_path)
        assert result.returncode == 0, result.stderr
        assert server.stats()["routes"]["/cart/chat"]["closes"] == {"1000": 2}
