"""
When bytes arrived, by the kernel's clock: also those that lay unread while this process did something else.

Linux notes when each segment comes, and tells it beside what is read (``SO_TIMESTAMPNS``, socket(7)). It notes the time
of day, and times here are of :func:`time.perf_counter`. Both run alike (clock_gettime(2): adjtime slews both), so one
is the other less an offset that stays the same, until somebody sets the time of day. So the offset is looked at with
each read. Where it is another one than before, a stamp may be from either side of the step, and none is used for a
second.

What a message is told to have arrived at is the stamp of the last segment of the read that completed it. In TLS no
segment says whose bytes it carried, so it is that of the last segment read from the socket.
"""

from __future__ import annotations

import asyncio
import platform
import socket
import struct
import sys
from collections import Counter
from math import inf
from time import perf_counter, time
from typing import TYPE_CHECKING

from ...fast_paths import PLAIN
from ...internals.cpython import NativeSocket, StampedReader

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["AVAILABLE", "BUCKET", "StampedSocket", "Stamps", "stamped", "stamps"]

_SO_TIMESTAMPNS = 35  # which Python's socket module does not have; asm-generic/socket.h
_MACHINES = frozenset({"aarch64", "loongarch64", "ppc64le", "riscv64", "s390x", "x86_64"})  # where that is its number

AVAILABLE = sys.platform == "linux" and sys.maxsize > 2**32 and platform.machine() in _MACHINES
"""Whether this system tells when bytes arrived."""

_timespec = struct.Struct("=qq").unpack  # seconds and nanoseconds
_SPACE = socket.CMSG_SPACE(16) if AVAILABLE else 0  # bytes that it takes beside what is read

_STEP = 0.0001
"""Seconds by which two looks at the offset may differ. It is also what a step may be without being noticed."""

_SETTLING = 1.0
"""Seconds after a step in which no stamp is used, as the bytes may have come before it."""

BUCKET = 1 / 65536
"""Seconds: how finely short lags are told apart."""

_BUCKETS = 4096
_SHORT = _BUCKETS * BUCKET


class Stamps:
    """
    Makes times of arrival of the kernel's stamps, for all connections of the process; and counts how long bytes lay
    unread.

    Attributes:
        short: how many reads had a lag of so many :data:`BUCKET`.
        long: how many had a longer one, by whole milliseconds.
        longest: seconds, of those.
        refused: how many reads had a stamp that was not used, since it could not be right.
        missing: how many had none, as the first of a process may.
    """

    __slots__ = ("_offset", "_trusted_from", "long", "longest", "missing", "refused", "short")

    def __init__(self) -> None:
        self._offset = _offset_now()
        self._trusted_from = -inf
        self.missing = 0
        self.refused = 0
        self.restart()

    def restart(self) -> None:
        """Count lags anew."""
        self.short = [0] * _BUCKETS
        self.long: Counter[int] = Counter()
        self.longest = 0.0

    def arrival(self, ancillary: list[tuple[int, int, bytes]], before: float) -> float:
        """
        When the bytes arrived that were read just now, by :func:`time.perf_counter`.

        Args:
            ancillary: what the kernel told beside them.
            before: when those before them arrived, on the same connection: a stream has no others.

        Returns:
            The kernel's time; or the present one, where there is no stamp, or none that can be right.
        """
        now = perf_counter()
        if not ancillary:
            self.missing += 1
            return now
        seconds, nanoseconds = _timespec(ancillary[0][2])
        offset = self._offset
        arrived: float = seconds - offset + nanoseconds * 1e-9
        lag = now - arrived
        if (
            0.0 <= lag < _SHORT
            and arrived >= before
            and -_STEP < time() - now - offset < _STEP
            and arrived >= self._trusted_from
        ):
            self.short[int(lag * 65536.0)] += 1
            return arrived
        return self._unusual(arrived, before, now)

    def _unusual(self, arrived: float, before: float, now: float) -> float:
        offset = _offset_now()
        if abs(offset - self._offset) >= _STEP:
            self._offset = offset
            self._trusted_from = now + _SETTLING
        lag = now - arrived
        # A lag of less than nothing, within the precision of the offset, is none.
        if arrived < max(before, self._trusted_from) or lag < -_STEP:
            self.refused += 1
            return now
        lag = max(0.0, lag)
        if lag < _SHORT:
            self.short[int(lag / BUCKET)] += 1
        else:
            self.long[int(lag * 1000)] += 1
            self.longest = max(self.longest, lag)
        return min(arrived, now)


def _offset_now() -> float:
    """How far the time of day is ahead of ``perf_counter()``, in seconds."""
    shortest, offset = inf, 0.0
    for _ in range(10):  # this process may be held up between two looks
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
    """By :func:`time.perf_counter`."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        data, ancillary, _, _ = self.recvmsg(bufsize, _SPACE)
        if data:
            self.arrived = stamps.arrival(ancillary, self.arrived)
        return data

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        count, ancillary, _, _ = self.recvmsg_into((buffer,), _SPACE)
        if count:
            self.arrived = stamps.arrival(ancillary, self.arrived)
        return count

    def read_straight(self, transport: asyncio.Transport) -> None:
        """Let the transport of this socket, whose protocol is a buffered one, read by one function of ours."""
        # Fast path "stamp read with the bytes" (benchmarks/README.md). The plain twin is `recv_into`, which asyncio
        # calls.
        if not PLAIN:
            StampedReader.attach(transport, self, stamps.arrival, _SPACE)


def stamped(sock: socket.socket) -> StampedSocket | None:
    """Make of a connected socket one that knows when bytes arrived; None where the system, or its family, cannot."""
    if not AVAILABLE or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    except OSError:  # another kernel that calls itself Linux
        return None
    made = StampedSocket(sock.family, sock.type, sock.proto, sock.detach())
    made.setblocking(False)
    made.arrived = -inf
    return made
