"""The public names. A change here is a change for those who use the package."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import locust_ws_async

PACKAGE = Path(locust_ws_async.__file__).parent

PUBLIC = {
    "locust_ws_async": ["AsyncUser", "AsyncWebSocketUser"],
    "locust_ws_async.bridge": ["GreenletEventLoop", "LoopHost"],
    "locust_ws_async.client": [
        "ALL_ROWS",
        "CONNECT",
        "ENGINES",
        "KEEPALIVE",
        "PING",
        "PUSH",
        "RECV",
        "REQUEST",
        "SEND",
        "SESSION",
        "Backoff",
        "ConnectContext",
        "ConnectOptions",
        "ConnectPhases",
        "Connecting",
        "Deflate",
        "Exchange",
        "HTTPSession",
        "KeepaliveRule",
        "MessageWait",
        "Reply",
        "Report",
        "Session",
        "SourceAddresses",
        "Statistics",
        "Subscription",
        "WebSocketClient",
        "WebSocketConnection",
        "any_message",
        "echo",
        "every",
        "ignore",
        "json_field",
        "json_subset",
        "prefix",
        "regex",
        "reply",
    ],
    "locust_ws_async.command": ["main"],
    "locust_ws_async.demo.command": ["add_commands", "locustfile"],
    "locust_ws_async.demo.server": ["DemoServer", "add_arguments", "main", "run"],
    "locust_ws_async.exceptions": [
        "CatchResponseError",
        "ConnectError",
        "ConnectTimeout",
        "ConnectionClosed",
        "ConnectionClosedError",
        "ConnectionClosedOK",
        "ConnectionRefused",
        "HandshakeError",
        "HandshakeRejected",
        "MessageTimeout",
        "PingTimeout",
        "ProxyError",
        "TLSError",
        "UnknownHost",
        "WebSocketError",
    ],
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__all__ == PUBLIC[name]
    if name != "locust_ws_async":  # its names import Locust, which patches the process
        assert all(hasattr(module, exported) for exported in module.__all__)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
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
