"""What a secret looks like: found by what it is, and by what it is called. Everything that hides secrets asks here.

Rather one too many: a value that is taken for a secret without being one is only not shown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from math import log2

__all__ = ["FORMS", "IN_TEXT", "is_named_secret", "looks_secret", "secrets_in"]

# Whole words at the end of a name: "token" of "accessToken", not of "token_type" or "max_tokens".
_NAME = re.compile(
    r"(?:pass(?:word|wd|phrase|code)?|pwd|pin|otp|secret|token|jwt|bearer|ticket|(?:api|access|private|auth|session)[-_]?key"
    r"|credentials?|auth|authorization|signature|csrf|xsrf|cookie|session|session[-_]?id|^sid|phpsessid|jsessionid)$",
    re.IGNORECASE,
)
_NUMBER_NAME = re.compile(r"(?:pin|otp|pass(?:word|wd|code)?|cvv|cvc)$", re.IGNORECASE)

IN_TEXT = re.compile(
    r"(?<![A-Za-z])(?P<name>(?:\w{0,20}[-_])?(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|api[-_]?key|session[-_]?id|sid"
    r"|authorization|auth))[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:(?:Bearer|Basic)\s)?(?P<value>[^\s\"'&,;}\]\x00]{3,})",
    re.IGNORECASE,
)
"""A secret that is called so, inside a text that is not JSON: ``passcode:guest``, ``token=abc``."""

FORMS = re.compile(
    r"(?P<jwt>\beyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*){0,3})"  # RFC 7519
    r"|(?:\b(?:Bearer|Basic)\s+(?P<authorization>[\w.~+/=-]{4,}))"  # RFC 6750, RFC 7617
    r"|(?P<api_key>\b(?:sk|pk|rk)[-_](?:[a-z]{2,10}[-_])?[\w-]{16,}|\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}"
    r"|\bglpat-[\w-]{16,}|\bxox[abeoprs]-[\w-]{10,}|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{35})"
    r"|(?P<private_key>-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*-----END [A-Z ]*PRIVATE KEY-----)",
    re.ASCII,
)
"""A secret of a known form: that of its issuer, or of its RFC. The group that matched is the secret."""

_RANDOM = re.compile(r"[A-Za-z0-9_~+/=.%-]{20,512}")  # what is longer is data, not a key
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_CLASSES = str.maketrans(
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "0" * 10 + "a" * 26 + "A" * 26, "_~+/=.%-"
)


def is_named_secret(name: str, value: object) -> bool:
    """Whether a member, a field, a parameter of this name has a secret for its value."""
    if isinstance(value, bool) or value in (None, ""):
        return False
    if isinstance(value, str):
        return _found(_NAME, name)
    return isinstance(value, (int, float)) and _found(_NUMBER_NAME, name)


@lru_cache(maxsize=4096)  # the same few names come in every message
def _found(pattern: re.Pattern[str], name: str) -> bool:
    return pattern.search(name) is not None


@lru_cache(maxsize=4096)
def looks_secret(value: str) -> bool:
    """Whether there is a secret in a text, by what it looks like."""
    return any(True for _ in _secret_values(value))


def secrets_in(text: str) -> Iterator[tuple[str, str]]:
    """The secrets in a text, each with a name."""
    for found in IN_TEXT.finditer(text):
        yield found["name"], found["value"]
    yield from _secret_values(text)


def _secret_values(text: str) -> Iterator[tuple[str, str]]:
    if len(text) < 8:
        return
    for found in FORMS.finditer(text):
        name = found.lastgroup or ""
        yield ("token" if name == "jwt" else name), found[name]
    for found in _RANDOM.finditer(FORMS.sub(" ", text)):
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
