"""A message as it arrived, and a message as it is sent."""

from __future__ import annotations

from typing import NamedTuple

from ..wire.frames import BINARY, TEXT

__all__ = ["Received", "encode"]


def encode(message: str | bytes | bytearray | memoryview, text: bool | None = None) -> tuple[int, bytes]:
    """
    The opcode and the payload of a message that is to be sent.

    Args:
        message: what to send: a str goes as text, and anything else as binary.
        text: True sends it as text all the same (the bytes must be UTF-8), False as binary.

    Raises:
        TypeError: the message is neither str nor bytes-like.
    """
    if isinstance(message, str):
        return (BINARY if text is False else TEXT), message.encode()
    if isinstance(message, (bytes, bytearray, memoryview)):
        return (TEXT if text else BINARY), bytes(message)
    raise TypeError(f"a message is str or bytes-like, not {type(message).__name__}")


class Received(NamedTuple):
    """A message that has arrived."""

    message: str | bytes
    size: int
    """Bytes of the payload; text counts as UTF-8, before compression."""
    arrived: float
    """When it was read from the socket, by :func:`time.perf_counter`."""
