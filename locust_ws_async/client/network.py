"""From a URL to a connected socket, the same for every engine."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import ssl
from collections.abc import Callable

from ..exceptions import ConnectError, ConnectionRefused, TLSError, UnknownHost

__all__ = ["SocketFactory", "connect_error", "connect_socket", "default_ssl_context"]

SocketFactory = Callable[[int, int, int], socket.socket]
"""Makes a socket from (family, type, protocol)."""


@functools.cache
def default_ssl_context() -> ssl.SSLContext:
    """One TLS context for this process: each costs about 1 MB and tens of milliseconds, for the same authorities."""
    return ssl.create_default_context()


async def connect_socket(host: str, port: int, new_socket: SocketFactory = socket.socket) -> socket.socket:
    """
    Open a TCP connection, trying the addresses of the host in the order of the resolver.

    Cancelling closes the socket.

    Raises:
        OSError: of the last address that was tried; :exc:`socket.gaierror` when there is none.
    """
    loop = asyncio.get_running_loop()
    error: OSError | None = None
    for family, kind, protocol, _, address in await _addresses(loop, host, port):
        sock = new_socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except OSError as exc:
            sock.close()
            error = exc
        except BaseException:
            sock.close()
            raise
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
    raise error or socket.gaierror(socket.EAI_NONAME, "no address")


_Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[_Address]:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        # A literal address needs no resolver, which would cost a thread or a greenlet.
        address = (host, port) if family == socket.AF_INET else (host, port, 0, 0)
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)]
    try:
        return list(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP))
    except UnicodeError as exc:  # Python's codec for host names refuses it
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from exc


def connect_error(exc: OSError) -> ConnectError:
    """Our error for what the operating system or TLS said, with a text that holds no address."""
    if isinstance(exc, ConnectError):
        return exc
    if isinstance(exc, ConnectionRefusedError):
        return ConnectionRefused()
    if isinstance(exc, socket.gaierror):
        return UnknownHost()
    if isinstance(exc, ssl.SSLCertVerificationError):
        return TLSError(f"TLS certificate not accepted: {exc.verify_message}")
    if isinstance(exc, ssl.SSLError):
        # OpenSSL's own word for it, without the source line that its str() carries.
        return TLSError(f"TLS handshake failed: {exc.reason or 'connection closed'}")
    return ConnectError(os.strerror(exc.errno) if exc.errno else "the connection was lost while it was opened")
