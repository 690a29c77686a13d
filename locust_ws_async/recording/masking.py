"""Goes through a recording for secrets, before anything is written: one may stand in several places."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import SplitResult, parse_qsl, unquote

from ..secrets import is_named_secret, secrets_in
from .conversation import Message, Path, leaves
from .handshake import LEFT_OUT, PLAIN_COOKIE, TRACKING_COOKIE, basic
from .har import Headers, HTTPExchange, Socket
from .payloads import parsed
from .vault import Vault, is_identity

__all__ = ["collect"]

_SCHEME = re.compile(r"(?:bearer|basic|token)\s+(?=\S)", re.IGNORECASE)


def collect(vault: Vault, sockets: Iterable[Socket], sent: Iterable[Message], requests: Iterable[HTTPExchange]) -> None:
    """Put the secrets of the handshakes, of the messages that were sent, and of the requests into the vault."""
    for socket in sockets:
        _url(vault, socket.url)
        _headers(vault, socket.headers)
        for name, value in socket.cookies.items():
            if not PLAIN_COOKIE.fullmatch(value) and not TRACKING_COOKIE.match(name):
                vault.add(name, value)
    for message in sent:
        if isinstance(message.data, bytes):
            _text(vault, message.data.decode("latin-1"))
        elif message.json is None:
            _text(vault, message.data)
        else:
            _members(vault, message.leaves)
    for request in requests:
        _url(vault, request.url)
        _headers(vault, request.headers)
        _body(vault, request)


def _text(vault: Vault, value: str) -> None:
    for name, secret in secrets_in(value):
        vault.add(name, secret)


def _named(vault: Vault, name: str, value: object) -> None:
    credentials = _SCHEME.sub("", str(value), count=1)
    vault.add("token" if credentials != str(value) else name, credentials)


def _members(vault: Vault, members: Iterable[tuple[Path, object]]) -> None:
    members = list(members)
    for key in {step for path, _ in members for step in path if isinstance(step, str)}:
        _text(vault, key)
    with_secret = {path[:-1] for path, value in members if is_named_secret(_name(path), value)}
    for path, value in members:
        name = _name(path)
        if is_named_secret(name, value) or (path[:-1] in with_secret and is_identity(name) and isinstance(value, str)):
            _named(vault, name, value)
        elif isinstance(value, str):
            _text(vault, value)


def _name(path: Path) -> str:
    return next((step for step in reversed(path) if isinstance(step, str)), "")


def _url(vault: Vault, url: SplitResult) -> None:
    if url.password:
        vault.add("password", unquote(url.password))
    for name, value in parse_qsl(url.query, keep_blank_values=True):
        if is_named_secret(name, value):
            _named(vault, name, value)
        else:
            _text(vault, value)
    for segment in url.path.split("/"):
        _text(vault, segment)


def _headers(vault: Vault, headers: Headers) -> None:
    for name, value in headers:
        if LEFT_OUT.fullmatch(name) and name.lower() not in ("authorization", "sec-websocket-protocol"):
            continue
        if (pair := basic(value)) is not None:
            vault.add("password", pair[1])
        if is_named_secret(name, value):
            _named(vault, name, value)
        else:
            _text(vault, value)


def _body(vault: Vault, request: HTTPExchange) -> None:
    body = parsed(request.body)
    if body is not None:
        _members(vault, leaves(body))
    elif request.is_form:
        _members(vault, (((name,), value) for name, value in parse_qsl(request.body, keep_blank_values=True)))
    else:
        _text(vault, request.body)
