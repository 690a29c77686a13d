"""From a recording to a locustfile: a class for each host, a method for each connection."""

from __future__ import annotations

import ast
import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote_plus, unquote, unquote_plus

from .conversation import Message, leaves, messages_of
from .har import HTTPExchange, Recording, Socket
from .login import cookies_left, login_of
from .loops import Line, Unit, fold
from .origins import HTTPOrigin, http_values
from .patterns import Script, read
from .payloads import Payloads, parsed, subscripts
from .protocols import protocol_of
from .secrets import Vault, is_named_secret
from .source import Code, Expression, Group, Text, call, listing, mapping, statement, text
from .steps import Names, StepWriter, identifier, keepalive, sleep, together, written

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
_RESERVED = {*_STANDARD_LIBRARY, *_OTHERS, "THINK", "in_flight", "connections", "message"}

# Headers that every browser sends, that the client makes itself, or that have settings of their own.
_HEADERS_LEFT_OUT = re.compile(
    r"accept(?:-.*)?|authorization|cache-control|connection|content-(?:length|type)|cookie|dnt|expect|host|origin|pragma"
    r"|priority|proxy-.*|referer|sec-.*|te|traceparent|tracestate|transfer-encoding|upgrade(?:-.*)?|user-agent",
    re.IGNORECASE,
)
_TRACKING_COOKIES = re.compile(
    r"_ga|_gid|_gat|_gcl|_fbp|_hj|_pk_|__utm|ajs_|amplitude|mp_|OptanonConsent", re.IGNORECASE
)
_PLAIN_COOKIE = re.compile(r"[A-Za-z]{0,12}|[01]|[a-z]{2}[-_][A-Za-z]{2}")  # a language, a theme: no secret
_LARGEST_MESSAGE = 2**20  # the default of max_size


def locustfile(recording: Recording, *, think: float = 1.0) -> str:
    """
    The source of a locustfile that does what was recorded.

    Args:
        think: scales the pauses: 1 for those of the recording, 0 for none.
    """
    return _Writer(recording).source(think)


@dataclass(slots=True)
class _Connection:
    """A connection, and what is written of it."""

    socket: Socket
    script: Script
    closed: float
    settings: dict[str, Expression] = field(default_factory=dict)
    dynamic: dict[str, Expression] = field(default_factory=dict)
    """Settings that are known only when the user has logged in."""


