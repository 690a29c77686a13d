"""The messages of one recorded connection, and of what kinds they are.

A kind is what a program would tell messages apart by: the value of ``type`` and its like, else the names of the
members, else the first word. Each kind of received messages has a match, which is tried on all of them: it is used only
if it finds that kind and no other.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..secrets import looks_secret
from .har import Frame, Socket
from .source import Code, Data, Expression, call, flat, mapping, text

__all__ = ["ANY", "Kind", "Kinds", "Message", "Path", "at", "leaves", "messages_of"]

Path = tuple[str | int, ...]
Kind = tuple[Hashable, ...]

ANY: Kind = ("any",)
"""The kind of all messages of a connection that cannot be told apart."""

_DEEPEST = 16
_LONGEST_KEY = 60
_MOST_KINDS = 24
_BARE = re.compile(r"\s*[\w-]{0,30}\s*", re.ASCII)
_DISCRIMINATORS = (
    *("type", "event", "op", "action", "method", "kind", "command", "cmd", "msg", "message_type", "messageType"),
    *("@type", "$type", "e", "t", "channel", "topic"),
)
_WORD = re.compile(r"[\w$@][\w.:/$@-]{0,39}", re.ASCII)
# A command, or the type of a Socket.IO packet, behind which there may be the number of an acknowledgement.
_FIRST_WORD = re.compile(r"[A-Za-z_][\w-]{0,29}(?=[\s:|,;\[{\"]|$)|\d{1,2}(?=\d*(?:[\[{]|$))", re.ASCII)


@dataclass(eq=False, slots=True)
class Message:
    """A message, with what it says if it is JSON."""

    index: int
    sent: bool
    time: float
    data: str | bytes
    json: Any = None
    """An object or array; None for all other messages."""
    leaves: tuple[tuple[Path, Any], ...] = ()
    """What there is in the JSON besides objects and arrays, each with the way to it."""
    kind: Kind = field(default=ANY)


def messages_of(socket: Socket) -> list[Message]:
    """The messages of a connection, in their order, each with its kind."""
    return [_message(index, frame) for index, frame in enumerate(socket.frames)]


def _message(index: int, frame: Frame) -> Message:
    message = Message(index, frame.sent, frame.time, frame.data)
    if isinstance(frame.data, str) and frame.data[:1] in ("{", "["):
        try:
            value = json.loads(frame.data)
            message.leaves = tuple(leaves(value))
            message.json = value
        except (ValueError, RecursionError):
            pass  # not JSON, or not JSON that anybody would want to read
    return message


def leaves(value: Any) -> list[tuple[Path, Any]]:
    """
    What is in a JSON value besides objects and arrays, with the way to it.

    Raises:
        ValueError: it is nested deeper, or has longer names, than is good to read.
    """
    found: list[tuple[Path, Any]] = []
    _gather(value, (), found)
    return found


def _gather(value: Any, path: Path, found: list[tuple[Path, Any]]) -> None:
    if len(path) > _DEEPEST:
        raise ValueError("nested too deep")
    if isinstance(value, dict):
        for key, member in value.items():
            if len(key) > _LONGEST_KEY:
                raise ValueError("a name that is too long")
            _gather(member, (*path, key), found)
    elif isinstance(value, list):
        for index, member in enumerate(value):
            _gather(member, (*path, index), found)
    else:
        found.append((path, value))


def at(value: Any, path: Path) -> Any:
    """
    The value at the end of a way.

    Raises:
        LookupError, TypeError: there is none.
    """
    for step in path:
        value = value[step]
    return value


class Kinds:
    """Gives each of these messages its kind, and finds a match and a name for each kind."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._members: dict[Kind, list[Message]] = {}
        words = _first_words(messages)
        for message in messages:
            message.kind = _kind(message, words)
            self._members.setdefault(message.kind, []).append(message)
        if len(self._members) > _MOST_KINDS:
            for message in messages:
                message.kind = ANY
            self._members = {ANY: list(messages)}
        self._all = messages
        self._matches: dict[Kind, Expression | None] = {}

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def of(self, kind: Kind) -> list[Message]:
        """The messages of a kind."""
        return self._members[kind]

    def label(self, kind: Kind) -> str:
        """A word for the kind, to name rows and variables by; empty if it has none."""
        match kind:
            case ("member", _, value):
                return str(value)
            case ("members", _) if len(self._members) > 1:
                first = next(iter(self._members[kind][0].json), "")
                return first if first in self._own_keys(kind) and _WORD.fullmatch(first) else ""
            case ("word", str(word)) | ("item", str(word)):
                return word if word[0].isalpha() else ""
        return ""

    def match(self, kind: Kind) -> Expression | None:
        """A match for the messages of this kind and no others; None where there is none."""
        if kind not in self._matches:
            self._matches[kind] = self._find_match(kind)
        return self._matches[kind]

    def _find_match(self, kind: Kind) -> Expression | None:
        if len(self._members) == 1:
            return Code("any_message")
        wanted = set(map(id, self._members[kind]))
        for expression, finds in self._candidates(kind):
            if all(_holds(finds, message) == (id(message) in wanted) for message in self._all):
                return expression
        return None

    def _candidates(self, kind: Kind) -> Iterator[tuple[Expression, Callable[[Message], bool]]]:
        first = self._members[kind][0]
        same = first.data
        constant = isinstance(same, str) and all(message.data == same for message in self._members[kind])
        equal = (Code(f"lambda message: message == {_name(same)}"), lambda message: message.data == same)
        if constant and _BARE.fullmatch(str(same)):  # with anything else in it, it may be another one the next time
            yield equal
        match kind:
            case ("member", str(key), value):
                subset = mapping([(text(key), _scalar(value))])
                yield call("json_subset", subset), lambda message: message.json[key] == value
            case ("members", _):
                for own in self._own_keys(kind):
                    code = f"lambda message: {_name(own)} in json.loads(message)"
                    yield Code(code), lambda message, own=own: own in message.json  # type: ignore[misc]
                keys = first.json.keys()
                names = ", ".join(map(_name, keys))
                if 0 < len(keys) <= 6 and not any(map(looks_secret, keys)):
                    yield (
                        Code(f"lambda message: json.loads(message).keys() == {{{names}}}"),
                        lambda message: message.json.keys() == keys,
                    )
            case ("item", value):
                code = f"lambda message: json.loads(message)[0] == {_name(value)}"
                yield Code(code), lambda message: message.json[0] == value
            case ("array",):
                yield call("prefix", text("[")), lambda message: message.data.startswith("[")  # type: ignore[arg-type]
            case ("word", str(word)):
                start = word
                yield call("prefix", text(start)), lambda message: message.data.startswith(start)  # type: ignore[arg-type]
            case ("text",):
                yield Code("lambda message: isinstance(message, str)"), lambda message: isinstance(message.data, str)
            case ("binary", int(byte)):
                start_byte = bytes([byte])
                yield call("prefix", Data(start_byte)), lambda message: message.data.startswith(start_byte)  # type: ignore[arg-type]
        if isinstance(first.data, bytes):
            yield Code("lambda message: isinstance(message, bytes)"), lambda message: isinstance(message.data, bytes)

    def _own_keys(self, kind: Kind) -> list[str]:
        """The names that all JSON objects of this kind have, and those of no other kind."""
        others: set[str] = set()
        for other, members in self._members.items():
            if other != kind and isinstance(members[0].json, dict):
                others.update(*(member.json for member in members[:20]))
        return [key for key in self._members[kind][0].json if key not in others and not looks_secret(key)]


