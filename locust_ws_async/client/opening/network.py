"""From a host and a port to a connected socket, in the same way for every engine."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import ssl
import sys
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

from ...exceptions import ConnectError, ConnectionRefused, TLSError, UnknownHost
from ...fast_paths import PLAIN
from ..observing.timing import ConnectPhases
from .lookups import Lookups
from .source_addresses import SourceAddresses

__all__ = ["Dialer", "DirectDialer", "SocketFactory", "UnixSocketDialer", "connect_error"]

# connect() and bind() say so when all local ports are taken.
_PORTS_EXHAUSTED = (errno.EADDRNOTAVAIL, errno.EADDRINUSE)

# The reasons that the versions of OpenSSL give when the answer is not TLS. (An alert would be TLS.)
_NOT_TLS_REASONS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"})
_TLS_HINT = " (does it speak TLS on this port? if not, connect to ws://)"

_ATTEMPT_DELAY = 0.25
"""Seconds from one attempt to connect to the next, when the first has not failed (RFC 8305 section 5)."""

_ASKS_AGAIN = sys.platform == "linux" and not PLAIN  # where a connect(2) more is an answer, and no error

SocketFactory = Callable[[int, int, int], socket.socket]
"""Makes a socket from (family, type, protocol)."""


_Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


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
        lookups: where names wait for their lookup.
        phases: is told when name lookup and TCP begin.
    """

    def __init__(
        self, new_socket: SocketFactory, source: SourceAddresses | None, lookups: Lookups, phases: ConnectPhases
    ) -> None:
        self._new_socket = new_socket
        self._source = source
        self._lookups = lookups
        self._phases = phases

    async def connect(self, host: str, port: int) -> socket.socket:
        """
        Connect to the first address of the host that accepts, as browsers do it (RFC 8305).

        The next address is tried as soon as one has failed, or has not answered for 250 ms. What is slower than the
        one that accepts is cut.

        Raises:
            OSError: of the last address that failed; :exc:`socket.gaierror` when there is none.
        """
        loop = asyncio.get_running_loop()
        addresses = await self._addresses(loop, host, port)
        self._phases.enter("tcp")
        source = self._source
        if source is not None:
            # Leave out the addresses that none of ours can reach, unless that leaves nothing: then bind() says so.
            addresses = [address for address in addresses if source.count(address[0])] or addresses
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        if len(addresses) == 1:
            return await self._try(loop, addresses[0])
        return await self._race(loop, deque(_alternating(addresses)))

    async def _try(self, loop: asyncio.AbstractEventLoop, target: _Address) -> socket.socket:
        family, kind, protocol, _, address = target
        source = self._source
        # When the ports of a source address are used up, the next source address may have some left.
        left = source.count(family) or 1 if source is not None else 1
        while True:
            sock = self._new_socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                if source is not None:
                    source.bind(sock)
                await _connect(loop, sock, address)
            except BaseException as exc:
                sock.close()
                left -= 1
                if not left or not isinstance(exc, OSError) or exc.errno not in _PORTS_EXHAUSTED:
                    raise
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock

    async def _race(self, loop: asyncio.AbstractEventLoop, addresses: deque[_Address]) -> socket.socket:
        attempts: set[asyncio.Task[socket.socket]] = set()
        connected: list[socket.socket] = []
        error: BaseException | None = None
        try:
            while (addresses or attempts) and not connected:
                if addresses:
                    attempts.add(loop.create_task(self._try(loop, addresses.popleft())))
                patience = _ATTEMPT_DELAY if addresses else None
                done, attempts = await asyncio.wait(attempts, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for attempt in done:
                    error = attempt.exception()
                    if error is None:
                        connected.append(attempt.result())
                    elif not isinstance(error, OSError):
                        raise error
        finally:
            for attempt in attempts:
                attempt.cancel()
            for late in await asyncio.gather(*attempts, return_exceptions=True):
                if not isinstance(late, BaseException):
                    late.close()
            for second in connected[1:]:
                second.close()
        if connected:
            return connected[0]
        assert error is not None
        raise error

    async def _addresses(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[_Address]:
        if (literal := _literal_address(host, port)) is not None:
            return [literal]  # it needs no resolver, which would cost a thread or a greenlet
        self._phases.enter("lookup_queue")
        async with self._lookups:
            self._phases.enter("dns")
            try:
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
            except UnicodeError as exc:  # Python's own codec for host names refuses a label over 63 characters, say
                raise socket.gaierror(socket.EAI_NONAME, "not a host name") from exc
            except OSError:
                # A resolver that cannot open its files or its socket says many things, but not why.
                self._new_socket(socket.AF_INET, socket.SOCK_STREAM, 0).close()
                raise
        return list(found)


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


@lru_cache(maxsize=256)
def _literal_address(host: str, port: int) -> _Address | None:
    """The address that a host is, if it is one in digits."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        address = (host, port) if family == socket.AF_INET else (host, port, 0, 0)
        return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address
    return None


async def _connect(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any) -> None:
    """
    Connect this socket, which does not block.

    Raises:
        OSError: there is no connection.
    """
    # Fast path "connected at once": a server on this machine has accepted before connect(2) returns, which a second
    # call of it tells (benchmarks/README.md). The plain twin waits until the socket is writable.
    if _ASKS_AGAIN:
        error = sock.connect_ex(address)
        if error == errno.EINPROGRESS:
            error = sock.connect_ex(address)
        if not error:
            return
        if error not in (errno.EALREADY, errno.EINPROGRESS, errno.EINTR, errno.EAGAIN):
            raise OSError(error, os.strerror(error))
    await loop.sock_connect(sock, address)  # which may be told to begin what has begun: Linux allows it


def _alternating(addresses: list[_Address]) -> list[_Address]:
    """These addresses with the families taking turns (RFC 8305 section 4), else in the order of the resolver."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    pairs = itertools.zip_longest(first, others)
    return [address for pair in pairs for address in pair if address is not None]


def connect_error(exc: OSError, phase: str | None = None, address: str | None = None) -> ConnectError:
    """
    Our error for what the operating system or TLS said.

    Args:
        exc: what was said.
        phase: in which phase of the connect.
        address: that of the server, if it is the same for all connections; texts hold no other.
    """
    if isinstance(exc, ConnectError):
        return exc
    if isinstance(exc, ConnectionRefusedError):
        return ConnectionRefused(f"connection refused by {address}") if address else ConnectionRefused()
    if isinstance(exc, socket.gaierror):
        # A resolver that is overloaded, or cannot be reached, has not said that there is no such host.
        if exc.errno == socket.EAI_AGAIN:
            return ConnectError("the resolver gave no answer")
        return UnknownHost(f"unknown host {address.rpartition(':')[0]}") if address else UnknownHost()
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
    if exc.errno in (errno.EMFILE, errno.ENFILE):
        return ConnectError(f"{os.strerror(exc.errno)}: raise the limit, by ulimit -n for instance")
    if phase == "dns" and exc.errno:
        return ConnectError(f"the name lookup failed: {os.strerror(exc.errno)}")
    return ConnectError(os.strerror(exc.errno) if exc.errno else "the connection was lost while it was opened")
