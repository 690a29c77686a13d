"""README and docs against the code: what they name exists, what exists they name, what they show runs."""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
from pathlib import Path

import pytest

from docs import settings
from locust_ws_async import exceptions
from locust_ws_async.client import ALL_ROWS, ConnectOptions
from tests.support import demo_server_process, run_until

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "locust_ws_async"
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
HOW_IT_WORKS = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
TESTS = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [*(ROOT / folder / "README.md" for folder in (".", "benchmarks", "tests")), *(ROOT / "docs").glob("*.md")]
DEMO_SERVER = (ROOT / "docs" / "demo-server.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_to_a_section_find_it(document: Path) -> None:
    for target, section in re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", document.read_text(encoding="utf-8")):
        other = document.parent / target if target else document
        headings = re.findall(r"^#+ (.+)$", other.read_text(encoding="utf-8"), re.MULTILINE)
        assert section in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_setting_is_documented_below_its_name() -> None:
    """The only place: ``AsyncWebSocketUser`` repeats the name and the default, and has no words of its own."""
    connection = {setting.name: setting for setting in settings.settings_of(settings.OPTIONS, "ConnectOptions")}
    assert set(connection) == {field.name for field in dataclasses.fields(ConnectOptions)}
    assert [name for name, setting in connection.items() if not setting.meaning] == []
    users = settings.settings_of(settings.USERS, "AsyncWebSocketUser")
    assert [setting.name for setting in users if setting.name in connection and setting.meaning] == []


def test_every_setting_has_its_place_in_the_table() -> None:
    places = " ".join(settings.GROUPS.values()).split()
    assert sorted(places) == sorted(field.name for field in dataclasses.fields(ConnectOptions))


def test_the_reference_says_of_settings_what_the_code_says() -> None:
    """Word by word. ``python -m docs.settings`` writes the table anew."""
    assert settings.table() in REFERENCE
    assert settings.with_table(REFERENCE) == REFERENCE


def test_the_table_of_settings_is_as_the_strings_are(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        '''
NAME = "ours"


class Options:
    """Not the string of a setting."""

    first: int | None = 2**20
    """Of ``first | second``,
    two lines and a :class:`~package.Name`."""

    second: str = NAME
    third: dict[str, str] = field(default_factory=dict)
    """The third."""

    _private: int = 0
    """Not a setting."""

    def method(self) -> None:
        """Not one either."""
'''
    )
    assert [setting.row() for setting in settings.settings_of(tmp_path / "module.py", "Options")] == [
        r"| `first` | `2**20` | Of `first \| second`, two lines and a `Name`. |",
        '| `second` | `"ours"` |  |',
        "| `third` | `{}` | The third. |",
    ]


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


def test_every_fast_path_has_a_row() -> None:
    """A comment ``Fast path "name"`` in the sources for each row of the table, and a row for each comment."""
    places: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for name in re.findall(r'# Fast path "([^"]+)"', path.read_text(encoding="utf-8")):
            places.setdefault(name, set()).add(path.relative_to(PACKAGE).as_posix())
    section = BENCHMARKS.split("\n## Fast paths\n")[1].split("\n## ")[0]
    _, _, *rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    assert all(len(row) == 5 and all(row) for row in rows)
    assert {name: set(re.findall(r"`([\w/]+\.py)`", where)) for name, _, _, where, _ in rows} == places


def test_the_rooms_are_those_of_the_package() -> None:
    """What the listing of ``how-it-works.md`` names exists, and it names each folder and each file above the rooms."""
    listing = HOW_IT_WORKS.split("## The rooms\n\n```\nlocust_ws_async/\n")[1].split("```")[0]
    folder, named = "", set()
    for indentation, name in re.findall(r"^( +)(\S+)", listing, re.MULTILINE):
        if len(indentation) == 2:
            folder = name if name.endswith("/") else ""
            named.add(name)
        else:
            named.add(folder + name)
    assert [name for name in named if not (PACKAGE / name).exists()] == []
    there = {
        f"{path.relative_to(PACKAGE).as_posix()}{'/' if path.is_dir() else ''}"
        for path in [*PACKAGE.iterdir(), *(PACKAGE / "client").iterdir()]
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    small = {"__init__.py", "client/__init__.py", "client/lazy_coroutine.py"}  # which the listing may do without
    assert there - named <= small


def test_how_it_works_names_files_and_methods_that_exist() -> None:
    files = set(re.findall(r"`((?:\w+/)*\w+\.py|\w+/\w+)`", HOW_IT_WORKS))
    assert sorted(name for name in files if not any((root / name).exists() for root in (PACKAGE, ROOT))) == []
    methods: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                names = {part.name for part in node.body if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef))}
                methods.setdefault(node.name, set()).update(names)
    named = re.findall(r"`([A-Z]\w+)\.(\w+)`", HOW_IT_WORKS)
    assert [f"{owner}.{method}" for owner, method in named if method not in methods.get(owner, ())] == []
    classes = re.findall(r"`([A-Z][a-z]\w+)` \(`(?:\w+/)+\w+\.py`\)", HOW_IT_WORKS)
    assert [owner for owner in classes if owner not in methods] == []


