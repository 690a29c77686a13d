"""
The life of a connection, as one object without I/O.

What happens to a connection goes into :class:`ConnectionState` as a method call; what is to be done about it comes out
as decisions. Everything that decides is here: what state the connection is in, whether it reconnects, whether its end
is reported. ``lifecycle.py`` carries the decisions out and decides nothing.

All transitions. Those from the frame hold for both states in it::

    CONNECTING ── FAILED ──> CLOSED
         │
     CONNECTED      ┌─────────────── CONNECTED ──────────── RECONNECTING ── EXHAUSTED, CLOSE ──> CLOSED
         │          │                                         │      ^
    ┌────v──────────v────┐                                  FAILED   │
    │ INITIALIZING       │                                    │    RETRY
    │      │             │                                    v      │
    │  INITIALIZED       ├── LOST ─────────────────────────> BACKING_OFF ── CLOSE ──> CLOSED
    │      │             │                                      ^
    │      v             │                                     LOST
    │    OPEN            │                                      │
    └────────────────────┼── DISCONNECTING ───────────> WAITING_FOR_EOF ── ENDED ──> CLOSED
                         │                                      │
                         │                                    CLOSE
                         │                                      v
                         ├── CLOSE ──────────────────────────> CLOSING ── ENDED ──> CLOSED
                         │
                         └── ENDED ──> CLOSED
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from websockets.frames import OK_CLOSE_CODES, Close, CloseCode
from websockets.protocol import State as RFCState

from ...exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from ..wire.interface import CloseInfo
from .backoff import Retry

__all__ = [
    "RFC_STATES",
    "TRANSITIONS",
    "ConnectionState",
    "Decision",
    "Do",
    "Event",
    "ReportRecovery",
    "SendClose",
    "ShortenCloseTimer",
    "StartCloseTimer",
    "State",
    "next_state",
]


class _ByIdentity(Enum):
    __hash__ = object.__hash__  # Enum's own is written in Python


class State(_ByIdentity):
    """Where a connection is in its life."""

    CONNECTING = auto()
    """The first attempt is under way."""
    INITIALIZING = auto()
    """The handshake is complete, and ``on_connected`` runs, to log in and subscribe. Other tasks wait."""
    OPEN = auto()
    """Every task may use the connection."""
    WAITING_FOR_EOF = auto()
    """A close frame came, or went out for an error; ``close()`` was not called. The end of TCP is awaited."""
    CLOSING = auto()
    """``close()`` was called; the server's answer is awaited."""
    BACKING_OFF = auto()
    """The connection is lost. The delay before the next attempt runs."""
    RECONNECTING = auto()
    """Another attempt than the first is under way."""
    CLOSED = auto()
    """The connection is over for good."""


class Event(_ByIdentity):
    """What leads from one state to another."""

    CONNECTED = auto()
    """The handshake is complete."""
    INITIALIZED = auto()
    """``on_connected`` is done, or there is none."""
    DISCONNECTING = auto()
    """A close frame went out that ``close()`` did not order: the engine's, or because ``on_connected`` failed."""
    LOST = auto()
    """The connection ended, and will be made again."""
    ENDED = auto()
    """The connection ended for good."""
    RETRY = auto()
    """The delay is over."""
    FAILED = auto()
    """An attempt failed. Another will follow, unless it was the first of all."""
    EXHAUSTED = auto()
    """An attempt failed, and it was the last that ``Backoff.attempts`` allows."""
    CLOSE = auto()
    """``close()`` or ``abort()`` was called, or the task that connects was cancelled."""


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.CONNECTING, Event.CONNECTED): State.INITIALIZING,
    (State.CONNECTING, Event.FAILED): State.CLOSED,
    (State.INITIALIZING, Event.INITIALIZED): State.OPEN,
    (State.INITIALIZING, Event.DISCONNECTING): State.WAITING_FOR_EOF,
    (State.INITIALIZING, Event.LOST): State.BACKING_OFF,
    (State.INITIALIZING, Event.ENDED): State.CLOSED,
    (State.INITIALIZING, Event.CLOSE): State.CLOSING,
    (State.OPEN, Event.DISCONNECTING): State.WAITING_FOR_EOF,
    (State.OPEN, Event.LOST): State.BACKING_OFF,
    (State.OPEN, Event.ENDED): State.CLOSED,
    (State.OPEN, Event.CLOSE): State.CLOSING,
    (State.WAITING_FOR_EOF, Event.LOST): State.BACKING_OFF,
    (State.WAITING_FOR_EOF, Event.ENDED): State.CLOSED,
    (State.WAITING_FOR_EOF, Event.CLOSE): State.CLOSING,
    (State.CLOSING, Event.ENDED): State.CLOSED,
    (State.BACKING_OFF, Event.RETRY): State.RECONNECTING,
    (State.BACKING_OFF, Event.CLOSE): State.CLOSED,
    (State.RECONNECTING, Event.CONNECTED): State.INITIALIZING,
    (State.RECONNECTING, Event.FAILED): State.BACKING_OFF,
    (State.RECONNECTING, Event.EXHAUSTED): State.CLOSED,
    (State.RECONNECTING, Event.CLOSE): State.CLOSED,
}

