"""Shows URLs, headers and messages without the secrets in them, for recordings, logs and the texts of errors.

Of a URL and of headers only what is known to be harmless is shown. A message is shown, but for what ``secrets.py``
recognises.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from .secrets import FORMS, IN_TEXT, is_named_secret, looks_secret

__all__ = ["MASK", "MaskingLog", "masked_headers", "masked_text", "masked_url", "quoted_url"]

MASK = "***"

_HARMLESS_HEADERS = frozenset(
    """
    accept accept-encoding accept-language age allow cache-control connection content-encoding content-language
    content-length content-type date dnt expires host keep-alive pragma retry-after sec-fetch-dest sec-fetch-mode
    sec-fetch-site sec-fetch-user sec-websocket-extensions sec-websocket-version server strict-transport-security
    transfer-encoding upgrade upgrade-insecure-requests user-agent vary via
    """.split()  # noqa: SIM905 # it reads better so
)
_NONCES = frozenset({"sec-websocket-key", "sec-websocket-accept"})  # they look like secrets
_URLS = frozenset({"location", "origin", "referer"})
_HARMLESS_PARAMETERS = frozenset(["eio", "format", "lang", "locale", "protocol", "transport", "v", "version", "vsn"])
_HARMLESS_VALUE = re.compile(r"[\w.-]{1,16}", re.ASCII)
_PARAMETER = re.compile(r"[A-Za-z_][\w.\[\]-]{0,39}", re.ASCII)

# Those that IANA has registered and others that many servers speak; a subprotocol of another name may be a token.
_SUBPROTOCOLS = re.compile(
    r"graphql(?:-transport)?-ws|mqtt(?:v3\.1)?|(?:v1[0-2]\.)?stomp|wamp\.2\.\w+|ocpp[0-9.]+|soap|wamp|xmpp|sip|msrp|amqp"
    r"|AMQPWSB10|actioncable-(?:v1-json|unsupported)|signalr|jsonrpc|json|binary|base64|chat|superchat|echo|bearer"
    r"|(?:v\d\.)?(?:channel|base64\.channel)\.k8s\.io|[a-z]+\.webpubsub\.azure\.v1",
    re.IGNORECASE,
)

_MEMBER = re.compile(
    r'"(?P<name>[^"\\]{1,64})"\s{0,3}:\s{0,3}(?:"(?P<text>(?:[^"\\]|\\.)*)|(?P<number>-?\d+))', re.DOTALL
)
_REQUEST_LINE = re.compile(r"(?P<before>\b[A-Z]{3,7} )(?P<url>[^ ]+)(?P<after> HTTP/1\.1)$")
_HEADER_LINE = re.compile(r"(?P<before>(?:[<>] )?)(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+): (?P<value>.*)$")


def masked_url(url: str, shown: Iterable[str] = ()) -> str:
    """
    The URL without user and password, without the values of its query, and without secrets in its path.

    Args:
        url: the URL, or its path and query. One that is not valid is masked as a whole.
        shown: names of parameters whose values are shown, in lower case.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    _, at, host = parts.netloc.rpartition("@")
    path = "/".join(MASK if looks_secret(segment) else segment for segment in parts.path.split("/"))
    query = "&".join(_masked_parameter(field, shown) for field in parts.query.split("&") if field)
    fragment = MASK if parts.fragment else ""
    return parts._replace(netloc=(MASK if at else "") + at + host, path=path, query=query, fragment=fragment).geturl()


def quoted_url(url: str) -> str:
    """The same for the text of an error about a URL that may not be valid, in quotation marks."""
    try:
        parts = urlsplit(url)
        valid = parts.port is None or bool(parts.hostname)
    except ValueError:  # whose text quotes what may be a password
        valid = False
    # A character that is not encoded ends the user information too early: of "ws://me:pass#word@host" the host is "me".
    if not valid or ("@" in url and "@" not in parts.netloc and "@" not in parts.query):
        scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
        url = scheme + separator + (f"{MASK}@" if "@" in rest else "") + rest.rpartition("@")[2]
        return repr(url.partition("?")[0].partition("#")[0])
    return repr(masked_url(url))


def masked_headers(headers: Iterable[tuple[str, str]], shown: Iterable[str] = ()) -> list[list[str]]:
    """
    The headers, with the values of those that are known to be harmless.

    Args:
        headers: pairs of name and value.
        shown: names of headers, and subprotocols, that are shown all the same, in lower case.
    """
    return [[name, _masked_header(name.lower(), value, shown)] for name, value in headers]


def masked_text(text: str) -> str:
    """A message without the secrets that are called so, or have the form of one."""
    text = _MEMBER.sub(_masked_member, text)
    text = IN_TEXT.sub(lambda found: _without(found, "value"), text)
    return FORMS.sub(lambda found: _without(found, found.lastgroup or 0), text)


class MaskingLog(logging.LoggerAdapter[logging.Logger]):
    """A logger for an engine: what it logs of handshakes and messages has no secrets."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if self.isEnabledFor(level):
            text = str(msg)
            if args:
                text %= tuple(arg.decode("latin-1") if isinstance(arg, (bytes, bytearray)) else arg for arg in args)
            super().log(level, "%s", "\n".join(map(_masked_line, text.splitlines())), **kwargs)


def _masked_line(line: str) -> str:
    if found := _REQUEST_LINE.search(line):
        return line[: found.start()] + found["before"] + masked_url(found["url"]) + found["after"]
    if found := _HEADER_LINE.fullmatch(line):
        return f"{found['before']}{found['name']}: {_masked_header(found['name'].lower(), found['value'], ())}"
    return masked_text(line)


def _masked_header(name: str, value: str, shown: Iterable[str]) -> str:
    if name in shown or name in _NONCES:
        return value
    if name == "sec-websocket-protocol":
        return ", ".join(
            each if _SUBPROTOCOLS.fullmatch(each) or each.lower() in shown else MASK
            for each in map(str.strip, value.split(","))
        )
    if name in _URLS:
        return masked_url(value, shown)
    return value if name in _HARMLESS_HEADERS and not looks_secret(value) else MASK


def _masked_parameter(field: str, shown: Iterable[str]) -> str:
    name, _, value = field.partition("=")
    if not value.strip("=") or not _PARAMETER.fullmatch(name) or looks_secret(name):
        return MASK  # a token without a name; one in base64 may end with "="
    key = name.lower()
    harmless = key in shown or (key in _HARMLESS_PARAMETERS and _HARMLESS_VALUE.fullmatch(value))
    return field if harmless else f"{name}={MASK}"


def _masked_member(found: re.Match[str]) -> str:
    kind = "text" if found["number"] is None else "number"
    if not is_named_secret(found["name"], found["text"] if kind == "text" else int(found["number"])):
        return found[0]
    return _without(found, kind)


def _without(found: re.Match[str], group: str | int) -> str:
    return found[0][: found.start(group) - found.start()] + MASK + found[0][found.end(group) - found.start() :]
