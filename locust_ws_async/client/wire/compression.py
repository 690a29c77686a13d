"""The parameters of permessage-deflate."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Deflate"]


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
        client_max_window_bits: the same for this side, 9 to 15 (zlib has no 8); None leaves it to the server.
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
