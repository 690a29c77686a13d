"""permessage-deflate: its parameters, and what RFC 7692 allows a server beyond what ``websockets`` understands."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate
from websockets.typing import ExtensionParameter

__all__ = ["Deflate", "deflate_factory"]

_EMPTY_BLOCK = b"\0\0\xff\xff"  # what `websockets` puts behind each message
_MOST_STREAMS = 256  # in one frame; a server needs one


@dataclass(frozen=True, slots=True, kw_only=True)
class Deflate:
    """
    Offer permessage-deflate with these parameters (RFC 7692 section 7.1).

    A smaller window and no context takeover save memory, on this side as on the server's: a connection with the
    defaults holds some 300 KiB of zlib's.

    Args:
        server_no_context_takeover: the server must compress each message by itself.
        client_no_context_takeover: this side compresses each message by itself.
        server_max_window_bits: the server's window is at most 2 to the power of this, 8 to 15; None for no demand.
        client_max_window_bits: the same for this side, 9 to 15 (zlib has no 8); None leaves it to the server, also 8.
        level: zlib's compression level, 0 to 9; None for its default.
        memory_level: zlib's memory for compressing, 1 to 9; None for its default.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None
    level: int | None = None
    memory_level: int | None = 5

    def __post_init__(self) -> None:
        for name, least, most in (
            ("server_max_window_bits", 8, 15),
            ("client_max_window_bits", 9, 15),
            ("level", 0, 9),
            ("memory_level", 1, 9),
        ):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or not least <= value <= most):
                raise ValueError(f"Deflate: {name} must be {least} to {most}, or None, not {value!r}")


def deflate_factory(compression: Literal["deflate"] | Deflate) -> ClientPerMessageDeflateFactory:
    """What makes and reads the extension's header for this setting."""
    deflate = Deflate() if compression == "deflate" else compression
    settings = {"level": deflate.level, "memLevel": deflate.memory_level}
    return _Factory(
        deflate.server_no_context_takeover,
        deflate.client_no_context_takeover,
        deflate.server_max_window_bits,
        deflate.client_max_window_bits or True,  # True: that the server may choose it
        {name: value for name, value in settings.items() if value is not None},
    )


class _Factory(ClientPerMessageDeflateFactory):
    def process_response_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> PerMessageDeflate:
        # zlib has no window of 256 bytes. But it looks back 262 bytes less than its window is long (MIN_LOOKAHEAD in
        # its deflate.h): with 512 bytes at most 250, which a window of 256 bytes holds.
        params = [
            ("client_max_window_bits", "9") if each == ("client_max_window_bits", "8") else each for each in params
        ]
        agreed = super().process_response_params(params, accepted_extensions)
        return _PerMessageDeflate(
            agreed.remote_no_context_takeover,
            agreed.local_no_context_takeover,
            agreed.remote_max_window_bits,
            agreed.local_max_window_bits,
            agreed.compress_settings,
        )


class _PerMessageDeflate(PerMessageDeflate):
    """
    Reads on where a deflate stream ends, as a message may consist of several (RFC 7692 section 7.2.3.4).

    ``websockets`` makes a decompressor for the connection, or for each message: each is replaced when it is assigned.
    """

    @property
    def decoder(self) -> Any:
        return self._decoder

    @decoder.setter
    def decoder(self, new: Any) -> None:
        self._decoder = _Decompressor(new, self.remote_max_window_bits)

    @decoder.deleter
    def decoder(self) -> None:
        del self._decoder


class _Decompressor:
    """A decompressor of :mod:`zlib` that begins anew where a stream ends. The next one cannot refer to what was before:
    a server that does so has broken its own stream, and gets an error."""

    __slots__ = ("_fresh", "_stream", "_window_bits", "unconsumed_tail")

    def __init__(self, stream: Any, window_bits: int) -> None:
        self._stream = stream
        self._window_bits = window_bits
        self._fresh = False  # whether a stream has ended, and the next has not begun
        self.unconsumed_tail = b""

    def decompress(self, data: bytes | bytearray | memoryview, max_length: int = 0) -> bytes:
        """See :meth:`zlib.Decompress.decompress`."""
        if self._fresh and data == _EMPTY_BLOCK:
            return b""
        self._fresh = False
        result: bytes = self._stream.decompress(data, max_length)
        if self._stream.eof:
            result = self._decompress_more(result, max_length)
        self.unconsumed_tail = self._stream.unconsumed_tail
        return result

    def _decompress_more(self, result: bytes, max_length: int) -> bytes:
        parts = [result]
        size = len(result)
        for _ in range(_MOST_STREAMS):
            rest = self._stream.unused_data
            self._stream = zlib.decompressobj(wbits=-self._window_bits)
            if not rest or rest == _EMPTY_BLOCK:
                self._fresh = True
                return b"".join(parts)
            # At the limit one byte more is asked for: if there is one, the message is over the limit.
            part = self._stream.decompress(rest, max_length and max(1, max_length - size))
            parts.append(part)
            size += len(part)
            if not self._stream.eof:
                return b"".join(parts)
        raise zlib.error("too many deflate streams in one frame")
