"""
The life of a connection: opened, lost, made again, closed; and its reports.

``lifecycle.py`` has the phases and what leads from one to the next. Here is what is done on the way.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from websockets.frames import OK_CLOSE_CODES, Close

from ...exceptions import ConnectError, ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, WebSocketError
from ...hosting import cancels_current_task, is_kill
from ..messages.queue import ReceiveQueue
from ..messages.router import MessageRouter
from ..observing.events import CONNECT, RECV, REQUEST, SEND, SESSION
from ..observing.recorder import recorder_for
from ..observing.stats import Session, Statistics
from ..opening.connect import open_wire
from ..opening.timing import ConnectPhases
from ..options import ConnectOptions
from ..wire.interface import CloseInfo, Sink, Wire
from .backoff import Backoff
from .pings import Pings
from .state import Event, Phase, next_phase

if TYPE_CHECKING:
    from ..client import WebSocketClient
    from ..connection import WebSocketConnection
    from ..messages.message import Received

__all__ = ["ConnectionLifecycle"]

WAITING_INLINE: Any = object()
"""Stands for the waiter of a task that waits without one, by ``wait_for_io_inline`` of its loop."""

_restoring: ContextVar[ConnectionLifecycle | None] = ContextVar("restoring", default=None)
"""In ``on_connected``, and in the tasks that it makes: the connection that it restores."""


def no_inline_wait() -> bool:
    """
    For ``wait_for_io_inline`` of a loop that has none.

    A loop may have a method ``wait_for_io_inline``, as the bridge's has: it waits inside of the task until a
    transport has read something, which spares a future and a step of the task. False: await a future.
    """
    return False


def _in_callback() -> bool:
    """Whether the loop has called us, and not a task or plain code, which take an exception themselves."""
    try:
        return asyncio.current_task() is None
    except RuntimeError:  # no loop runs here
        return False


def inline_wait_not_enabled() -> bool:
    """For ``wait_for_io_inline`` of a connection that may be an idle one: see :meth:`enable_inline_wait`."""
    return False


class ConnectionLifecycle:
    """
    The lower half of a :class:`WebSocketConnection`: what it lives through, apart from what tasks do with it.

    There are no links but connections.
    """

    __slots__ = (
        "_announced",
        "_close_timer",
        "_create_future",
        "_cut",
        "_drainers",
        "_ending",
        "_established",
        "_id",
        "_loop",
        "_opened_at",
        "_options",
        "_phase",
        "_phase_waiters",
        "_reconnecting",
        "_recorder",
        "_report_recv",
        "_report_send",
        "_router",
        "_sends_since_yield",
        "_sessions",
        "_waiter",
        "_write",
        "arrived",
        "client",
        "closed_by_user",
        "interrupted",
        "name",
        "pings",
        "queue",
        "queue_wait",
        "stats",
        "url",
        "wait_for_io_inline",
        "wire",
    )

    wire: Wire
    _write: Callable[[int, bytes], None]

    def __init__(self, client: WebSocketClient, url: str, name: str, options: ConnectOptions) -> None:
        """Made by :meth:`WebSocketClient.connect`."""
        self.url = url
        self.name = name
        """The name of this connection's rows."""
        self.client = client
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._create_future = self._loop.create_future
        self._report_send = client.report if SEND in client.reported else None
        self._report_recv = client.report if RECV in client.reported else None
        self._id: uuid.UUID | None = None

        self._phase = Phase.CONNECTING
        self._phase_waiters: list[asyncio.Future[None]] = []
        self._close_timer: asyncio.TimerHandle | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._established = False  # whether it was open once; before that there is nothing to reconnect

        # The present session: what lies between one handshake and its end.
        self._sessions = 0  # how many have ended
        self._announced = False  # whether the present one has been reported as connected
        self._opened_at = 0.0
        self._ending: CloseInfo | None = None
        self._cut = False
        self.closed_by_user = False
        """Whether this side closed the connection."""
        self.interrupted = False
        """Whether a kill came while a handler or a report ran; what else might block is left out from then on."""

        self.queue = ReceiveQueue(self, options.max_queue, options.overflow)
        self._waiter: asyncio.Future[None] | None = None  # of the task in recv
        self.wait_for_io_inline: Callable[[], bool] = inline_wait_not_enabled
        """See :func:`no_inline_wait`."""
        self._sends_since_yield = 0  # without a wait in recv
        self.queue_wait = 0.0
        """Seconds that the last message had waited in the queue when it was taken: the time that a task was late."""
        self.arrived = 0.0
        """When the message that a task or handler was given last arrived (``perf_counter``). Read it at once: the next
        message of this connection, whoever takes it, sets it anew."""
        self._drainers: list[asyncio.Future[None]] | None = None  # tasks in send, while writing is paused
        self._router: MessageRouter | None = None
        self.pings = Pings(self, self._loop)
        self.stats = Statistics()
        """What was counted."""
        connection = cast("WebSocketConnection", self)
        self._recorder = recorder_for(connection, options)
        if options.keepalive_rules:
            self._router = MessageRouter(connection, self._loop, options.keepalive_rules)
            self.enable_inline_wait()

    def enable_inline_wait(self) -> None:
        """
        Wait in place from now on, where the loop can.

        It keeps 1 KiB more of the greenlet's stack while it waits, which a connection that only idles need not cost.
        """
        self.wait_for_io_inline = getattr(self._loop, "wait_for_io_inline", no_inline_wait)

    # Opening, once or again and again

    async def open(self) -> None:
        """Called by the client: connect, and report that."""
        try:
            await self._attempt()
        except BaseException:
            if self._announced:
                self.start_close(Close(1000, ""))  # the report raised, and nobody gets the connection
            else:
                self.abort()  # it was opened in the turn of the loop in which this was cancelled
            raise
        try:
            await self._restore()
        except BaseException:
            self.start_close(Close(1000, ""))
            raise

    async def _attempt(self) -> None:
        client = self.client
        session = self._sessions
        self._announced = self._cut = False
        phases = self.stats.connect = ConnectPhases()
        sink = cast(Sink, self)
        started = perf_counter()
        try:
            await open_wire(
                client.engine,
                self.url,
                self._options,
                sink if self._recorder is None else self._recorder.tap(sink),
                phases,
                new_socket=client.new_socket,
                session=client.http_session,
            )
        except BaseException as exc:
            if self._is(Phase.CONNECTING, Phase.RECONNECTING):
                self._advance(Event.FAILED)
            if isinstance(exc, ConnectError):
                self._report_failure(CONNECT, started, exc)
            raise
        try:
            self.report(CONNECT, self.name, started, self._opened_at - started, 0, None, self.wire.response)
        finally:
            self._announced = True
            if self._sessions != session:
                self._report_session()

    def upgrading(self) -> None:
        """Called by the engine."""
        self.stats.connect.enter("upgrade")

    def opened(self, wire: Wire) -> None:
        """Called by the engine."""
        if self._phase is Phase.CLOSED:  # given up while the answer was on its way
            wire.transport.abort()
            return
        self._opened_at = perf_counter()
        self.stats.connect.enter(None)
        self.wire = wire
        self._write = wire.send
        self.client.connections.add(cast("WebSocketConnection", self))
        if self._options.ping_interval is not None:
            self.pings.start_heartbeat(self._options.ping_interval, self._options.ping_timeout)
        self._advance(Event.CONNECTED)
        if self._options.on_connected is None:
            self._restored()

    async def _restore(self) -> None:
        on_connected = self._options.on_connected
        if on_connected is None:
            return
        if self._is(Phase.RESTORING):
            token = _restoring.set(self)
            try:
                await on_connected(cast("WebSocketConnection", self))
            finally:
                _restoring.reset(token)
        if self._is(Phase.RESTORING):
            self._restored()
        elif not self.closed_by_user:
            while self._is(Phase.ENDING, Phase.CLOSING):
                await self._phase_change()
            raise self.closed_error()  # it was lost meanwhile

    def _restored(self) -> None:
        self._advance(Event.RESTORED)
        self._established = True
        if self._router is not None:
            self._router.auto_replies.start()

    def _is_to_reconnect(self, ending: CloseInfo) -> bool:
        # A server that closes with 1000 has said what it had to say. Whatever else it may be is worth another attempt.
        # (Unless it answers our own close, after an on_connected that failed.)
        finished = ending.rcvd is not None and ending.rcvd.code == 1000
        trying = self._reconnecting is not None and not self._reconnecting.done()
        return self._established and (trying or not finished)

    async def _reconnect(self, backoff: Backoff) -> None:
        failures = 0
        while self._is(Phase.WAITING):
            await asyncio.sleep(backoff.delay(failures + 1))
            self._advance(Event.RETRY)
            try:
                await self._attempt()
                await self._restore()
            except (Exception, asyncio.CancelledError) as exc:
                if cancels_current_task(exc):
                    raise
                failures += 1
                if not isinstance(exc, WebSocketError):
                    self.escalate(exc)  # of on_connected, or of a report
                if self._is(Phase.RESTORING):
                    self.wire.send_close(Close(1000, ""))
                    self._end_session()
                while self._is(Phase.ENDING):
                    await self._phase_change()
                if self._is(Phase.WAITING) and backoff.exhausted(failures):
                    self._advance(Event.EXHAUSTED)
                    self._finish()
            else:
                failures = 0
                self.stats.reconnects += 1

    def _reconnecting_ended(self, task: asyncio.Task[None]) -> None:
        # Not at the end of the task itself: one that is cancelled before it began does nothing at all.
        if self._reconnecting is task:
            self._reconnecting = None
            self._wake_phase_waiters()

    # Closing, by either side

    def start_close(self, close: Close, timeout: float | None = None) -> None:
        """Begin what ``close()`` does, and do not wait. ``timeout``: seconds, if less than ``close_timeout``."""
        timeout = self._options.close_timeout if timeout is None else min(timeout, self._options.close_timeout)
        self._stop_restoring()
        match self._phase:
            case Phase.OPEN | Phase.RESTORING:
                self.closed_by_user = True
                self._advance(Event.CLOSE)
                self._stop_timers()
                if self.queue.paused:
                    self.queue.resume()  # the answer is behind what was not read
                self.wire.send_close(close)
                self._close_timer = self._loop.call_later(timeout, self._cut_connection)
            case Phase.ENDING | Phase.CLOSING:
                if self._phase is Phase.ENDING:
                    self._advance(Event.CLOSE)
                if self._close_timer is not None and self._close_timer.when() > self._loop.time() + timeout:
                    self._close_timer.cancel()
                    self._close_timer = self._loop.call_later(timeout, self._cut_connection)
            case Phase.WAITING | Phase.RECONNECTING:
                self.closed_by_user = True
                self._advance(Event.CLOSE)
                if self._reconnecting is not None:
                    self._reconnecting.cancel()
                self._finish()

    def abort(self) -> None:
        """Cut the connection at once and for good, without a close frame."""
        self._stop_restoring()
        match self._phase:
            case Phase.OPEN | Phase.RESTORING | Phase.ENDING:
                self._advance(Event.CLOSE)
                self._cut_connection()
            case Phase.CLOSING:
                self._cut_connection()
            case Phase.WAITING | Phase.RECONNECTING:
                self.start_close(Close(1000, ""))

    def _cut_connection(self) -> None:
        self._cut = True
        self.wire.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is closed for good, by whichever side. Cancelling changes nothing else."""
        # An on_connected that closes the connection is what `_reconnecting` waits for.
        while not self._is(Phase.CLOSED) or (self._reconnecting is not None and _restoring.get() is not self):
            await self._phase_change()

    def _stop_restoring(self) -> None:
        # `wait_closed` waits for an on_connected that a reconnect called, and must not wait for long. The first one is
        # not ours to cancel: it runs in the task that connects.
        restoring = self._is(Phase.RESTORING, Phase.ENDING) and _restoring.get() is not self
        if restoring and self._reconnecting is not None:
            self._reconnecting.cancel()

    def closing(self) -> None:
        """Called by the engine."""
        if self.connected:
            self._end_session()

    def _end_session(self) -> None:
        # A close frame has gone out: give the server its time to end the connection.
        self._advance(Event.ENDING)
        self._stop_timers()
        if self.queue.paused:
            self.queue.resume()  # or the end, which is behind what was not read, would not be seen
        self._close_timer = self._loop.call_later(self._options.close_timeout, self._cut_connection)

    def closed(self, ending: CloseInfo) -> None:
        """Called by the engine."""
        if self._phase is Phase.CLOSED:
            return  # see opened()
        self._ending = ending
        self._sessions += 1
        self.stats.closes_received += ending.rcvd is not None
        self.stats.closes_sent += ending.sent is not None
        self._stop_timers()
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        self.queue.paused = False
        self.resume_writing()
        self.pings.connection_lost(self.closed_error)
        if self._router is not None:
            self._router.pending.connection_lost(self.closed_error)
        backoff = self._options.reconnect
        if backoff is not None and self._phase is not Phase.CLOSING and self._is_to_reconnect(ending):
            self._advance(Event.LOST)
            if self._reconnecting is None or self._reconnecting.done():
                self._reconnecting = self._loop.create_task(self._reconnect(backoff))
                self._reconnecting.add_done_callback(self._reconnecting_ended)
        else:
            self._advance(Event.ENDED)
            self._finish()
        # Last: whatever becomes of the report, the connection is over.
        if self._announced:
            self._report_session()

    def _stop_timers(self) -> None:
        self.pings.stop_heartbeat()
        if self._router is not None:
            self._router.auto_replies.stop()

    def _finish(self) -> None:
        # Closed for good.
        self.client.connections.discard(cast("WebSocketConnection", self))
        self._wake_receiver()

    def _wake_receiver(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and waiter is not WAITING_INLINE and not waiter.done():
            waiter.set_result(None)

    def pause_writing(self) -> None:
        """Called by the engine."""
        self._drainers = []

    def resume_writing(self) -> None:
        """Called by the engine."""
        drainers, self._drainers = self._drainers, None
        for waiter in drainers or ():
            if not waiter.done():
                waiter.set_result(None)

    @property
    def writing_paused(self) -> bool:
        """Whether the write buffer is over its limit, because the server reads too slowly."""
        return self._drainers is not None

    async def drained(self) -> None:
        """Wait until the write buffer gets under its limit, or the connection ends."""
        if self._drainers is None:
            return
        waiter = self._create_future()
        self._drainers.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if self._drainers is not None and waiter in self._drainers:
                self._drainers.remove(waiter)
            raise

    def _ended_normally(self, ending: CloseInfo) -> bool:
        rcvd, sent = ending.rcvd, ending.sent
        if self.closed_by_user:
            # A server may close TCP without a close frame of its own; it must not leave us waiting, or complain.
            if rcvd is None:
                return not self._cut
            return rcvd.code in OK_CLOSE_CODES or (sent is not None and rcvd.code == sent.code)
        return rcvd is not None and rcvd.code in OK_CLOSE_CODES and (sent is None or sent.code in OK_CLOSE_CODES)

    def closed_error(self) -> ConnectionClosed:
        """A new exception that says how the connection ended."""
        ending = self._ending
        assert ending is not None
        kind = ConnectionClosedOK if self._ended_normally(ending) else ConnectionClosedError
        error = kind(ending.rcvd, ending.sent, ending.rcvd_then_sent, closed_by_user=self.closed_by_user)
        error.__cause__ = ending.error
        return error

    # Phases

    @property
    def connected(self) -> bool:
        """Whether frames may be sent."""
        return self._is(Phase.OPEN, Phase.RESTORING)

    @property
    def ready(self) -> bool:
        """Whether this task may use the connection now."""
        return self._phase is Phase.OPEN or (self._phase is Phase.RESTORING and _restoring.get() is self)

    async def until_ready(self) -> None:
        """
        Wait while the connection is being made again.

        Raises:
            ConnectionClosed: it is over.
        """
        while not self.ready:
            if self._is(Phase.CLOSED):
                raise self.closed_error()
            await self._phase_change()

    async def _ready_for(self, request_type: str, started: float) -> float:
        """Wait until the connection can be used; gives the time from which the operation counts."""
        if self.ready:
            return started
        closed_before = self.closed_by_user
        try:
            await self.until_ready()
        except ConnectionClosed as exc:
            # A wait that this side ended is as if it had been cancelled.
            if closed_before or not self.closed_by_user:
                self._report_failure(request_type, started, exc)
            raise
        return perf_counter()

    def _is(self, *phases: Phase) -> bool:
        return self._phase in phases

    def _advance(self, event: Event) -> None:
        self._phase = next_phase(self._phase, event)
        if self._phase_waiters:
            self._wake_phase_waiters()

    async def _phase_change(self) -> None:
        waiter = self._create_future()
        self._phase_waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._phase_waiters:
                self._phase_waiters.remove(waiter)
            raise

    def _wake_phase_waiters(self) -> None:
        waiters, self._phase_waiters = self._phase_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # Reports, other than the two of the hot path

    def report(
        self,
        request_type: str,
        name: str,
        started: float,
        duration: float | None,
        size: int,
        error: BaseException | None,
        response: object,
    ) -> None:
        """Report one operation, if rows of its type are reported. ``started``: perf_counter; ``duration``: seconds."""
        if error is not None and self._recorder is not None:
            self._recorder.save(request_type, name, error)
        client = self.client
        if request_type in client.reported:
            milliseconds = None if duration is None else duration * 1000.0
            client.report(request_type, name, milliseconds, size, error, started, self.url, response)

    def report_in_background(
        self,
        request_type: str,
        name: str,
        started: float,
        duration: float | None,
        size: int,
        error: BaseException | None,
        response: object,
    ) -> None:
        """The same where no task waits, to which an exception of the report could go."""
        try:
            self.report(request_type, name, started, duration, size, error, response)
        except BaseException as exc:
            self.escalate(exc)

    def escalate(self, exc: BaseException) -> None:
        """
        Pass on what a report, a handler or ``on_connected`` raised where no task waits for it.

        Raised from a callback of the loop it would end the connection: a transport takes it for an error of its own.
        """
        if is_kill(exc):
            self.interrupted = True
            if isinstance(exc, (KeyboardInterrupt, SystemExit)) or not _in_callback():
                raise exc
        if isinstance(exc, asyncio.CancelledError):
            # Of something else than a task of ours; whoever got it would take it for a cancellation of their own.
            error = RuntimeError("something was awaited, or asked for its result, that had been cancelled")
            error.__cause__ = exc
            exc = error
        self.client.escalate(exc)

    def report_late(self, name: str, started: float, received: Received) -> None:
        """Report a reply that came after its timeout, or after the request was cancelled."""
        self.stats.late_replies += 1
        if self.closed_by_user or self.interrupted:
            return  # as of every request that was cancelled because the user stops
        duration = received.arrived - started
        self.report_in_background(REQUEST, f"{name} (late)", started, duration, received.size, None, received.message)

    def _report_failure(self, request_type: str, started: float, error: BaseException) -> None:
        self.report(request_type, self.name, started, perf_counter() - started, 0, error, None)

    def _report_session(self) -> None:
        error = self.closed_error()
        failure = None if isinstance(error, ConnectionClosedOK) else error
        duration = perf_counter() - self._opened_at
        session = Session(error.close_code, error.close_reason, duration, self.stats)
        self.report_in_background(SESSION, self.name, self._opened_at, duration, 0, failure, session)
