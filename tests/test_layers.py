"""Who may import whom: one direction, through the whole package and inside its rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

import locust_ws_async

PACKAGE = Path(locust_ws_async.__file__).parent

# What each layer may import, besides the standard library and itself.
CONTACTS = {"internals.checks", "internals.cpython"}
GLUE = {
    "locust",
    "gevent",
    "client",
    "bridge",
    "exceptions",
    "fast_paths",
    *CONTACTS,
    "internals.grpc",
    "internals.locust",
}
LAYERS = {
    "__init__": {"users"},
    "users": GLUE
    | {"tasksets", "request_events", "http_session", "statistics", "pacing", "fleet", "view", "together"}
    | {"cancelled_waits", "user_errors", "class_checks", "requirements", "shown_hosts"},
    "class_checks": GLUE,
    "shown_hosts": GLUE | {"masking", "flask", "jinja2", "werkzeug"},  # dependencies of Locust's
    "tasksets": GLUE | {"user_errors"},
    "user_errors": GLUE | {"tracebacks"},
    "request_events": GLUE | {"statistics"},
    "cancelled_waits": {"locust"},
    "view": {"locust", "flask", "fleet"},
    # flask and psutil: dependencies of Locust's
    "fleet": {
        *("locust", "gevent", "flask", "psutil", "prometheus_client", "opentelemetry"),
        *("client", "bridge", "pacing", "statistics", "internals.cpython"),
    },
    "together": {"locust", "gevent", "flask", "client", "exceptions", "pacing", "statistics"},  # Flask is Locust's
    "pacing": {"locust", "gevent", "statistics", "internals.locust"},
    "requirements": {"locust", "gevent", "statistics"},
    "statistics": {"locust", "gevent", "internals.locust", "client"},
    "http_session": GLUE | {"requests"},  # a dependency of Locust's
    "client": {
        *("websockets", "picows", "python_socks", "idna"),
        *("exceptions", "hosting", "fast_paths", "masking", "secrets", "tracebacks"),
        *(CONTACTS | {"internals.websockets", "internals.websockets_client", "internals.picows"}),
    },
    "bridge": {"gevent", "greenlet", "hosting", "fast_paths", *CONTACTS, "internals.gevent"},
    "internals": set(),
    "internals.checks": set(),
    "internals.cpython": CONTACTS,
    "internals.gevent": {"gevent", *CONTACTS},
    "internals.grpc": {"gevent"},
    "internals.locust": {"locust", *CONTACTS},
    "internals.picows": {"picows", "aiofastnet", *CONTACTS},
    "internals.websockets": {"websockets", *CONTACTS},
    "internals.websockets_client": {"websockets"},
    "hosting": set(),
    "fast_paths": set(),
    "exceptions": {"websockets"},
    "command": {"demo", "recording"},
    "protocols": {"client", "exceptions", "websockets", "gql", "socketio", "engineio"},
    "masking": {"secrets"},
    "secrets": set(),
    "tracebacks": set(),
    "demo": {"websockets"},
    "recording": {"secrets"},
}

# A line holds a module, or all modules of a room that have no line of their own. A module may import those of the lines
# above its own, and those of its own line.
ORDER = """
    exceptions                  what can go wrong
    secrets                     what a secret looks like
    masking                     what is shown in place of one
    tracebacks                  what of one concerns an author
    hosting                     what the client may ask of the loop that hosts it
    fast_paths
    internals                   private names of the libraries below

    bridge                      an asyncio loop hosted by a greenlet

    client.lazy_coroutine
    client.wire                 bytes and frames
    client.observing            what is told: rows, counts, recordings
    client.messages             who gets which message
    client.opening              the way to a server: names, proxies, TLS
    client.session.backoff
    client.options              the settings: of all the rooms above
    client.opening.handshake    the opening handshake that the settings ask for
    client.opening.connect
    client.session              staying connected
    client.current              whose client it is
    client.connection           what a task holds
    client.websockets_api       the same in the words of websockets
    client.client               makes connections
    client                      the public names
    protocols                   other people's libraries over its connections

    statistics                  from operations to Locust's numbers
    requirements                pass or fail
    pacing                      load as it is meant: ticks and arrivals
    together                    what users do together: broadcasts, rendezvous, storms
    fleet.counters              what this process counts
    fleet.numbers
    fleet.transport             from the workers to the master
    fleet.history
    fleet.files
    fleet.summary
    fleet.metrics               the numbers as metrics
    fleet.prometheus
    fleet.opentelemetry
    fleet.web
    fleet.generator             how late each process is, and whether its times are partly its own
    fleet                       what master and workers know together
    view                        where people look: the tab and the report
    http_session                Locust's side
    request_events
    cancelled_waits
    user_errors                 what of the errors of a user Locust is told
    tasksets
    class_checks
    shown_hosts
    users
    __init__

    demo                        programs of their own
    recording
    command
