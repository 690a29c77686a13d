"""Paths with their queries, as expressions: what is secret, or known from the login, is a variable in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from urllib.parse import SplitResult, quote_plus, unquote_plus

from .payloads import Payloads
from .source import Code, Text

__all__ = ["path_of", "row_name"]

Variable = Callable[[str, str], str | None]
"""Gives the variable with the value of a parameter, by its name and value; None for one that nobody told."""


def path_of(url: SplitResult, payloads: Payloads, variable: Variable, origin: str = "") -> Text:
    """The path and the query of a URL, behind ``origin``."""
    parts = [origin, *payloads.parts(url.path or "/")]
    separator = "?"
    for parameter in url.query.split("&") if url.query else ():
        name, equals, raw = parameter.partition("=")
        parts += [f"{separator}{name}{equals}", *_value(name, raw, payloads, variable)]
        separator = "&"
    return Text(tuple(_joined(parts)) or ("",))


def _value(name: str, raw: str, payloads: Payloads, variable: Variable) -> Iterator[str | Code]:
    value = unquote_plus(raw)
    told = variable(name, value)
    parts = (Code(told),) if told is not None else payloads.field_parts(name, value)
    if all(isinstance(part, str) for part in parts):
        yield raw
        return
    for part in parts:
        if raw == value:
            yield part
        else:
            yield Code(f"quote_plus({part.text})") if isinstance(part, Code) else quote_plus(part)


def _joined(parts: Iterable[str | Code]) -> Iterator[str | Code]:
    """Neighbouring texts as one."""
    before = ""
    for part in parts:
        if isinstance(part, str):
            before += part
            continue
        if before:
            yield before
        yield part
        before = ""
    if before:
        yield before


def row_name(path: Text) -> str:
    """A name for the rows of a path with variables in it: the path, with the names of the variables."""
    written = "".join(part if isinstance(part, str) else f"{{{part.text.lower()}}}" for part in path.parts)
    return written.partition("?")[0]
