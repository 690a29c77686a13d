"""What we use of ``websockets`` beside its documented API."""

from __future__ import annotations

from websockets.client import ClientProtocol
from websockets.uri import WebSocketURI
from websockets.version import version

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without websockets' C extension
    from websockets.utils import apply_mask

__all__ = ["apply_mask"]


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
