"""What is sent, as expressions: JSON as Python's, secrets as variables."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Any

from ..secrets import is_named_secret
from .conversation import Message, Path, leaves
from .source import Code, Data, Expression, Hole, Text, call, flat, listing, mapping, text
from .vault import Vault, is_identity

__all__ = ["Payload", "Payloads", "identifier", "parsed", "subscripts"]

_LONGEST_JSON = 2000  # characters: what is longer is shorter as a text
_SHORTEST_REPETITION = 40


@dataclass(frozen=True, slots=True)
class Payload:
    """An expression for a message; ``is_json``: it is for ``send_json`` in place of ``send``."""

    expression: Expression
    is_json: bool


class Payloads:
    """Makes the expressions, with the secrets of this vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    # Expressions

    def text(self, value: str) -> Text | Code:
        """A text that may have secrets in it."""
        parts = self._vault.split(value)
        if len(parts) == 1 and isinstance(parts[0], Code):
            return parts[0]
        return Text(parts)

    def parts(self, value: str) -> tuple[str | Code, ...]:
        """The same as the parts of a text."""
        written = self.text(value)
        return written.parts if isinstance(written, Text) else (written,)

    def field(self, name: str, value: str) -> Text | Code:
        """The value of a member, a parameter, a header of this name."""
        if is_named_secret(name, value) or is_identity(name):
            return self.secret(value)
        return self.text(value)

    def field_parts(self, name: str, value: str) -> tuple[str | Code, ...]:
        """The same as the parts of a text."""
        written = self.field(name, value)
        return written.parts if isinstance(written, Text) else (written,)

    def secret(self, value: str) -> Text | Code:
        """A text that is a secret as a whole, if it was found to be one."""
        return self._vault.expression(value) if value in self._vault else self.text(value)

    def json(self, value: Any) -> Expression:
        """A JSON value."""
        return self._tree(value, (), {})

    def payload(self, message: Message, replaced: Mapping[Path, Expression]) -> Payload:
        """A message, with other expressions in these places of its JSON."""
        data = message.data
        if isinstance(data, bytes):
            return Payload(self._bytes(data), False)
        if message.json is None:
            return Payload(_repeated(data) or _hole(self.text(data), "text"), False)
        compact = json.dumps(message.json, separators=(",", ":"))
        is_exact = data == compact
        if not replaced and not self._has_secret(message):
            if len(data) > _LONGEST_JSON or not is_exact:
                return Payload(Hole(text(data), "text"), False)
        elif not is_exact and data == json.dumps(message.json):
            return Payload(call("json.dumps", self._tree(message.json, (), replaced)), False)
        return Payload(self._tree(message.json, (), replaced), True)

    def _has_secret(self, message: Message) -> bool:
        assert isinstance(message.data, str)
        if self._vault.is_empty:
            return False
        return self.text(message.data) != text(message.data) or any(
            not isinstance(self._leaf(path, value), Hole) for path, value in message.leaves
        )

    def _tree(self, value: Any, path: Path, replaced: Mapping[Path, Expression]) -> Expression:
        if path in replaced:
            return replaced[path]
        if isinstance(value, dict):
            members = ((key, self._tree(member, (*path, key), replaced)) for key, member in value.items())
            return mapping((_as_text(self.text(key)), member) for key, member in members)
        if isinstance(value, list):
            return listing(self._tree(member, (*path, index), replaced) for index, member in enumerate(value))
        return self._leaf(path, value)

    def _leaf(self, path: Path, value: Any) -> Expression:
        """A text, a number, a constant: a hole where it stands as it is."""
        name = _name(path)
        if isinstance(value, str):
            return _hole(self.field(name, value), _variable(path))
        if is_named_secret(name, value) and str(value) in self._vault:
            return Code(f"{type(value).__name__}({self._vault.expression(str(value)).text})")
        return Hole(_literal(value), _variable(path))

    def _bytes(self, data: bytes) -> Expression:
        parts = self._vault.split(data.decode("latin-1"))
        if len(parts) == 1 and isinstance(parts[0], str):
            return _repeated(data) or Hole(Data(data), "data")
        pieces = (
            Code(f"{part.text}.encode()") if isinstance(part, Code) else Data(part.encode("latin-1")) for part in parts
        )
        return call('b"".join', listing(pieces))


def parsed(body: str) -> Any:
    """The JSON object or array that a text is; None for another text."""
    if body[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(body)
        for _ in leaves(value):
            pass
    except (ValueError, RecursionError):
        return None
    return value


@lru_cache(maxsize=4096)
def identifier(word: str, otherwise: str) -> str:
    """A variable's name from a word: ``orderBook`` becomes ``order_book``."""
    name = re.sub(r"\W+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word), flags=re.ASCII).strip("_").lower()
    return name if re.fullmatch(r"[a-z]\w{0,29}", name, re.ASCII) else otherwise


def subscripts(path: Path) -> str:
    """``["items"][0]``."""
    return "".join(f"[{flat(text(step)) if isinstance(step, str) else step}]" for step in path)


def _repeated(data: Any) -> Code | None:
    """``"x" * 1000``, for a message of one character only."""
    if len(data) < _SHORTEST_REPETITION or data.count(data[:1]) < len(data):
        return None
    unit = Data(data[:1]) if isinstance(data, bytes) else text(data[:1])
    return Code(f"{flat(unit)} * {len(data)}")


def _hole(value: Text | Code, name: str) -> Expression:
    return Hole(value, name) if isinstance(value, Text) and len(value.parts) == 1 else value


def _as_text(value: Text | Code) -> Text:
    return value if isinstance(value, Text) else Text((value,))


def _name(path: Path) -> str:
    return next((step for step in reversed(path) if isinstance(step, str)), "")


def _variable(path: Path) -> str:
    return identifier(_name(path), "value")


def _literal(value: Any) -> Code | Text:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float):
        return Code(repr(value).replace("e+", "e") if isfinite(value) else f'float("{value}")')
    return Code(repr(value))