RFC_STATES: dict[State, RFCState] = {
    State.CONNECTING: RFCState.CONNECTING,
    State.INITIALIZING: RFCState.OPEN,
    State.OPEN: RFCState.OPEN,
    State.WAITING_FOR_EOF: RFCState.CLOSING,
    State.CLOSING: RFCState.CLOSING,
    State.BACKING_OFF: RFCState.CONNECTING,
    State.RECONNECTING: RFCState.CONNECTING,
    State.CLOSED: RFCState.CLOSED,
}
"""What each state is in the terms of RFC 6455."""

_CONNECTED = (State.INITIALIZING, State.OPEN)

# Why an outage ended without a connection: texts of errors.
EXHAUSTED = "not connected again: as many attempts have failed as Backoff.attempts allows"
STILL_NOT_CONNECTED = "still not connected when this side closed the connection"


class Do(_ByIdentity):
    """The decisions that need no argument."""

    START_SESSION = auto()
    """The handshake is complete: keep the connection among the client's, and start its heartbeat."""
    WAKE_STATE_WAITERS = auto()
    """Wake the tasks that wait for another state: it is another."""
    NOTE_LOSS = auto()
    """The connection can no longer be used, and may be made again: an outage begins now, if that is so."""
    START_AUTO_REPLIES = auto()
    """The connection is open: begin with the rules of ``keepalive``."""
    COUNT_RECONNECT = auto()
    """The connection is open again."""
    STOP_SENDING = auto()
    """A close frame is out: stop the heartbeat and the rules of ``keepalive``."""
    RESUME_READING = auto()
    """Read on, although the queue is full: the answer, or the end, is behind what was not read."""
    STOP_QUEUEING = auto()
    """``close()`` was called: drop what still comes and no task waits for."""
    ABORT_TRANSPORT = auto()
    """Cut the TCP connection."""
    CANCEL_CLOSE_TIMER = auto()
    """The connection ended in time."""
    FAIL_WAITS = auto()
    """Wake every task that waits for something that this session would have brought: a reply, a pong, a drained write
    buffer."""
    RECONNECT = auto()
    """Begin an attempt after ``ConnectionState.delay`` seconds. The task that reconnects does so, if there is one."""
    CANCEL_RECONNECT = auto()
    """Cancel the task that reconnects."""
    FINISH = auto()
    """The connection is over for good: forget it, and wake the task in ``recv``."""
    REPORT_SESSION = auto()
    """Report the end of this session, a ``WS SESSION`` row."""


@dataclass(frozen=True, slots=True)
class SendClose:
    """Send this close frame."""

    close: Close


@dataclass(frozen=True, slots=True)
class StartCloseTimer:
    """Call :meth:`ConnectionState.close_timed_out` after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ShortenCloseTimer:
    """Call it after so many seconds, unless the timer that runs is sooner, or none runs."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ReportRecovery:
    """Report the end of an outage, a ``WS RECOVERY`` row: it has lasted since ``Do.NOTE_LOSS``."""

    failure: str | None
    """Why the connection was not made again; None if it was."""


Decision = Do | SendClose | StartCloseTimer | ShortenCloseTimer | ReportRecovery
Decisions = tuple[Decision, ...]


