"""
What an engine is: it performs the opening handshake on a connected socket, and moves frames.

Everything else (the queue, matching, keepalive, limits on waiting, reporting) lives above, in one place, so that it is
the same on every engine. An engine never reports, waits for or decides anything beyond RFC 6455.

A :class:`Wire` is what the connection holds to send and steer, a :class:`Sink` is what the wire holds to hand up what
arrives: the same two roles as a transport and a protocol in asyncio, but for frames, and so under names of their own.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass, field
from typing import Literal, Protocol

from websockets.frames import Close
from websockets.http11 import Request, Response
from websockets.uri import WebSocketURI

from .compression import Deflate

__all__ = [
    "MALFORMED",
    "NOT_AGREED",
    "NOT_OFFERED",
    "NO_ANSWER",
    "NO_ANSWER_OVER_TLS",
    "OLD_HTTP",
    "TOO_LONG",
    "CloseInfo",
    "Engine",
    "EngineSettings",
    "Sink",
    "Target",
    "Wire",
    "invalid_header",
]

# What HandshakeError says, the same on every engine.
NO_ANSWER = (
    "no WebSocket server answered the handshake: the connection was closed, or the answer was not HTTP "
    "(is it the right port, and does the server want wss:// or ws://?)"
)
NO_ANSWER_OVER_TLS = (
    "no WebSocket server answered the handshake: the connection was closed "
    "(is it the right port, and does the server want a client certificate, which the setting cert gives?)"
)
NOT_OFFERED = "the server chose a subprotocol or an extension that was not offered"
NOT_AGREED = "the server chose an extension, or a parameter of permessage-deflate, that was not offered"
TOO_LONG = "the answer to the handshake has headers of over 64 KiB"
MALFORMED = "the answer to the handshake has a malformed header line"
OLD_HTTP = "the server answered the handshake with HTTP/1.0 101: a WebSocket needs HTTP/1.1"


@dataclass(frozen=True, slots=True, eq=False)  # by identity, as what is kept for each is looked up for each connect
class Target:
    """
    Where the handshake goes: the URL without user and password, all headers of ours, and what TLS verifies.

    Args:
        host: the value of the ``Host`` header.
        headers: all further headers, but for those of the handshake itself (RFC 6455 section 4.1).
    """

    uri: WebSocketURI
    host: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    ssl: ssl.SSLContext | None
    server_hostname: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # by identity, as Target
class EngineSettings:
    """
    What an engine needs to know of a connection's options.

    Args:
        compression: "deflate", or its parameters, offers permessage-deflate (RFC 7692); None does not.
        subprotocols: the subprotocols to offer, the preferred one first.
        max_size: bytes that a message of the server may have.
        close_timeout: seconds that the end of TLS may take.
        unix_socket: whether the socket is one of the unix family.
        arrival: what a time of arrival is, as :class:`~..options.ConnectOptions` has it.
    """

    compression: Literal["deflate"] | Deflate | None
    subprotocols: tuple[str, ...]
    max_size: int
    close_timeout: float
    unix_socket: bool
    arrival: Literal["kernel", "read"]


@dataclass(frozen=True, slots=True)
class CloseInfo:
    """How a connection ended: the close frames that went either way, and the error of the network, if any."""

    rcvd: Close | None
    sent: Close | None
    rcvd_then_sent: bool | None
    error: BaseException | None = None


class Wire(Protocol):
    """One open connection. Every method acts at once; none waits."""

    transport: asyncio.Transport

    subprotocol: str | None

    @property
    def stamped(self) -> bool:
        """Whether times of arrival are the kernel's."""

    @property
    def request(self) -> Request:
        """The opening handshake as it was sent."""

    @property
    def response(self) -> Response:
        """The server's response to it."""

    def forget_response(self) -> None:
        """Keep the response as text, of which it is made again when it is asked for: its headers take 2 KiB."""

    def send(self, opcode: int, payload: bytes, /) -> None:
        """Write one unfragmented TEXT or BINARY message."""

    def send_ping(self, payload: bytes, /) -> None:
        """Write a ping with this payload of at most 125 bytes."""

    def send_close(self, close: Close, /) -> None:
        """Start the closing handshake; what arrives meanwhile is still delivered."""

    def pause_reading(self) -> None:
        """Read nothing more for now; messages that were read already are still delivered."""

    def resume_reading(self) -> None:
        """Read again after :meth:`pause_reading`."""

    def fail(self, close: Close, /) -> None:
        """Send this close frame and discard whatever arrives from now on (RFC 6455 section 7.1.7)."""

    def abort(self) -> None:
        """Cut the connection, and discard what was read and not yet delivered."""

    def fall_silent(self) -> Sink:
        """Read, write and tell nothing more, but leave TCP open. Returns the sink, which is told nothing."""


class Sink(Protocol):
    """
    The upper half of a connection. The engine calls it synchronously from its read callback.

    ``arrived`` is the kernel's time of the last bytes that were read, as :func:`time.perf_counter` counts; or, where
    there is none, what that gave at the top of the callback. After ``opened`` comes exactly one ``closed``.
    """

    def upgrading(self) -> None:
        """The connection, with TLS if any, is there; the request of the opening handshake goes out now."""

    def opened(self, wire: Wire, arrived: float, /) -> None:
        """The opening handshake succeeded; the end of its answer came then."""

    def message_received(self, message: str | bytes, size: int, arrived: float, /) -> None:
        """A whole message came; its payload had ``size`` bytes."""

    def ping_received(self, payload: bytes, answered: bool, /) -> None:
        """
        A ping came; ``answered``: the engine has written its pong.

        While the write buffer is over its limit no ping is answered. When it is below again, the last one is, which
        answers those before it (RFC 6455 section 5.5.3): see ``pong_sent``.
        """

    def pong_sent(self, payload: bytes, /) -> None:
        """The engine has written the pong to a ping that was not answered when it came."""

    def pong_received(self, payload: bytes, arrived: float, /) -> None:
        """A pong came, asked for or not."""

    def closing(self) -> None:
        """A close frame went out that ``send_close`` did not order: an answer to the server's, or for an error."""

    def closed(self, info: CloseInfo, /) -> None:
        """The connection is lost, cleanly or not."""

    def pause_writing(self) -> None:
        """The transport's write buffer is over its high-water mark."""

    def resume_writing(self) -> None:
        """It is below its low-water mark again."""


class Engine(Protocol):
    """One module of this package."""

    def check_settings(self, settings: EngineSettings) -> None:
        """Raise :exc:`ValueError`, naming the setting, for what this engine cannot do."""

    async def open_wire(self, target: Target, sock: socket.socket, settings: EngineSettings, sink: Sink) -> Wire:
        """
        Perform TLS and the opening handshake on a connected socket. Returns after ``sink.opened``.

        The socket belongs to the engine from here on. Cancelling cuts the connection.

        Raises:
            OSError: the connection or TLS failed.
            HandshakeError: the answer was not a WebSocket server's.
        """


def invalid_header(name: str) -> str:
    """The text for an answer to the handshake in which this header is missing or wrong."""
    return f"the answer to the handshake has no valid {name} header: is this a WebSocket server?"
