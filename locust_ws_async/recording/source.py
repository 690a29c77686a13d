"""Python source, formatted as ruff would: what fits goes on one line, what does not has one element a line.

An expression that is broken ends each of its lines with a comma, which tells a formatter to leave it so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from unicodedata import category, east_asian_width

__all__ = [
    "WIDTH",
    "Code",
    "Data",
    "Expression",
    "Group",
    "Hole",
    "Text",
    "call",
    "fields",
    "flat",
    "listing",
    "mapping",
    "statement",
    "text",
    "width",
]

WIDTH = 88  # what formatters do without a setting; those with a wider one leave it so, too
INDENT = 4


@dataclass(frozen=True, slots=True)
class Code:
    """An expression that stays on its line: a name, a number, ``next(ids)``."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text; with a name in it, an f-string."""

    parts: tuple[str | Code, ...]


@dataclass(frozen=True, slots=True)
class Data:
    """A bytes literal."""

    value: bytes


@dataclass(frozen=True, slots=True)
class Group:
    """A list, a dict, or a call: elements between brackets, each behind its key or keyword."""

    opening: str
    elements: tuple[tuple[Text | str, Expression], ...]
    closing: str


@dataclass(frozen=True, slots=True)
class Hole:
    """An expression in whose place a loop may have a variable, of this name."""

    value: Code | Text | Data
    name: str


Expression = Code | Text | Data | Group | Hole


def text(value: str) -> Text:
    """A text without names in it."""
    return Text((value,))


def call(function: str, *positional: Expression, **keywords: Expression) -> Group:
    """A call of this function, which may have a dotted name."""
    elements = [("", value) for value in positional]
    elements += [(f"{name}=", value) for name, value in keywords.items()]
    return Group(f"{function}(", tuple(elements), ")")


def listing(values: Iterable[Expression]) -> Group:
    """A list of these values."""
    return Group("[", tuple(("", value) for value in values), "]")


def mapping(members: Iterable[tuple[Text, Expression]]) -> Group:
    """A dict with these keys and values, in this order."""
    return Group("{", tuple(members), "}")


def fields(members: Iterable[tuple[Text, Expression]]) -> Group:
    """A dict, or a list of pairs where a name is there twice."""
    members = list(members)
    if len({name for name, _ in members}) == len(members):
        return mapping(members)
    return listing(Group("(", (("", name), ("", value)), ")") for name, value in members)


def statement(indent: int, before: str, value: Expression, after: str = "") -> str:
    """A statement of one or several lines: ``before``, the expression, ``after``; ``indent`` is in steps."""
    column = indent * INDENT
    return " " * column + before + _render(value, column, column + len(before), len(after)) + after


def flat(value: Expression) -> str:
    """The expression on one line, however long it becomes."""
    match value:
        case Code():
            return value.text
        case Text():
            return _quoted(value.parts)
        case Data():
            return _quoted_bytes(value.value)
        case Hole():
            return flat(value.value)
        case Group():
            return value.opening + ", ".join(map(_flat_element, value.elements)) + value.closing


def _flat_element(element: tuple[Text | str, Expression]) -> str:
    return _key(element[0]) + flat(element[1])


def _key(key: Text | str) -> str:
    return key if isinstance(key, str) else flat(key) + ": "


def _render(value: Expression, indent: int, column: int, after: int) -> str:
    """``indent``: that of the line; ``column``: where the expression begins; ``after``: what follows it on its line."""
    if isinstance(value, Hole):
        value = value.value
    on_one_line = _flat_within(value, WIDTH - column - after)
    if on_one_line is not None:
        return on_one_line
    inner = indent + INDENT
    if isinstance(value, Code) or (isinstance(value, Group) and not value.elements):
        return flat(value)
    if isinstance(value, Group):
        lines = []
        for key, element in value.elements:
            start = _key(key)
            lines.append(" " * inner + start + _render(element, inner, inner + len(start), 1) + ",\n")
        return value.opening + "\n" + "".join(lines) + " " * indent + value.closing
    on_the_next = _flat_within(value, WIDTH - inner)
    pieces = [on_the_next] if on_the_next is not None else _pieces(value, WIDTH - inner)
    return "(\n" + "".join(f"{' ' * inner}{piece}\n" for piece in pieces) + " " * indent + ")"


