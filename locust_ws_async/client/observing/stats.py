"""What a connection has counted, and what is told when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .timing import ConnectPhases

__all__ = ["Session", "Statistics", "StreamCounts"]


class StreamCounts:
    """
    What ``track`` has counted under one name. For the words see :mod:`..messages.numbering`.

    Attributes:
        messages: messages with a number.
        gaps: jumps in the numbers that were not filled, and ``missing``: the numbers that never came, in all of them.
        duplicates: numbers that came again.
        reordered: numbers that came after a later one.
        restarts: how often the numbering began again.
        stale: numbers from before the window: duplicates, or numbers that count as missing already.
        unreadable: messages that match, and have no number or no key that can be used.
    """

    __slots__ = ("duplicates", "gaps", "messages", "missing", "reordered", "restarts", "stale", "unreadable")

    def __init__(self) -> None:
        self.messages = 0
        self.gaps = 0
        self.missing = 0
        self.duplicates = 0
        self.reordered = 0
        self.restarts = 0
        self.stale = 0
        self.unreadable = 0

    def add(self, other: StreamCounts) -> None:
        """Add the counts of another connection, say, to these."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __repr__(self) -> str:
        counts = " ".join(f"{name}={count}" for name, count in self.as_dict().items() if count)
        return f"<StreamCounts {counts}>"


_NO_STREAMS: Mapping[str, StreamCounts] = MappingProxyType({})
"""Of all connections on which nothing is tracked."""


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
        streams: what ``track`` has counted, a :class:`StreamCounts` for each name; empty where it is not used.
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
        "streams",
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
        self.streams = _NO_STREAMS

    def stream(self, name: str) -> StreamCounts:
        """The counts of this name in ``streams``, made when they are first needed."""
        if name not in self.streams:
            self.streams = {**self.streams, name: StreamCounts()}
        return self.streams[name]

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
        """
        All counts by name, with ``connect`` as a dict of milliseconds, and with ``streams`` as a dict of dicts where
        something was tracked: for a log, or for JSON.
        """
        counts = {name: getattr(self, name) for name in self.__slots__ if name not in _NO_COUNTS}
        totals = {name: getattr(self, name) for name in _TOTALS}
        streams = {name: counts.as_dict() for name, counts in self.streams.items()}
        return counts | totals | {"connect": self.connect.as_dict()} | ({"streams": streams} if streams else {})

    def __repr__(self) -> str:
        counts = " ".join(
            f"{name}={count}" for name, count in self.as_dict().items() if count and name not in _NO_COUNTS
        )
        return f"<Statistics {counts}>"


_NO_COUNTS = ("connect", "streams")
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
