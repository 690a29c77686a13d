"""What a connection has counted, and what is told when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .timing import ConnectPhases

__all__ = ["Session", "Statistics"]


class Statistics:
    """
    The counts of one connection, over all its reconnects. Everything is counted where it is read or written. Bytes are
    bytes of payload, before compression; text counts as UTF-8.

    Attributes:
        texts_received, text_bytes_received, binaries_received, binary_bytes_received: messages from the server.
        texts_sent, text_bytes_sent, binaries_sent, binary_bytes_sent: messages to the server.
        pings_received: pings of the server.
        pongs_sent: the answers to them. A ping that comes after a close frame may have none. While the server reads
            too slowly, only the last ping has one (RFC 6455 section 5.5.3).
        pings_sent: pings of this side, whether a task or ``ping_interval`` sends them.
        pongs_received: pongs of the server, also those that answer no ping.
        closes_received, closes_sent: close frames.
        reconnects: how often the lost connection was made again.
        late_replies: replies that came after their request had timed out or was cancelled.
        messages_dropped: messages that a full queue dropped, with ``overflow="drop"``; and those that came after this
            side had closed the connection, when no task waited for one.
        keepalives_skipped: messages of ``keepalive`` that were not sent, because the server read too slowly.
        queue_high_water: the most messages that waited for ``recv`` at a time.
        connect: how long each phase of the last connect took, as :class:`ConnectPhases`.
    """

    __slots__ = (
        "binaries_received",
        "binaries_sent",
        "binary_bytes_received",
        "binary_bytes_sent",
        "closes_received",
        "closes_sent",
        "connect",
        "keepalives_skipped",
        "late_replies",
        "messages_dropped",
        "pings_received",
        "pings_sent",
        "pongs_received",
        "pongs_sent",
        "queue_high_water",
        "reconnects",
        "text_bytes_received",
        "text_bytes_sent",
        "texts_received",
        "texts_sent",
    )

    def __init__(self) -> None:
        self.texts_received = 0
        self.text_bytes_received = 0
        self.binaries_received = 0
        self.binary_bytes_received = 0
        self.texts_sent = 0
        self.text_bytes_sent = 0
        self.binaries_sent = 0
        self.binary_bytes_sent = 0
        self.pings_received = 0
        self.pings_sent = 0
        self.pongs_received = 0
        self.pongs_sent = 0
        self.closes_received = 0
        self.closes_sent = 0
        self.reconnects = 0
        self.late_replies = 0
        self.messages_dropped = 0
        self.keepalives_skipped = 0
        self.queue_high_water = 0
        self.connect = ConnectPhases()

    @property
    def messages_received(self) -> int:
        """Messages, text and binary."""
        return self.texts_received + self.binaries_received

    @property
    def bytes_received(self) -> int:
        """Bytes of messages, text and binary."""
        return self.text_bytes_received + self.binary_bytes_received

    @property
    def messages_sent(self) -> int:
        """Messages, text and binary."""
        return self.texts_sent + self.binaries_sent

    @property
    def bytes_sent(self) -> int:
        """Bytes of messages, text and binary."""
        return self.text_bytes_sent + self.binary_bytes_sent

    def as_dict(self) -> dict[str, Any]:
        """All counts by name, with ``connect`` as a dict of milliseconds: for a log, or for JSON."""
        counts = {name: getattr(self, name) for name in self.__slots__ if name != "connect"}
        totals = {name: getattr(self, name) for name in _TOTALS}
        return counts | totals | {"connect": self.connect.as_dict()}

    def __repr__(self) -> str:
        counts = " ".join(f"{name}={count}" for name, count in self.as_dict().items() if count and name != "connect")
        return f"<Statistics {counts}>"


_TOTALS = ("messages_received", "bytes_received", "messages_sent", "bytes_sent")


@dataclass(frozen=True, slots=True)
class Session:
    """
    How a connection ended: the response of a ``WS SESSION`` row.

    Attributes:
        close_code: the server's close code; 1005 if its close frame had none, 1006 if it sent no close frame.
        close_reason: the server's close reason, or "".
        duration: seconds from the server's answer to the opening handshake to the end.
        stats: what the connection has counted.
    """

    close_code: int
    close_reason: str
    duration: float
    stats: Statistics