class _Writer:
    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._vault = Vault()
        self._payloads = Payloads(self._vault)
        self._connections = [_connection(socket) for socket in recording.sockets]
        for connection in self._connections:
            self._collect(connection)
        for request in recording.requests:
            self._collect_request(request)

    def source(self, think: float) -> str:
        hosts: dict[str, list[_Connection]] = {}
        for connection in self._connections:
            hosts.setdefault(_origin(connection.socket), []).append(connection)
        class_names = Names(_RESERVED)
        classes = ["\n".join(_UserWriter(self, connections, class_names).lines()) for connections in hosts.values()]
        body = "\n\n\n".join(classes)
        constants = [f'{name} = os.environ["{name}"]' for name in self._vault.used]
        if "THINK" in body:
            constants.append(f"THINK = {think:g}  # scales the pauses")
        if constants:
            body = "\n".join(constants) + "\n\n\n" + body
        else:
            body = "\n" + body
        return f"{self._docstring()}\n\n{_imports(body)}\n\n{body}\n"

    def _docstring(self) -> str:
        sockets = self._recording.sockets
        moment = datetime.fromtimestamp(max(0.0, min(sockets[0].opened, 4e9)), UTC)
        frames = [frame for socket in sockets for frame in socket.frames]
        sent = sum(frame.sent for frame in frames)
        counts = f"{_counted(len(sockets), 'connection')}, {_counted(sent, 'message')} sent"
        first = f'"""Recorded on {moment:%Y-%m-%d}: {counts}, {len(frames) - sent} received.'
        if not self._vault.used:
            return first + '"""'
        named = "\n".join(f"    export {name}=..." for name in self._vault.used)
        return f'{first}\n\nSet these before you run it:\n\n{named}\n"""'

    # Secrets, before anything is written

    def _collect(self, connection: _Connection) -> None:
        socket, payloads = connection.socket, self._payloads
        self._collect_url(socket)
        for name, value in socket.headers:
            self._collect_header(name, value)
        for name, value in socket.cookies.items():
            if not _PLAIN_COOKIE.fullmatch(value) and not _TRACKING_COOKIES.match(name):
                payloads.collect_named(name, value)
        for message in connection.script.messages:
            if message.sent:
                payloads.collect(message)

    def _collect_url(self, of: Socket | HTTPExchange) -> None:
        if of.url.password:
            self._payloads.collect_named("password", unquote(of.url.password))
        for name, value in parse_qsl(of.url.query, keep_blank_values=True):
            if is_named_secret(name, value):
                self._payloads.collect_named(name, value)
            else:
                self._payloads.collect_text(value)
        self._payloads.collect_text(of.url.query)
        for segment in of.url.path.split("/"):
            self._payloads.collect_text(segment)

    def _collect_header(self, name: str, value: str) -> None:
        if _HEADERS_LEFT_OUT.fullmatch(name) and name.lower() not in ("authorization", "sec-websocket-protocol"):
            return
        scheme, _, credentials = value.partition(" ")
        if scheme.lower() == "basic" and (pair := _basic(value)) is not None:
            self._payloads.collect_named("password", pair[1])
            self._vault.add("authorization", credentials)
        elif is_named_secret(name, value):
            self._payloads.collect_named(name, value)
        else:
            self._payloads.collect_text(value)

    def _collect_request(self, request: HTTPExchange) -> None:
        self._collect_url(request)
        for name, value in request.headers:
            self._collect_header(name, value)
        body = parsed(request.body)
        if body is not None:
            self._payloads.collect_json(tuple(leaves(body)))
        elif "form-urlencoded" in request.content_type:
            form = tuple(((name,), value) for name, value in parse_qsl(request.body, keep_blank_values=True))
            self._payloads.collect_json(form)
        else:
            self._payloads.collect_text(request.body)

    @property
    def requests(self) -> Sequence[HTTPExchange]:
        return self._recording.requests

    @property
    def payloads(self) -> Payloads:
        return self._payloads


def _connection(socket: Socket) -> _Connection:
    messages = messages_of(socket)
    closed = max((message.time for message in messages), default=socket.opened)
    opened = min(socket.opened, messages[0].time) if messages else socket.opened
    return _Connection(socket, read(messages, opened, closed), closed)