def test_the_glossary_is_short() -> None:
    terms = re.findall(r"^\| ([\w ]+?) \| ", HOW_IT_WORKS.split("## Glossary")[1], re.MULTILINE)
    assert terms.pop(0) == "Term"
    assert 0 < len(terms) <= 25
    assert len(set(terms)) == len(terms)


def test_the_readme_of_the_tests_has_every_file() -> None:
    files = {path.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    named = re.findall(r"^\| `([\w/]+\.py)` \| .*\w.* \| .*\w.* \|$", TESTS, re.MULTILINE)
    assert sorted(named) == sorted(files)
    covered = set(re.findall(r"`((?:\w+/)*\w+\.py)`", TESTS)) - set(named)
    assert (
        sorted(name for name in covered if not any((root / name).exists() for root in (PACKAGE, ROOT / "tests"))) == []
    )


def test_the_demo_server_has_every_path_that_its_page_names(tmp_path: Path) -> None:
    from locust_ws_async.demo.server import listing

    paths = set(re.findall(r"^\| `(/[^`?]*)", DEMO_SERVER, re.MULTILINE)) - {"/"}
    assert paths == {line for line in listing().splitlines() if line.startswith("/")}


def python_blocks(document: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_python_is_python(document: Path) -> None:
    for block in python_blocks(document):
        compile(block, str(document), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_texts_that_are_explained_are_those_of_the_code() -> None:
    """Word by word: those in the first column of a table with a column *Text*, but for what a ``…`` leaves out."""
    page = (ROOT / "docs" / "what-you-see.md").read_text(encoding="utf-8").split("\n## Symptoms")[0]
    explained = re.findall(r"^\| (`+) ?(.+?) ?\1 \| ", page, re.MULTILINE)
    assert len(explained) > 40
    texts = {
        re.sub(r"%\.?\w+", "\0", node.value)  # so that nothing is found across a place for a value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    texts.add("coroutine was never awaited")  # Python's own
    parts = [part.strip() for _, text in explained for part in text.split("…")]
    assert [part for part in parts if not any(part in text for text in texts)] == []


WHOLE_LOCUSTFILES = {
    f"{page} {number}": python_blocks(ROOT / "docs" / page)[number]
    for page, number in [("tutorial.md", 0), ("tutorial.md", 1), ("tutorial.md", 2), ("coming-from-blocking.md", 1)]
}
JUDGED = "\n".join(python_blocks(ROOT / "docs" / "tutorial.md")[2:])
SLOW = JUDGED.replace('self.ask("balance")', 'self.ask("balance", delay=0.5)')
WHOLE_LOCUSTFILES |= {
    "tutorial.md judged": JUDGED,
    "tutorial.md judged as too slow": SLOW,
    "coming-from.md": python_blocks(ROOT / "docs" / "coming-from.md")[0],
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without telling it")
@pytest.mark.parametrize("which", WHOLE_LOCUSTFILES)
def test_a_whole_locustfile_of_the_docs_runs(which: str, tmp_path: Path) -> None:
    (tmp_path / "locustfile.py").write_text(WHOLE_LOCUSTFILES[which])
    with demo_server_process() as server:
        command = [sys.executable, "-m", "locust", *f"--host {server.http_url} --headless -u 5 -r 5".split()]
        # Enough for an answer of each kind, and for one visit after another; and for what is required.
        enough = 300 if "judged" in which else 30
        result = run_until(lambda: server.stats()["total"]["messages_out"] >= enough, command, tmp_path)
        assert result.returncode == (3 if "too slow" in which else 0), result.stderr
        assert "Error report" not in result.stdout + result.stderr
        told = re.findall("Traceback|ERROR.*", result.stdout + result.stderr)
        assert [line for line in told if "requirements failed" not in line] == [], result.stderr


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
