"""From a message as a task writes it to the frame that carries it."""

from __future__ import annotations

from typing import NamedTuple

from ..wire.frames import BINARY, TEXT

__all__ = ["Received", "encode"]


def encode(message: str | bytes | bytearray | memoryview, text: bool | None = None) -> tuple[int, bytes]:
    """
    The opcode and the payload of a message: a str is text, anything else binary, unless ``text`` says otherwise.

    Raises:
        TypeError: the message is neither str nor bytes-like.
    """
    if isinstance(message, str):
        return (BINARY if text is False else TEXT), message.encode()
    if isinstance(message, (bytes, bytearray, memoryview)):
        return (TEXT if text else BINARY), bytes(message)
    raise TypeError(f"a message is str or bytes-like, not {type(message).__name__}")


class Received(NamedTuple):
    """A message with its size in bytes and its time of arrival (perf_counter)."""

    message: str | bytes
    size: int
    arrived: float