class ConnectionState:
    """
    Takes what happens to one connection, and decides what to do. It neither waits nor calls anybody.

    A session is what lies between one handshake and the end of its TCP connection. A connection that reconnects has
    several, one after the other. An outage begins with the loss of a connection that reconnects. It ends when the
    connection can be used again, or is given up. Each is one ``WS RECOVERY`` row.

    Args:
        close_timeout: seconds that a server has to end a connection after a close frame.
        has_on_connected: whether there is an ``on_connected``. The engine may tell of the handshake and of the end in
            one turn of the loop, so a connection without it has to be open at once.
        retry: when to reconnect; None not to.
    """

    __slots__ = (
        "_aborted",
        "_close_timeout",
        "_connect_reported",
        "_has_on_connected",
        "_initialized",
        "_known",
        "_outage",
        "_retry",
        "_was_open",
        "close_info",
        "closed_by_us",
        "delay",
        "killed",
        "sessions_ended",
        "state",
    )

    def __init__(self, *, close_timeout: float, has_on_connected: bool, retry: Retry | None) -> None:
        self.state = State.CONNECTING
        self.closed_by_us = False
        """Whether this side closed the connection by ``close()``, or gave up a reconnect."""
        self.killed = False
        """Whether a kill came while a handler or a report ran. What else might block is left out from then on."""
        self.sessions_ended = 0
        self.close_info: CloseInfo | None = None
        """How the last session ended; None before the first end."""
        self.delay = 0.0
        """Seconds that BACKING_OFF lasts."""
        self._close_timeout = close_timeout
        self._has_on_connected = has_on_connected
        self._retry = retry
        self._known = False  # whether a row has told of the first connect
        self._was_open = False  # in any session; before that there is nothing to make again
        self._outage = False  # whether the connection is lost, and neither made again nor given up
        # Of the present session:
        self._initialized = False
        self._connect_reported = False
        self._aborted = False

    # Connecting, for the first time or again

    def delay_over(self) -> Decisions:
        """BACKING_OFF has lasted ``delay`` seconds: an attempt begins."""
        self._move(Event.RETRY)
        self._initialized = self._connect_reported = self._aborted = False
        return (Do.WAKE_STATE_WAITERS,)

    def handshake_done(self) -> Decisions:
        """The server's answer to the opening handshake came, and is good."""
        if self.state is State.CLOSED:  # given up while the answer was on its way
            return (Do.ABORT_TRANSPORT,)
        self._move(Event.CONNECTED)
        initialized = () if self._has_on_connected else self.on_connected_done()
        return Do.START_SESSION, Do.WAKE_STATE_WAITERS, *initialized

    def on_connected_done(self) -> Decisions:
        """``on_connected`` returned."""
        if self.state is not State.INITIALIZING:
            return ()  # closed or lost meanwhile
        again = self._was_open
        self._move(Event.INITIALIZED)
        self._initialized = self._was_open = True
        if self._retry is not None:
            self._retry.succeeded()
        decisions: Decisions = (Do.WAKE_STATE_WAITERS, Do.START_AUTO_REPLIES)
        return (*decisions, Do.COUNT_RECONNECT, *self._end_outage(None)) if again else decisions

    def connect_reported(self) -> Decisions:
        """The ``WS CONNECT`` or ``WS RECONNECT`` row of this session is out, so its ``WS SESSION`` row may follow."""
        self._connect_reported = self._known = True
        return () if self._in_session else (Do.REPORT_SESSION,)

    def attempt_failed(self) -> Decisions:
        """An attempt to reconnect failed, or its ``on_connected`` did."""
        if self.state is State.INITIALIZING:
            return self._disconnecting(SendClose(Close(1000, "")))
        if self.state is not State.RECONNECTING:
            return ()  # it was lost, or closed; or it is open, and only the report of that failed
        if self._failed_for_the_last_time():
            self._move(Event.EXHAUSTED)
            return Do.WAKE_STATE_WAITERS, Do.FINISH, *self._end_outage(EXHAUSTED)
        self._move(Event.FAILED)
        return Do.WAKE_STATE_WAITERS, Do.RECONNECT

    def give_up(self) -> Decisions:
        """The task that connects ends without a connection: the first attempt failed, or the task was cancelled."""
        if self.state is State.CONNECTING:
            self._move(Event.FAILED)
            return Do.WAKE_STATE_WAITERS, Do.FINISH
        if not self._connect_reported:
            return self.abort(by_on_connected=True)  # it was opened in the turn of the loop in which this was cancelled
        return self.close(Close(1000, ""), self._close_timeout, by_on_connected=True)

    # Closing, by either side

    def close(self, close: Close, timeout: float, *, by_on_connected: bool) -> Decisions:
        """
        ``close()`` was called.

        Args:
            close: the frame to send.
            timeout: seconds that the server has to end the connection; no more than ``close_timeout`` counts.
            by_on_connected: whether it was called in ``on_connected``, which then must not be cancelled by it.
        """
        timeout = min(timeout, self._close_timeout)
        cancel: Decisions = () if by_on_connected else self._cancel_on_connected()
        match self.state:
            case State.OPEN | State.INITIALIZING:
                self.closed_by_us = True
                self._move(Event.CLOSE)
                return (
                    *cancel,
                    Do.WAKE_STATE_WAITERS,
                    Do.STOP_SENDING,
                    Do.RESUME_READING,
                    Do.STOP_QUEUEING,
                    SendClose(close),
                    StartCloseTimer(timeout),
                    *self._end_outage(STILL_NOT_CONNECTED),
                )
            case State.WAITING_FOR_EOF:
                self._move(Event.CLOSE)
                closes = (Do.WAKE_STATE_WAITERS, ShortenCloseTimer(timeout))
                return *cancel, *closes, *self._end_outage(STILL_NOT_CONNECTED)
            case State.CLOSING:
                return (ShortenCloseTimer(timeout),)
            case State.BACKING_OFF | State.RECONNECTING:
                self.closed_by_us = True
                self._move(Event.CLOSE)
                gives_up = (Do.WAKE_STATE_WAITERS, Do.CANCEL_RECONNECT, Do.FINISH)
                return *gives_up, *self._end_outage(STILL_NOT_CONNECTED)
        return ()

    def abort(self, *, by_on_connected: bool) -> Decisions:
        """``abort()`` was called: as :meth:`close`, without a close frame."""
        match self.state:
            case State.OPEN | State.INITIALIZING | State.WAITING_FOR_EOF:
                cancel: Decisions = () if by_on_connected else self._cancel_on_connected()
                self._move(Event.CLOSE)
                cuts = (Do.WAKE_STATE_WAITERS, *self.close_timed_out())
                return *cancel, *cuts, *self._end_outage(STILL_NOT_CONNECTED)
            case State.CLOSING:
                return self.close_timed_out()
            case State.BACKING_OFF | State.RECONNECTING:
                return self.close(Close(1000, ""), 0.0, by_on_connected=by_on_connected)
        return ()

    def drop(self) -> Decisions:
        """This side is to lose the connection by a close frame, after which it is made again."""
        return self._disconnecting(*self._note_loss(), SendClose(Close(CloseCode.GOING_AWAY, "")))

    def close_timed_out(self) -> Decisions:
        """The server did not end the connection in time."""
        self._aborted = True
        return (Do.ABORT_TRANSPORT,)

    def closing(self) -> Decisions:
        """The engine sent a close frame that nobody here ordered: an answer to the server's, or for an error."""
        return self._disconnecting(*self._note_loss()) if self.connected else ()

    def closed(self, info: CloseInfo) -> Decisions:
        """The engine says that the TCP connection is over."""
        if self.state is State.CLOSED:
            return ()  # see handshake_done()
        noted = self._note_loss()
        reconnects = self._is_to_reconnect(info)
        self._move(Event.LOST if reconnects else Event.ENDED)
        self.close_info = info
        self.sessions_ended += 1
        decisions: Decisions = (
            *noted,
            Do.WAKE_STATE_WAITERS,
            Do.STOP_SENDING,
            Do.CANCEL_CLOSE_TIMER,
            Do.FAIL_WAITS,
            Do.RECONNECT if reconnects else Do.FINISH,
        )
        if reconnects:
            self._outage = True
        else:
            decisions = *decisions, *self._end_outage(EXHAUSTED)
        # The report comes last: whatever becomes of it, the connection is over.
        return (*decisions, Do.REPORT_SESSION) if self._connect_reported else decisions

    def kill(self) -> None:
        """A kill came out of a handler or a report."""
        self.killed = True

    # Questions

    @property
    def connected(self) -> bool:
        """Whether frames may be written: the handshake is complete, and no close frame is out."""
        return self.state in _CONNECTED

    def ready(self, *, in_on_connected: bool) -> bool:
        """Whether a task may use the connection; ``in_on_connected``: whether it is part of ``on_connected``."""
        return self.state is State.OPEN or (in_on_connected and self.state is State.INITIALIZING)

    def ended_by_us(self, *, began: State) -> bool:
        """
        Whether an operation that failed with ``ConnectionClosed`` failed because this side closed the connection while
        it waited. It is then as if it had been cancelled: it is not reported.

        ``began``: the state in which it began. To use a connection that this side has closed already is a mistake, and
        that is reported.
        """
        return self.closed_by_us and began not in (State.CLOSING, State.CLOSED)

    @property
    def not_connected(self) -> str:
        """What the error of an operation says whose timeout came while no task could use the connection."""
        if self.state is State.INITIALIZING and not self._outage:
            return "not connected within the timeout (on_connected is not done)"
        closes = self.state is State.CLOSING or self._retry is None
        return f"not connected within the timeout ({'closing' if closes else 'reconnecting'})"

    @property
    def reconnects(self) -> bool:
        """Whether the connection is made again when it is lost."""
        return self._retry is not None

    @property
    def ended_here(self) -> bool:
        """Whether it was this side that closed the connection, or cut it."""
        return self.closed_by_us or self._aborted

    @property
    def last_close_info(self) -> CloseInfo | None:
        """How the connection ended; None while it has a session, whatever the one before came to."""
        return None if self._in_session else self.close_info

    def closed_error(self) -> ConnectionClosed:
        """A new exception that says how the last session ended."""
        info = self.close_info
        assert info is not None
        kind = ConnectionClosedOK if self._ended_normally(info) else ConnectionClosedError
        error = kind(info.rcvd, info.sent, info.rcvd_then_sent, closed_by_user=self.closed_by_us)
        error.__cause__ = info.error
        return error

    # Inside

    def _move(self, event: Event) -> None:
        self.state = next_state(self.state, event)

    @property
    def _in_session(self) -> bool:
        return self.state in (*_CONNECTED, State.WAITING_FOR_EOF, State.CLOSING)

    def _disconnecting(self, *first: Decision) -> Decisions:
        # A close frame is out: give the server its time to end the connection.
        self._move(Event.DISCONNECTING)
        return (
            *first,
            Do.WAKE_STATE_WAITERS,
            Do.STOP_SENDING,
            Do.RESUME_READING,
            StartCloseTimer(self._close_timeout),
        )

    def _note_loss(self) -> Decisions:
        # Without reconnect there is no outage: the connection is over.
        return (Do.NOTE_LOSS,) if self.state is State.OPEN and self._retry is not None else ()

    def _end_outage(self, failure: str | None) -> Decisions:
        # The report comes last, as that of a session.
        was_out, self._outage = self._outage, False
        return (ReportRecovery(failure),) if was_out and self._known else ()

    def _cancel_on_connected(self) -> Decisions:
        # close() waits for an on_connected that a reconnect has called, and must not wait for long. The first one is
        # not ours to cancel: it runs in the task that connects, and no task reconnects then.
        return (Do.CANCEL_RECONNECT,) if self.state in (State.INITIALIZING, State.WAITING_FOR_EOF) else ()

    def _is_to_reconnect(self, info: CloseInfo) -> bool:
        if self._retry is None or self.state is State.CLOSING or not self._was_open:
            return False
        if not self._initialized:
            return not self._failed_for_the_last_time()  # lost in on_connected, or closed because that failed
        # A server that closes with 1000 has said what it had to say, unless that answers the close frame of drop(). Any
        # other end is worth another attempt.
        dropped = info.rcvd_then_sent is False and info.sent is not None and info.sent.code == CloseCode.GOING_AWAY
        if info.rcvd is not None and info.rcvd.code == 1000 and not dropped:
            return False
        self.delay = self._retry.next_delay()
        return True

    def _failed_for_the_last_time(self) -> bool:
        assert self._retry is not None
        self._retry.failed()
        if self._retry.exhausted:
            return True
        self.delay = self._retry.next_delay()
        return False

    def _ended_normally(self, info: CloseInfo) -> bool:
        rcvd, sent = info.rcvd, info.sent
        if self.closed_by_us:
            # A server may close TCP without a close frame of its own; it must not leave us waiting, or complain.
            if rcvd is None:
                return not self._aborted
            return rcvd.code in OK_CLOSE_CODES or (sent is not None and rcvd.code == sent.code)
        return rcvd is not None and rcvd.code in OK_CLOSE_CODES and (sent is None or sent.code in OK_CLOSE_CODES)


def next_state(state: State, event: Event) -> State:
    """
    Look the transition up.

    Raises:
        RuntimeError: there is none, which is a mistake in this package.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise RuntimeError(f"a connection that is {state.name} cannot get {event.name}") from None
