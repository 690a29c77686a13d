"""From a recording to a locustfile: what stands above the classes, and the classes."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from datetime import UTC, datetime

from .har import Recording
from .masking import collect
from .payloads import Payloads
from .source import WIDTH
from .steps import Names
from .user_class import Connection, host_of, user_class
from .vault import ENVIRONMENT, Vault

__all__ = ["locustfile"]

# Where each name comes from that the output may use; None for a module.
_STANDARD_LIBRARY = {
    "asyncio": None,
    "json": None,
    "os": None,
    "count": "itertools",
    "datetime": "datetime",
    "quote_plus": "urllib.parse",
    "token_urlsafe": "secrets",
    "uuid4": "uuid",
}
_OTHERS = {
    "HttpUser": "locust",
    "constant": "locust",
    "task": "locust",
    "AsyncWebSocketUser": "locust_ws_async",
    "any_message": "locust_ws_async.client",
    "echo": "locust_ws_async.client",
    "every": "locust_ws_async.client",
    "ignore": "locust_ws_async.client",
    "json_field": "locust_ws_async.client",
    "json_subset": "locust_ws_async.client",
    "prefix": "locust_ws_async.client",
    "reply": "locust_ws_async.client",
}
_IMPORTED = frozenset({*_STANDARD_LIBRARY, *_OTHERS, "THINK", "in_flight", "connections", "message"})


def locustfile(recording: Recording, *, think: float = 1.0) -> str:
    """
    The source of a locustfile that does what was recorded.

    Args:
        think: scales the pauses: 1 for those of the recording, 0 for none.
    """
    connections = [Connection.of(socket) for socket in recording.sockets]
    vault = Vault()
    sent = (message for connection in connections for message in connection.script.messages if message.sent)
    collect(vault, recording.sockets, sent, recording.requests)
    hosts: dict[str, list[Connection]] = {}
    for connection in connections:
        hosts.setdefault(host_of(connection.socket), []).append(connection)
    payloads, class_names = Payloads(vault), Names(_IMPORTED)
    body = "\n\n\n".join(
        "\n".join(user_class(group, recording.requests, payloads, class_names, _IMPORTED)) for group in hosts.values()
    )
    constants = [f'{name} = os.environ["{ENVIRONMENT}{name}"]' for name in vault.used]
    used = _names_in("\n".join([*constants, body]))
    if "THINK" in used:
        constants.append(f"THINK = {think:g}  # scales the pauses")
    blocks = ["\n".join(constants)] if constants else []
    above = "\n\n".join([_docstring(recording, vault.used), *_imports(used), *blocks])
    return f"{above}\n\n\n{body}\n"


def _docstring(recording: Recording, secrets: Sequence[str]) -> str:
    sockets = recording.sockets
    moment = datetime.fromtimestamp(max(0.0, min(sockets[0].opened, 4e9)), UTC)
    messages = [frame.sent for socket in sockets for frame in socket.frames]
    counts = f"{_counted(len(sockets), 'connection')}, {_counted(sum(messages), 'message')} sent"
    first = f'"""Recorded on {moment:%Y-%m-%d}: {counts}, {len(messages) - sum(messages)} received.'
    if not secrets:
        return first + '"""'
    variables = "\n".join(f"    export {ENVIRONMENT}{name}=..." for name in secrets)
    return f'{first}\n\nIt needs what the recording had for these:\n\n{variables}\n"""'


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _names_in(source: str) -> set[str]:
    """The names that a source uses: of texts that only look so there are many."""
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def _imports(used: set[str]) -> list[str]:
    """The imports of these names, in isort's order: the standard library, then the others."""
    blocks = []
    for known in (_STANDARD_LIBRARY, _OTHERS):
        lines = [f"import {name}" for name in sorted(used) if name in known and known[name] is None]
        modules: dict[str, list[str]] = {}
        for name in sorted(used, key=lambda name: (not name[0].isupper(), name)):
            if (module := known.get(name)) is not None:
                modules.setdefault(module, []).append(name)
        for module, names in sorted(modules.items()):
            line = f"from {module} import {', '.join(names)}"
            if len(line) > WIDTH:
                line = f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
            lines.append(line)
        if lines:
            blocks.append("\n".join(lines))
    return blocks
