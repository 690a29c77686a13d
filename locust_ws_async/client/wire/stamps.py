"""
When bytes arrived, by the kernel's clock: also those that lay unread while this process did something else.

Linux notes when each segment comes, and tells it beside what is read (``SO_TIMESTAMPNS``, socket(7)). It notes the time
of day, and times here are of :func:`time.perf_counter`. Both run alike (clock_gettime(2): adjtime slews both), so one
is the other less an offset that stays the same, until somebody sets the time of day. So the offset is looked at again
and again. Where it is another one than before, a stamp may be from either side of the step, and none is used for a
second.

What a message is told to have arrived at is the stamp of the last segment of the read that completed it. In TLS no
segment says whose bytes it carried, so it is that of the last segment read from the socket.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import socket
import struct
import sys
from collections import Counter
from math import inf
from time import perf_counter, time
from typing import Any

from ...fast_paths import PLAIN
from ...internals.cpython import SAMPLED, NativeSocket, StampedReader, make_transport

__all__ = ["AVAILABLE", "StampedSocket", "Stamps", "new_transport", "stamped", "stamps"]

_SO_TIMESTAMPNS = 35  # which Python's socket module does not have; asm-generic/socket.h
_MACHINES = frozenset({"aarch64", "loongarch64", "ppc64le", "riscv64", "s390x", "x86_64"})  # where that is its number

AVAILABLE = sys.platform == "linux" and sys.maxsize > 2**32 and platform.machine() in _MACHINES
"""Whether this system tells when bytes arrived."""

_timespec = struct.Struct("=qq").unpack  # seconds and nanoseconds
_SPACE = socket.CMSG_SPACE(16) if AVAILABLE else 0  # bytes that it takes beside what is read

_family, _type = NativeSocket.family.__get__, NativeSocket.type.__get__

_STEP = 0.0001
"""Seconds by which two looks at the offset may differ. It is also what a step may be without being noticed."""

_TRUST = 0.01
"""Seconds for which the offset is not looked at again."""

_SETTLING = 1.0
"""Seconds after a step in which no stamp is used, as the bytes may have come before it."""

_logger = logging.getLogger("locust_ws_async.client")


class Stamps:
    """
    Makes times of arrival of the kernel's stamps, for all connections of the process; and counts how long bytes lay
    unread: their lag.

    Attributes:
        offset: how far the time of day is ahead of ``perf_counter()``, in seconds.
        trusted_until: until when that needs no look, by ``perf_counter()``.
        lags: how many reads had which lag, in milliseconds: to 1/64 below 64, and to a whole one above. Of those that
            come while the offset is trusted one of 64 is counted, and as 64; and each that is the longest so far.
        longest: the longest lag, in seconds.
        refused: how many reads had a stamp that was not used, since it could not be right.
        missing: how many had none, as the first of a process may.
    """

    __slots__ = ("_settled", "lags", "longest", "missing", "offset", "refused", "trusted_until")

    def __init__(self) -> None:
        self.offset = _offset_now()
        self.trusted_until = -inf
        self._settled = -inf
        self.missing = 0
        self.refused = 0
        self.restart()

    def restart(self) -> None:
        """Count lags anew."""
        self.lags: Counter[float] = Counter()
        self.longest = 0.0

    def arrival(self, ancillary: list[tuple[int, int, bytes]], before: float, now: float) -> float:
        """
        When the bytes arrived that have just been read, by :func:`time.perf_counter`.

        Args:
            ancillary: what the kernel told beside them.
            before: when those before them arrived, on the same connection: none come earlier.
            now: the present time.

        Returns:
            The kernel's time; or the present one, where there is no stamp, or none that can be right.
        """
        if not ancillary:
            self.missing += 1
            return now
        trusted = now < self.trusted_until
        if not trusted:
            self._look_at_offset(now)
        seconds, nanoseconds = _timespec(ancillary[0][2])
        arrived: float = seconds - self.offset + nanoseconds * 1e-9
        # A lag of less than nothing, within the precision of the offset, is none.
        if arrived < before or arrived < self._settled or arrived > now + _STEP:
            self.refused += 1
            return now
        lag = max(0.0, now - arrived)
        weight = 0
        if lag > self.longest:
            self.longest = lag
            weight = 1
        if not trusted:
            weight = 1
        elif not nanoseconds & SAMPLED:
            weight = SAMPLED + 1
        if weight:
            milliseconds = int(lag * 64000) / 64 if lag < 0.064 else int(lag * 1000)
            self.lags[milliseconds] += weight
        return min(arrived, now)

    def _look_at_offset(self, now: float) -> None:
        if abs(time() - perf_counter() - self.offset) >= _STEP:
            offset = _offset_now()  # this process may have been held up between the two
            if abs(step := offset - self.offset) >= _STEP:
                _logger.warning(
                    "The time of day was set: it is %+.3f s off what it was. For a second, messages have arrived when "
                    "they were read.",
                    step,
                )
                self.offset = offset
                self._settled = now + _SETTLING
        if now >= self._settled:
            self.trusted_until = now + _TRUST


def _offset_now() -> float:
    shortest, offset = inf, 0.0
    for _ in range(10):
        before, wall, after = perf_counter(), time(), perf_counter()
        if after - before < shortest:
            shortest, offset = after - before, wall - (before + after) / 2
        if shortest < _STEP / 20:
            break
    return offset


stamps = Stamps()
"""Those of this process."""


class StampedSocket(NativeSocket):
    """
    A socket that knows when arrived what was read last.

    asyncio reads from it as from any other. :meth:`read_straight` makes that quicker.
    """

    __slots__ = ("arrived",)

    arrived: float
    """By :func:`time.perf_counter`; negative before the first read."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        data, ancillary, _, _ = self.recvmsg(bufsize, _SPACE)
        if data:
            self.arrived = stamps.arrival(ancillary, self.arrived, perf_counter())
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        count, ancillary, _, _ = self.recvmsg_into((buffer,), _SPACE)
        if count:
            self.arrived = stamps.arrival(ancillary, self.arrived, perf_counter())
        return count

    def read_straight(self, transport: asyncio.Transport) -> None:
        """Let the transport of this socket, whose protocol is a buffered one, read by one function of ours."""
        # Fast path "stamp and bytes at once" (benchmarks/README.md). The plain twin: asyncio calls `recv_into`.
        if not PLAIN:
            StampedReader.attach(transport, self, stamps, _SPACE)


def new_transport(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: asyncio.BufferedProtocol
) -> asyncio.Transport:
    """Make a transport, which reads as :meth:`StampedSocket.read_straight` says where the socket is such a one."""
    return make_transport(loop, sock, protocol, stamps if isinstance(sock, StampedSocket) else None, _SPACE)


def stamped(sock: socket.socket) -> StampedSocket | None:
    """Make of a connected socket one that knows when bytes arrived; None where the system, or its family, cannot."""
    if not AVAILABLE or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    except OSError:  # another kernel that calls itself Linux
        return None
    # The numbers, of which socket.socket would make members of enumerations. gevent's sockets have them at once.
    is_native = isinstance(sock, NativeSocket)
    family, kind = (_family(sock), _type(sock)) if is_native else (int(sock.family), int(sock.type))
    made = StampedSocket(family, kind, sock.proto, sock.detach())
    made.setblocking(False)
    made.arrived = -inf
    return made