def _holds(finds: Callable[[Message], bool], message: Message) -> bool:
    try:
        return finds(message)
    except (LookupError, TypeError, AttributeError):
        return False


def _name(value: object) -> str:
    return flat(_scalar(value))


def _scalar(value: object) -> Expression:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bytes):
        return Data(value)
    return Code(repr(value))


def _first_words(messages: Iterable[Message]) -> bool:
    """Whether texts are told apart by their first words: not where nearly each has another."""
    words = Counter(
        found[0] if (found := _FIRST_WORD.match(message.data)) else ""
        for message in messages
        if isinstance(message.data, str) and message.json is None
    )
    commands = [word for word in words if not word.isdigit()]
    return len(commands) <= max(3, words.total() // 3) and len(words) <= 12


def _kind(message: Message, words: bool) -> Kind:
    value = message.json
    if isinstance(value, dict):
        for key in _DISCRIMINATORS:
            member = value.get(key)
            if isinstance(member, str) and _WORD.fullmatch(member) and not looks_secret(member):
                return ("member", key, member)
            if isinstance(member, int) and not isinstance(member, bool) and 0 <= member < 1000:
                return ("member", key, member)
        return ("members", frozenset(value))
    if isinstance(value, list):
        first = value[0] if value else None
        if isinstance(first, int) and not isinstance(first, bool) and 0 <= first < 100:
            return ("item", first)
        if isinstance(first, str) and re.fullmatch(r"[A-Za-z_]{2,20}", first):
            return ("item", first)
        return ("array",)
    if isinstance(message.data, bytes):
        return ("binary", message.data[0] if message.data else None)
    found = _FIRST_WORD.match(message.data) if words else None
    return ("word", found[0]) if found and not looks_secret(found[0]) else ("text",)
