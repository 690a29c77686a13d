"""What the opening handshake asks for: from a URL and options to the target of an engine."""

from __future__ import annotations

from typing import cast

from websockets.headers import build_authorization_basic
from websockets.uri import WebSocketURI, parse_uri

from .engines.base import Target
from .network import default_ssl_context
from .options import ConnectOptions

__all__ = ["USER_AGENT", "handshake_target"]

USER_AGENT = "locust-ws-async"


def handshake_target(url: str, options: ConnectOptions) -> Target:
    """
    The target for this URL. User and password in it become an Authorization header (RFC 6455 section 10.5).

    Raises:
        ValueError: not a valid URL, or a TLS context for ``ws://``.
    """
    uri = parse_uri(url)
    headers = cast("list[tuple[str, str]]", list(options.headers))  # pairs, whatever was given
    given = {name.lower() for name, _ in headers}
    if "user-agent" not in given:
        headers.append(("User-Agent", USER_AGENT))
    if uri.user_info is not None:
        if "authorization" not in given:
            headers.append(("Authorization", build_authorization_basic(*uri.user_info)))
        scheme, rest = url.split("://", 1)
        url = f"{scheme}://{rest.split('@', 1)[1]}"
        uri = WebSocketURI(uri.secure, uri.host, uri.port, uri.path, uri.query)
    context = (options.ssl or default_ssl_context()) if uri.secure else None
    return Target(url, uri, tuple(headers), context)
