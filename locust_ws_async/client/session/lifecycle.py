"""
Carries out what ``state.py`` decides: connects, reconnects, closes, wakes the tasks that wait.

Nothing is decided here. What happens goes to :class:`ConnectionState`, and :meth:`ConnectionLifecycle._do` executes the
decisions that come back.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Literal

from websockets.frames import Close

from ...exceptions import (
    ConnectError,
    ConnectionClosed,
    LostInOnConnected,
    OnConnectedTimeout,
    SettingFailed,
    WebSocketError,
)
from ...fast_paths import PLAIN
from ...hosting import cancels_current_task, inline_wait_of, no_inline_wait
from ...tracebacks import author_frames
from ..messages.queue import ReceiveQueue
from ..messages.reading import PauseByHand, ReadingPause, ReadRate
from ..messages.router import MessageRouter
from ..observing import unread
from ..observing.events import CONNECT, RECONNECT, RECV, SEND
from ..observing.log import warn_once
from ..observing.timing import ConnectPhases
from ..opening.url import without_credentials
from ..options import ConnectOptions, result_of
from ..wire.interface import CloseInfo, Sink, Wire
from ..wire.layers import ReadMeter
from .backoff import Retry
from .pings import Pings
from .reports import ConnectionOwner
from .state import (
    ConnectionState,
    Decision,
    Decisions,
    Do,
    ReportRecovery,
    SendClose,
    ShortenCloseTimer,
    StartCloseTimer,
    State,
)
from .waiting import ConnectionWaits, initializing

__all__ = ["ConnectionLifecycle"]

# The decisions of every connection.
_CANCEL_CLOSE_TIMER = Do.CANCEL_CLOSE_TIMER
_FAIL_WAITS = Do.FAIL_WAITS
_FINISH = Do.FINISH
_REPORT_SESSION = Do.REPORT_SESSION
_RESUME_READING = Do.RESUME_READING
_START_AUTO_REPLIES = Do.START_AUTO_REPLIES
_START_SESSION = Do.START_SESSION
_STOP_QUEUEING = Do.STOP_QUEUEING
_STOP_SENDING = Do.STOP_SENDING
_WAKE_STATE_WAITERS = Do.WAKE_STATE_WAITERS

_SILENCE = 60.0  # seconds for which a server that pings has enough time to find out


class ConnectionLifecycle(ConnectionWaits, ABC):
    """
    The part of a :class:`WebSocketConnection` that lives through what happens to it. It is never used alone.

    ``ConnectionReports`` says why the parts are base classes.
    """

    __slots__ = (
        "_close_timer",
        "_full_url",
        "_options",
        "_pause_by_hand",
        "_read_rate",
        "_reconnecting",
        "_report_recv",
        "_report_send",
        "_router",
        "_silent",
        "_wire_send",
        "next_url",
        "pings",
        "queue",
        "wire",
    )

    wire: Wire
    _wire_send: Callable[[int, bytes], None]

    def __init__(self, client: ConnectionOwner, url: str, name: str, options: ConnectOptions) -> None:
        retry = None if options.reconnect is None else Retry(options.reconnect)
        life = ConnectionState(
            close_timeout=options.close_timeout, has_on_connected=options.on_connected is not None, retry=retry
        )
        super().__init__(client, without_credentials(url), name, life)
        self._full_url = url
        self._options = options
        self._report_send = client.report_of(SEND)
        self._report_recv = client.report_of(RECV)
        self._close_timer: asyncio.TimerHandle | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self.next_url: Callable[[], Awaitable[str]] | None = None
        """Gives the URL of each attempt, where a function was given for it."""
        self._pause_by_hand: PauseByHand | None = None  # made by the first pause()
        self._read_rate: ReadRate | None = None  # of the present session, if the setting has a rate
        self.queue = ReceiveQueue(self, *self._queue_settings)
        self.pings = Pings(self, self._loop)
        self._router: MessageRouter | None = None
        self._silent: tuple[Wire, ...] = ()  # what was left to the server without a word

    @abstractmethod
    def _sink(self) -> Sink:
        """What the engine is to call: this connection, or the recorder in front of it."""

    def _do(self, decisions: Decisions) -> None:
        # By identity, and not by `match`, which looks each name up in the enumeration and compares.
        for decision in decisions:
            if decision is _WAKE_STATE_WAITERS:
                self._wake_state_waiters()
            elif decision is _START_SESSION:
                self.client.connections.opened(self)
                if self._options.ping_interval is not None:
                    self.pings.start_heartbeat(self._options.ping_interval, self._options.ping_timeout)
            elif decision is _START_AUTO_REPLIES:
                if self._router is not None:
                    self._router.auto_replies.start()
            elif decision is _STOP_SENDING:
                self.pings.stop_heartbeat()
                if self._router is not None:
                    self._router.auto_replies.stop()
            elif decision is _RESUME_READING:
                for pause in self._reading_pauses:
                    if pause.paused:
                        pause.resume()
            elif decision is _STOP_QUEUEING:
                if self._recv_waiter is None:
                    self.queue.stop()
            elif decision is _CANCEL_CLOSE_TIMER:
                if self._close_timer is not None:
                    self._close_timer.cancel()
                    self._close_timer = None
            elif decision is _FAIL_WAITS:
                self._fail_waits()
            elif decision is _FINISH:
                if self._router is not None:
                    self._router.finish(self._life.closed_by_us)
                self.client.connections.finish(self)
                self._wake_receiver()
                if self._router is not None:
                    self._router.subscriptions.finish(self._life.ended_here)
                self._end_silence(*self._silent)
            elif decision is _REPORT_SESSION:
                self._report_session()
            else:
                self._do_seldom(decision)

    def _do_seldom(self, decision: Decision) -> None:
        match decision:
            case SendClose(close):
                self.wire.send_close(close)
            case StartCloseTimer(seconds):
                self._close_timer = self._loop.call_later(seconds, self._close_timed_out)
            case ShortenCloseTimer(seconds):
                if self._close_timer is not None and self._close_timer.when() > self._loop.time() + seconds:
                    self._close_timer.cancel()
                    self._close_timer = self._loop.call_later(seconds, self._close_timed_out)
            case Do.NOTE_LOSS:
                self._lost_at = perf_counter()
            case ReportRecovery(failure):
                # Made again, it is ready when the answer arrives, unless on_connected has something to do first.
                at_once = failure is None and self._options.on_connected is None
                self._report_recovery(failure, self._opened_at if at_once else perf_counter())
            case Do.COUNT_RECONNECT:
                self.stats.reconnects += 1
            case Do.ABORT_TRANSPORT:
                self.wire.abort()
            case Do.RECONNECT:
                if self._reconnecting is None or self._reconnecting.done():
                    self._reconnecting = self._loop.create_task(self._reconnect())
                    self._reconnecting.add_done_callback(self._reconnecting_ended)
            case Do.CANCEL_RECONNECT:
                if self._reconnecting is not None:
                    self._reconnecting.cancel()

    # Connecting, once or again and again

    async def open(self) -> None:
        """Connect for the first time, report that, and run ``on_connected``. Called by the client."""
        self.client.connections.begin(self)
        try:
            await self._attempt(CONNECT)
        except BaseException:
            self._do(self._life.give_up())
            raise

    async def _attempt(self, request_type: str) -> None:
        options = self._options
        functions = options.functions
        if functions or self.next_url is not None:
            options = await self._ask_functions(request_type, functions)
        started = perf_counter()
        phases = self.stats.connect = ConnectPhases()
        try:
            await self.client.connect_to_url(self._full_url, options, self._sink(), phases)
        except ConnectError as exc:
            self._report_failure(request_type, started, exc)
            raise
        try:
            response_time = (self._opened_at - started) * 1000.0
            self.report(request_type, self.name, response_time, 0, None, started, self.wire.response)
        finally:
            self.wire.forget_response()
            self._do(self._life.connect_reported())
        on_connected: Callable[[Any], Awaitable[object]] | None = self._options.on_connected
        if on_connected is not None:
            await self._initialize(on_connected, request_type, started)

    async def _ask_functions(self, request_type: str, functions: dict[str, Callable[[], Any]]) -> ConnectOptions:
        """
        The settings of this attempt, and its URL, where functions of the author give them.

        Their time counts into no row, so that the row of one that fails has none.
        """
        options = self._options
        started = perf_counter()
        setting = "the URL"
        try:
            if self.next_url is not None:
                self._full_url = await self.next_url()
                self.url = without_credentials(self._full_url)
            for setting, function in functions.items():
                options = options.replace({setting: await result_of(function)})
        except self.error_kinds.control_flow:
            raise
        except (Exception, asyncio.CancelledError) as exc:
            if cancels_current_task(exc):
                raise
            error = SettingFailed(setting, exc)
            warn_once(self.name, setting, str(error), exc.with_traceback(author_frames(exc.__traceback__)))
            self.report(request_type, self.name, None, 0, error, started, None)
            raise error from exc
        return options

    async def _initialize(
        self, on_connected: Callable[[Any], Awaitable[object]], request_type: str, started: float
    ) -> None:
        life = self._life
        if life.state is State.INITIALIZING:
            token = initializing.set(self)
            limit = asyncio.timeout(self._options.on_connected_limit)
            try:
                async with limit:
                    await on_connected(self)
            except TimeoutError:
                if not limit.expired():
                    raise
                error = OnConnectedTimeout()
                self._report_failure(request_type, started, error)
                raise error from None
            except ConnectionClosed:
                if self.connected or life.closed_by_us:  # another connection, or its own doing
                    raise
            finally:
                initializing.reset(token)
        self._do(life.on_connected_done())
        if life.state is not State.OPEN and not life.closed_by_us:  # it was lost meanwhile
            await self._wait_while(State.WAITING_FOR_EOF, State.CLOSING)
            lost = LostInOnConnected(self.closed_error())
            self._report_failure(request_type, started, lost)
            raise lost

    async def _reconnect(self) -> None:
        """Run as a task, from the loss of the connection until it is open again or given up."""
        life = self._life
        try:
            while life.state is State.BACKING_OFF:
                await asyncio.sleep(life.delay)
                self._do(life.delay_over())
                try:
                    await self._attempt(RECONNECT)
                except (Exception, asyncio.CancelledError) as exc:
                    if cancels_current_task(exc):
                        raise
                    if not isinstance(exc, WebSocketError):
                        self.escalate(exc)  # of on_connected, or of a report
                    self._do(life.attempt_failed())
                    await self._wait_while(State.WAITING_FOR_EOF)
        except BaseException:
            self._do(life.give_up())
            raise

    def _reconnecting_ended(self, task: asyncio.Task[None]) -> None:
        if self._reconnecting is task:
            self._reconnecting = None
            if self._life.state is State.BACKING_OFF:  # cancelled before it began, when it could not say so itself
                self._do(self._life.give_up())
            self._wake_state_waiters()

    # What the engine calls, other than for messages

    def upgrading(self) -> None:
        """Note that the opening handshake begins. Called by the engine."""
        self.stats.connect.enter("upgrade")

    def opened(self, wire: Wire, arrived: float) -> None:
        """Begin a session. Called by the engine."""
        self._opened_at = arrived
        self.stats.connect.enter(None, arrived)
        unread.connections.opened(stamped=wire.stamped)
        self.wire = wire
        self._wire_send = wire.send
        if self._options.read_rate is not None:
            self._start_metering(self._options.read_rate)
        self._do(self._life.handshake_done())

    def closing(self) -> None:
        """Note that a close frame went out which nobody here ordered. Called by the engine."""
        self._do(self._life.closing())

    def closed(self, info: CloseInfo) -> None:
        """End the session. Called by the engine."""
        decisions = self._life.closed(info)
        if decisions:
            self.stats.closes_received += info.rcvd is not None
            self.stats.closes_sent += info.sent is not None
            self.client.connections.tally.session_ended(info, closed_by_us=self._life.closed_by_us)
        self._do(decisions)

    # Closing

    def start_close(self, close: Close, timeout: float | None = None) -> None:
        """Begin what ``close()`` does, and do not wait. ``timeout``: seconds, if less than ``close_timeout``."""
        seconds = self._options.close_timeout
        if timeout is not None:
            seconds = min(seconds, timeout)
        self._do(self._life.close(close, seconds, by_on_connected=self._in_on_connected))

    def abort(self) -> None:
        """Cut the connection at once and for good, without a close frame."""
        self._do(self._life.abort(by_on_connected=self._in_on_connected))
        self._end_silence(*self._silent)

    @property
    def is_droppable(self) -> bool:
        """Whether the connection is open, and would be made again if it were lost."""
        return self._life.state is State.OPEN and self._life.reconnects

    def drop_soon(self, how: Literal["abort", "close", "silence"]) -> None:
        """
        Lose the connection, as by accident, so that it is made again. Any greenlet of the thread may call it.

        Args:
            how: "abort" cuts TCP; "close" sends a close frame with 1001; "silence" leaves the old connection to the
                server, but does not read or write on it for a minute, and cuts it then.
        """
        self._loop.call_soon(self._drop, how)

    def _drop(self, how: Literal["abort", "close", "silence"]) -> None:
        if not self.is_droppable:
            return
        if how == "close":
            self._do(self._life.drop())
        elif how == "abort":
            self.wire.abort()
        else:
            wire = self.wire
            sink = wire.fall_silent()
            self._silent += (wire,)
            self._loop.call_later(_SILENCE, self._end_silence, wire)
            sink.closed(CloseInfo(None, None, None))

    def _end_silence(self, *wires: Wire) -> None:
        for wire in wires:
            wire.abort()
        self._silent = tuple(wire for wire in self._silent if wire not in wires)

    def _close_timed_out(self) -> None:
        self._do(self._life.close_timed_out())

    async def wait_closed(self) -> None:
        """Wait until the connection is closed for good, by whichever side. Cancelling changes nothing else."""
        started = perf_counter()
        try:
            await self._until_closed()
        except asyncio.CancelledError:
            self.note_cancelled("wait_closed()", self.name, started, "")  # it is no sign of a mistake
            raise

    async def _until_closed(self) -> None:
        if self._life.state is State.CLOSED:
            await asyncio.sleep(0)  # a loop around this call must not stop everybody
        # See the fast path "inline wait".
        wait_inline = no_inline_wait if PLAIN else inline_wait_of(self._loop)
        # An on_connected that closes the connection is part of the task `_reconnecting`, and must not wait for that.
        while self._life.state is not State.CLOSED or (self._reconnecting is not None and not self._in_on_connected):
            if not wait_inline():
                await self._state_change()

    # Reading

    def pause(self) -> None:
        """
        Stop reading, until :meth:`resume`: TCP then pushes back, and the server's buffers fill, as behind a client that
        hangs or a network that is gone. Messages that were read before are still delivered.

        Meanwhile nothing at all is read: the server's pings are not answered, no reply and no pong comes, and the end
        of the connection is noticed only when something is written. The pings of ``ping_interval`` go on, but no
        missing pong fails the connection. :meth:`close` reads on, for the server's answer. A loss ends the pause: a
        connection that is made again reads. On a connection that is not connected this does nothing.
        """
        if self.connected:
            if self._pause_by_hand is None:
                self._pause_by_hand = PauseByHand(self)
            self._pause_by_hand.stop_reading()

    def resume(self) -> None:
        """Read on after :meth:`pause`. Without one this does nothing."""
        if self._pause_by_hand is not None and self._pause_by_hand.paused:
            self._pause_by_hand.resume()

    def _start_metering(self, rate: float) -> None:
        self._read_rate = ReadRate(self, self._loop, rate)
        transport = self.wire.transport
        # In steps of a tenth of a second, as far as reads can be so short or so long.
        most = min(max(1024, round(rate / 10)), 65536)
        transport.set_protocol(ReadMeter(transport.get_protocol(), self._read_rate.note_read, most))

    @property
    def reading_paused(self) -> bool:
        """Whether nothing is read from the socket: a queue is full, ``pause`` was called, or ``read_rate`` says so."""
        return any(pause.paused for pause in self._reading_pauses)

    @property
    def unread_because(self) -> str | None:
        """Why nothing has been read for a while; None if it was, or if ``read_rate`` alone is the reason."""
        return next((pause.unread_because for pause in self._reading_pauses if pause.paused), None)

    @property
    def _queue_settings(self) -> tuple[tuple[int | None, int | None], str]:
        return (self._options.max_queue, self._options.max_queue_bytes), self._options.overflow

    @property
    def _reading_pauses(self) -> tuple[ReadingPause, ...]:
        """All that may keep this connection from reading."""
        others = (self._pause_by_hand, self._read_rate)
        queues = () if self._router is None else self._router.queues
        return (self.queue, *queues, *(pause for pause in others if pause is not None))

    def _fail_waits(self) -> None:
        for pause in self._reading_pauses:
            pause.session_ended()
        self.resume_writing()
        self.pings.connection_lost(self.closed_error)
        if self._router is not None:
            self._router.connection_lost(self.closed_error, self._life.closed_by_us)
