"""The settings of a connection, checked when they are given and not when they are first used."""

from __future__ import annotations

import dataclasses
import ssl as ssl_module
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["ConnectOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectOptions:
    """
    The settings of a connection. ``WebSocketClient.connect`` takes each of them as a keyword.

    Args:
        headers: extra headers of the opening handshake, as a mapping or as (name, value) pairs.
        subprotocols: subprotocols to offer, the preferred one first.
        ssl: the TLS context for ``wss``; None for one context with the system's authorities, shared in this process.
        compression: "deflate" offers permessage-deflate (RFC 7692); None does not. Off by default: it costs the load
            generator several times the CPU of an uncompressed message, and memory per connection.
        max_size: a longer message (bytes) ends the connection with 1009; None for no limit.
        max_queue: this many messages may wait for ``recv``; then reading from the socket pauses, which also
            delays pongs and pings, until half of them are taken. None for no limit.
        open_timeout: seconds for name lookup, TCP, TLS and handshake together; None for no limit.
        close_timeout: seconds that ``close`` waits for the server before it cuts the connection.
        ping_interval: seconds between pings that the client sends by itself; None for none, as browsers do.
        ping_timeout: a peer that does not answer such a ping in these seconds has failed; None to wait forever.
    """

    headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()
    subprotocols: tuple[str, ...] = ()
    ssl: ssl_module.SSLContext | None = None
    compression: Literal["deflate"] | None = None
    max_size: int | None = 2**20
    max_queue: int | None = 1024
    open_timeout: float | None = 10.0
    close_timeout: float = 2.0
    ping_interval: float | None = None
    ping_timeout: float | None = 20.0

    def __post_init__(self) -> None:
        pairs = self.headers.items() if isinstance(self.headers, Mapping) else self.headers
        object.__setattr__(self, "headers", tuple(_header(pair) for pair in pairs))
        if isinstance(self.subprotocols, str):
            raise TypeError(f"subprotocols must be a sequence of names: [{self.subprotocols!r}], not a string")
        object.__setattr__(self, "subprotocols", tuple(self.subprotocols))
        if self.ssl is not None and not isinstance(self.ssl, ssl_module.SSLContext):
            raise TypeError(f"ssl must be an ssl.SSLContext or None, not {self.ssl!r}")
        if self.compression not in (None, "deflate"):
            raise ValueError(f'compression must be "deflate" or None, not {self.compression!r}')
        for name in ("max_size", "max_queue"):
            _positive(name, getattr(self, name), int)
        for name in ("open_timeout", "ping_interval", "ping_timeout"):
            _positive(name, getattr(self, name), float)
        if self.close_timeout is None:
            raise TypeError("close_timeout must be a number of seconds: a close without a bound may never end")
        _positive("close_timeout", self.close_timeout, float)

    def replace(self, changes: Mapping[str, Any]) -> ConnectOptions:
        """These options with some of them changed."""
        if not changes:
            return self
        known = {field.name for field in dataclasses.fields(self)}
        if unknown := changes.keys() - known:
            raise TypeError(f"unknown option {sorted(unknown)[0]!r}; there are: {', '.join(sorted(known))}")
        return dataclasses.replace(self, **changes)


def _header(pair: object) -> tuple[str, str]:
    match pair:
        case (str() as name, str() as value):
            if any(character in name + value for character in "\r\n"):
                raise ValueError(f"headers: {name!r} contains a line break")
            return name, value
    raise TypeError(f"headers must be a mapping of str to str, or pairs of them; found {pair!r}")


def _positive(name: str, value: object, kind: type) -> None:
    if value is None:
        return
    numbers: tuple[type, ...] = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, numbers):
        unit = "an int" if kind is int else "a number of seconds"
        raise TypeError(f"{name} must be {unit} or None, not {value!r}")
    if value <= 0:  # type: ignore[operator]  # a number: checked above
        raise ValueError(f"{name} must be greater than 0, or None, not {value!r}")
