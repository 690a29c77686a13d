"""Protocols on top of WebSocket that a recording shows: a table of recognisers.

Each says how the protocol is known, and what to do about it. What the package has for one belongs here too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .har import Socket

__all__ = ["PROTOCOLS", "Protocol", "protocol_of"]


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol, how to know it, and a line about it for whoever reads the locustfile."""

    name: str
    recognises: Callable[[Socket], bool]
    advice: str


def _offers(pattern: str) -> Callable[[Socket], bool]:
    """Recognises a connection that offers a subprotocol of this form."""

    def recognises(socket: Socket) -> bool:
        offered = (socket.header("sec-websocket-protocol") or "").split(",")
        return any(re.fullmatch(pattern, name.strip()) for name in offered)

    return recognises


def _is_socketio(socket: Socket) -> bool:
    return bool(re.search(r"(?:^|&)EIO=\d", socket.url.query)) or "/socket.io/" in socket.url.path


def _is_phoenix(socket: Socket) -> bool:
    return socket.url.path.endswith("/websocket") and bool(re.search(r"(?:^|&)vsn=\d", socket.url.query))


PROTOCOLS = (
    Protocol(
        "GraphQL",
        _offers("graphql-transport-ws|graphql-ws"),
        "docs/protocols.md has a user for it, and one with gql (locust_ws_async.protocols.gql)",
    ),
    Protocol(
        "Socket.IO",
        _is_socketio,
        "locust_ws_async.protocols.socketio speaks it, and docs/protocols.md has a user for it",
    ),
    Protocol("STOMP", _offers(r"v1\d\.stomp"), "docs/protocols.md has a user for it"),
    Protocol("MQTT", _offers(r"mqtt(?:v3\.1)?"), "docs/protocols.md has a user for it, with aiomqtt"),
    Protocol("Phoenix channels", _is_phoenix, "docs/protocols.md has a user for it"),
    Protocol("OCPP", _offers(r"ocpp\d[\d.]*"), "examples/ocpp_charge_point.py has a user for it"),
)


def protocol_of(socket: Socket) -> Protocol | None:
    """The protocol that a connection speaks, if it is one of the table."""
    return next((protocol for protocol in PROTOCOLS if protocol.recognises(socket)), None)
