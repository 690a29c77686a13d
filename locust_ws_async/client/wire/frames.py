"""Frames and messages of RFC 6455, section 5, without I/O: what both engines share."""

from __future__ import annotations

from websockets.exceptions import ProtocolError
from websockets.frames import Close

__all__ = [
    "BINARY",
    "CLOSE",
    "CONT",
    "PING",
    "PONG",
    "TEXT",
    "InvalidFrame",
    "MessageAssembler",
    "decode_message",
    "not_utf8",
    "parse_close",
]

# Opcodes, RFC 6455 section 11.8. Plain ints: the C code of an engine takes them fastest.
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

_MAX_FRAGMENTS = 4096
"""Of one message. Empty ones, of which max_size allows any number, are memory too; websockets has the same limit."""


class InvalidFrame(Exception):
    """The peer broke the protocol: fail the connection with this close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.close = Close(code, reason)


class MessageAssembler:
    """
    Puts the fragments of one message together (RFC 6455 section 5.4).

    Args:
        max_size: bytes that the message may have.
    """

    __slots__ = ("_max_size", "_opcode", "_parts", "_size")

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._opcode = 0
        self._parts: list[bytes | bytearray] = []
        self._size = 0

    def add(self, opcode: int, fin: bool, payload: bytes | bytearray) -> tuple[str | bytes, int] | None:
        """
        Take one data frame; give the message and its size in bytes when that frame completes it.

        Raises:
            InvalidFrame: for a frame that may not come here, a message over the limit, or text that is not UTF-8.
        """
        if opcode == CONT:
            if not self._opcode:
                raise InvalidFrame(1002, "unexpected continuation frame")
        elif self._opcode:
            raise InvalidFrame(1002, "expected a continuation frame")
        else:
            self._opcode = opcode
        self._size += len(payload)
        if self._size > self._max_size:
            raise InvalidFrame(1009, "message over max_size")
        if len(self._parts) == _MAX_FRAGMENTS:
            raise InvalidFrame(1009, "too many fragments")
        self._parts.append(payload)
        if not fin:
            return None
        return decode_message(self._opcode, b"".join(self._parts)), self._size


def not_utf8(exc: UnicodeDecodeError) -> InvalidFrame:
    """For a TEXT message that is not UTF-8 (RFC 6455 section 8.1)."""
    return InvalidFrame(1007, f"{exc.reason} at position {exc.start}")


def decode_message(opcode: int, payload: bytes | bytearray) -> str | bytes:
    """The message that a payload is: a str for TEXT, bytes for BINARY; :exc:`InvalidFrame` for text not in UTF-8."""
    if opcode != TEXT:
        return bytes(payload)
    try:
        return payload.decode()
    except UnicodeDecodeError as exc:
        raise not_utf8(exc) from exc


def parse_close(payload: bytes) -> Close:
    """The content of a CLOSE frame; :exc:`InvalidFrame` when it is malformed."""
    try:
        return Close.parse(payload)
    except ProtocolError as exc:
        raise InvalidFrame(1002, "invalid close frame") from exc
    except UnicodeDecodeError as exc:
        raise InvalidFrame(1007, "close reason is not UTF-8") from exc
