"""
Predicates that say which messages are meant.

A match is any function from a message (str or bytes) to a bool. If it raises an exception, the message does not match:
so ``lambda message: json.loads(message)["id"] == 7`` is fine where some messages have no ``id``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable
from typing import Any

__all__ = ["Correlation", "Match", "any_message", "json_field", "json_subset", "prefix", "regex"]

Match = Callable[[str | bytes], bool]


def matches(match: Match, message: str | bytes) -> bool:
    """Whether the message matches. An exception of the match means no."""
    try:
        return bool(match(message))
    except Exception:
        return False


def any_message(message: str | bytes) -> bool:
    """Match every message."""
    return True


def json_subset(expected: Any) -> Match:
    """
    Match messages that are JSON and contain this value.

    Objects of the message may have more members than those of ``expected``, at any depth; everything else must be
    equal. ``json_subset({"type": "price"})`` matches ``{"type": "price", "value": 3}``.

    Args:
        expected: the value, as :func:`json.loads` would give it.
    """

    def match(message: str | bytes) -> bool:
        return _contains(parse_json(message), expected)

    return match


def regex(pattern: str | bytes | re.Pattern[str] | re.Pattern[bytes]) -> Match:
    """
    Match messages in which this regular expression is found.

    Args:
        pattern: a str matches text messages only, and bytes match binary messages only.
    """
    compiled = re.compile(pattern)
    kind = type(compiled.pattern)

    def match(message: str | bytes) -> bool:
        return isinstance(message, kind) and compiled.search(message) is not None  # type: ignore[arg-type]  # its kind

    return match


def prefix(start: str | bytes) -> Match:
    """
    Match messages that begin with this.

    Args:
        start: a str matches text messages only, and bytes match binary messages only.
    """
    kind = type(start)

    def match(message: str | bytes) -> bool:
        return isinstance(message, kind) and message.startswith(start)  # type: ignore[arg-type]  # its kind

    return match


class Correlation:
    """Pairs a reply with its request by a value that both carry. Made by :func:`json_field`; for requests only."""

    __slots__ = ("_reply_path", "_request_path")

    def __init__(self, request_path: tuple[str | int, ...], reply_path: tuple[str | int, ...]) -> None:
        self._request_path = request_path
        self._reply_path = reply_path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Correlation) and other._reply_path == self._reply_path

    def __hash__(self) -> int:
        return hash(self._reply_path)

    def key_of_request(self, payload: str | bytes) -> Hashable:
        """
        The value that pairs this request with its reply.

        Raises:
            ValueError: the request is not JSON, or has no such field.
        """
        try:
            return _hashable(_at(json.loads(payload), self._request_path))
        except (ValueError, LookupError, TypeError):
            path = ".".join(map(str, self._request_path))
            raise ValueError(f"json_field: the request has no field {path!r} to find its reply by") from None

    def key_of_reply(self, message: str | bytes) -> Hashable | None:
        """The value that pairs this message with its request; None if it has no such field."""
        try:
            return _hashable(_at(parse_json(message), self._reply_path))
        except (ValueError, LookupError, TypeError, RecursionError):  # the last: nested too deep for Python's parser
            return None


def json_field(*path: str | int, reply: str | int | tuple[str | int, ...] | None = None) -> Correlation:
    """
    Pair each request with the reply that has the same value in a JSON field.

    Finding the request costs the same whether one is in flight or a thousand.

    Args:
        path: the field of the request: a name, or the names and indexes on the way to it: ``json_field("meta", "id")``.
        reply: the field of the reply, if it is another one: a name, an index, or a tuple of them.

    Raises:
        TypeError: the path is empty, or holds something else than names and indexes.
    """
    if not path or not all(isinstance(step, (str, int)) for step in path):
        raise TypeError('json_field takes names and indexes: json_field("id"), json_field("meta", "id"), json_field(1)')
    if reply is None:
        reply = path
    return Correlation(path, reply if isinstance(reply, tuple) else (reply,))


def _contains(value: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return isinstance(value, dict) and all(
            key in value and _contains(value[key], member) for key, member in expected.items()
        )
    if isinstance(expected, (list, tuple)):
        return isinstance(value, list) and len(value) == len(expected) and all(map(_contains, value, expected))
    # JSON's true is not its 1, though Python's is.
    return bool(value == expected) and isinstance(value, bool) == isinstance(expected, bool)


def field(path: str | int | tuple[str | int, ...]) -> Callable[[str | bytes], Any]:
    """A function from a JSON message to the value of this field."""
    steps = path if isinstance(path, tuple) else (path,)
    return lambda message: _at(parse_json(message), steps)


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _hashable(value: Any) -> Hashable:
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True)
    return (isinstance(value, bool), value)


_last: tuple[str | bytes | None, Any] = (None, None)


def parse_json(message: str | bytes) -> Any:
    """
    Parse a message as JSON, once for all predicates that look at the same message.

    The value is shared between them: do not change it.
    """
    global _last
    message_parsed, value = _last
    if message_parsed is not message:
        value = json.loads(message)
        _last = (message, value)
    return value


def clear_json_cache() -> None:
    """Release the message that was parsed last, which may be a long one."""
    global _last
    _last = (None, None)
