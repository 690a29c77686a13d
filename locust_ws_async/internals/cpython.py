"""The private names of CPython's standard library that we stand on."""

from __future__ import annotations

import asyncio
import platform
from asyncio import sslproto
from typing import Any, cast

__all__ = ["tls_stream_ended"]

_TLSProtocol: Any = sslproto.SSLProtocol
_TLSTransport: Any = getattr(sslproto, "_SSLProtocolTransport", None)


def _check() -> None:
    if _TLSTransport is None:
        missing = "_SSLProtocolTransport"
    elif "_ssl_protocol" not in _TLSTransport.__init__.__code__.co_names:
        missing = "_SSLProtocolTransport._ssl_protocol"
    elif "_eof_received" not in _TLSProtocol.__init__.__code__.co_names:
        missing = "SSLProtocol._eof_received"
    else:
        return
    raise ImportError(
        f"asyncio.sslproto of Python {platform.python_version()} has no {missing}, which locust_ws_async needs to see "
        "that a server has ended a wss connection: use Python 3.11 to 3.15, or a newer locust_ws_async"
    )


_check()


def tls_stream_ended(transport: asyncio.BaseTransport) -> bool:
    """
    Whether asyncio's TLS knows that the peer has ended the stream, and has not yet told its protocol.

    While reading is paused asyncio keeps that to itself, and throws away what is written. For a transport without TLS
    and for one of another loop, as uvloop's, this is False.
    """
    return isinstance(transport, _TLSTransport) and cast(bool, cast(Any, transport)._ssl_protocol._eof_received)
