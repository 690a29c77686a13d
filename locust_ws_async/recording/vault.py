"""What must not stand in a locustfile that is read and shared, and what stands there instead.

Rather one too many: a value that is taken for a secret without being one is a variable more to set.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ..secrets import IN_TEXT
from .source import Code

__all__ = ["ENVIRONMENT", "Vault", "is_identity"]

_IDENTITY = re.compile(r"(?:^|_)(?:user|login|e-?mail)(?:[_-]?(?:name|id))?$|[Uu]ser[Nn]ame$", re.IGNORECASE)

ENVIRONMENT = "RECORDED_"
"""What the names of the variables begin with in the environment, where USER for instance has a meaning already."""

_SHORT = 6  # a shorter secret, or a word of letters only, is replaced where it stands, not inside other texts
_SHORT_WORD = 10
_MAX_VARIABLES = 20  # variables; what is found beyond is made up anew


@lru_cache(maxsize=4096)  # the same few names come in every message
def is_identity(name: str) -> bool:
    """Whether a field of this name says who logs in: beside a password it is for few to know, too."""
    return _IDENTITY.search(name) is not None


def _is_unmistakable(value: str) -> bool:
    return len(value) >= (_SHORT_WORD if value.isalpha() else _SHORT)


class Vault:
    """The secrets that were found, each with the variable that stands for it in the output."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._numbers = {"THINK": 1}  # which is there already
        self._used: dict[str, None] = {}
        self._pattern: re.Pattern[str] | None = None

    def add(self, name: str, value: str) -> None:
        """Keep a secret out of the output."""
        if not value or value in self._names:
            return
        self._pattern = None
        base = re.sub(r"\W+|_+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name), flags=re.ASCII).strip("_").upper()
        base = base if base[:1].isalpha() and len(base) <= 40 and not base[-1].isdigit() else "SECRET"
        number = self._numbers[base] = self._numbers.get(base, 0) + 1
        self._names[value] = base if number == 1 else f"{base}_{number}"

    def __contains__(self, value: str) -> bool:
        return value in self._names

    @property
    def is_empty(self) -> bool:
        """Whether no secret was found."""
        return not self._names

    @property
    def used(self) -> list[str]:
        """The variables that stand in the output, in the order in which they were first needed."""
        return list(self._used)

    def expression(self, value: str) -> Code:
        """What stands for a secret."""
        name = self._names[value]
        if name not in self._used and len(self._used) >= _MAX_VARIABLES:
            return Code(f"token_urlsafe({max(1, len(value) * 3 // 4)})")  # which gives four characters for three bytes
        self._used[name] = None
        return Code(name)

    def split(self, text: str) -> tuple[str | Code, ...]:
        """The text, with a variable in place of each secret in it."""
        if text in self._names and _is_unmistakable(text):
            return (self.expression(text),)
        if not self._names:
            return (text,)
        spans = {found.span("value"): found["value"] for found in IN_TEXT.finditer(text) if found["value"] in self}
        spans |= {found.span(): found[0] for found in self._everywhere().finditer(text)}
        parts: list[str | Code] = []
        end = 0
        for (start, stop), secret in sorted(spans.items()):
            if start >= end:
                parts += [text[end:start], self.expression(secret)]
                end = stop
        parts.append(text[end:])
        return tuple(part for part in parts if part != "") or ("",)

    def _everywhere(self) -> re.Pattern[str]:
        """Finds the secrets that are replaced in all texts; of two that begin at a place, the longer one."""
        if self._pattern is None:
            values = sorted(filter(_is_unmistakable, self._names), key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, values)) or r"(?!)")
        return self._pattern
