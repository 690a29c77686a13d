"""
Predicates that say which messages are meant.

A match is any function from a message (str or bytes) to a bool. If it raises an exception, the message does not match:
so ``lambda message: json.loads(message)["id"] == 7`` is fine where some messages have no ``id``.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Hashable
from typing import Any

__all__ = ["Correlation", "Match", "any_message", "json_field", "json_subset", "prefix", "regex"]

_logger = logging.getLogger("locust_ws_async.client")
_told_of: set[object] = set()  # the code of the matches that have raised; each is told once

Match = Callable[[str | bytes], bool]


def matches(match: Match, message: str | bytes) -> bool:
    """Whether the message matches. An exception of the match means no."""
    try:
        return bool(match(message))
    except Exception as exc:
        match_raised(match, exc)
        return False


def match_raised(match: Match, exc: Exception) -> None:
    """Tell once that a match has raised, which it may where a message lacks what it looks at."""
    code = getattr(match, "__code__", type(match))
    if code in _told_of or code in _OURS:
        return
    _told_of.add(code)
    # What a message that is meant for others causes is no warning.
    level = logging.INFO if isinstance(exc, (LookupError, TypeError, ValueError)) else logging.WARNING
    _logger.log(
        level,
        "The match %s raised %r for a message, which means that it does not match. (Told once for each match.)",
        getattr(match, "__qualname__", repr(match)),
        exc,
    )


def checked_match(match: object, caller: str) -> None:
    """
    Raise ``TypeError`` for what is no predicate on a message.

    Args:
        match: what the author gave.
        caller: the name of the method that it was given to.
    """
    if isinstance(match, Correlation):
        raise TypeError(
            f"{caller}: json_field pairs a reply with its request; to expect a value: json_subset({{...: value}})"
        )
    if not callable(match):
        raise TypeError(
            f"{caller}: the match must be a function of the message that returns a bool, not {match!r}: prefix(...), "
            "regex(...) and json_subset({...}) make one, and json_field(...) pairs a request with its reply"
        )


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

    _OURS.add(match.__code__)  # it raises for what is not JSON
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

    __slots__ = ("_request_path", "reply_path")

    def __init__(self, request_path: tuple[str | int, ...], reply_path: tuple[str | int, ...]) -> None:
        self._request_path = request_path
        self.reply_path = reply_path
        """Where the value is in a reply: waits with the same path are looked up together."""

    def key_of_request(self, payload: str | bytes) -> Hashable:
        """
        The value that pairs this request with its reply.

        Raises:
            ValueError: the request is not JSON, or has no such field.
        """
        try:
            return _hashable(_at(_loads(payload), self._request_path))
        except (ValueError, LookupError, TypeError):
            path = ".".join(map(str, self._request_path))
            raise ValueError(f"json_field: the request has no field {path!r} to find its reply by") from None

    def key_of_reply(self, message: str | bytes) -> Hashable | None:
        """The value that pairs this message with its request; None if it has no such field."""
        try:
            return _hashable(_at(parse_json(message), self.reply_path))
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


_raw_decode = json.JSONDecoder().raw_decode


def _loads(message: str | bytes) -> Any:
    """Do what :func:`json.loads` does, without its search for white space where there is none."""
    if type(message) is str:
        try:
            value, end = _raw_decode(message)
        except ValueError:
            pass  # white space before it, or no JSON
        else:
            if end == len(message):
                return value
    return json.loads(message)


_OURS: set[object] = set()

_last: tuple[str | bytes | None, Any] = (None, None)
"""The message that was parsed last, and its value, or ``_NOT_JSON``."""

_NOT_JSON = object()


def parse_json(message: str | bytes) -> Any:
    """
    Parse a message as JSON, once for all predicates that look at the same message.

    The value is shared between them: do not change it.
    """
    global _last
    message_parsed, value = _last
    if message_parsed is not message:
        try:
            value = _loads(message)
        except (ValueError, RecursionError):  # the last: nested too deep for Python's parser
            value = _NOT_JSON
        _last = (message, value)
    if value is _NOT_JSON:
        raise ValueError("not JSON")
    return value


def take_json(message: str | bytes) -> Any:
    """Parse a message as JSON for code that may change the value; a predicate that has just done so has done it."""
    global _last
    (message_parsed, value), _last = _last, (None, None)
    return value if message_parsed is message and value is not _NOT_JSON else _loads(message)


def clear_json_cache() -> None:
    """Release the message that was parsed last, which may be a long one."""
    global _last
    _last = (None, None)
