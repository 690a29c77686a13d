"""The class for the connections to one host: its settings, its login, a method for each connection."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .conversation import messages_of
from .handshake import settings_of
from .har import HTTPExchange, Socket
from .login import Login
from .loops import Line, Unit, fold
from .patterns import Script, read
from .payloads import Payloads, identifier
from .protocols import protocol_of
from .source import Code, Expression, Text, call, statement, text
from .steps import Names, StepWriter, keepalive, sleep, together, written
from .urls import path_of, row_name

__all__ = ["Connection", "host_of", "user_class"]


@dataclass(slots=True)
class Connection:
    """A connection, what was understood of it, and how it is written."""

    socket: Socket
    script: Script
    opened: float
    closed: float
    settings: dict[str, Expression] = field(default_factory=dict)
    told: dict[str, Expression] = field(default_factory=dict)
    """Settings that are known only when the user has logged in."""

    @classmethod
    def of(cls, socket: Socket) -> Connection:
        """A recorded connection."""
        messages = messages_of(socket)
        times = [message.time for message in messages] or [socket.opened]
        opened, closed = min(socket.opened, times[0]), max(times)
        return cls(socket, read(messages, opened, closed), opened, closed)


def host_of(socket: Socket) -> str:
    """Scheme and host, without user and password."""
    return f"{socket.url.scheme}://{socket.url.netloc.rpartition('@')[2]}"


def user_class(
    connections: Sequence[Connection],
    requests: Sequence[HTTPExchange],
    payloads: Payloads,
    class_names: Names,
    imported: frozenset[str],
) -> Iterator[str]:
    """The lines of the class. ``imported``: names that its methods must not give to anything else."""
    login = Login([connection.socket for connection in connections], requests, payloads)
    blocks = [_Block(connection, payloads, login, imported) for connection in connections]
    logged_in = login.requests()
    given = {cookie for request in logged_in for cookie in request.set_cookies.items()}
    shares = bool(given)
    for connection in connections:
        socket = connection.socket
        left = dict(cookie for cookie in socket.cookies.items() if cookie not in given)
        connection.settings, connection.told = settings_of(socket, left, payloads, login)
        if (rules := keepalive(connection.script, payloads)) is not None:
            connection.settings["keepalive"] = rules
        if shares:
            given |= set(socket.set_cookies.items())
    logged_in = login.requests()  # with those whose tokens the settings have
    common = _common([connection.settings for connection in connections])

    socket = connections[0].socket
    host = host_of(socket).replace("ws", "http", 1) if logged_in else host_of(socket)
    bases = "AsyncWebSocketUser, HttpUser" if logged_in else "AsyncWebSocketUser"
    yield f"class {class_names.new(_class_name(socket))}({bases}):"
    yield statement(1, "host = ", payloads.text(host))
    yield "    wait_time = constant(1)"
    if shares:
        yield "    share_cookies = True"
    for name, value in common.items():
        yield statement(1, f"{name} = ", value)
    if logged_in:
        yield "\n    def on_start(self):"
        yield from login.lines(logged_in, host)
    yield from _methods(connections, blocks, common)


def _common(settings: Sequence[dict[str, Expression]]) -> dict[str, Expression]:
    """What all of them have."""
    first, *others = settings
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def _methods(
    connections: Sequence[Connection], blocks: Sequence[_Block], common: dict[str, Expression]
) -> Iterator[str]:
    """A method for each connection; connections that did the same share one."""
    methods: dict[str, str] = {}
    names = Names({"session", "unix_socket"})  # the one below, and a setting of users
    calls: list[str] = []
    for block in blocks:
        source = "\n".join(block.lines(common))
        if source not in methods:
            methods[source] = names.new(block.method)
        calls.append(methods[source])
    only = len(calls) == 1
    for source, name in methods.items():
        yield "\n    @task" if only else ""
        yield f"    async def {name}(self):"
        yield source
    if not only:
        yield "\n    @task"
        yield "    async def session(self):"
        yield from written(fold(list(_session(connections, calls)), set()), 2)


def _session(connections: Sequence[Connection], calls: Sequence[str]) -> Iterator[Unit]:
    """The connections as they were: one after the other, or at the same time."""
    ended = connections[0].opened
    for indexes in together([(connection.opened, connection.closed) for connection in connections]):
        began = connections[indexes[0]].opened
        pause, ended = began - ended, max(connections[index].closed for index in indexes)
        if len(indexes) == 1:
            yield Unit(pause, (Line("await ", Code(f"self.{calls[indexes[0]]}()")),))
            continue
        lines = [Line("async with asyncio.TaskGroup() as connections:", Code(""))]
        for index in indexes:
            wait = sleep(connections[index].opened - began)
            began = connections[index].opened
            if wait is not None:
                lines.append(Line(wait.before, wait.value, wait.after, 1))
            lines.append(Line("", Code(f"connections.create_task(self.{calls[index]}())"), "", 1))
        yield Unit(pause, tuple(lines))


class _Block:
    """The body of the method for a connection."""

    def __init__(self, connection: Connection, payloads: Payloads, login: Login, imported: frozenset[str]) -> None:
        self._connection = connection
        names = Names(imported)
        segments = connection.socket.url.path.split("/")
        word = identifier(next((part for part in reversed(segments) if part.isalpha()), ""), "socket")
        self.method = word if word == "socket" else f"{word}_socket"
        self._variable = names.new(word, "connection")
        self._before: list[str] = []

        def variable(name: str, value: str) -> str | None:
            known = login.value(value)
            if known is None:
                return None
            told = names.new(identifier(name, "value"))
            self._before.append(statement(2, f"{told} = ", known))
            return told

        self._path: Text = path_of(connection.socket.url, payloads, variable)
        steps = StepWriter(connection.script, payloads, names, self._variable, login)
        self._as = f" as {self._variable}" if steps.uses_connection else ""
        self._inside = list(steps.lines(connection.opened, connection.closed))

    def lines(self, common: dict[str, Expression]) -> Iterator[str]:
        """The source. ``common``: the settings that the class has."""
        connection = self._connection
        yield from self._before
        if (protocol := protocol_of(connection.socket)) is not None:
            yield f"        # This speaks {protocol.name}: {protocol.advice}."
        keywords = {name: value for name, value in connection.settings.items() if name not in common}
        keywords |= connection.told
        if len(self._path.parts) > 1 or isinstance(self._path.parts[0], Code):
            keywords["name"] = text(row_name(self._path))
        connect = call("self.ws.connect", self._path, **keywords)
        yield statement(2, "async with ", connect, f"{self._as}:")
        yield from self._inside or ["            pass"]


def _class_name(socket: Socket) -> str:
    words = re.findall(r"[A-Za-z0-9]+", socket.url.hostname or "", re.ASCII)
    name = "".join(word.capitalize() for word in words if word not in ("www", "com"))
    return f"{name}User" if name[:1].isalpha() else "RecordedUser"