class _UserWriter:
    """Writes the class for the connections to one host."""

    def __init__(self, writer: _Writer, connections: Sequence[_Connection], class_names: Names) -> None:
        self._payloads = writer.payloads
        self._connections = connections
        self._class_name = class_names.new(_class_name(connections[0].socket))
        self._values = http_values(writer.requests, max(connection.socket.opened for connection in connections))
        self._used: dict[int, tuple[HTTPExchange, str]] = {}
        self._requests = writer.requests
        self._attributes = Names(_RESERVED)

    def lines(self) -> Iterator[str]:
        methods = list(self._methods())  # which tells what is needed of the login
        needed = [exchange for exchange, _ in self._used.values()]
        sockets = [connection.socket for connection in self._connections]
        login = login_of(sockets, self._requests, needed)
        shares = any(request.set_cookies for request in login)
        earlier: list[HTTPExchange | Socket] = [*login]
        for connection in self._connections:
            self._cookies(connection, earlier)
            if shares:
                earlier.append(connection.socket)
        common = self._common_settings()
        bases = "AsyncWebSocketUser, HttpUser" if login else "AsyncWebSocketUser"
        yield f"class {self._class_name}({bases}):"
        origin = _origin(self._connections[0].socket)
        host = origin.replace("ws", "http", 1) if login else origin
        yield statement(1, "host = ", self._payloads.text(host))
        yield "    wait_time = constant(1)"
        if shares:
            yield "    share_cookies = True"
        for name, value in common.items():
            yield statement(1, f"{name} = ", value)
        if login:
            yield ""
            yield "    def on_start(self):"
            for request in login:
                yield from self._request(request, host)
        yield from self._tasks(methods, common)

    # Methods

    def _methods(self) -> Iterator[tuple[_Connection, str, list[str], Names, str, Expression]]:
        """For each connection: the name of its method, its block, and how it connects."""
        for connection in self._connections:
            self._settings(connection)
            names = Names(_RESERVED)
            word = next((part for part in reversed(connection.socket.url.path.split("/")) if part.isalpha()), "")
            variable = names.new(identifier(word, "socket"))
            head: list[str] = []
            path = self._path(connection.socket, names, head)
            steps = StepWriter(connection.script, self._payloads, names, variable)
            block = head + ["\0"] + list(steps.lines(connection.socket.opened, connection.closed))
            yield connection, identifier(f"{word}_socket", "web_socket"), block, names, variable, path

    def _tasks(
        self,
        methods: Sequence[tuple[_Connection, str, list[str], Names, str, Expression]],
        common: dict[str, Expression],
    ) -> Iterator[str]:
        written_methods: dict[str, str] = {}
        method_names = Names({*_RESERVED, "session", "unix_socket"})
        calls: list[tuple[_Connection, str]] = []
        for connection, name, block, _, variable, path in methods:
            source = "\n".join(self._method_body(connection, block, variable, path, common))
            if source not in written_methods:
                written_methods[source] = method_names.new(name)
            calls.append((connection, written_methods[source]))
        for source, name in written_methods.items():
            yield ""
            if len(calls) == 1:
                yield "    @task"
            yield f"    async def {name}(self):"
            yield source
        if len(calls) > 1:
            yield ""
            yield "    @task"
            yield "    async def session(self):"
            yield from written(fold(list(_session(calls)), set()), 2)

    def _method_body(
        self, connection: _Connection, block: list[str], variable: str, path: Expression, common: dict[str, Expression]
    ) -> Iterator[str]:
        cut = block.index("\0")
        yield from block[:cut]
        protocol = protocol_of(connection.socket)
        if protocol is not None:
            yield f"        # This speaks {protocol.name}: {protocol.advice}."
        keywords = {name: value for name, value in connection.settings.items() if name not in common}
        keywords |= connection.dynamic
        if not isinstance(path, Text) or len(path.parts) > 1:
            keywords["name"] = text(_row_name(path))
        connect = call("self.ws.connect", path, **keywords)
        yield statement(2, "async with ", connect, f" as {variable}:")
        body = [line for line in block[cut + 1 :] if line]
        yield from body or ["            pass"]

    # Settings

    def _common_settings(self) -> dict[str, Expression]:
        """What all connections of the class have."""
        first, *others = self._connections
        return {
            name: value
            for name, value in first.settings.items()
            if all(other.settings.get(name) == value for other in others)
        }

    def _settings(self, connection: _Connection) -> None:
        socket, settings, payloads = connection.socket, connection.settings, self._payloads
        if origin := socket.header("origin"):
            settings["origin"] = payloads.text(origin)
        if offered := socket.header("sec-websocket-protocol"):
            names = [name.strip() for name in offered.split(",") if name.strip()]
            settings["subprotocols"] = listing(payloads.text(name) for name in names)
        headers = [
            (text(name), payloads.named(name, value))
            for name, value in socket.headers
            if not _HEADERS_LEFT_OUT.fullmatch(name)
        ]
        if headers:
            settings["headers"] = mapping(headers)
        self._authorization(connection)
        if socket.compressed:
            settings["compression"] = text("deflate")
        largest = max((len(frame.data) * 4 for frame in socket.frames if not frame.sent), default=0)
        if largest > _LARGEST_MESSAGE:
            settings["max_size"] = Code(f"2**{largest.bit_length()}")
        if (rules := keepalive(connection.script, payloads)) is not None:
            settings["keepalive"] = rules

    def _authorization(self, connection: _Connection) -> None:
        socket, settings = connection.socket, connection.settings
        if socket.url.username is not None:
            pair: tuple[str, str] | None = unquote(socket.url.username), unquote(socket.url.password or "")
        else:
            value = socket.header("authorization") or ""
            pair = _basic(value)
            scheme, _, token = value.partition(" ")
            if pair is None and value:
                if scheme.lower() == "bearer" and token:
                    origin = self._values.get(token)
                    if origin is not None:
                        connection.dynamic["bearer"] = Code(self._answer(origin))
                    else:
                        settings["bearer"] = self._payloads.named("token", token)
                else:
                    headers = settings.get("headers")
                    members = headers.elements if isinstance(headers, Group) else ()
                    member = (text("Authorization"), self._payloads.named("authorization", value))
                    settings["headers"] = Group("{", (*members, member), "}")
        if pair is not None:
            user, password = (self._payloads.text(pair[0]), self._payloads.named("password", pair[1]))
            settings["auth"] = Group("(", (("", user), ("", password)), ")")

    def _cookies(self, connection: _Connection, earlier: Iterable[HTTPExchange | Socket]) -> None:
        left = {
            name: value
            for name, value in cookies_left(connection.socket, earlier).items()
            if not _TRACKING_COOKIES.match(name)
        }
        if left:
            connection.settings["cookies"] = mapping(
                (text(name), self._cookie(value)) for name, value in sorted(left.items())
            )

    def _cookie(self, value: str) -> Expression:
        return self._payloads.secret(value) or self._payloads.text(value)

    def _answer(self, origin: HTTPOrigin) -> str:
        """The expression for a value of the login's answer."""
        key = id(origin.exchange)
        if key not in self._used:
            word = identifier(origin.exchange.url.path.rpartition("/")[2], "login")
            self._used[key] = origin.exchange, self._attributes.new(f"{word}_answer")
        return f"self.{self._used[key][1]}{subscripts(origin.path)}"

    # URLs and requests

    def _path(self, socket: Socket, names: Names, head: list[str]) -> Expression:
        """Path and query, with what is secret or known from the login as variables."""
        parts: list[str | Code] = [*self._parts(socket.url.path or "/")]
        separator = "?"
        for field_text in socket.url.query.split("&") if socket.url.query else []:
            name, equals, raw = field_text.partition("=")
            parts.append(f"{separator}{name}{equals}")
            separator = "&"
            value = unquote_plus(raw)
            origin = self._values.get(value)
            if origin is not None:
                variable = names.new(identifier(name, "value"))
                answer = f"self_{variable}"
                answer = self._answer(origin)
                expression = f"quote_plus({answer})" if raw != value else answer
                head.append(statement(2, f"{variable} = ", Code(expression)))
                parts.append(Code(variable))
            else:
                parts += self._query_value(name, value, raw)
        return Text(_joined(parts))

    def _query_value(self, name: str, value: str, raw: str) -> tuple[str | Code, ...]:
        secret = self._payloads.secret(value) if is_named_secret(name, value) else None
        if secret is not None:
            return (Code(f"quote_plus({secret.text})") if raw != value else secret,)
        if raw == value:
            return self._parts(value)
        decoded = self._parts(value)
        if all(isinstance(part, str) for part in decoded):
            return self._parts(raw)
        return tuple(
            Code(f"quote_plus({part.text})") if isinstance(part, Code) else quote_plus(part) for part in decoded
        )

    def _parts(self, value: str) -> tuple[str | Code, ...]:
        written_value = self._payloads.text(value)
        return written_value.parts if isinstance(written_value, Text) else (written_value,)

    def _request(self, request: HTTPExchange, host: str) -> Iterator[str]:
        """The statement for a request of the login."""
        path = self._path_of_request(request, host)
        keywords: dict[str, Expression] = {}
        body = parsed(request.body)
        if request.body and body is not None:
            keywords["json"] = self._payloads.payload(
                Message(0, True, 0.0, "", body, tuple(leaves(body))), {}
            ).expression
        elif request.body and "form-urlencoded" in request.content_type:
            fields = parse_qsl(request.body, keep_blank_values=True)
            keywords["data"] = self._form(fields)
        elif request.body:
            keywords["data"] = self._payloads.text(request.body)
            if request.content_type:
                keywords["headers"] = mapping([(text("Content-Type"), text(request.content_type))])
        headers = [
            (text(name), self._payloads.named(name, value))
            for name, value in request.headers
            if name.lower() == "authorization" or not _HEADERS_LEFT_OUT.fullmatch(name)
        ]
        if headers:
            existing = keywords.get("headers")
            members = existing.elements if isinstance(existing, Group) else ()
            keywords["headers"] = Group("{", (*members, *headers), "}")
        if not isinstance(path, Text) or len(path.parts) > 1 or request.url.query:
            keywords["name"] = self._payloads.text(request.url.path or "/")
        method = request.method.lower()
        if method in ("get", "post", "put", "patch", "delete", "head", "options"):
            operation = call(f"self.client.{method}", path, **keywords)
        else:
            operation = call("self.client.request", self._payloads.text(request.method), path, **keywords)
        used = self._used.get(id(request))
        if used is None:
            yield statement(2, "", operation)
        else:
            yield statement(2, f"self.{used[1]} = ", operation, ".json()")

    def _path_of_request(self, request: HTTPExchange, host: str) -> Expression:
        origin = f"{request.url.scheme}://{request.url.netloc.rpartition('@')[2]}"
        parts: list[str | Code] = [] if origin == host else [origin]
        parts += self._parts(request.url.path or "/")
        separator = "?"
        for field_text in request.url.query.split("&") if request.url.query else []:
            name, equals, raw = field_text.partition("=")
            parts.append(f"{separator}{name}{equals}")
            separator = "&"
            parts += self._query_value(name, unquote_plus(raw), raw)
        return Text(_joined(parts))

    def _form(self, fields: Sequence[tuple[str, str]]) -> Expression:
        members = [(name, self._payloads.field(name, value)) for name, value in fields]
        if len({name for name, _ in members}) == len(members):
            return mapping((text(name), value) for name, value in members)
        return listing(Group("(", (("", text(name)), ("", value)), ")") for name, value in members)


