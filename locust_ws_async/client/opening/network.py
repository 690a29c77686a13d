"""From a host and a port to a connected socket, in the same way for every engine."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from ...exceptions import ConnectError, ConnectionRefused, TLSError, UnknownHost
from ..observing.timing import ConnectPhases
from .source_addresses import SourceAddresses

__all__ = ["Dialer", "DirectDialer", "SocketFactory", "UnixSocketDialer", "connect_error"]

# connect() and bind() say so when all local ports are taken.
_PORTS_EXHAUSTED = (errno.EADDRNOTAVAIL, errno.EADDRINUSE)

# The reasons that the versions of OpenSSL give when the answer is not TLS. (An alert would be TLS.)
_NOT_TLS_REASONS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"})
_TLS_HINT = " (does it speak TLS on this port? if not, connect to ws://)"

SocketFactory = Callable[[int, int, int], socket.socket]
"""Makes a socket from (family, type, protocol)."""


class Dialer(Protocol):
    """A way to a server: directly, over a unix socket, or through a proxy."""

    async def connect(self, host: str, port: int) -> socket.socket:
        """
        Open a connection to this host and port. Cancelling closes the socket.

        Raises:
            OSError: there is no connection.
        """


class DirectDialer:
    """
    Opens TCP connections to the server itself.

    Args:
        new_socket: makes the sockets.
        source: the addresses of this machine to connect from; None leaves that to the system.
        phases: is told when name lookup and TCP begin.
    """

    def __init__(self, new_socket: SocketFactory, source: SourceAddresses | None, phases: ConnectPhases) -> None:
        self._new_socket = new_socket
        self._source = source
        self._phases = phases

    async def connect(self, host: str, port: int) -> socket.socket:
        """
        Try the addresses of the host one after the other, in the order of the resolver, until one accepts.

        They are not tried side by side as browsers do it (RFC 8305): a second connection, which is then thrown away,
        would be load on the server that the test does not count.

        Raises:
            OSError: of the last address that was tried; :exc:`socket.gaierror` when there is none.
        """
        loop = asyncio.get_running_loop()
        addresses = await _addresses(loop, host, port, self._phases)
        self._phases.enter("tcp")
        source = self._source
        if source is not None:
            # Leave out the addresses that none of ours can reach, unless that leaves nothing: then bind() says so.
            addresses = [address for address in addresses if source.count(address[0])] or addresses
        error: OSError | None = None
        for family, kind, protocol, _, address in addresses:
            # When the ports of a source address are used up, the next source address may have some left.
            for _ in range(source.count(family) or 1 if source is not None else 1):
                sock = self._new_socket(family, kind, protocol)
                try:
                    sock.setblocking(False)
                    if source is not None:
                        source.bind(sock)
                    await loop.sock_connect(sock, address)
                except OSError as exc:
                    sock.close()
                    error = exc
                    if exc.errno not in _PORTS_EXHAUSTED:
                        break
                except BaseException:
                    sock.close()
                    raise
                else:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return sock
        raise error or socket.gaierror(socket.EAI_NONAME, "no address")


class UnixSocketDialer:
    """Connects to this unix socket, whatever the host and the port are."""

    def __init__(self, path: str, new_socket: SocketFactory, phases: ConnectPhases) -> None:
        self._path = path
        self._new_socket = new_socket
        self._phases = phases

    async def connect(self, host: str, port: int) -> socket.socket:
        """See :class:`Dialer`."""
        self._phases.enter("tcp")
        sock = self._new_socket(socket.AF_UNIX, socket.SOCK_STREAM, 0)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, self._path)
        except BaseException:
            sock.close()
            raise
        return sock


_Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int, phases: ConnectPhases) -> list[_Address]:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        # A literal address needs no resolver, which would cost a thread or a greenlet.
        address = (host, port) if family == socket.AF_INET else (host, port, 0, 0)
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)]
    phases.enter("dns")
    try:
        return list(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP))
    except UnicodeError as exc:  # Python's own codec for host names refuses a label over 63 characters, for instance
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from exc


def connect_error(exc: OSError, phase: str | None = None) -> ConnectError:
    """Our error for what the operating system or TLS said in this phase, with a text that holds no address."""
    if isinstance(exc, ConnectError):
        return exc
    if isinstance(exc, ConnectionRefusedError):
        return ConnectionRefused()
    if isinstance(exc, socket.gaierror):
        # A resolver that is overloaded, or cannot be reached, has not said that there is no such host.
        return ConnectError("the resolver gave no answer") if exc.errno == socket.EAI_AGAIN else UnknownHost()
    if isinstance(exc, ssl.SSLCertVerificationError):
        # Cut at the comma, behind which stands the host name that the certificate is not for. In small letters, since
        # one engine has OpenSSL's texts and the other has Python's.
        return TLSError(f"TLS certificate not accepted: {exc.verify_message.partition(',')[0].lower()}")
    if isinstance(exc, ssl.SSLError):
        # OpenSSL's own word for the reason, without the source line that its str() carries.
        reason = exc.reason or "connection closed"
        return TLSError(f"TLS handshake failed: {reason}{_TLS_HINT if reason in _NOT_TLS_REASONS else ''}")
    if phase == "tls" and isinstance(exc, ConnectionError):
        return TLSError(f"TLS handshake failed: the server closed the connection{_TLS_HINT}")
    if exc.errno in _PORTS_EXHAUSTED:
        return ConnectError("no local port is free: let connections come from more addresses, with local_address")
    return ConnectError(os.strerror(exc.errno) if exc.errno else "the connection was lost while it was opened")
