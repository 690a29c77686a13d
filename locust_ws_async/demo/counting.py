"""What the demo server knows about its clients: the other side of every figure that a load test reports.

Counted where frames enter and leave the protocol, so that a message which no route reads is counted too. A test
that compares Locust's rows with these counts compares two independent observers.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.frames import DATA_OPCODES, CloseCode, Frame
from websockets.protocol import Event
from websockets.server import ServerProtocol

__all__ = ["CountedConnection", "Counts"]


@dataclasses.dataclass
class Counts:
    """The figures of one route since the server started. Bytes are those of message payloads, after decompression."""

    opened: int = 0
    """Handshakes answered with 101."""
    open: int = 0
    """Connections open now."""
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    pongs_missed: int = 0
    """Clients that ``/pings`` dropped because they did not answer in time."""
    closes: dict[int, int] = dataclasses.field(default_factory=dict)
    """Ended connections by the close code received from the client (RFC 6455 section 7.1.5)."""

    @property
    def abnormal_closes(self) -> int:
        """Connections that ended without a close frame from the client (code 1006)."""
        return self.closes.get(CloseCode.ABNORMAL_CLOSURE, 0)

    def add(self, other: Counts) -> None:
        """Add the figures of another route to these."""
        for name in ("opened", "open", "messages_in", "messages_out", "bytes_in", "bytes_out", "pongs_missed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.closes = dict(collections.Counter(self.closes) + collections.Counter(other.closes))

    def as_json(self) -> dict[str, Any]:
        """Return the figures as JSON has them, where close codes are strings."""
        closes = {str(code): number for code, number in sorted(self.closes.items())}
        return {**dataclasses.asdict(self), "closes": closes, "abnormal_closes": self.abnormal_closes}


class CountedConnection(ServerConnection):
    """The server connection of ``websockets``, which also counts, and can play dead."""

    def __init__(
        self, opening: set[CountedConnection], protocol: ServerProtocol, server: Server, **settings: Any
    ) -> None:
        super().__init__(protocol, server, **settings)
        self._opening = opening  # the server's connections whose handshake is not done
        self.counts = Counts()  # the server puts its route's own here once it has read the path
        self._is_counted = False
        self._is_deaf = False
        self._discards = False

    def count_open(self) -> None:
        """Count this connection, now that its handshake is done, until it is lost."""
        self._opening.discard(self)
        self._is_counted = True
        self.counts.opened += 1
        self.counts.open += 1

    def play_dead(self) -> None:
        """From now on, read and ignore what the client sends: no answer, no pong, no closing handshake."""
        self._is_deaf = True

    async def send(self, message: Any, *, text: bool | None = None) -> None:
        if isinstance(message, str):
            message, text = message.encode(), True  # encoded once, for the count and for the wire
        await super().send(message, text=text)
        self.counts.messages_out += 1
        if isinstance(message, bytes):
            self.counts.bytes_out += len(message)

    async def close(self, code: CloseCode | int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        if self._is_deaf:
            self.transport.abort()  # who does not listen cannot finish a closing handshake
        # Nobody receives any more. Messages that pile up would stop the reading, and keep the client's close frame out.
        self._discards = True
        self.transport.resume_reading()
        await super().close(code, reason)

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame) and event.opcode in DATA_OPCODES:
            self.counts.bytes_in += len(event.data)
            self.counts.messages_in += event.fin
            if self._discards:
                return
        super().process_event(event)

    def data_received(self, data: bytes) -> None:
        if not self._is_deaf:
            super().data_received(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opening.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._opening.discard(self)
        if self._is_counted:
            code = self.close_code or CloseCode.ABNORMAL_CLOSURE
            self.counts.open -= 1
            self.counts.closes[code] = self.counts.closes.get(code, 0) + 1
