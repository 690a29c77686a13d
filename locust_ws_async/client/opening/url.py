"""From what the author of a locustfile writes to the URL to connect to."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ...masking import quoted_url

__all__ = ["join_url", "without_credentials"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_IN_HOST = re.compile(r"""[ "<>\\^`{|}]""")
_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_WEBSOCKET_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


@lru_cache(maxsize=256)  # which also lets many connections to one URL share one str
def join_url(base_url: str | None, path_or_url: str) -> str:
    """
    The ``ws://`` or ``wss://`` URL to connect to.

    An absolute URL stands alone. A path is appended to ``base_url``, as Locust's HTTP clients do it
    (``HttpSession._build_url``). ``http`` becomes ``ws``, ``https`` becomes ``wss``. Characters that a URL must not
    contain, a space or an umlaut for instance, are encoded (RFC 3986 section 2.1, RFC 3987 section 3.1); what is
    encoded already stays as it is. A host name with such characters is encoded as browsers do it (IDNA 2008, RFC 5891,
    after the mapping of UTS 46).

    Args:
        base_url: the scheme and host, and perhaps a path, that paths are joined to; None if there is none.
        path_or_url: a path, or an absolute URL.

    Raises:
        ValueError: a path has no base; the scheme is none of a WebSocket; the host name cannot be; the URL has a
            fragment, or control characters.
    """
    if _SCHEME.match(path_or_url):
        url = path_or_url
    elif not base_url:
        raise ValueError(
            f'connect({quoted_url(path_or_url)}) needs a host: set `host = "wss://..."` on the user class, '
            "give --host, or connect to an absolute URL"
        )
    elif not _SCHEME.match(base_url):
        raise ValueError(f"the host {quoted_url(base_url)} needs a scheme: ws://, wss://, http:// or https://")
    elif not _split(base_url).hostname:
        raise ValueError(f"no host name in {quoted_url(base_url)}")
    else:
        base = base_url.rstrip("/")
        url = base if not path_or_url else base + ("" if path_or_url[0] in "/?" else "/") + path_or_url

    scheme, rest = url.split("://", 1)
    try:
        scheme = _WEBSOCKET_SCHEMES[scheme.lower()]
    except KeyError:
        raise ValueError(f"cannot connect to {scheme}://: use ws://, wss://, http:// or https://") from None
    url = f"{scheme}://{rest}"
    if _CONTROL.search(url):  # urlsplit would silently leave them out
        raise ValueError(f"{quoted_url(url)} has control characters: encode them, a line break as %0A for instance")
    parts = _split(url)
    if not (parts.hostname or "").strip(".") or parts.port == 0:
        raise ValueError(f"no host name, or no valid port, in {quoted_url(url)}")
    if ":" in unquote(parts.username or ""):  # RFC 7617 section 2
        raise ValueError("the user name in the URL has a colon, which it cannot contain")
    if parts.fragment:
        raise ValueError(
            f"{quoted_url(url)} has a fragment (#...), which a WebSocket URL must not have (RFC 6455 section 3)"
        )
    return _encoded(parts).geturl()


def without_credentials(url: str) -> str:
    """The URL without user and password, as names, rows and events may have it."""
    if "@" not in url:
        return url
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 # reading it checks it
    except ValueError:  # its text may quote a password
        raise ValueError(f"no host name, or no valid port, in {quoted_url(url)}") from None
    return parts


def _encoded(parts: SplitResult) -> SplitResult:
    user_info, at, address = parts.netloc.rpartition("@")
    if _NOT_IN_HOST.search(address):
        raise ValueError(f"{parts.hostname!r} is not a host name")
    if not address.isascii():
        import idna  # which takes 1 MB, and few hosts need

        host, colon, port = address.partition(":")
        try:
            address = idna.encode(host, uts46=True).decode() + colon + port
        except UnicodeError as exc:
            raise ValueError(f"{host!r} is not a host name: {exc}") from exc
    return parts._replace(
        netloc=_quote(user_info, ":") + at + address,
        path=_quote(parts.path, "/:@"),
        query=_quote(parts.query, "/:@?"),
    )


def _quote(text: str, also: str) -> str:
    # RFC 3986 appendix A: sub-delims, and `also`. (quote() leaves letters, digits and -._~ by itself.)
    return quote(_NO_ESCAPE.sub("%25", text), safe="%!$&'()*+,;=" + also)