def _flat_within(value: Expression, room: int) -> str | None:
    """The expression on one line if it has room there. A large one is not written to find out that it has not."""
    if _least(value, room) > room:
        return None
    written = flat(value)
    return written if width(written) <= room else None


def _least(value: Expression, room: int) -> int:
    """A lower bound of the length, exact enough to refuse what is large."""
    match value:
        case Code():
            return len(value.text)
        case Text():
            return sum(len(part) if isinstance(part, str) else len(part.text) for part in value.parts) + 2
        case Data():
            return len(value.value) + 3
        case Hole():
            return _least(value.value, room)
        case Group():
            total = len(value.opening) + len(value.closing)
            for _, element in value.elements:
                total += _least(element, room) + 1
                if total > room:
                    break
            return total


# ------------------------------------------------------------------------------------------- texts


def _quoted(parts: Iterable[str | Code]) -> str:
    parts = list(parts)
    is_format = any(isinstance(part, Code) for part in parts)
    literal = "".join(part for part in parts if isinstance(part, str))
    quote = "'" if literal.count('"') > literal.count("'") else '"'
    written = "".join(
        "{" + part.text + "}" if isinstance(part, Code) else "".join(_escaped(part, quote, is_format)) for part in parts
    )
    return ("f" if is_format else "") + quote + written + quote


def _escaped(literal: str, quote: str, is_format: bool) -> Iterator[str]:
    for character in literal:
        if character in ("\\", quote):
            yield "\\" + character
        elif is_format and character in "{}":
            yield character * 2
        elif character.isprintable():
            yield character
        else:
            yield repr(character)[1:-1]


def _quoted_bytes(value: bytes) -> str:
    quote = "'" if value.count(b'"') > value.count(b"'") else '"'
    body = repr(b'"' + value)[3:-1]  # with both quotes in it, or the double one only: never escaped as bytes need it
    return "b" + quote + "".join(_requoted(body, quote)) + quote


def _requoted(body: str, quote: str) -> Iterator[str]:
    """What ``repr`` escaped, with this quote escaped in place of its own."""
    escaped = False
    for character in body:
        if escaped:
            escaped = False
            yield character if character == "'" and quote == '"' else "\\" + character
        elif character == "\\":
            escaped = True
        else:
            yield "\\" + character if character == quote else character


def _pieces(value: Text | Data, room: int) -> Iterator[str]:
    """The literals, each no longer than ``room``, that make up the value one behind the other."""
    units: Iterable[Any] = _units(value.parts) if isinstance(value, Text) else value.value
    piece: list[Any] = []
    length = 4  # the letter before it, its quotes, and a comma behind the last one
    for unit in units:
        size = len(unit.text) + 2 if isinstance(unit, Code) else _size(unit)
        if piece and length + size > room:
            yield _piece(piece)
            piece, length = [], 4
        piece.append(unit)
        length += size
    yield _piece(piece)


def _units(parts: Iterable[str | Code]) -> Iterator[str | Code]:
    for part in parts:
        if isinstance(part, Code):
            yield part
        else:
            yield from part


def _size(unit: str | int) -> int:
    """At most so long is a character, or a byte, in its literal."""
    if isinstance(unit, int):
        return 1 if 32 <= unit < 127 and unit not in b"\"'\\" else 4
    return 2 if unit in "\"'\\{}" else width(unit) if unit.isprintable() else len(repr(unit)) - 2


def width(written: str) -> int:
    """Columns, as formatters count them: two for the wide characters of East Asia, none for combining ones."""
    if written.isascii():
        return len(written)
    return sum(0 if category(c) in ("Mn", "Me") else 2 if east_asian_width(c) in "WF" else 1 for c in written)


def _piece(units: list[Any]) -> str:
    if units and isinstance(units[0], int):
        return _quoted_bytes(bytes(units))
    return _quoted(units)
