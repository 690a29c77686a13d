"""What a connection reports, and what becomes of an exception where no task waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any, Protocol

from ...exceptions import ConnectionClosed, ConnectionClosedOK, NotRecovered, WebSocketError
from ...hosting import is_kill
from ..messages.message import Received
from ..observing.events import RECOVERY, REQUEST, SESSION, ErrorKinds, Report
from ..observing.flight_recorder import Recorder
from ..observing.stats import Session, Statistics
from ..observing.tally import OpenConnections
from ..observing.timing import ConnectPhases
from ..options import ConnectOptions
from ..wire.interface import Sink
from .backoff import Backoff
from .state import ConnectionState, State

__all__ = ["NOTHING_CAME", "ConnectionOwner", "ConnectionReports", "Waited"]

NOTHING_CAME = "nothing ever came"
"""A word for :class:`Waited`."""


class Waited(Protocol):
    """
    Takes what the end of the user has cancelled, which is no row.

    Args:
        operation: what the task was in: "recv()".
        name: the name of its row.
        seconds: for how long it had waited.
        never: what has never happened yet, which is a sign of a mistake: "nothing ever came"; or "".
    """

    def __call__(self, operation: str, name: str, seconds: float, never: str, /) -> None: ...


class ConnectionOwner(Protocol):
    """What a connection needs of its client."""

    connections: OpenConnections
    connect_backoff: Backoff | None
    stopping: Callable[[], bool]

    @property
    def error_kinds(self) -> ErrorKinds: ...

    @property
    def escalate(self) -> Callable[[BaseException], None]: ...

    def report_of(self, request_type: str) -> Report | None: ...

    def note_cancelled(self, operation: str, name: str, started: float, never: str) -> None: ...

    def connect_to_url(
        self, url: str, options: ConnectOptions, sink: Sink, phases: ConnectPhases
    ) -> Coroutine[Any, Any, None]: ...


class ConnectionReports:
    """
    The part of a :class:`WebSocketConnection` that reports. It is never used alone.

    The parts of a connection (this one, the lifecycle, and what tasks call) are base classes of one object, and not
    objects of their own: each object would be memory of every idle user, and one more step on the way of a message.
    """

    __slots__ = ("_life", "_lost_at", "_opened_at", "_recorder", "client", "name", "stats", "url")

    _recorder: Recorder | None

    def __init__(self, client: ConnectionOwner, url: str, name: str, life: ConnectionState) -> None:
        self.client = client
        self.url = url
        self.name = name
        """The name of this connection's rows."""
        self.stats = Statistics()
        """The counts of this connection, over its reconnects."""
        self._life = life
        self._opened_at = 0.0  # by perf_counter, the present session
        self._lost_at = 0.0  # by perf_counter, the last loss

    def report(
        self,
        request_type: str,
        name: str,
        response_time: float | None,
        size: int,
        error: BaseException | None,
        started: float,
        response: object,
    ) -> None:
        """
        Report one operation, if rows of its type are reported.

        The arguments are those of :class:`~..observing.events.Report`, without the URL: ``response_time`` is in
        milliseconds, ``size`` in bytes, ``started`` by perf_counter.
        """
        if error is not None and self._recorder is not None:
            self._recorder.save(request_type, name, error)
        report = self.client.report_of(request_type)
        if report is not None:
            if isinstance(error, WebSocketError):
                error.is_row = True
            report(request_type, name, response_time, size, error, started, self.url, response)

    def report_in_background(
        self,
        request_type: str,
        name: str,
        response_time: float | None,
        size: int,
        error: BaseException | None,
        started: float,
        response: object,
    ) -> None:
        """Do the same where no task waits that could take an exception of the report."""
        try:
            self.report(request_type, name, response_time, size, error, started, response)
        except BaseException as exc:
            self.escalate(exc)

    def report_late(self, name: str, started: float, received: Received) -> None:
        """Report a reply that came after its timeout, or after the request was cancelled."""
        self.stats.late_replies += 1
        if self._life.closed_by_us or self._life.killed or self.client.stopping():
            return  # requests are cancelled because the user stops; a cancelled request is not reported
        response_time = (received.arrived - started) * 1000.0
        self.report_in_background(
            REQUEST, f"{name} (late)", response_time, received.size, None, started, received.message
        )

    def note_cancelled(self, operation: str, name: str, started: float, never: str | None = None) -> None:
        """
        Tell of a wait that was cancelled, if that is because the user stops: it has no row.

        The arguments are those of :class:`Waited`; by default, what has never happened is that a message came.
        """
        if never is None:
            never = "" if self.stats.messages_received else NOTHING_CAME
        self.client.note_cancelled(operation, name, started, never)

    @property
    def life_state(self) -> State:
        """The state of its life; RFC 6455 has fewer. An operation remembers the one that it began in."""
        return self._life.state

    @property
    def error_kinds(self) -> ErrorKinds:
        """What the exceptions of the author's code mean to a row."""
        return self.client.error_kinds

    @property
    def killed(self) -> bool:
        """Whether a kill came while a handler or a report ran. What else might block is left out from then on."""
        return self._life.killed

    def closed_error(self) -> ConnectionClosed:
        """A new exception that says how the connection ended."""
        return self._life.closed_error()

    def escalate(self, exc: BaseException) -> None:
        """
        Pass on what a report, a handler or ``on_connected`` raised where no task waits for it.

        An exception that a callback of the loop raises would end the connection: a transport takes it for its own.
        """
        if is_kill(exc):
            self._life.kill()
            if isinstance(exc, (KeyboardInterrupt, SystemExit)) or not _in_callback():
                raise exc
        if isinstance(exc, asyncio.CancelledError):
            # Something was cancelled that is not a task of ours. Whoever got this exception would take it for a
            # cancellation of their own.
            error = RuntimeError("something was awaited, or asked for its result, that had been cancelled")
            error.__cause__ = exc
            exc = error
        self.client.escalate(exc)

    def _report_failure(self, request_type: str, started: float, error: BaseException) -> None:
        self.report(request_type, self.name, (perf_counter() - started) * 1000.0, 0, error, started, None)

    def _report_recovery(self, failure: str | None, ended: float) -> None:
        error = None if failure is None else NotRecovered(failure)
        self.client.connections.tally.recoveries += failure is None
        milliseconds = (ended - self._lost_at) * 1000.0
        self.report_in_background(RECOVERY, self.name, milliseconds, 0, error, self._lost_at, None)

    def _report_session(self) -> None:
        error = self.closed_error()
        failure = None if isinstance(error, ConnectionClosedOK) else error
        seconds = perf_counter() - self._opened_at
        session = Session(error.close_code, error.close_reason, seconds, self.stats)
        self.report_in_background(SESSION, self.name, seconds * 1000.0, 0, failure, self._opened_at, session)


def _in_callback() -> bool:
    # Whether the loop has called us, and not a task or plain code, which take an exception themselves.
    try:
        return asyncio.current_task() is None
    except RuntimeError:  # no loop runs here
        return False
