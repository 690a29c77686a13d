"""The private names of our dependencies are reached in ``locust_ws_async/internals/`` alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import locust_ws_async

PACKAGE = Path(locust_ws_async.__file__).parent
INTERNALS = PACKAGE / "internals"
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if INTERNALS not in path.parents]

# Named tuples have these names so that they do not collide with the fields; they are documented as public.
PUBLIC = {"_asdict", "_fields", "_make", "_replace"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


def defined_by(path: Path) -> Iterator[str]:
    """The private names that a file of ours defines: functions, classes, variables, attributes, slots, arguments."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                yield name


def used_by(path: Path) -> Iterator[tuple[int, str, bool]]:
    """The private names that a file uses of objects or modules: line, name, and whether on ``self`` or ``super()``.

    By access, by import, and by ``getattr`` and its kin.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(value=value, attr=name):
                own = isinstance(value, ast.Name) and value.id in ("self", "cls")
                inherited = (
                    isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "super"
                )
                yield node.lineno, name, own or inherited
            case ast.ImportFrom(level=0, names=names):
                yield from ((node.lineno, alias.name, False) for alias in names)
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr" | "delattr"), args=[_, ast.Constant(str(name)), *_]
            ):
                yield node.lineno, name, False
            case ast.Call(func=ast.Name(id="attrgetter" | "methodcaller"), args=[ast.Constant(str(name)), *_]):
                yield node.lineno, name, False


OURS = {name for path in FILES for name in defined_by(path)}

# What the classes in internals/ declare is inherited by ours, which use it on themselves.
INHERITED = {
    name
    for path in INTERNALS.glob("*.py")
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.ClassDef)
    for part in node.body
    for name in (
        [part.name]
        if isinstance(part, ast.FunctionDef)
        else [part.target.id]
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        else []
    )
}


def foreign(path: Path) -> list[str]:
    return [
        f"{path.name}:{line}: {name}"
        for line, name, inherited in used_by(path)
        if is_private(name) and name not in OURS and not (inherited and name in INHERITED)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_names_of_others_are_reached_in_internals_alone(path: Path) -> None:
    assert foreign(path) == []


@pytest.mark.parametrize(
    "line",
    [
        "loop._csock",
        "self._csock",
        "from asyncio.base_events import _MIN_SCHEDULED_TIMER_HANDLES",
        "getattr(transport, '_ssl_protocol', None)",
        "attrgetter('_must_cancel')",
        "task._exception",
    ],
)
def test_each_way_to_reach_one_is_seen(line: str, tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(line)
    assert len(foreign(file)) == 1
