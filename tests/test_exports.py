"""The names that users import: they exist, and what documents and examples import is among them."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import locust_ws_async
from locust_ws_async import client

PACKAGE = Path(locust_ws_async.__file__).parent
ROOT = PACKAGE.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

FILES = sorted(PACKAGE.rglob("*.py"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def imported_from_us(path: Path) -> list[tuple[str, str]]:
    """Module and name of each import from this package, in an example or in the Python that a document shows."""
    text = path.read_text(encoding="utf-8")
    code = text if path.suffix == ".py" else "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))
    found = []
    for module, names in re.findall(r"^\s*from (locust_ws_async[\w.]*) import ([^#\n(]+|\([^)]*\))", code, re.M):
        found += [(module, name.split(" as ")[0].strip()) for name in names.strip("( )\n").split(",") if name.strip()]
    return found


def exported_by(module: str) -> list[str]:
    """``__all__`` of a module of ours, read and not imported: some import Locust, which patches the process."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                exported: list[str] = ast.literal_eval(value)
                return exported
    return []


@pytest.mark.parametrize("path", [*DOCUMENTS, *EXAMPLES], ids=lambda path: str(path.relative_to(ROOT)))
def test_what_users_are_shown_is_exported(path: Path) -> None:
    for module, name in imported_from_us(path):
        assert name in exported_by(module), f"{module} does not export {name}"


def test_documents_and_examples_are_found() -> None:
    shown = {(module, name) for path in (*DOCUMENTS, *EXAMPLES) for module, name in imported_from_us(path)}
    assert {("locust_ws_async", "AsyncWebSocketUser"), ("locust_ws_async.client", "json_field")} <= shown


@pytest.mark.parametrize("name", ["bridge", "client", "demo.command", "demo.server", "exceptions"])
def test_what_is_exported_exists(name: str) -> None:
    module = importlib.import_module(f"locust_ws_async.{name}")
    assert [exported for exported in module.__all__ if not hasattr(module, exported)] == []
    assert len(module.__all__) == len(set(module.__all__))


def test_renamed_names_still_work() -> None:
    assert client.Connecting is client.ConnectContext and "Connecting" in client.__all__
    assert client.Exchange is client.MessageWait and "Exchange" in client.__all__


@each_file
def test_every_module_says_what_it_exports(path: Path) -> None:
    """``__all__`` exists, unless a package has nothing but its docstring, and names what the module defines."""
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "what is this file for?"
    exported: list[str] | None = None
    defined = set()
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.AnnAssign(target=ast.Name(id="__all__")):
                assert node.value is not None
                exported = ast.literal_eval(node.value)
            case ast.Name(id=name, ctx=ast.Store()):
                defined.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                defined.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                defined.update(alias.asname or alias.name for alias in names)
    if exported is None:
        assert path.name == "__init__.py" and len(tree.body) == 1, "__all__ is missing"
    else:
        assert set(exported) <= defined
