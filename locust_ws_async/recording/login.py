"""The HTTP requests that a user makes before it connects: which of those that were recorded, and how they are written.

They are those whose responses set the cookies of a handshake, or have a value that is sent later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl

from .har import HTTPExchange, Socket
from .origins import HTTPOrigin, http_values, is_distinctive
from .payloads import Payloads, identifier, parsed, subscripts
from .source import Code, Expression, Group, call, fields, mapping, statement, text
from .urls import path_of

__all__ = ["Login"]

_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_HEADERS = ("authorization", "x-")  # what these begin with is the application's


class Login:
    """The login of a user that makes these connections."""

    def __init__(self, sockets: Sequence[Socket], requests: Sequence[HTTPExchange], payloads: Payloads) -> None:
        self._payloads = payloads
        opened = max(socket.opened for socket in sockets)
        before = [request for request in requests if request.started <= opened and 0 < request.status < 400]
        self._values = http_values(before)
        self._attributes: dict[int, str] = {}
        self._requests: Sequence[HTTPExchange] = before
        self._wanted = {cookie for socket in sockets for cookie in socket.cookies.items()}

    def value(self, value: Any) -> Code | None:
        """The expression for a value that one of the responses has; None if none has it."""
        origin = self._values.get(value) if is_distinctive(value) else None
        if origin is None:
            return None
        return Code(f"self.{self._attribute(origin)}{subscripts(origin.path)}")

    def _attribute(self, origin: HTTPOrigin) -> str:
        """Where the user keeps a response. No attribute of Locust's users ends so."""
        key = id(origin.exchange)
        if key not in self._attributes:
            base = identifier(origin.exchange.url.path.rpartition("/")[2], "login") + "_answer"
            name, number = base, 1
            while name in self._attributes.values():
                number += 1
                name = f"{base}_{number}"
            self._attributes[key] = name
        return self._attributes[key]

    def requests(self) -> list[HTTPExchange]:
        """The requests, in their order; to be called when all values have been asked for."""
        wanted = set(self._wanted)
        found = []
        for request in reversed(self._requests):
            sets = wanted & set(request.set_cookies.items())
            if sets or id(request) in self._attributes:
                wanted -= sets
                wanted |= set(request.cookies.items())
                found.append(request)
        return found[::-1]

    def lines(self, requests: Iterable[HTTPExchange], host: str) -> Iterator[str]:
        """The statements that make the requests."""
        for request in requests:
            operation = self._operation(request, host)
            attribute = self._attributes.get(id(request))
            if attribute is None:
                yield statement(2, "", operation)
            else:
                yield statement(2, f"self.{attribute} = ", operation, ".json()")

    def _operation(self, request: HTTPExchange, host: str) -> Group:
        payloads = self._payloads
        origin = f"{request.url.scheme}://{request.url.netloc.rpartition('@')[2]}"
        path = path_of(request.url, payloads, lambda name, value: None, "" if origin == host else origin)
        headers = [
            (text(name), payloads.field(name, value))
            for name, value in request.headers
            if name.lower().startswith(_HEADERS)
        ]
        keywords: dict[str, Expression] = {}
        body = parsed(request.body)
        if body is not None:
            keywords["json"] = payloads.json(body)
        elif request.is_form:
            form = parse_qsl(request.body, keep_blank_values=True)
            keywords["data"] = fields((text(name), payloads.field(name, value)) for name, value in form)
        elif request.body:
            keywords["data"] = payloads.text(request.body)
            headers.insert(0, (text("Content-Type"), text(request.content_type or "text/plain")))
        if headers:
            keywords["headers"] = mapping(dict(headers).items())  # requests takes no pairs
        if request.url.query or len(path.parts) > 1:
            keywords["name"] = payloads.text(request.url.path or "/")
        if request.method in _METHODS:
            return call(f"self.client.{request.method.lower()}", path, **keywords)
        return call("self.client.request", text(request.method), path, **keywords)