def _session(calls: Sequence[tuple[_Connection, str]]) -> Iterator[Unit]:
    """The connections as they were: one after the other, or at the same time."""
    ended = calls[0][0].socket.opened
    for indexes in together([(connection.socket.opened, connection.closed) for connection, _ in calls]):
        group = [calls[index] for index in indexes]
        pause = group[0][0].socket.opened - ended
        ended = max(connection.closed for connection, _ in group)
        if len(group) == 1:
            yield Unit(pause, (Line("await ", Code(f"self.{group[0][1]}()")),))
            continue
        lines = [Line("async with asyncio.TaskGroup() as connections:", Code(""))]
        before = group[0][0].socket.opened
        for connection, name in group:
            if (wait := sleep(connection.socket.opened - before)) is not None:
                lines.append(Line(wait.before, wait.value, wait.after, 1))
            before = connection.socket.opened
            lines.append(Line("", Code(f"connections.create_task(self.{name}())"), "", 1))
        yield Unit(pause, tuple(lines))


def _imports(body: str) -> str:
    """The imports that this source needs, in the order of isort."""
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    blocks = []
    for block in (_STANDARD_LIBRARY, _OTHERS):
        modules = sorted(name for name in block if name in used and block[name] is None)
        lines = [f"import {name}" for name in modules]
        sources: dict[str, list[str]] = {}
        for name, module in block.items():
            if module is not None and name in used:
                sources.setdefault(module, []).append(name)
        for module in sorted(sources):
            names = sorted(sources[module], key=lambda name: (not name[0].isupper(), name))
            line = f"from {module} import {', '.join(names)}"
            if len(line) > 88:
                line = f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
            lines.append(line)
        if lines:
            blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _joined(parts: Iterable[str | Code]) -> tuple[str | Code, ...]:
    """Neighbouring texts as one."""
    joined: list[str | Code] = []
    for part in parts:
        if joined and isinstance(part, str) and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    return tuple(joined) or ("",)


def _row_name(path: Expression) -> str:
    """A name for the rows of a path with variables in it: the path, with the variables' names."""
    assert isinstance(path, Text)
    written_path = "".join(part if isinstance(part, str) else f"{{{part.text.lower()}}}" for part in path.parts)
    return written_path.partition("?")[0]


def _origin(socket: Socket) -> str:
    """Scheme and host."""
    return f"{socket.url.scheme}://{socket.url.netloc.rpartition('@')[2]}"


def _class_name(socket: Socket) -> str:
    host = socket.url.hostname or ""
    words = re.findall(r"[A-Za-z0-9]+", host)
    name = "".join(word.capitalize() for word in words if word not in ("www", "com"))
    return f"{name}User" if re.match(r"[A-Za-z]", name) else "RecordedUser"


def _basic(value: str) -> tuple[str, str] | None:
    """User and password of an Authorization header (RFC 7617)."""
    scheme, _, credentials = value.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = b64decode(credentials, validate=True).decode().partition(":")
    except ValueError:
        return None
    return (user, password) if colon else None


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
