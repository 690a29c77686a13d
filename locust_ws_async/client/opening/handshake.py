"""The request of the opening handshake: from a URL and options to the target of an engine, also after a redirect."""

from __future__ import annotations

from urllib.parse import unquote, urljoin, urlsplit

from websockets.headers import build_authorization_basic, build_host
from websockets.uri import WebSocketURI, parse_uri

from ...exceptions import HandshakeError
from ..options import ConnectOptions
from ..wire.interface import Target
from .cookies import HTTPSession, cookie_header, matching_cookies
from .url import join_url, without_credentials

__all__ = ["constant_address", "handshake_target", "redirect", "split_credentials"]

# Headers that say nothing of who sends them. Any other may hold a secret, whatever it is called.
_HARMLESS = frozenset(
    {"accept", "accept-encoding", "accept-language", "cache-control", "dnt", "origin", "pragma", "user-agent"}
)


def split_credentials(url: str, options: ConnectOptions) -> tuple[str, ConnectOptions]:
    """
    Move user and password from the URL to ``auth`` (RFC 6455 section 10.5), unless the options have their own.

    Returns:
        The URL without user and password, and the options with them.
    """
    if "@" not in url:
        return url, options
    parts = urlsplit(url)
    if parts.username is None:
        return url, options
    if options.auth is None and options.bearer is None:
        credentials = unquote(parts.username), unquote(parts.password or "")
        options = options.replace({"auth": credentials})
    return without_credentials(url), options


def handshake_target(url: str, options: ConnectOptions, http_session: HTTPSession | None) -> Target:
    """
    The target of an engine for this URL.

    A header of the setting ``headers`` replaces any other of its name. ``Cookie`` does not: the cookies of all sources
    go into one header.

    Args:
        url: a URL without user and password.
        options: the settings of the connection.
        http_session: the HTTP client of the user, for ``share_cookies`` and ``share_headers``; None if it has none.
    """
    if http_session is not None and (options.share_cookies or options.share_headers):
        return _target(url, options, http_session)
    return options.derived(("target", url), lambda: _target(url, options, None))


def _target(url: str, options: ConnectOptions, http_session: HTTPSession | None) -> Target:
    uri = parse_uri(url)
    headers = list(options.header_pairs)
    given = {name.lower() for name, _ in headers}

    def add(name: str, value: str | None) -> None:
        if value is not None and name.lower() not in given:
            given.add(name.lower())
            headers.append((name, value))

    add("User-Agent", options.user_agent)
    add("Origin", options.origin)
    if options.auth is not None:
        add("Authorization", build_authorization_basic(*options.auth))
    elif options.bearer is not None:
        add("Authorization", f"Bearer {options.bearer}")
    shared_cookies: list[str] = []
    if http_session is not None:
        if options.share_headers:
            shared = {name.lower(): value for name, value in http_session.headers.items()}
            for name in options.share_headers:
                value = shared.get(name.lower())
                add(name, value.decode("latin-1") if isinstance(value, bytes) else value)
        if options.share_cookies:
            shared_cookies = matching_cookies(http_session.cookies, url)
    cookies = cookie_header(shared_cookies, options.cookie_values)
    if cookies:
        given_cookies = [value for name, value in headers if name.lower() == "cookie"]
        headers = [pair for pair in headers if pair[0].lower() != "cookie"]
        headers.append(("Cookie", "; ".join([*given_cookies, cookies])))
    # A dot at the end means the name as it stands, without search domains: that is for the resolver, and no part of the
    # name that is asked for (RFC 6066 section 3).
    name_of_host = uri.host.removesuffix(".")
    host = build_host(name_of_host, uri.port, uri.secure)
    others = []
    for name, value in headers:
        if name.lower() == "host":
            host = value
        else:
            others.append((name, value))
    return Target(
        uri,
        host,
        tuple(others),
        options.tls_context() if uri.secure else None,
        options.server_hostname or name_of_host,
    )


def redirect(url: str, location: str, options: ConnectOptions) -> tuple[str, ConnectOptions]:
    """
    Where a redirect leads (RFC 9110 section 15.4), and with which options it is followed.

    Args:
        url: the URL that was asked for.
        location: the ``Location`` header of the answer.
        options: the settings that the request was made with.

    Returns:
        The new URL without user and password, and the options for it.

    Raises:
        HandshakeError: the redirect must not be followed.
    """
    try:
        # http and https stand for ws and wss. A WebSocket URL has no fragment (RFC 6455 section 3), so it is dropped.
        new_url = join_url(None, urljoin("http" + url.removeprefix("ws"), location).partition("#")[0])
        new = parse_uri(split_credentials(new_url, options)[0])
    except ValueError as exc:
        raise HandshakeError("the server redirects the handshake to what is not a WebSocket's URL") from exc
    old = parse_uri(url)
    if old.secure and not new.secure:
        raise HandshakeError("the server redirects the handshake from wss:// to ws://, which is not followed")
    if _origin(old) != _origin(new):
        if options.unix_socket is not None:
            raise HandshakeError("the server redirects the handshake to where unix_socket does not lead")
        options = _without_credentials(options)
    return split_credentials(new_url, options)


def _without_credentials(options: ConnectOptions) -> ConnectOptions:
    going_along = _HARMLESS.union(name.lower() for name in options.redirect_headers)
    return options.replace(
        {
            "headers": [(name, value) for name, value in options.header_pairs if name.lower() in going_along],
            "cookies": {},
            "auth": None,
            "bearer": None,
            "share_headers": (),
            "server_hostname": None,
        }
    )


def _origin(uri: WebSocketURI) -> tuple[bool, str, int]:
    return uri.secure, uri.host.removesuffix("."), uri.port


def constant_address(uri: WebSocketURI, base_url: str | None) -> str | None:
    """The host and port of this URL, if it is those that all paths are joined to; any other may differ each time."""
    if base_url is None:
        return None
    try:
        base = parse_uri(join_url(None, base_url))
    except ValueError:
        return None
    if (uri.host, uri.port) != (base.host, base.port):
        return None
    return build_host(uri.host, uri.port, uri.secure, always_include_port=True)
