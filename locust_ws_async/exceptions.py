"""
The errors of this package.

    WebSocketError
    ├── ConnectError (ConnectionError)             no connection came about: a failed WS CONNECT row
    │   ├── ConnectionRefused (ConnectionRefusedError)
    │   ├── UnknownHost
    │   ├── ProxyError                             also websockets.exceptions.ProxyError
    │   ├── TLSError
    │   ├── ConnectTimeout (TimeoutError)          the phases together took over open_timeout; says in which it was
    │   ├── OnConnectedTimeout (TimeoutError)      on_connected took over on_connected_timeout
    │   ├── LostInOnConnected                      the connection ended before on_connected was done
    │   ├── SettingFailed                          a function that gives a setting, or the URL, raised
    │   └── HandshakeError                         the server answered, but not as a WebSocket server does;
    │       │                                      also websockets.exceptions.InvalidHandshake
    │       └── HandshakeRejected                  an HTTP status other than 101: .status_code, .response;
    │                                              also websockets.exceptions.InvalidStatus
    ├── ConnectionClosed (ConnectionError)         the connection is over: .rcvd, .sent, .close_code, .close_reason
    │   ├── ConnectionClosedOK                     also websockets.exceptions.ConnectionClosedOK
    │   └── ConnectionClosedError                  also websockets.exceptions.ConnectionClosedError
    ├── NotRecovered                           a lost connection was not made again: a failed WS RECOVERY row
    ├── PingTimeout (TimeoutError)                 no pong within the given time
    ├── MessageTimeout (TimeoutError)              no message that matches within the given time
    ├── SequenceError                          ``track`` found numbers missing, twice or out of order: only in rows
    ├── RendezvousTimeout (TimeoutError)           too few users came to a rendezvous within the given time
    ├── NotReached                             too few of a room got a message: a failed WS REACH row
    └── UnusableId                             the id of a message cannot be compared: a failed WS REACH row
    CatchResponseError                             what ``reply.failure(text)`` reports

Locust groups failures by ``repr``. So texts here hold no ids, payloads or close reasons, and no address but one that is
the same for all connections of a user. They are the same on every engine. What differs from one failure to the next is
in the attributes.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import websockets.exceptions
from websockets.frames import CLOSE_CODE_EXPLANATIONS, Close

__all__ = [
    "CatchResponseError",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "ConnectionRefused",
    "HandshakeError",
    "HandshakeRejected",
    "LostInOnConnected",
    "MessageTimeout",
    "NotReached",
    "NotRecovered",
    "OnConnectedTimeout",
    "PingTimeout",
    "ProxyError",
    "RendezvousTimeout",
    "SequenceError",
    "SettingFailed",
    "TLSError",
    "UnknownHost",
    "UnusableId",
    "WebSocketError",
]


class WebSocketError(Exception):
    """
    Base class: ``str()`` is a text that stays the same from one occurrence to the next.

    Attributes:
        is_row: whether a failed row tells of it, so that it need not be told in another way.
    """

    is_row = False

    def __init__(self, text: str) -> None:
        # Not super().__init__(): the bases that these errors share a name with each want other arguments.
        self.args = (text,)
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"


class ConnectError(WebSocketError, ConnectionError):
    """No connection came about."""


class ConnectionRefused(ConnectError, ConnectionRefusedError):
    """Nobody listens at the server's address. The text names it if it is that of the user's host, or of the proxy."""

    def __init__(self, text: str = "connection refused") -> None:
        super().__init__(text)


class UnknownHost(ConnectError):
    """The name of the server has no address. The text holds it if it is that of the user's host, or of the proxy."""

    def __init__(self, text: str = "unknown host") -> None:
        super().__init__(text)


class ProxyError(ConnectError, websockets.exceptions.ProxyError):
    """The proxy cannot be reached, or made no connection to the server."""


class TLSError(ConnectError):
    """The TLS handshake failed. ``__cause__`` is the :class:`ssl.SSLError`, or the loss of the connection."""


class ConnectTimeout(ConnectError, TimeoutError):
    """Name lookup, TCP, proxy, TLS and opening handshake together took longer than ``open_timeout``."""

    def __init__(self, waiting_for: str = "the connection") -> None:
        super().__init__(f"no connection within open_timeout, while waiting for {waiting_for}")


class OnConnectedTimeout(ConnectError, TimeoutError):
    """``on_connected`` took longer than ``on_connected_timeout``."""

    def __init__(self) -> None:
        super().__init__(
            "on_connected was not done within on_connected_timeout: does it wait for something, such as a lock, that a "
            "task holds which waits for the connection?"
        )


class LostInOnConnected(ConnectError):
    """The connection ended before ``on_connected`` was done. ``__cause__`` says how, a :class:`ConnectionClosed`."""

    def __init__(self, cause: ConnectionClosed) -> None:
        super().__init__(f"the connection ended before on_connected was done: {cause}")
        self.__cause__ = cause


class SettingFailed(ConnectError):
    """
    A function that gives ``bearer``, ``headers``, ``cookies`` or the URL raised, or gave what these cannot be.

    ``__cause__`` is that exception. The text has its ``repr``.
    """

    def __init__(self, setting: str, cause: BaseException) -> None:
        super().__init__(f"the function that gives {setting} failed: {cause!r}")
        self.__cause__ = cause


class HandshakeError(ConnectError, websockets.exceptions.InvalidHandshake):
    """The server's answer to the opening handshake is not that of a WebSocket server (RFC 6455 section 4.1)."""


