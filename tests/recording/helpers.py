"""HAR files made by hand, and what is done with the locustfiles that come of them."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from locust_ws_async.recording import locustfile, parse
from tests.support import SCALE, eventually
from tests.users.running import LocustProcess

BEGAN = 1_790_000_000.0

Exchanged = tuple[float, str, Any]
"""Seconds since the last one, ``"send"`` or ``"receive"``, and what: bytes, a str, or anything else as compact JSON."""


def message(time: float, kind: str, what: Any) -> dict[str, Any]:
    """An entry of ``_webSocketMessages``."""
    if isinstance(what, bytes):
        return {"type": kind, "time": time, "opcode": 2, "data": base64.b64encode(what).decode()}
    text = what if isinstance(what, str) else json.dumps(what, separators=(",", ":"))
    return {"type": kind, "time": time, "opcode": 1, "data": text}


def entry(
    exchanged: Sequence[Exchanged],
    url: str = "ws://shop.example/chat",
    headers: Sequence[tuple[str, str]] = (),
    *,
    began: float = BEGAN,
    answered: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """The entry of a WebSocket connection."""
    time, messages = began, []
    for pause, kind, what in exchanged:
        time += pause
        messages.append(message(time, kind, what))
    return {
        "startedDateTime": iso(began),
        "_resourceType": "websocket",
        "request": {"method": "GET", "url": url, "headers": listed(headers)},
        "response": {"status": 101, "headers": listed(answered)},
        "_webSocketMessages": messages,
    }


def http_entry(
    url: str,
    *,
    method: str = "GET",
    body: str = "",
    content_type: str = "",
    headers: Sequence[tuple[str, str]] = (),
    status: int = 200,
    answered: Sequence[tuple[str, str]] = (),
    answer: str = "",
    began: float = BEGAN - 1,
) -> dict[str, Any]:
    """The entry of an HTTP request."""
    request: dict[str, Any] = {"method": method, "url": url, "headers": listed(headers)}
    if body:
        request["postData"] = {"mimeType": content_type, "text": body}
    return {
        "startedDateTime": iso(began),
        "request": request,
        "response": {"status": status, "headers": listed(answered), "content": {"text": answer}},
    }


def har(*entries: dict[str, Any], creator: str = "a test") -> str:
    """A HAR with these entries."""
    return json.dumps({"log": {"version": "1.2", "creator": {"name": creator}, "entries": entries}})


def converted(*entries: dict[str, Any]) -> str:
    """The locustfile for these entries. It compiles."""
    source = locustfile(parse(har(*entries)))
    compile(source, "locustfile.py", "exec")
    return source


def block(source: str) -> str:
    """What is in the block of the first connection."""
    lines = source[source.index("async with self.ws.connect(") :].splitlines()[1:]
    return "\n".join(line.removeprefix(" " * 12) for line in lines if line.startswith(" " * 12))


def iso(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat()


def listed(headers: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in headers]


def well_formed(folder: Path, *but: str) -> None:
    """Each Python file in the folder is as ruff would format it, and ruff's rules (but for these) find nothing."""
    rules = "E,F,W,I,B,UP,SIM,C4,PIE,RET,RUF"
    # RUF012: locustfiles set class attributes as Locust's documentation does.
    check(folder, "ruff", "format", "--isolated", "--no-cache", "--diff", ".")
    check(
        folder,
        "ruff",
        "check",
        "--isolated",
        "--no-cache",
        "--select",
        rules,
        "--ignore",
        ",".join(["RUF012", *but]),
        ".",
    )


def check(folder: Path, *command: str) -> None:
    result = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


# ------------------------------------------------------------------------------- what a server saw


@dataclass
class Seen:
    """A connection as the server saw it."""

    path: str
    headers: dict[str, str]
    messages: list[str] = field(default_factory=list)
    closed: bool = False


class WritingServer:
    """``server.py`` as a process."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "received"
        self._file.touch()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.recording.server", str(self._file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.http_url = self.url.replace("ws", "http", 1)
        self._taken = 0

    def seen(self) -> list[Seen]:
        """The connections that were opened since the last call of :meth:`forget`."""
        found: dict[int, Seen] = {}
        for line in self._file.read_text().splitlines()[self._taken :]:
            told = json.loads(line)
            if "path" in told:
                found[told["connection"]] = Seen(told["path"], told["headers"])
            elif told["connection"] in found:
                connection = found[told["connection"]]
                if "message" in told:
                    connection.messages.append(told["message"])
                else:
                    connection.closed = True
        return list(found.values())

    def forget(self) -> None:
        """Begin anew."""
        eventually(lambda: all(connection.closed for connection in self.seen()))
        self._taken = len(self._file.read_text().splitlines())

    def stop(self) -> None:
        self.process.terminate()
        _, errors = self.process.communicate(timeout=20 * SCALE)
        assert errors == ""


@dataclass
class Run:
    """What Locust reported, and what the server saw of it."""

    code: int
    stderr: str
    rows: dict[str, tuple[int, int]]
    """Requests and failures by ``"<type> <name>"``."""
    seen: list[Seen]

    def assert_no_failures(self) -> None:
        """Locust's exit code would be 1 after one failure, or one exception in a task."""
        assert self.code == 0, self.stderr
        assert self.rows and not any(failures for _, failures in self.rows.values())


def run_once(source: str, server: WritingServer, folder: Path, connections: int, **env: str) -> Run:
    """Run the locustfile by Locust, one user, until it has closed so many connections."""
    path = folder / "locustfile.py"
    path.write_text(source)
    # Not --csv: the rows of a run's last second may be missing there.
    options = f"-f {path} --headless --only-summary -u 1 -r 1 --run-time {60 * SCALE:.0f}s --json-file out"
    locust = LocustProcess(folder, *options.split(), **env)

    def closed() -> list[Seen]:
        return [connection for connection in server.seen() if connection.closed]

    try:
        eventually(lambda: len(closed()) >= connections or locust.process.poll() is not None, seconds=60)
        seen = closed()[:connections]
        if locust.process.poll() is None:
            locust.process.terminate()
        run = locust.finish()
    finally:
        locust.kill()
    stats = json.loads((folder / "out.json").read_text())
    rows = {f"{row['method']} {row['name']}": (row["num_requests"], row["num_failures"]) for row in stats}
    return Run(run.code, run.stderr, rows, seen)


def without(*names: str) -> Callable[[str], Any]:
    """Makes messages comparable: JSON without these members, anything else as it is."""

    def comparable(text: str) -> Any:
        try:
            value = json.loads(text)
        except ValueError:
            return text
        if isinstance(value, dict):
            return {key: member for key, member in value.items() if key not in names}
        return value

    return comparable
