"""The kinds of operations there are, and what is told about each that has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "ALL_ROWS",
    "CONNECT",
    "FIRST",
    "GAP",
    "KEEPALIVE",
    "PING",
    "PUSH",
    "RECONNECT",
    "RECOVERY",
    "RECV",
    "REQUEST",
    "SEND",
    "SESSION",
    "STREAM",
    "ErrorKinds",
    "Report",
    "ReportOperation",
]

CONNECT = "WS CONNECT"
RECONNECT = "WS RECONNECT"
RECOVERY = "WS RECOVERY"
SEND = "WS SEND"
RECV = "WS RECV"
REQUEST = "WS REQUEST"
FIRST = "WS FIRST"
GAP = "WS GAP"
PUSH = "WS PUSH"
STREAM = "WS STREAM"
PING = "WS PING"
KEEPALIVE = "WS KEEPALIVE"
SESSION = "WS SESSION"

ALL_ROWS: frozenset[str] = frozenset(
    {CONNECT, RECONNECT, RECOVERY, SEND, RECV, REQUEST, FIRST, GAP, PUSH, STREAM, PING, KEEPALIVE, SESSION}
)


class Report(Protocol):
    """
    The function that a :class:`WebSocketClient` calls once for each operation that has ended.

    It gets positional arguments. An exception that it raises reaches the code that awaits the operation.

    Args:
        request_type: one of the row types above.
        name: the row's name; it has a query string only if the author of the locustfile put one there.
        response_time: milliseconds, or None if the row has no time.
        response_length: bytes of payload; text counts as UTF-8.
        exception: None for a success.
        started: when the operation began, by :func:`time.perf_counter`.
        url: the connection's full URL, without user and password.
        response: the server's answer to the handshake (WS CONNECT, WS RECONNECT), the message (WS RECV, WS REQUEST),
            the end of the connection as a :class:`Session` (WS SESSION), or None.
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


@dataclass(frozen=True, slots=True)
class ErrorKinds:
    """
    What the exceptions of the author's own code mean to the row of an operation; others are failures, and are raised.

    Args:
        failed_checks: a check has failed: the row is a failure, and the exception ends there.
        control_flow: no failure at all: the row is a success, and the exception goes on.
    """

    failed_checks: tuple[type[Exception], ...]
    control_flow: tuple[type[Exception], ...]


class ReportOperation(Protocol):
    """
    The method of a connection by which its parts report an operation that has ended, as :class:`Report` has it.

    Args:
        request_type: one of the row types above.
        name: the row's name.
        response_time: milliseconds, or None if the row has no time.
        size: bytes of payload.
        error: None for a success.
        started: when the operation began, by :func:`time.perf_counter`.
        response: the message, or None.
    """

    def __call__(
        self,
        request_type: str,
        name: str,
        response_time: float | None,
        size: int,
        error: BaseException | None,
        started: float,
        response: object,
        /,
    ) -> None: ...
