"""What is sent, as expressions: JSON as Python's, secrets as variables."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from .conversation import Message, Path, leaves
from .secrets import Vault, is_named_secret, secrets_in
from .source import Code, Data, Expression, Hole, Text, call, flat, listing, mapping, text

__all__ = ["Payload", "Payloads", "parsed", "subscripts"]

_LONGEST_JSON = 2000  # characters: what is longer is shorter as a text
_SHORTEST_REPETITION = 40
_IDENTITY = re.compile(r"(?:user|login|e-?mail)(?:[_-]?name)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Payload:
    """An expression for a message; ``is_json``: it is for ``send_json`` in place of ``send``."""

    expression: Expression
    is_json: bool


class Payloads:
    """Makes the expressions, with the secrets of this vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    # Looking for secrets comes before anything is written: one may stand in several places.

    def collect(self, message: Message) -> None:
        """Take the secrets of a message into the vault."""
        if isinstance(message.data, bytes):
            self.collect_text(message.data.decode("latin-1"))
        elif message.json is None:
            self.collect_text(message.data)
        else:
            self.collect_json(message.leaves)

    def collect_json(self, members: tuple[tuple[Path, Any], ...]) -> None:
        """Take the secrets of a JSON value into the vault; a password's user name is one too."""
        with_password = {path[:-1] for path, value in members if is_named_secret(_name(path), value)}
        for path, value in members:
            name = _name(path)
            if is_named_secret(name, value) or (path[:-1] in with_password and _IDENTITY.search(name)):
                self.collect_named(name, value)
            elif isinstance(value, str):
                self.collect_text(value)

    def collect_named(self, name: str, value: object) -> None:
        """Take a secret into the vault."""
        scheme, _, credentials = str(value).partition(" ")
        if scheme.lower() in ("bearer", "basic", "token") and credentials:
            self._vault.add("token", credentials)
        else:
            self._vault.add(name, str(value))

    def collect_text(self, value: str) -> None:
        """Take the secrets in a text into the vault."""
        for name, secret in secrets_in(value):
            self._vault.add(name, secret)

    # Expressions

    def text(self, value: str) -> Text | Code:
        """A text that may have secrets in it."""
        parts = self._vault.split(value)
        if len(parts) == 1 and isinstance(parts[0], Code):
            return parts[0]
        return Text(parts)

    def named(self, name: str, value: str) -> Text | Code:
        """The value of a field of this name."""
        if value in self._vault and is_named_secret(name, value):
            return self._vault.expression(value)
        return self.text(value)

    def secret(self, value: str) -> Code | None:
        """The variable for a text that is a secret as a whole; None for another text."""
        return self._vault.expression(value) if value in self._vault else None

    def field(self, name: str, value: str) -> Text | Code:
        """The value of a field of a form."""
        if value in self._vault and (is_named_secret(name, value) or _IDENTITY.search(name)):
            return self._vault.expression(value)
        return self.text(value)

    def payload(self, message: Message, replaced: Mapping[Path, Expression]) -> Payload:
        """A message, with other expressions in these places of its JSON."""
        data = message.data
        if isinstance(data, bytes):
            return Payload(self._bytes(data), False)
        if message.json is None and (repeated := _repeated(data)) is not None:
            return Payload(repeated, False)
        if message.json is None:
            return Payload(_hole(self.text(data), "text"), False)
        has_secret = any(self._is_secret(message, path, value) for path, value in message.leaves)
        if data and not replaced and not has_secret:
            plain = self.text(data)
            has_secret = plain != text(data)  # in a name, or somewhere else where one does not expect it
            if not has_secret and (len(data) > _LONGEST_JSON or data != _compact(message.json)):
                return Payload(_hole(plain, "text"), False)
        tree = self._tree(message, message.json, (), replaced)
        if (replaced or has_secret) and data == _dumped(message.json) != _compact(message.json):
            return Payload(call("json.dumps", tree), False)
        return Payload(tree, True)

    def _is_secret(self, message: Message, path: Path, value: Any) -> bool:
        return self._expression_of_secret(message, path, value) is not None

    def _expression_of_secret(self, message: Message, path: Path, value: Any) -> Expression | None:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            return None
        known = str(value)
        if known in self._vault and (is_named_secret(_name(path), value) or _IDENTITY.search(_name(path))):
            code = self._vault.expression(known)
            return code if isinstance(value, str) else Code(f"{type(value).__name__}({code.text})")
        if isinstance(value, str) and (written := self.text(value)) != text(value):
            return written
        return None

    def _tree(self, message: Message, value: Any, path: Path, replaced: Mapping[Path, Expression]) -> Expression:
        if path in replaced:
            return replaced[path]
        if isinstance(value, dict):
            members = ((key, self._tree(message, member, (*path, key), replaced)) for key, member in value.items())
            return mapping((_as_text(self.text(key)), member) for key, member in members)
        if isinstance(value, list):
            return listing(self._tree(message, member, (*path, index), replaced) for index, member in enumerate(value))
        if (secret := self._expression_of_secret(message, path, value)) is not None:
            return secret
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


def subscripts(path: Path) -> str:
    """``["items"][0]``."""
    return "".join(f"[{json.dumps(step) if isinstance(step, str) else step}]" for step in path)


def _repeated(data: str | bytes) -> Code | None:
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
    name = re.sub(r"\W+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", _name(path)), flags=re.ASCII).strip("_").lower()
    return name if re.fullmatch(r"[a-z]\w{0,29}", name) else "value"


def _literal(value: Any) -> Code | Text:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float):
        return Code(repr(value).replace("e+", "e") if isfinite(value) else f'float("{value}")')
    return Code(repr(value))


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _dumped(value: Any) -> str:
    return json.dumps(value)
