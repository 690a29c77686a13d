"""Cuts a server's stream into whole messages and what a parser of RFC 6455 must see, without I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from .frames import BINARY, CONT, TEXT

__all__ = ["FrameSplitter", "Piece"]

Piece = bytes | tuple[int, bytes | bytearray]
"""Bytes for the parser, or the opcode and the payload of a whole message."""

_WHOLE_MESSAGES = {0x80 | TEXT: TEXT, 0x80 | BINARY: BINARY}  # first bytes of a frame with FIN and without RSV bits
_MAX_ALLOCATION = 2**26  # bytes that are allocated because a header says so


class FrameSplitter:
    """
    Finds the frames that need no parser, in a stream that comes in chunks cut anywhere.

    A frame is a whole message when it is TEXT or BINARY, has FIN and no RSV bit, is not masked, is not longer than
    ``max_size``, and does not interrupt a fragmented message. All other bytes are for the parser: control frames,
    fragments, and whatever breaks a rule, so that only the parser has to know the rules. Each frame goes one way as a
    whole; that way the parser's idea of where frames begin stays right.

    What holds between two calls:

    - At most one of these is under way: a header that has come in part (``_partial_header``), a frame of which
      the parser has ``_left_for_parser`` bytes to come, a message whose payload goes into ``payload_space``.
    - ``_fragmented`` says whether the last data frame for the parser left its message unfinished.
    - Once the parser has met an error or a close frame, the splitter is fed nothing more.

    A splitter trusts the opcode, the FIN bit and the length of a frame that the parser refuses. That is harmless, as
    the parser refuses it by its header, which it sees first.

    Args:
        max_size: bytes that a message may have.
    """

    __slots__ = ("_fragmented", "_left_for_parser", "_max_size", "_opcode", "_partial_header", "payload_space")

    def __init__(self, max_size: int) -> None:
        self._max_size = min(max_size, _MAX_ALLOCATION)
        self._partial_header = b""
        self._left_for_parser = 0
        self._fragmented = False
        self._opcode = 0  # of the message whose payload goes into `payload_space`
        self.payload_space: memoryview | None = None
        """Where the rest of the payload under way belongs. Code that reads it there directly calls :meth:`filled`."""

    @property
    def between_messages(self) -> bool:
        """Whether the next byte begins a frame, and this is none of a fragmented message."""
        return not (self._partial_header or self._left_for_parser or self._fragmented or self.payload_space is not None)

    def feed(self, data: bytes) -> Iterator[Piece]:
        """
        Take the next chunk of the stream; give the pieces that it completes, in the stream's order.

        Each is looked for when it is asked for. All must be, before anything else is asked of this splitter.
        """
        if self._partial_header:
            data = self._partial_header + data
            self._partial_header = b""
        position, end = 0, len(data)
        while position < end:
            if self._left_for_parser:
                part = data[position : position + self._left_for_parser]
                self._left_for_parser -= len(part)
                position += len(part)
                yield part
                continue
            if self.payload_space is not None:
                size = min(len(self.payload_space), end - position)
                self.payload_space[:size] = data[position : position + size]
                position += size
                if (message := self.filled(size)) is not None:
                    yield message
                continue
            # A header: RFC 6455 section 5.2.
            start = position + 2
            size = data[position + 1] if start <= end else 0
            masked, size = size > 127, size & 127
            if size > 125:
                start += 2 if size == 126 else 8
            if start > end:
                self._partial_header = data[position:]
                break
            if size > 125:
                size = int.from_bytes(data[position + 2 : start], "big")
            stop = start + size
            head = data[position]
            opcode = _WHOLE_MESSAGES.get(head)
            if opcode is None or size > self._max_size or masked or self._fragmented:
                self._left_for_parser = stop - position
                self._note_fragment(head)
            elif stop <= end:
                position = stop
                yield opcode, data[start:stop]
            else:
                self._opcode = opcode
                self.payload_space = memoryview(bytearray(size))
                position = start

    def filled(self, size: int) -> Piece | None:
        """Note that ``size`` more bytes of the payload are in ``payload_space``; give the message when it is whole."""
        space = self.payload_space
        assert space is not None
        if size < len(space):
            self.payload_space = space[size:]
            return None
        self.payload_space = None
        return self._opcode, cast(bytearray, space.obj)

    def _note_fragment(self, head: int) -> None:
        opcode, fin = head & 0x0F, head & 0x80
        if opcode == CONT:
            self._fragmented = not fin
        elif opcode in (TEXT, BINARY):
            self._fragmented = self._fragmented or not fin
