"""Values that the client has from an earlier answer: of the same connection, or of an HTTP request before it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .conversation import Message, Path, leaves
from .har import HTTPExchange
from .patterns import Script
from .payloads import parsed

__all__ = ["HTTPOrigin", "Origin", "find_origins", "http_values", "is_distinctive"]

_SHORTEST_TEXT = 6
_LONGEST_TEXT = 4096
_SMALLEST_NUMBER = 1000


@dataclass(frozen=True, slots=True)
class Origin:
    """A received message, and where in it the value is."""

    message: Message
    path: Path


@dataclass(frozen=True, slots=True)
class HTTPOrigin:
    """An HTTP request, and where in the JSON of its response the value is."""

    exchange: HTTPExchange
    path: Path


def find_origins(script: Script) -> dict[tuple[Message, Path], Origin]:
    """For what the client sends: where in what it received before the same value was, if it was there first."""
    first: dict[tuple[type, Any], Origin | None] = {}
    found: dict[tuple[Message, Path], Origin] = {}
    for message in script.messages:
        for path, value in message.leaves:
            if not is_distinctive(value):
                continue
            key = type(value), value
            if not message.sent:
                if message not in script.consumed:
                    first.setdefault(key, Origin(message, path))
            elif (origin := first.setdefault(key, None)) is not None:  # None: the client's own
                found[message, path] = origin
    return found


def http_values(exchanges: Iterable[HTTPExchange]) -> dict[Any, HTTPOrigin]:
    """What the responses of these requests say."""
    found: dict[Any, HTTPOrigin] = {}
    for exchange in exchanges:
        for path, value in leaves(parsed(exchange.answer)):
            if is_distinctive(value):
                found.setdefault(value, HTTPOrigin(exchange, path))
    return found


def is_distinctive(value: object) -> bool:
    """Whether a value is hardly there twice by chance: not ``"BUY"``, not 5."""
    if isinstance(value, str):
        return _SHORTEST_TEXT <= len(value) <= _LONGEST_TEXT and any(map(str.isdigit, value))
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _SMALLEST_NUMBER
