"""The connection that a task holds: sends, receives, measures."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from json import dumps, loads
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from websockets.exceptions import ConcurrencyError
from websockets.frames import OK_CLOSE_CODES, Close
from websockets.http11 import Request, Response
from websockets.protocol import State

from ..exceptions import (
    ConnectError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    PingTimeout,
    WebSocketError,
)
from .backoff import Backoff
from .dispatch import Dispatch
from .encoding import encode
from .engines.base import TEXT, Ending, Wire
from .exchanges import Exchange, Received
from .handlers import Handler, SentAt, Subscription
from .heartbeat import Heartbeat
from .lifecycle import STATES, Event, Phase, next_phase
from .matching import Correlation, Match, any_message, matches
from .opening import open_wire
from .options import ConnectOptions
from .phases import ConnectPhases
from .recorder import recorder_for
from .report import CONNECT, PING, RECV, REQUEST, SEND, SESSION
from .statistics import Session, Statistics

if TYPE_CHECKING:
    from .client import WebSocketClient

__all__ = ["DEFAULT", "Latency", "WebSocketConnection"]

DEFAULT: Any = object()
"""Stands for "as the options say" where None has a meaning of its own."""

_logger = logging.getLogger("locust_ws_async.client")
_warned: set[str] = set()  # the rows whose queue was full once; one warning each is enough
_random_bytes = random.Random().randbytes

_OPEN, _CLOSED = Phase.OPEN, Phase.CLOSED

_restoring: ContextVar[WebSocketConnection | None] = ContextVar("restoring", default=None)
"""In ``on_connected``, and in the tasks that it makes: the connection that it restores."""


class Latency(float):
    """Seconds from ping to pong. Awaiting it again gives the same, as code written for ``websockets`` does."""

    def __await__(self) -> Generator[None, None, float]:
        return self
        yield


class WebSocketConnection:
    """
    An open WebSocket connection, made by :meth:`WebSocketClient.connect`.

    It can be used like :class:`websockets.asyncio.client.ClientConnection`, also by a library that is handed one.
    Messages are read as they arrive, whether a task waits or not; ``recv`` takes them from a queue.

    Each ``send`` is a ``WS SEND`` row, each ``recv`` a ``WS RECV`` row, each ``ping`` a ``WS PING`` row, and the
    connection as a whole a ``WS SESSION`` row when it ends. A cancelled wait is not reported.
    """

    __slots__ = (
        "_announced",
        "_close_timer",
        "_create_future",
        "_cut",
        "_dispatch",
        "_drainers",
        "_ending",
        "_epoch",
        "_established",
        "_heartbeat",
        "_id",
        "_loop",
        "_max_queue",
        "_opened_at",
        "_options",
        "_phase",
        "_phase_waiters",
        "_pings",
        "_queue",
        "_reconnecting",
        "_recorder",
        "_report_recv",
        "_report_send",
        "_sessions",
        "_waiter",
        "_wire",
        "_write",
        "client",
        "closed_by_user",
        "latency",
        "name",
        "queue_wait",
        "reading_paused",
        "stats",
        "url",
    )

    _wire: Wire
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
        # perf_counter times the operations; this makes an epoch time of one of its values.
        self._epoch = time.time() - perf_counter()
        self._id: uuid.UUID | None = None

        # The life of the connection, and the present session: what lies between one handshake and its end.
        self._phase = Phase.CONNECTING
        self._phase_waiters: list[asyncio.Future[None]] = []
        self._reconnecting: asyncio.Task[None] | None = None
        self._established = False  # whether it was open once; before that there is nothing to reconnect
        self._sessions = 0  # how many have ended
        self._announced = False  # whether the present one has been reported as connected
        self._opened_at = 0.0
        self._ending: Ending | None = None
        self._cut = False
        self.closed_by_user = False
        """Whether this side closed the connection."""

        self._queue: deque[tuple[str | bytes, int, float]] = deque()
        self._max_queue = options.max_queue or float("inf")
        self._waiter: asyncio.Future[None] | None = None
        self.reading_paused = False
        """Whether the queue is full, so that nothing is read from the socket."""
        self.queue_wait = 0.0
        """Seconds that the last message had waited in the queue when it was taken: the time that a task was late."""

        self._dispatch = Dispatch(self, self._loop, options.keepalive_rules) if options.keepalive_rules else None
        self._drainers: list[asyncio.Future[None]] | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._heartbeat: Heartbeat | None = None
        self._pings: dict[bytes, tuple[asyncio.Future[float] | None, float]] = {}
        self.latency = 0.0
        """Seconds from the last answered ping to its pong; 0.0 before the first."""

        self.stats = Statistics()
        """What was counted."""
        self._recorder = recorder_for(self, options)

    def __repr__(self) -> str:
        return f"<WebSocketConnection {self.name} {self._phase.name}>"

    # What is known about the connection

    @property
    def id(self) -> uuid.UUID:
        """A unique identifier, for logs."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @property
    def state(self) -> State:
        """The state of RFC 6455: CONNECTING, OPEN, CLOSING, CLOSED."""
        return STATES[self._phase]

    @property
    def handshake_request(self) -> Request:
        """The opening handshake as it was sent; ``request`` of a connection of ``websockets``."""
        return self._wire.request

    @property
    def response(self) -> Response:
        """The server's answer to the opening handshake: ``status_code`` and ``headers``."""
        return self._wire.response

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose."""
        return self._wire.subprotocol

    @property
    def local_address(self) -> Any:
        """The address of this side's socket; None when it is closed."""
        return self._wire.transport.get_extra_info("sockname")

    @property
    def remote_address(self) -> Any:
        """The address of the server's socket; None when it is closed."""
        return self._wire.transport.get_extra_info("peername")

    @property
    def close_code(self) -> int | None:
        """The server's close code; 1005 for a close frame without one, 1006 for none; None until closed."""
        if self._ending is None:
            return None
        return 1006 if self._ending.rcvd is None else int(self._ending.rcvd.code)

    @property
    def close_reason(self) -> str | None:
        """The server's close reason; None until closed."""
        if self._ending is None:
            return None
        return "" if self._ending.rcvd is None else self._ending.rcvd.reason

    # Sending

    async def send(self, message: str | bytes | bytearray | memoryview, *, text: bool | None = None) -> None:
        """
        Send a message: a str as text, anything else as binary. ``text`` overrides that, for UTF-8 bytes or the reverse.

        The message is written at once; then this waits only while the write buffer is over its limit, because the
        server reads too slowly. The ``WS SEND`` row has the time of both. A connection that is being made again is
        waited for first.

        Cancelling does not take the message back.

        Raises:
            ConnectionClosed: the connection is over.
            TypeError: the message is neither str nor bytes-like.
        """
        started = perf_counter()
        opcode, payload = encode(message, text)
        if self._phase is not _OPEN:
            started = await self._ready_for(SEND, started)
        size = len(payload)
        self._write(opcode, payload)
        stats = self.stats
        if opcode == TEXT:
            stats.texts_sent += 1
            stats.text_bytes_sent += size
        else:
            stats.binaries_sent += 1
            stats.binary_bytes_sent += size
        if self._drainers is not None:
            await self._drain(started)
        report = self._report_send
        if report is not None:
            report(
                SEND, self.name, (perf_counter() - started) * 1000.0, size, None, started + self._epoch, self.url, None
            )

    async def send_json(self, value: Any) -> None:
        """Send this value as a text message of compact JSON. Otherwise the same as :meth:`send`."""
        await self.send(dumps(value, separators=(",", ":")))

    async def _drain(self, started: float) -> None:
        assert self._drainers is not None
        session = self._sessions
        waiter = self._create_future()
        self._drainers.append(waiter)
        await waiter
        if self._sessions != session:
            error = self.closed_error()
            self._report_failure(SEND, started, error)
            raise error

    def write(self, opcode: int, payload: bytes) -> None:
        """Write a message and count it. Called for what is not sent by ``send``, and has rows of its own."""
        self._write(opcode, payload)
        if opcode == TEXT:
            self.stats.texts_sent += 1
            self.stats.text_bytes_sent += len(payload)
        else:
            self.stats.binaries_sent += 1
            self.stats.binary_bytes_sent += len(payload)

    # Receiving

    def recv(self, decode: bool | None = None) -> Coroutine[Any, Any, Any]:
        """
        Wait for the next message: str for text, bytes for binary. With ``decode``: True gives str, False bytes.

        The ``WS RECV`` row has the time from this call to the arrival of the message at the socket; 0 when it was there
        already. What it waited in the queue for this call is ``queue_wait``.

        Cancelling is safe: no message is lost, and the wait is not reported. Nor is a wait that ends because this side
        closed the connection.

        Raises:
            ConnectionClosed: the connection ended and all messages are taken.
            websockets.exceptions.ConcurrencyError: another task waits in ``recv``.
        """
        return self._receive(decode, False)

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Any]:
        return self._receive(None, True)

    async def recv_json(self) -> Any:
        """
        Wait for the next message and parse it. Otherwise the same as :meth:`recv`.

        Raises:
            json.JSONDecodeError: it is not JSON.
        """
        return loads(await self._receive(None, False))

    async def _receive(self, decode: bool | None, iterating: bool) -> str | bytes:
        called = perf_counter()
        queue = self._queue
        waiter = None
        while not queue:
            if self._phase is _CLOSED:
                raise self._no_more_messages(called, iterating, waited=waiter is not None)
            if self._waiter is not None:
                raise ConcurrencyError("cannot call recv while another task waits in recv on the same connection")
            waiter = self._waiter = self._create_future()
            try:
                await waiter
            except BaseException:
                if self._waiter is waiter:
                    self._waiter = None
                raise
        message, size, arrived = queue.popleft()
        if self.reading_paused:
            self._taken()
        waited = arrived - called
        if waited < 0.0:
            self.queue_wait = -waited
            waited = 0.0
        else:
            self.queue_wait = 0.0
        report = self._report_recv
        if report is not None:
            report(RECV, self.name, waited * 1000.0, size, None, called + self._epoch, self.url, message)
        if decode is None:
            return message
        if decode:
            return message.decode() if isinstance(message, bytes) else message
        return message.encode() if isinstance(message, str) else message

    def _no_more_messages(self, called: float, iterating: bool, waited: bool) -> Exception:
        error = self.closed_error()
        if isinstance(error, ConnectionClosedOK):
            if iterating:
                return StopAsyncIteration()
            if waited and self.closed_by_user:
                return error
        self._report_failure(RECV, called, error)
        return error

    def queued(self, match: Match, take: bool = True, limit: int | None = None) -> list[Received]:
        """The messages that match among those that wait for ``recv``; takes them away if told to."""
        found: list[Received] = []
        left: list[tuple[str | bytes, int, float]] = []
        for entry in self._queue:
            if len(found) != limit and matches(match, entry[0]):
                found.append(Received(*entry))
            else:
                left.append(entry)
        if take and found:
            self._queue.clear()
            self._queue.extend(left)
            self._taken()
        return found

    def put_back(self, received: Received) -> None:
        """Leave a message to the next ``recv`` after all. Called by ``expect``."""
        self._queue.appendleft(received)
        self._wake_receiver()

    # Certain messages. Who gets what is in dispatch.py.

    @property
    def dispatch(self) -> Dispatch:
        """What takes messages before ``recv``; made when first needed."""
        if self._dispatch is None:
            self._dispatch = Dispatch(self, self._loop, ())
        return self._dispatch

    def request(
        self,
        payload: Any,
        *,
        match: Match | Correlation = any_message,
        timeout: float | None = DEFAULT,
        name: str | None = None,
        catch_response: bool = False,
    ) -> Exchange:
        """
        Send a message and wait for its reply: ``reply = await connection.request(...)``.

        The ``WS REQUEST`` row has the time from just before the send to the arrival of the reply. Any number of
        requests may be in flight, from any number of tasks. A reply that comes after its timeout is a row of its own,
        ``<name> (late)``, and goes to nobody else; so does that of a request that was cancelled.

        To check the reply before it is reported::

            async with connection.request({"op": "buy"}, catch_response=True) as reply:
                assert reply.json()["status"] == "ok"

        An ``AssertionError`` or ``CatchResponseError`` in the block makes the row a failure, and ends there. Any other
        exception makes it a failure too, and is raised.

        Cancelling stops the wait, which is then not reported; the message stays sent.

        Args:
            payload: str, bytes, or anything else to send as JSON.
            match: what the reply looks like: :func:`json_field` pairs it with the request; else a predicate on the
                message, or :func:`json_subset`, :func:`regex`, :func:`prefix`; by default the next message.
            timeout: seconds to wait, None for no limit; by default ``request_timeout``.
            name: the row's name; by default the connection's.
            catch_response: for ``async with``.

        Raises:
            MessageTimeout: there was no reply in time.
            ConnectionClosed: the connection is over, or ended before the reply.
            ValueError: the request has no such field as ``json_field`` looks for.
        """
        text = payload if isinstance(payload, (str, bytes)) else dumps(payload, separators=(",", ":"))
        key = match.key_of_request(text) if isinstance(match, Correlation) else None
        return self._exchange((*encode(text), key), match, timeout, name, False, catch_response)

    def expect(
        self,
        match: Match,
        *,
        timeout: float | None = DEFAULT,
        name: str | None = None,
        optional: bool = False,
        catch_response: bool = False,
    ) -> Exchange:
        """
        Wait for a message that matches; also for one that is there already and waits for ``recv``.

        The ``WS RECV`` row has the time from this call to the arrival. Otherwise like :meth:`request`, except that a
        message that comes after the timeout is not late: it is for whoever wants it.

        Args:
            match: a predicate on the message.
            timeout: seconds to wait, None for no limit; by default ``request_timeout``.
            name: the row's name; by default the connection's.
            optional: a timeout is no failure: the result is None, and the row has no time.
            catch_response: for ``async with``.
        """
        if isinstance(match, Correlation):
            raise TypeError("json_field pairs a reply with its request; to expect a value: json_subset({...: value})")
        return self._exchange(None, match, timeout, name, optional, catch_response)

    def _exchange(
        self,
        payload: tuple[int, bytes, Any] | None,
        match: Match | Correlation,
        timeout: float | None,
        name: str | None,
        optional: bool,
        checked: bool,
    ) -> Exchange:
        if timeout is DEFAULT:
            timeout = self._options.request_timeout
        return Exchange(self, payload, match, timeout, self.name if name is None else name, optional, checked)

    def on(self, match: Match, handler: Handler, *, name: str | None = None) -> Subscription:
        """
        Handle the messages that match, as they arrive and whatever the tasks do; also those that are there already and
        wait for ``recv``. They do not reach ``recv``.

        Each is a ``WS PUSH`` row without a time; it is a failure if the handler raises, and ends nothing else.

        Args:
            match: a predicate on the message.
            handler: called with the message, in the order of arrival. If it is ``async def``, later messages for
                handlers wait until it is done.
            name: the rows' name; by default the connection's.
        """
        return self.dispatch.handlers.on(match, handler, self.name if name is None else name)

    def measure_push(
        self,
        match: Match,
        *,
        sent_at: SentAt,
        name: str | None = None,
        clock_offset: float = 0.0,
        take: bool = True,
    ) -> Subscription:
        """
        Measure how old the messages that match are when they arrive, by a time in their payload. Those that are there
        already count too.

        Each is a ``WS PUSH`` row with its age. An age may be negative, when the clocks differ: it is reported so.

        Args:
            match: a predicate on the message.
            sent_at: the JSON field with the time, in seconds or milliseconds since the epoch (a name, or a tuple of
                names and indexes); or a function from the message to that number.
            name: the rows' name; by default the connection's.
            clock_offset: seconds that the server's clock is ahead of this machine's.
            take: False leaves the messages to handlers and ``recv`` as well.
        """
        handlers = self.dispatch.handlers
        return handlers.measure_push(match, sent_at, self.name if name is None else name, clock_offset, take)

    # Pings

    async def ping(self, data: str | bytes | None = None, *, timeout: float | None = None) -> Latency:
        """
        Send a ping and wait for its pong. Both times are the socket's: the ``WS PING`` row is ping to pong.

        Cancelling stops the wait, which is then not reported.

        Args:
            data: what the pong must carry, up to 125 bytes; by default 4 random bytes.
            timeout: seconds to wait; by default ``ping_timeout``.

        Returns:
            The seconds from ping to pong.

        Raises:
            PingTimeout: there was no pong in time.
            ConnectionClosed: the connection is over, or ended before the pong.
        """
        payload = _random_bytes(4) if data is None else data.encode() if isinstance(data, str) else bytes(data)
        if len(payload) > 125:
            raise ValueError(f"a ping carries at most 125 bytes (RFC 6455 section 5.5), not {len(payload)}")
        if payload in self._pings:
            raise ConcurrencyError("another task waits for the pong to a ping with the same data")
        if timeout is None:
            timeout = self._options.ping_timeout
        sent = perf_counter()
        if self._phase is not _OPEN:
            sent = await self._ready_for(PING, sent)
        waiter: asyncio.Future[float] = self._create_future()
        self._pings[payload] = (waiter, sent)
        timer = None if timeout is None else self._loop.call_later(timeout, _expire, waiter)
        try:
            self.stats.pings_sent += 1
            self._wire.send_ping(payload)
            latency = await waiter
        except (PingTimeout, ConnectionClosed) as exc:
            self._report_failure(PING, sent, exc)
            raise
        finally:
            self._pings.pop(payload, None)
            if timer is not None:
                timer.cancel()
        self.report(PING, self.name, sent, latency, len(payload), None, None)
        return Latency(latency)

    def send_heartbeat(self) -> None:
        """Called by the heartbeat's timer."""
        payload = _random_bytes(4)
        self._pings[payload] = (None, perf_counter())
        self.stats.pings_sent += 1
        self._wire.send_ping(payload)

    def fail_unresponsive(self) -> None:
        """Called by the heartbeat: the peer answered no ping in ping_timeout. Nothing more is expected of it."""
        self._wire.fail(Close(1011, "keepalive ping timeout"))
        self._wire.transport.abort()

    # Closing

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """
        Send a close frame and wait until the server has closed the connection, for at most ``close_timeout`` seconds;
        then cut it. On a connection that is closed already this does nothing; one that is being made again is given up.

        Messages that have arrived can still be taken. Cancelling stops the wait; the connection is closed or cut in
        time all the same.

        Raises:
            ValueError: a code that must not be sent (RFC 6455 section 7.4), or a reason over 123 bytes.
        """
        self.start_close(_checked_close(code, reason))
        await self.wait_closed()

    def start_close(self, close: Close, timeout: float | None = None) -> None:
        """Begin what :meth:`close` does, and do not wait. ``timeout``: seconds, if less than ``close_timeout``."""
        timeout = self._options.close_timeout if timeout is None else min(timeout, self._options.close_timeout)
        match self._phase:
            case Phase.OPEN | Phase.RESTORING:
                self.closed_by_user = True
                self._advance(Event.CLOSE)
                self._stop_timers()
                if self.reading_paused:
                    self._resume_reading()  # the answer is behind what was not read
                self._wire.send_close(close)
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

    async def wait_closed(self) -> None:
        """Wait until the connection is closed for good, by whichever side. Cancelling changes nothing else."""
        while self._phase is not _CLOSED or self._reconnecting is not None:
            await self._phase_change()

    def abort(self) -> None:
        """Cut the connection at once and for good, without a close frame."""
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
        self._wire.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Also after an exception with 1000, where websockets sends 1011: a failed check or a user that is stopped is
        # the tester's business, and should not look like a broken client in the server's log.
        await self.close()

    # What the engine tells: the methods of engines.base.Sink. All of them run in the loop's read callback.

    def upgrading(self) -> None:
        """Called by the engine."""
        self.stats.connect.enter("upgrade")

    def opened(self, wire: Wire) -> None:
        """Called by the engine."""
        if self._phase is _CLOSED:  # given up while the answer was on its way
            wire.transport.abort()
            return
        self._opened_at = perf_counter()
        self.stats.connect.enter(None)
        self._wire = wire
        self._write = wire.send
        self.client.connections.add(self)
        if self._options.ping_interval is not None:
            self._heartbeat = Heartbeat(self, self._loop, self._options.ping_interval, self._options.ping_timeout)
        self._advance(Event.CONNECTED)
        if self._options.on_connected is None:
            self._restored()

    def message_received(self, message: str | bytes, size: int, arrived: float) -> None:
        """Called by the engine."""
        stats = self.stats
        if type(message) is str:
            stats.texts_received += 1
            stats.text_bytes_received += size
        else:
            stats.binaries_received += 1
            stats.binary_bytes_received += size
        dispatch = self._dispatch
        if dispatch is not None and dispatch.take(message, size, arrived):
            return
        queue = self._queue
        queue.append((message, size, arrived))
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
        else:
            length = len(queue)
            if length > stats.queue_high_water:
                stats.queue_high_water = length
            if length >= self._max_queue:
                self._queue_full()

    def ping_received(self, payload: bytes) -> None:
        """Called by the engine."""
        self.stats.pings_received += 1

    def pong_received(self, payload: bytes, arrived: float) -> None:
        """Called by the engine."""
        self.stats.pongs_received += 1
        if payload not in self._pings:
            return  # unsolicited: RFC 6455 section 5.5.3
        # It also answers the pings before it, if the server chose to answer the last one only (section 5.5.3).
        for ping in list(self._pings):
            waiter, sent = self._pings.pop(ping)
            if waiter is None:
                assert self._heartbeat is not None
                self._heartbeat.pong_received()
            elif not waiter.done():
                waiter.set_result(arrived - sent)
            if ping == payload:
                self.latency = arrived - sent
                return

    def closing(self) -> None:
        """Called by the engine."""
        if self._is(Phase.OPEN, Phase.RESTORING):
            self._end_session()

    def closed(self, ending: Ending) -> None:
        """Called by the engine."""
        if self._phase is _CLOSED:
            return  # see opened()
        self._ending = ending
        self._sessions += 1
        self.stats.closes_received += ending.rcvd is not None
        self.stats.closes_sent += ending.sent is not None
        self._stop_timers()
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        self.reading_paused = False
        self.resume_writing()
        for pong, _ in self._pings.values():
            if pong is not None and not pong.done():
                pong.set_exception(self.closed_error())
        self._pings.clear()
        if self._dispatch is not None:
            self._dispatch.pending.connection_lost(self.closed_error)
        if self._announced:
            self._report_session()
        backoff = self._options.reconnect
        if backoff is not None and self._phase is not Phase.CLOSING and self._is_to_reconnect(ending):
            self._advance(Event.LOST)
            if self._reconnecting is None or self._reconnecting.done():
                self._reconnecting = self._loop.create_task(self._reconnect(backoff))
                self._reconnecting.add_done_callback(self._reconnecting_ended)
        else:
            self._advance(Event.ENDED)
            self._finish()

    def pause_writing(self) -> None:
        """Called by the engine."""
        self._drainers = []

    def resume_writing(self) -> None:
        """Called by the engine."""
        drainers, self._drainers = self._drainers, None
        for waiter in drainers or ():
            if not waiter.done():
                waiter.set_result(None)

    # Opening, once or again and again

    async def open(self) -> None:
        """Called by the client: connect, and report that."""
        await self._attempt()
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
        started = perf_counter()
        try:
            await open_wire(
                client.engine,
                self.url,
                self._options,
                self if self._recorder is None else self._recorder.tap(self),
                phases,
                new_socket=client.new_socket,
                session=client.http_session,
            )
        except ConnectError as exc:
            self._advance(Event.FAILED)
            self._report_failure(CONNECT, started, exc)
            raise
        try:
            self.report(CONNECT, self.name, started, self._opened_at - started, 0, None, self.response)
        finally:
            self._announced = True
            if self._sessions != session:
                self._report_session()

    async def _restore(self) -> None:
        on_connected = self._options.on_connected
        if on_connected is None:
            return
        if self._phase is Phase.RESTORING:
            token = _restoring.set(self)
            try:
                await on_connected(self)
            finally:
                _restoring.reset(token)
        if self._phase is Phase.RESTORING:
            self._restored()
        elif not self.closed_by_user:
            raise self.closed_error()  # it was lost meanwhile

    def _restored(self) -> None:
        self._advance(Event.RESTORED)
        self._established = True
        if self._dispatch is not None:
            self._dispatch.keepalive.start()

    def _is_to_reconnect(self, ending: Ending) -> bool:
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
            except Exception as exc:
                failures += 1
                if not isinstance(exc, WebSocketError):
                    self.client.escalate(exc)  # of on_connected, or of a report
                if self._is(Phase.RESTORING):
                    self._wire.send_close(Close(1000, ""))
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

    # Phases

    @property
    def ready(self) -> bool:
        """Whether this task may use the connection now."""
        return self._phase is _OPEN or (self._phase is Phase.RESTORING and _restoring.get() is self)

    async def until_ready(self) -> None:
        """
        Wait while the connection is being made again.

        Raises:
            ConnectionClosed: it is over.
        """
        while not self.ready:
            if self._phase is _CLOSED:
                raise self.closed_error()
            await self._phase_change()

    async def _ready_for(self, request_type: str, started: float) -> float:
        """Wait until the connection can be used; gives the time from which the operation counts."""
        if self.ready:
            return started
        try:
            await self.until_ready()
        except ConnectionClosed as exc:
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
        await waiter

    def _wake_phase_waiters(self) -> None:
        waiters, self._phase_waiters = self._phase_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _end_session(self) -> None:
        """A close frame has gone out: give the server its time to end the connection."""
        self._advance(Event.ENDING)
        self._stop_timers()
        self._close_timer = self._loop.call_later(self._options.close_timeout, self._cut_connection)

    def _stop_timers(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._dispatch is not None:
            self._dispatch.keepalive.stop()

    def _finish(self) -> None:
        """The connection is closed for good."""
        self.client.connections.discard(self)
        self._wake_receiver()

    def _ended_normally(self, ending: Ending) -> bool:
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

    # The queue

    def _wake_receiver(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _queue_full(self) -> None:
        match self._options.overflow:
            case "pause":
                if not self.reading_paused and self._is(Phase.OPEN, Phase.RESTORING):
                    self._warn("Reading stops until half of them are taken, which also delays pings and pongs.")
                    self.reading_paused = True
                    self._wire.transport.pause_reading()
            case "drop":
                if len(self._queue) > self._max_queue:
                    self._warn("The oldest are dropped.")
                    self._queue.popleft()
                    self.stats.messages_dropped += 1
            case "fail":
                if len(self._queue) > self._max_queue and self._is(Phase.OPEN, Phase.RESTORING):
                    self._wire.fail(Close(1008, "receive queue full"))

    def _warn(self, consequence: str) -> None:
        level = logging.DEBUG if self.name in _warned else logging.WARNING
        _warned.add(self.name)
        _logger.log(
            level,
            "%s: %s messages wait for recv(), the limit max_queue. %s Receive faster, or set max_queue. "
            "(Warned once for each name.)",
            self.name,
            self._options.max_queue,
            consequence,
        )

    def _taken(self) -> None:
        if self.reading_paused and len(self._queue) <= self._max_queue / 2:
            self._resume_reading()

    def _resume_reading(self) -> None:
        self.reading_paused = False
        if not self._wire.transport.is_closing():
            self._wire.transport.resume_reading()

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
            client.report(request_type, name, milliseconds, size, error, started + self._epoch, self.url, response)

    def report_unawaited(
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
        except Exception as exc:
            self.client.escalate(exc)

    def report_late(self, name: str, started: float, received: Received) -> None:
        """Report a reply that came after its timeout."""
        self.stats.late_replies += 1
        duration = received.arrived - started
        self.report_unawaited(REQUEST, f"{name} (late)", started, duration, received.size, None, received.message)

    def _report_failure(self, request_type: str, started: float, error: BaseException) -> None:
        self.report(request_type, self.name, started, perf_counter() - started, 0, error, None)

    def _report_session(self) -> None:
        error = self.closed_error()
        failure = None if isinstance(error, ConnectionClosedOK) else error
        duration = perf_counter() - self._opened_at
        session = Session(error.close_code, error.close_reason, duration, self.stats)
        self.report_unawaited(SESSION, self.name, self._opened_at, duration, 0, failure, session)


def _checked_close(code: int, reason: str) -> Close:
    close = Close(code, reason)
    if code != 1005:
        try:
            close.check()
        except Exception:
            raise ValueError(f"close code {code!r} must not be sent: use 1000 to 1014 or 3000 to 4999") from None
    if len(reason.encode()) > 123:
        raise ValueError("a close reason has at most 123 bytes of UTF-8 (RFC 6455 section 5.5)")
    return close


def _expire(waiter: asyncio.Future[float]) -> None:
    if not waiter.done():
        waiter.set_exception(PingTimeout())