class HandshakeRejected(HandshakeError, websockets.exceptions.InvalidStatus):
    """
    The server answered the opening handshake with an HTTP status other than 101.

    Attributes:
        status_code: the HTTP status.
        response: the answer, with its headers; ``response.body`` has at most 64 KiB, and of a body that is slow what
            came within 250 ms.
    """

    def __init__(self, status_code: int, response: Any) -> None:
        try:
            phrase = " " + HTTPStatus(status_code).phrase
        except ValueError:
            phrase = ""
        super().__init__(f"the server answered the handshake with HTTP {status_code}{phrase}")
        self.status_code = status_code
        self.response = response


# What our own close code says about the other side, when the other side sent none (RFC 6455 section 7.4.1).
_FAILED_BY_US = {
    1002: "the server sent a malformed frame (1002 protocol error)",
    1007: "the server sent a text message that is not UTF-8 (1007 invalid frame payload data)",
    1008: "the receive queue was full (1008 policy violation)",
    1009: "the server sent a message over max_size (1009 message too big)",
    1011: "the server answered no ping within ping_timeout (1011 internal error)",
}


class ConnectionClosed(WebSocketError, websockets.exceptions.ConnectionClosed, ConnectionError):
    """
    The connection is over.

    Attributes:
        rcvd: the close frame that the server sent (``.code``, ``.reason``), or None.
        sent: the close frame that this side sent, or None.
        rcvd_then_sent: which came first; None unless there are both.
        close_code: the server's code; 1005 when its frame had none; 1006 when it sent no close frame.
        close_reason: the server's reason, or "".
    """

    def __init__(
        self, rcvd: Close | None, sent: Close | None, rcvd_then_sent: bool | None, *, closed_by_user: bool = False
    ) -> None:
        WebSocketError.__init__(self, _closed_text(rcvd, sent, closed_by_user))
        self.rcvd = rcvd
        self.sent = sent
        self.rcvd_then_sent = rcvd_then_sent
        self.close_code = 1006 if rcvd is None else int(rcvd.code)
        self.close_reason = "" if rcvd is None else rcvd.reason

    # websockets deprecates these two because they hide which side sent the code; libraries still read them.
    @property
    def code(self) -> int:
        """The same as ``close_code``."""
        return self.close_code

    @property
    def reason(self) -> str:
        """The same as ``close_reason``."""
        return self.close_reason


class ConnectionClosedOK(ConnectionClosed, websockets.exceptions.ConnectionClosedOK):
    """The connection ended normally: 1000, 1001 or no code on both sides, or closed so by this side."""


class ConnectionClosedError(ConnectionClosed, websockets.exceptions.ConnectionClosedError):
    """The connection ended in any other way."""


def _closed_text(rcvd: Close | None, sent: Close | None, closed_by_user: bool) -> str:
    if closed_by_user:
        if rcvd is None:
            return "connection closed by this side, which the server did not answer with a close frame"
        return f"connection closed by this side, answered with {_explain(rcvd.code)}"
    if sent is not None and (rcvd is None or rcvd.code != sent.code):  # else one answers the other
        if sent.reason == "too many fragments":
            return f"connection failed: the server sent a message of too many fragments ({_explain(sent.code)})"
        return f"connection failed: {_FAILED_BY_US.get(sent.code) or _explain(sent.code)}"
    if rcvd is not None:
        return f"connection closed by the server: {_explain(rcvd.code)}"
    return "connection lost without a close frame (1006)"


def _explain(code: int) -> str:
    explanation = CLOSE_CODE_EXPLANATIONS.get(code)
    return f"{int(code)} {explanation}" if explanation else str(int(code))


class NotRecovered(WebSocketError):
    """A connection that ``reconnect`` was to make again was given up. Only reported, never raised."""


class PingTimeout(WebSocketError, TimeoutError):
    """No pong came within the given time."""

    def __init__(self, text: str = "no pong within the timeout") -> None:
        super().__init__(text)


class MessageTimeout(WebSocketError, TimeoutError):
    """
    No message that matches came within the given time.

    ``__cause__`` is what the match raised for another message, if it did: it may be the reason.
    """

    def __init__(self, text: str = "no message that matches within the timeout") -> None:
        super().__init__(text)


class SequenceError(WebSocketError):
    """What ``track`` found wrong with the numbers of a stream. Only reported, never raised."""


class RendezvousTimeout(WebSocketError, TimeoutError):
    """Too few users came to a rendezvous within its timeout."""

    def __init__(self) -> None:
        super().__init__("too few users came to the rendezvous within its timeout")


class NotReached(WebSocketError):
    """Fewer of a room got a message than ``Fanout(share=...)`` asks for. Only reported, never raised."""

    def __init__(self, share: float) -> None:
        few = "not everybody" if share == 1 else f"fewer than {share:.6%}".rstrip("%").rstrip("0").rstrip(".") + " %"
        super().__init__(f"{few} in the room got the message")


class UnusableId(WebSocketError):
    """The id of a message cannot be compared between processes. Only reported, never raised."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"the id of a message must be text, a number, bytes, a UUID, or a tuple of these, not {kind}")


class CatchResponseError(Exception):
    """
    A check found the reply wrong. Raised in the block of a request, it fails the request's row.

    It has the name of Locust's own, of which Locust shows the text alone (locust/stats.py, ``to_name``).
    """
