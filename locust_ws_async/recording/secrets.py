"""What must not stand in a locustfile that is read and shared: found by what it is, and by what it is called.

Rather one too many: a value that is taken for a secret without being one is a variable more to set.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from math import log2

from .source import Code

__all__ = ["ENVIRONMENT", "Vault", "is_identity", "is_named_secret", "looks_secret", "secrets_in"]

# Whole words at the end of a name: "token" of "accessToken", not of "token_type" or "max_tokens".
_NAME = re.compile(
    r"(?:pass(?:word|wd|phrase|code)?|pwd|pin|otp|secret|token|jwt|bearer|ticket|(?:api|access|private|auth|session)[-_]?key"
    r"|credentials?|auth|authorization|signature|csrf|xsrf|cookie|session|session[-_]?id|^sid|phpsessid|jsessionid)$",
    re.IGNORECASE,
)
_NUMBER_NAME = re.compile(r"(?:pin|otp|pass(?:word|wd|code)?|cvv|cvc)$", re.IGNORECASE)

_IDENTITY = re.compile(r"(?:^|_)(?:user|login|e-?mail)(?:[_-]?(?:name|id))?$|[Uu]ser[Nn]ame$", re.IGNORECASE)

# As above, inside a text that is not JSON: `passcode:guest`, `token=abc`, `"password": "x"`.
_IN_TEXT = re.compile(
    r"(?<![A-Za-z])(?P<name>(?:\w{0,20}[-_])?(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|api[-_]?key|session[-_]?id|sid"
    r"|authorization|auth))[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:(?:Bearer|Basic)\s)?(?P<value>[^\s\"'&,;}\]\x00]{3,})",
    re.IGNORECASE,
)

# By what a value is. Each form is that of its issuer, or of its RFC.
_FORMS = re.compile(
    r"(?P<jwt>\beyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*){0,3})"  # RFC 7519
    r"|(?:\b(?:Bearer|Basic)\s+(?P<authorization>[\w.~+/=-]{4,}))"  # RFC 6750, RFC 7617
    r"|(?P<api_key>\b(?:sk|pk|rk)[-_](?:[a-z]{2,10}[-_])?[\w-]{16,}|\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}"
    r"|\bglpat-[\w-]{16,}|\bxox[abeoprs]-[\w-]{10,}|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{35})"
    r"|(?P<private_key>-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*-----END [A-Z ]*PRIVATE KEY-----)",
    re.ASCII,
)
_RANDOM = re.compile(r"[A-Za-z0-9_~+/=.%-]{20,512}")  # what is longer is data, not a key
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_CLASSES = str.maketrans(
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "0" * 10 + "a" * 26 + "A" * 26, "_~+/=.%-"
)

ENVIRONMENT = "RECORDED_"
"""What the names of the variables begin with in the environment, where USER for instance has a meaning already."""

_SHORT = 6  # a shorter secret, or a word of letters only, is replaced where it stands, not inside other texts
_SHORT_WORD = 10
_MOST = 20  # variables; what is found beyond is made up anew


def is_named_secret(name: str, value: object) -> bool:
    """Whether a member, a field, a parameter of this name has a secret for its value."""
    if isinstance(value, bool) or value in (None, ""):
        return False
    if isinstance(value, str):
        return _found(_NAME, name)
    return isinstance(value, (int, float)) and _found(_NUMBER_NAME, name)


def is_identity(name: str) -> bool:
    """Whether a field of this name says who logs in: beside a password it is for few to know, too."""
    return _found(_IDENTITY, name)


@lru_cache(maxsize=4096)  # the same few names come in every message
def _found(pattern: re.Pattern[str], name: str) -> bool:
    return pattern.search(name) is not None


@lru_cache(maxsize=4096)
def looks_secret(value: str) -> bool:
    """Whether there is a secret in a text, by what it looks like."""
    return any(True for _ in _secret_values(value))


def secrets_in(text: str) -> Iterator[tuple[str, str]]:
    """The secrets in a text, each with a name."""
    for found in _IN_TEXT.finditer(text):
        yield found["name"], found["value"]
    yield from _secret_values(text)


def _secret_values(text: str) -> Iterator[tuple[str, str]]:
    if len(text) < 8:
        return
    for found in _FORMS.finditer(text):
        name = found.lastgroup or ""
        yield ("token" if name == "jwt" else name), found[name]
    for found in _RANDOM.finditer(_FORMS.sub(" ", text)):
        if _is_random(found[0]):
            yield "token", found[0]


def _is_random(value: str) -> bool:
    """Whether nobody would have chosen these characters: letters and digits change often, and few come twice."""
    if _UUID.fullmatch(value):
        return False
    classes = value.translate(_CLASSES)
    changes = sum(a != b for a, b in pairwise(classes))
    counts = Counter(value)
    entropy = -sum(count / len(value) * log2(count / len(value)) for count in counts.values())
    return changes >= max(5, len(classes) // 6) and "0" in classes and entropy >= 3.0


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
        if name not in self._used and len(self._used) >= _MOST:
            return Code(f"token_urlsafe({max(1, len(value) * 3 // 4)})")  # which gives four characters for three bytes
        self._used[name] = None
        return Code(name)

    def split(self, text: str) -> tuple[str | Code, ...]:
        """The text, with a variable in place of each secret in it."""
        if text in self._names and _is_unmistakable(text):
            return (self.expression(text),)
        if not self._names:
            return (text,)
        spans = {found.span("value"): found["value"] for found in _IN_TEXT.finditer(text) if found["value"] in self}
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
