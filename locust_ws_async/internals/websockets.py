"""What we use of ``websockets`` beside its documented API."""

from __future__ import annotations

from collections.abc import Callable

from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.uri import WebSocketURI
from websockets.version import version

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without websockets' C extension
    from websockets.utils import apply_mask

try:
    from websockets.proxy import Proxy, get_proxy, parse_proxy
except ImportError:  # websockets 15 has them elsewhere
    from websockets.uri import Proxy, get_proxy, parse_proxy  # type: ignore[attr-defined, no-redef]

__all__ = ["Proxy", "add_header", "apply_mask", "get_proxy", "parse_proxy"]

# Without looking at the value once more. Before websockets 17 there was no other way.
add_header: Callable[[Headers, str, str], None] = getattr(Headers, "set_insecure", Headers.__setitem__)


def _check() -> None:
    """``ClientProtocol`` must have the attributes that tell which close frames went either way, and why it stopped."""
    protocol = ClientProtocol(WebSocketURI(False, "localhost", 80, "/", ""))
    for name in ("close_rcvd", "close_sent", "handshake_exc", "parser_exc"):
        if not hasattr(protocol, name):
            raise ImportError(
                f"ClientProtocol of websockets {version} has no {name}, which locust_ws_async needs to see how a "
                "connection ended: install websockets 17.4, or a newer locust_ws_async"
            )


_check()
