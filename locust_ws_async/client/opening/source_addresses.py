"""The addresses of this machine that connections come from."""

from __future__ import annotations

import contextlib
import errno
import functools
import ipaddress
import itertools
import socket
from collections.abc import Iterable

from ...exceptions import ConnectError

__all__ = ["SourceAddresses"]

_MAX_ADDRESSES = 65536  # of one network

# Linux can choose the local port at connect(), where it need only be unique for the pair of addresses. Without this
# option bind() takes a port that no other connection from the address has, to whichever server: that still makes 28,000
# connections for each address.
_BIND_ADDRESS_NO_PORT: int | None = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", None)


class SourceAddresses:
    """
    A rotation over this machine's addresses: each new connection comes from the next one.

    From one address there are about 28,000 connections to one address and port of a server, the size of Linux's range
    of local ports. More need more addresses, on either side.

    Args:
        addresses: IPv4 or IPv6 addresses, or networks such as ``10.0.0.0/28``, which stand for all their hosts.
    """

    def __init__(self, addresses: Iterable[str]) -> None:
        self._lists: dict[int, list[str]] = {socket.AF_INET: [], socket.AF_INET6: []}
        for text in addresses:
            for address in _hosts(text):
                self._lists[socket.AF_INET if address.version == 4 else socket.AF_INET6].append(str(address))
        self._next = {family: itertools.cycle(listed).__next__ for family, listed in self._lists.items()}
        if not any(self._lists.values()):
            raise ValueError("local_address holds no address: give at least one of this machine's, or None")

    @classmethod
    @functools.cache
    def shared(cls, addresses: tuple[str, ...]) -> SourceAddresses:
        """The one rotation of this process over these addresses: all users that have the same setting take turns."""
        return cls(addresses)

    def count(self, family: int) -> int:
        """How many addresses there are of this family (``AF_INET``, ``AF_INET6``)."""
        return len(self._lists.get(family, ()))

    def bind(self, sock: socket.socket) -> None:
        """
        Give the socket the next address of its family, and leave its port to the system.

        Raises:
            ConnectError: there is no address of that family, or it is not this machine's.
        """
        if not self.count(sock.family):
            raise ConnectError("local_address and the server have no address family (IPv4, IPv6) in common")
        if _BIND_ADDRESS_NO_PORT is not None:
            with contextlib.suppress(OSError):  # a kernel without it: bind() chooses the port
                sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        try:
            sock.bind((self._next[sock.family](), 0))
        except OSError as exc:
            if exc.errno == errno.EADDRNOTAVAIL:
                raise ConnectError("local_address is not an address of this machine") from exc
            raise


def _hosts(text: str) -> Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as exc:
        raise ValueError(f"local_address: {text!r} is not an IP address or network") from exc
    if network.num_addresses > _MAX_ADDRESSES:
        raise ValueError(f"local_address: {text!r} has over {_MAX_ADDRESSES} addresses: give a smaller network")
    return network.hosts()
