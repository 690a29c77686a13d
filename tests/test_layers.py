"""The layers of the package's docstring: who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

import locust_ws_async

PACKAGE = Path(locust_ws_async.__file__).parent

# What each layer may import, besides the standard library and itself.
GLUE = {"locust", "gevent", "client", "bridge", "exceptions", "fast_paths"}
LAYERS = {
    "__init__": {"users"},
    "users": GLUE | {"tasksets", "request_events", "http_session"},
    "tasksets": GLUE,
    "request_events": GLUE,
    "http_session": GLUE | {"requests"},  # a dependency of Locust's
    "client": {"websockets", "picows", "python_socks", "exceptions", "hosting", "fast_paths"},
    "bridge": {"gevent", "greenlet", "hosting", "fast_paths"},
    "hosting": set(),
    "fast_paths": set(),
    "exceptions": {"websockets"},
    "command": {"demo", "recording"},
    "demo": {"websockets"},
    "recording": set(),
}


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in the file; ours by their layer, others by their package."""
    package = ".".join(("locust_ws_async", *path.relative_to(PACKAGE).parts[:-1]))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first != "locust_ws_async":
                yield first
            elif rest:
                yield rest[0]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path: Path) -> None:
    layer = layer_of(path)
    upward = set(imports(path)) - LAYERS[layer] - {layer} - sys.stdlib_module_names
    assert not upward, f"{layer} must not import {', '.join(sorted(upward))}"


@pytest.mark.parametrize(
    ("module", "missing"),
    [
        ("locust_ws_async", ["locust", "gevent", "greenlet", "websockets", "picows"]),
        ("locust_ws_async.bridge", ["locust", "websockets", "picows"]),
        ("locust_ws_async.client", ["locust", "gevent", "greenlet", "picows", "python_socks"]),
        ("locust_ws_async.exceptions", ["locust", "gevent", "greenlet", "picows"]),
        ("locust_ws_async.command", ["locust", "gevent", "greenlet", "picows"]),
        ("locust_ws_async.recording", ["locust", "gevent", "greenlet", "picows", "websockets"]),
        ("locust_ws_async.users", ["picows", "python_socks"]),  # they are optional
    ],
)
def test_a_layer_needs_nothing_from_above(module: str, missing: list[str]) -> None:
    program = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); import {module}"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
