"""What both engines do in the same way with the frames that their libraries read and write."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from websockets.frames import Close

from .closing import ClosingHandshake
from .frames import CONT, MessageAssembler, decode_message
from .interface import Sink

__all__ = ["NO_FAST_PATH", "BaseWire"]

NO_FAST_PATH = -1
"""A limit that no frame is under."""


class BaseWire:
    """
    Half of a :class:`~.interface.Wire`: messages from frames, both directions of the closing handshake, flow control.

    An engine's class has this among its bases, and gives the attributes below slots.
    """

    if not TYPE_CHECKING:  # mypy would want them here, where they clash with the layout of picows.WSListener
        __slots__ = ()

    transport: asyncio.Transport
    _sink: Sink
    _closing: ClosingHandshake
    _max_size: int
    _assembler: MessageAssembler | None
    """There is one only while a fragmented message is under way."""
    _fast_path_limit: int
    """The longest frame that a fast path may take now, in bytes of payload; :data:`NO_FAST_PATH` for none."""

    # What the engine adds.

    def _can_write_close(self) -> bool:
        """Whether a close frame can still reach the peer."""
        raise NotImplementedError

    def _write_close(self, close: Close) -> None:
        """Write this close frame, which is the first."""
        raise NotImplementedError

    # Messages

    def _receive_data_frame(self, opcode: int, fin: bool, payload: bytes | bytearray, arrived: float) -> None:
        """
        Take a TEXT, BINARY or CONT frame, and hand up the message that it completes.

        Raises:
            InvalidFrame: the peer broke the protocol.
        """
        assembler = self._assembler
        size = len(payload)
        if assembler is None and fin and opcode != CONT and size <= self._max_size:
            self._sink.message_received(decode_message(opcode, payload), size, arrived)
            return
        if assembler is None:
            assembler = self._assembler = MessageAssembler(self._max_size)
        whole = assembler.add(opcode, fin, payload)
        if whole is not None:
            self._assembler = None
            self._sink.message_received(whole[0], whole[1], arrived)

    # The closing handshake

    def send_close(self, close: Close, /) -> None:
        if self._can_write_close() and self._closing.start(close):
            self._write_close(close)

    def fail(self, close: Close, /) -> None:
        self._fast_path_limit = NO_FAST_PATH
        if not self._can_write_close():
            self._closing.discarding = True
        elif self._closing.fail(close):
            self._write_close(close)
            self._sink.closing()

    # Flow control: the transport calls these.

    def pause_writing(self) -> None:
        self._sink.pause_writing()

    def resume_writing(self) -> None:
        self._sink.resume_writing()
