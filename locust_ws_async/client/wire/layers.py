"""What can stand between a transport and the protocol of an engine, which notices nothing of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

__all__ = ["ProtocolLayer", "ReadMeter"]


class ProtocolLayer(asyncio.BufferedProtocol):
    """Passes everything on to a protocol."""

    buffers = None
    """Whoever reads has to ask :meth:`get_buffer`, each time."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_buffer(self, sizehint: int) -> memoryview:
        return cast(memoryview, self._protocol.get_buffer(sizehint))

    def buffer_updated(self, nbytes: int) -> None:
        self._protocol.buffer_updated(nbytes)

    def eof_received(self) -> bool | None:
        return cast("bool | None", self._protocol.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


class ReadMeter(ProtocolLayer):
    """
    Tells how much each read brings, and lets it bring no more than so much.

    Args:
        protocol: whose reads these are.
        note_read: called with the number of bytes, after the protocol has handled them.
        most: the most bytes of a read. More come where TLS has decrypted them already: they have to go somewhere.
    """

    def __init__(self, protocol: Any, note_read: Callable[[int], None], most: int) -> None:
        super().__init__(protocol)
        self._note_read = note_read
        self._most = most

    def get_buffer(self, sizehint: int) -> memoryview:
        buffer = super().get_buffer(sizehint)
        return buffer if sizehint >= 0 else buffer[: self._most]

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        self._note_read(nbytes)
