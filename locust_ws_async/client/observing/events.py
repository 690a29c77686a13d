"""What the client tells about each operation, and the kinds of operations there are."""

from __future__ import annotations

from typing import Protocol

__all__ = ["ALL_ROWS", "CONNECT", "KEEPALIVE", "PING", "PUSH", "RECV", "REQUEST", "SEND", "SESSION", "Report"]

CONNECT = "WS CONNECT"
SEND = "WS SEND"
RECV = "WS RECV"
REQUEST = "WS REQUEST"
PUSH = "WS PUSH"
PING = "WS PING"
KEEPALIVE = "WS KEEPALIVE"
SESSION = "WS SESSION"

ALL_ROWS: frozenset[str] = frozenset({CONNECT, SEND, RECV, REQUEST, PUSH, PING, KEEPALIVE, SESSION})


class Report(Protocol):
    """
    Called once for each finished operation, with positional arguments.

    An exception that it raises reaches the code that awaits the operation.

    Args:
        request_type: one of the row types above.
        name: the row's name, without a query string unless the tester put it there.
        response_time: milliseconds, or None where no time is meant.
        response_length: bytes of payload; text is counted in UTF-8.
        exception: None for a success.
        started: when the operation began, by :func:`time.perf_counter`.
        url: the connection's full URL.
        response: the handshake's answer (WS CONNECT), the message (WS RECV, WS REQUEST), the end as a :class:`Session`
            (WS SESSION), or None.
    """

    def __call__(
        self,
        request_type: str,
        name: str,
        response_time: float | None,
        response_length: int,
        exception: BaseException | None,
        started: float,
        url: str,
        response: object,
        /,
    ) -> None: ...