"""
RANK = {line.split()[0]: rank for rank, line in enumerate(ORDER.splitlines()) if line.strip()}
APART = {"demo", "recording"}  # programs of their own, which import of the rest what LAYERS says, and no more

# Each of these sees its connection through a Protocol of its own, declared beside it.
PARTS_OF_A_CONNECTION = [
    "client/messages/auto_replies.py",
    "client/messages/queue.py",
    "client/messages/requests.py",
    "client/messages/reading.py",
    "client/messages/router.py",
    "client/messages/streams.py",
    "client/messages/subscriptions.py",
    "client/messages/tracking.py",
    "client/observing/flight_recorder.py",
    "client/session/pings.py",
]
MOST_MEMBERS = 8
# The interface between engines and connections is one thing for both sides, and as wide as RFC 6455 makes it.
ENGINE_INTERFACE = {"Wire", "Sink", "Engine"}
WHOLE_CONNECTION = {"WebSocketConnection", "ConnectionLifecycle"}
MAY_NAME_IT = {
    *("client", "client.client", "client.connection", "client.session.lifecycle", "users"),
    # These use a connection as a task does.
    *("client.websockets_api", "protocols.gql", "protocols.socketio", "together.fanout", "together.storm"),
}

FILES = sorted(PACKAGE.rglob("*.py"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def layer_of(path: Path) -> str:
    return layer_of_module(path.relative_to(PACKAGE).with_suffix("").parts)


def layer_of_module(parts: Sequence[str]) -> str:
    """The first part of a module's name; of ``internals`` each module is a layer of its own."""
    deep = parts[0] == "internals" and len(parts) > 1 and parts[1] != "__init__"
    return ".".join(parts[:2]) if deep else parts[0]


def module_of(path: Path) -> str:
    """The module's name below the package; ``__init__`` for the package itself."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in FILES}


def imported_names(path: Path) -> Iterator[str]:
    """What a file imports anywhere, also in functions and under TYPE_CHECKING, as ``module.name``."""
    package = ".".join(("locust_ws_async", *path.relative_to(PACKAGE).parts[:-1]))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imports(path: Path) -> Iterator[str]:
    """The layers of ours that a file imports, and the packages of others."""
    for name in imported_names(path):
        first, *rest = name.split(".")
        if first != "locust_ws_async":
            yield first
        elif rest:
            yield layer_of_module(rest)


def modules_imported(path: Path) -> set[str]:
    """The modules of ours that a file imports."""
    found = set()
    for name in imported_names(path):
        first, *rest = name.split(".")
        if first == "locust_ws_async":
            # The last part may be a name in the module that the others name.
            found.add(".".join(rest) if ".".join(rest) in MODULES else ".".join(rest[:-1]) or "__init__")
    return found - {module_of(path)}


def rank_of(module: str) -> int:
    room = module
    while room not in RANK:
        room, dot, _ = room.rpartition(".")
        assert dot, f"{module} has no place in ORDER"
    return RANK[room]


@each_file
def test_imports_go_downward(path: Path) -> None:
    layer = layer_of(path)
    upward = set(imports(path)) - LAYERS[layer] - {layer} - sys.stdlib_module_names
    assert not upward, f"{layer} must not import {', '.join(sorted(upward))}"


@each_file
def test_imports_follow_the_order(path: Path) -> None:
    module = module_of(path)
    imported = modules_imported(path)
    if layer_of(path) in APART:
        assert {name.split(".")[0] for name in imported} <= {layer_of(path)} | LAYERS[layer_of(path)]
        return
    against = [name for name in sorted(imported) if rank_of(name) > rank_of(module)]
    assert not against, f"{module} imports {', '.join(against)}, which comes after it in ORDER"


def test_no_import_leads_back() -> None:
    """Inside a room too: there is no cycle, not even one for type checkers only."""
    try:
        TopologicalSorter({module_of(path): modules_imported(path) for path in FILES}).prepare()
    except CycleError as exc:
        pytest.fail("each imports the next: " + " > ".join(reversed(exc.args[1])))


def protocols(path: Path) -> dict[str, set[str]]:
    """The Protocols that a file declares, with their members."""
    found: dict[str, set[str]] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).startswith("Protocol") for base in node.bases):
            assert len(node.bases) == 1, f"{node.name} inherits members that are not counted here"
            found[node.name] = {
                item.name if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)) else ast.unparse(item.target)
                for item in node.body
                if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef, ast.AnnAssign))
            }
    return found


@pytest.mark.parametrize("name", PARTS_OF_A_CONNECTION)
def test_a_part_sees_its_connection_through_a_protocol_of_its_own(name: str) -> None:
    assert any(protocol.startswith("ConnectionFor") for protocol in protocols(PACKAGE / name))


@each_file
def test_a_protocol_asks_for_little(path: Path) -> None:
    for protocol, members in protocols(path).items():
        most = len(members) if protocol in ENGINE_INTERFACE else MOST_MEMBERS
        assert 0 < len(members) <= most, f"{protocol} has {len(members)} members: {', '.join(sorted(members))}"


@each_file
def test_no_part_names_the_whole_connection(path: Path) -> None:
    if module_of(path) not in MAY_NAME_IT:
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        assert not WHOLE_CONNECTION & {node.id for node in nodes if isinstance(node, ast.Name)}


@pytest.mark.parametrize(
    ("module", "missing"),
    [
        ("locust_ws_async", ["locust", "gevent", "greenlet", "websockets", "picows"]),
        ("locust_ws_async.bridge", ["locust", "websockets", "picows"]),
        ("locust_ws_async.client", ["locust", "gevent", "greenlet", "picows", "python_socks", "idna"]),
        ("locust_ws_async.exceptions", ["locust", "gevent", "greenlet", "picows"]),
        ("locust_ws_async.command", ["locust", "gevent", "greenlet", "picows"]),
        ("locust_ws_async.recording", ["locust", "gevent", "greenlet", "picows", "websockets"]),
        (
            "locust_ws_async.users",
            ["picows", "python_socks", "prometheus_client", "opentelemetry"],
        ),  # they are optional
    ],
)
def test_a_layer_needs_nothing_from_above(module: str, missing: list[str]) -> None:
    program = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); import {module}"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
