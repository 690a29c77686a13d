"""The connection that a task holds: sends, receives, measures."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Generator
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
)
from .engines.base import BINARY, TEXT, Ending, Wire
from .heartbeat import Heartbeat
from .opening import open_wire
from .options import ConnectOptions
from .phases import ConnectPhases
from .report import CONNECT, PING, RECV, SEND, SESSION
from .statistics import Session, Statistics

if TYPE_CHECKING:
    from .client import WebSocketClient

__all__ = ["Latency", "WebSocketConnection"]

_logger = logging.getLogger("locust_ws_async.client")
_warned: set[str] = set()  # the rows whose queue was full once; one warning each is enough
_random_bytes = random.Random().randbytes

_CONNECTING, _OPEN, _CLOSING, _CLOSED = State.CONNECTING, State.OPEN, State.CLOSING, State.CLOSED


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
        "_client",
        "_close_timer",
        "_closed_by_user",
        "_closed_waiters",
        "_create_future",
        "_cut",
        "_drainers",
        "_ending",
        "_epoch",
        "_heartbeat",
        "_id",
        "_loop",
        "_max_queue",
        "_opened_at",
        "_options",
        "_pings",
        "_queue",
        "_report_recv",
        "_report_send",
        "_state",
        "_waiter",
        "_wire",
        "_write",
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
        self._client = client
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._create_future = self._loop.create_future
        self._report_send = client.report if SEND in client.reported else None
        self._report_recv = client.report if RECV in client.reported else None
        # perf_counter times the operations; this makes an epoch time of one of its values.
        self._epoch = time.time() - perf_counter()
        self._state = _CONNECTING
        self._announced = False
        self._closed_by_user = False
        self._cut = False
        self._ending: Ending | None = None
        self._opened_at = 0.0
        self._id: uuid.UUID | None = None

        self._queue: deque[tuple[str | bytes, int, float]] = deque()
        self._max_queue = options.max_queue or float("inf")
        self._waiter: asyncio.Future[None] | None = None
        self.reading_paused = False
        """Whether the queue is full, so that nothing is read from the socket."""
        self.queue_wait = 0.0
        """Seconds that the last message had waited in the queue when it was taken: the time that a task was late."""

        self._drainers: list[asyncio.Future[None]] | None = None
        self._closed_waiters: list[asyncio.Future[None]] = []
        self._close_timer: asyncio.TimerHandle | None = None
        self._heartbeat: Heartbeat | None = None
        self._pings: dict[bytes, tuple[asyncio.Future[float] | None, float]] = {}
        self.latency = 0.0
        """Seconds from the last answered ping to its pong; 0.0 before the first."""

        self.stats = Statistics()
        """What was counted."""

    def __repr__(self) -> str:
        return f"<WebSocketConnection {self.name} {self._state.name}>"

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
        return self._state

    @property
    def request(self) -> Request:
        """The opening handshake as it was sent."""
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
        server reads too slowly. The ``WS SEND`` row has the time of both.

        Cancelling does not take the message back.

        Raises:
            ConnectionClosed: the connection is over.
            TypeError: the message is neither str nor bytes-like.
        """
        started = perf_counter()
        if isinstance(message, str):
            payload = message.encode()
            opcode = BINARY if text is False else TEXT
        elif isinstance(message, (bytes, bytearray, memoryview)):
            payload = bytes(message)
            opcode = TEXT if text else BINARY
        else:
            raise TypeError(f"a message is str or bytes-like, not {type(message).__name__}")
        size = len(payload)
        if self._state is not _OPEN:
            raise await self._closed_during(SEND, started)
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
        waiter = self._create_future()
        self._drainers.append(waiter)
        await waiter
        if self._state is _CLOSED:
            raise await self._closed_during(SEND, started)

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
            if self._state is _CLOSED:
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
        if self.reading_paused and len(queue) <= self._max_queue / 2:
            self._resume_reading()
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
        error = self._closed_error()
        if isinstance(error, ConnectionClosedOK):
            if iterating:
                return StopAsyncIteration()
            if waited and self._closed_by_user:
                return error
        self._report_failure(RECV, called, error)
        return error

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
        if self._state is not _OPEN:
            raise await self._closed_during(PING, sent)
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
        self._report(PING, sent, latency, len(payload), None, None)
        return Latency(latency)

    def send_heartbeat(self) -> None:
        """Called by the heartbeat's timer."""
        if self._state is _OPEN:
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
        then cut it. On a connection that is closed already this does nothing.

        Messages that have arrived can still be taken. Cancelling stops the wait; the connection is closed or cut in
        time all the same.

        Raises:
            ValueError: a code that must not be sent (RFC 6455 section 7.4), or a reason over 123 bytes.
        """
        self.start_close(_checked_close(code, reason))
        await self.wait_closed()

    def start_close(self, close: Close, timeout: float | None = None) -> None:
        """Send the close frame of :meth:`close` and do not wait. ``timeout``: seconds, if less than close_timeout."""
        timeout = self._options.close_timeout if timeout is None else min(timeout, self._options.close_timeout)
        if self._state is _OPEN:
            self._closed_by_user = True
            self._state = _CLOSING
            if self._heartbeat is not None:
                self._heartbeat.stop()
            if self.reading_paused:
                self._resume_reading()  # the answer is behind what was not read
            self._wire.send_close(close)
            self._close_timer = self._loop.call_later(timeout, self.abort)
        elif self._close_timer is not None and self._close_timer.when() > self._loop.time() + timeout:
            self._close_timer.cancel()
            self._close_timer = self._loop.call_later(timeout, self.abort)

    async def wait_closed(self) -> None:
        """Wait until the connection is closed, by whichever side. Cancelling changes nothing else."""
        while self._state is not _CLOSED:
            waiter = self._create_future()
            self._closed_waiters.append(waiter)
            await waiter

    def abort(self) -> None:
        """Cut the connection at once, without a close frame."""
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
        self._opened_at = perf_counter()
        self.stats.connect.enter(None)
        self._wire = wire
        self._write = wire.send
        self._state = _OPEN
        self._client.connections.add(self)
        if self._options.ping_interval is not None:
            self._heartbeat = Heartbeat(self, self._loop, self._options.ping_interval, self._options.ping_timeout)

    def message_received(self, message: str | bytes, size: int, arrived: float) -> None:
        """Called by the engine."""
        stats = self.stats
        if type(message) is str:
            stats.texts_received += 1
            stats.text_bytes_received += size
        else:
            stats.binaries_received += 1
            stats.binary_bytes_received += size
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
            if length >= self._max_queue and not self.reading_paused and self._state is _OPEN:
                self._pause_reading()

    def ping_received(self) -> None:
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
        if self._state is _OPEN:
            self._state = _CLOSING
            if self._heartbeat is not None:
                self._heartbeat.stop()
            self._close_timer = self._loop.call_later(self._options.close_timeout, self.abort)

    def closed(self, ending: Ending) -> None:
        """Called by the engine."""
        self._ending = ending
        self._state = _CLOSED
        self.stats.closes_received += ending.rcvd is not None
        self.stats.closes_sent += ending.sent is not None
        self._client.connections.discard(self)
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._close_timer is not None:
            self._close_timer.cancel()
        for waiter in (self._waiter, *self._closed_waiters, *(self._drainers or ())):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        self._waiter = None
        for pong, _ in self._pings.values():
            if pong is not None and not pong.done():
                pong.set_exception(self._closed_error())
        self._pings.clear()
        if self._announced:
            self._report_session()

    def pause_writing(self) -> None:
        """Called by the engine."""
        self._drainers = []

    def resume_writing(self) -> None:
        """Called by the engine."""
        drainers, self._drainers = self._drainers, None
        for waiter in drainers or ():
            if not waiter.done():
                waiter.set_result(None)

    # Opening

    async def open(self) -> None:
        """Called by the client: connect, and report that."""
        client = self._client
        phases = self.stats.connect = ConnectPhases()
        started = perf_counter()
        try:
            await open_wire(
                client.engine,
                self.url,
                self._options,
                self,
                phases,
                new_socket=client.new_socket,
                session=client.http_session,
            )
        except ConnectError as exc:
            self._report_failure(CONNECT, started, exc)
            raise
        try:
            self._report(CONNECT, started, self._opened_at - started, 0, None, self.response)
        finally:
            self._announced = True
            if self._state is _CLOSED:
                self._report_session()

    # Limits and endings

    def _pause_reading(self) -> None:
        self.reading_paused = True
        self._wire.transport.pause_reading()
        level = logging.DEBUG if self.name in _warned else logging.WARNING
        _warned.add(self.name)
        _logger.log(
            level,
            "%s: %s messages wait for recv(), the limit max_queue. Reading stops until half of them are taken, which "
            "also delays pings and pongs. Receive faster, or set max_queue. (Warned once for each name.)",
            self.name,
            self._options.max_queue,
        )

    def _resume_reading(self) -> None:
        self.reading_paused = False
        if not self._wire.transport.is_closing():
            self._wire.transport.resume_reading()

    def _ended_normally(self, ending: Ending) -> bool:
        rcvd, sent = ending.rcvd, ending.sent
        if self._closed_by_user:
            # A server may close TCP without a close frame of its own; it must not leave us waiting, or complain.
            if rcvd is None:
                return not self._cut
            return rcvd.code in OK_CLOSE_CODES or (sent is not None and rcvd.code == sent.code)
        return rcvd is not None and rcvd.code in OK_CLOSE_CODES and (sent is None or sent.code in OK_CLOSE_CODES)

    def _closed_error(self) -> ConnectionClosed:
        ending = self._ending
        assert ending is not None
        kind = ConnectionClosedOK if self._ended_normally(ending) else ConnectionClosedError
        error = kind(ending.rcvd, ending.sent, ending.rcvd_then_sent, closed_by_user=self._closed_by_user)
        error.__cause__ = ending.error
        return error

    async def _closed_during(self, request_type: str, started: float) -> ConnectionClosed:
        await self.wait_closed()  # until then the server's code is not known
        error = self._closed_error()
        self._report_failure(request_type, started, error)
        return error

    # Reports, other than the two of the hot path

    def _report(
        self,
        request_type: str,
        started: float,
        duration: float,
        size: int,
        error: BaseException | None,
        response: object,
    ) -> None:
        client = self._client
        if request_type in client.reported:
            client.report(
                request_type, self.name, duration * 1000.0, size, error, started + self._epoch, self.url, response
            )

    def _report_failure(self, request_type: str, started: float, error: BaseException) -> None:
        self._report(request_type, started, perf_counter() - started, 0, error, None)

    def _report_session(self) -> None:
        error = self._closed_error()
        duration = perf_counter() - self._opened_at
        failure = None if isinstance(error, ConnectionClosedOK) else error
        session = Session(error.close_code, error.close_reason, duration, self.stats)
        try:
            self._report(SESSION, self._opened_at, duration, 0, failure, session)
        except Exception as exc:
            self._client.escalate(exc)  # nobody waits for the end of a session


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
