"""The connection that a task holds: sends, receives, measures."""

from __future__ import annotations

import asyncio
import uuid
from asyncio import CancelledError, sleep
from collections.abc import Coroutine, Generator
from json import dumps
from time import perf_counter
from types import TracebackType
from typing import Any, Never, Self, SupportsFloat

from websockets.exceptions import ConcurrencyError
from websockets.frames import Close
from websockets.http11 import Request, Response
from websockets.protocol import State as RFCState

from ..exceptions import ConnectionClosed, ConnectionClosedOK, MessageTimeout, PingTimeout
from ..hosting import no_inline_wait
from .lazy_coroutine import refuse_plain_with
from .messages.auto_replies import AutoReplies, KeepaliveRule
from .messages.matching import Correlation, Match, any_message, checked_match, take_json
from .messages.message import Received, encode
from .messages.queue import PLACE_BYTES, BoundedQueue
from .messages.requests import MessageWait, PendingWaits
from .messages.router import MessageRouter, StreamRouter
from .messages.since import checked_since
from .messages.streams import StreamContext, StreamRules, Streams
from .messages.subscriptions import Handler, SentAt, Subscription, Subscriptions
from .messages.tracking import FieldOf, Tracker
from .observing.events import PING, RECV, SEND
from .observing.flight_recorder import recorder_for
from .observing.log import warn_once
from .options import ConnectOptions
from .session.lifecycle import ConnectionLifecycle
from .session.reports import ConnectionOwner
from .session.state import RFC_STATES, State
from .session.waiting import WAITING_INLINE
from .wire.closing import code_in_frame
from .wire.frames import BINARY, TEXT
from .wire.interface import Sink

__all__ = ["DEFAULT", "Latency", "WebSocketConnection"]

DEFAULT: Any = object()
"""Stands for "as the options say" where None has a meaning of its own."""

_OPEN, _CLOSED = State.OPEN, State.CLOSED

# While the server reads fast, or not at all because the connection is lost, a send does not have to wait. A task that
# only sends would then keep the loop from everything else, the news of that loss included.
_SENDS_PER_YIELD = 32


class Latency(float):
    """
    A compatibility shim: seconds from ping to pong, which may be awaited.

    ``ping`` of ``websockets`` returns a future of the pong, so code that is written for it awaits twice:
    ``await (await connection.ping())``. Here the first ``await`` waits for the pong; the second gives the same number.
    """

    def __await__(self) -> Generator[None, None, float]:
        return self
        yield


class WebSocketConnection(ConnectionLifecycle):
    """
    An open WebSocket connection, made by :meth:`WebSocketClient.connect`.

    It can be used like :class:`websockets.asyncio.client.ClientConnection`, also by a library that is handed one
    (except that ``request`` is a method). Messages are read as they arrive, whether a task waits or not; ``recv`` takes
    them from a queue.

    Each ``send`` is a ``WS SEND`` row, each ``recv`` a ``WS RECV`` row, each ``request`` a ``WS REQUEST`` row, each
    ``ping`` a ``WS PING`` row, and the connection as a whole a ``WS SESSION`` row when it ends. A wait is not reported
    if it is cancelled, or if this side ends it by closing the connection.
    """

    __slots__ = ("_id", "_recv_timeout", "_sends_since_yield", "arrived", "queue_wait")

    def __init__(self, client: ConnectionOwner, url: str, name: str, options: ConnectOptions) -> None:
        """Made by :meth:`WebSocketClient.connect`."""
        super().__init__(client, url, name, options)
        self._id: uuid.UUID | None = None
        self._sends_since_yield = 0  # how many sends there were since the last wait in recv
        self.queue_wait = 0.0
        """Seconds that the last message had waited in the queue when it was taken: the time that a task was late."""
        self.arrived = 0.0
        """When the message arrived that a task or a handler was given last, by :func:`time.perf_counter`. Read it at
        once: the next message of this connection, whoever takes it, sets it anew."""
        self._recv_timeout = options.recv_timeout
        self._recorder = recorder_for(self, options.record_last, options.record_to, options.record_unmasked)
        if options.keepalive_rules:
            self._add_router(options.keepalive_rules)

    def __repr__(self) -> str:
        return f"<WebSocketConnection {self.name} {self._life.state.name}>"

    def _sink(self) -> Sink:
        return self if self._recorder is None else self._recorder.recording_sink(self)

    # What is known about the connection

    @property
    def id(self) -> uuid.UUID:
        """A unique identifier, for logs."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @property
    def state(self) -> RFCState:
        """The state of RFC 6455: CONNECTING, OPEN, CLOSING, CLOSED. A lost connection that reconnects is CONNECTING."""
        return RFC_STATES[self._life.state]

    @property
    def handshake_request(self) -> Request:
        """The opening handshake as it was sent; ``request`` of a connection of ``websockets``."""
        return self.wire.request

    @property
    def response(self) -> Response:
        """The server's answer to the opening handshake: ``status_code`` and ``headers``."""
        return self.wire.response

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose."""
        return self.wire.subprotocol

    @property
    def local_address(self) -> Any:
        """The address of this side's socket; None when it is closed."""
        return self.wire.transport.get_extra_info("sockname")

    @property
    def remote_address(self) -> Any:
        """The address of the server's socket; None when it is closed."""
        return self.wire.transport.get_extra_info("peername")

    @property
    def close_code(self) -> int | None:
        """The server's close code; 1005 for a close frame without one, 1006 for none; None until closed, or lost."""
        info = self._life.last_close_info
        if info is None:
            return None
        return 1006 if info.rcvd is None else int(info.rcvd.code)

    @property
    def close_reason(self) -> str | None:
        """The server's close reason; None until closed, or lost."""
        info = self._life.last_close_info
        if info is None:
            return None
        return "" if info.rcvd is None else info.rcvd.reason

    @property
    def latency(self) -> float:
        """Seconds from the last answered ping to its pong; 0.0 before the first."""
        return self.pings.latency

    # Sending

    async def send(self, message: str | bytes | bytearray | memoryview, *, text: bool | None = None) -> None:
        """
        Send a message: a str as text, anything else as binary.

        The message is written at once; then this waits only while the write buffer is over its limit, because the
        server reads too slowly. A connection that is being made again is waited for first. The ``WS SEND`` row has the
        time of all this. Every 32nd send in a row yields to the event loop, so that a task that only sends cannot
        starve the others. The yield is not part of the reported time.

        Cancelling does not take the message back, and the wait is then not reported. Nor is a wait that ends because
        this side closed the connection.

        Args:
            message: str or bytes-like.
            text: True sends bytes, which must be UTF-8, as text; False sends a str as binary.

        Raises:
            ConnectionClosed: the connection is over.
            TypeError: the message is neither str nor bytes-like.
        """
        started = perf_counter()
        opcode, payload = encode(message, text)
        if self._life.state is not _OPEN:
            await self._until_writable(started)
        self._write_and_count(opcode, payload)
        if self._drain_waiters is not None:
            await self._drain(started)
        report = self._report_send
        if report is not None:
            report(SEND, self.name, (perf_counter() - started) * 1000.0, len(payload), None, started, self.url, None)
        self._sends_since_yield += 1
        if self._sends_since_yield >= _SENDS_PER_YIELD:
            self._sends_since_yield = 0
            await sleep(0)

    async def _until_writable(self, started: float) -> None:
        began = self._life.state
        try:
            await self._until_ready()
        except ConnectionClosed as exc:
            await self.fail_as_closed(began, SEND, self.name, started, exc)
            raise
        except CancelledError:
            self.note_cancelled("send()", self.name, started)
            raise

    async def send_json(self, value: Any) -> None:
        """
        Send a value as a text message of compact JSON. Otherwise the same as :meth:`send`, also when it is cancelled.

        Args:
            value: what :func:`json.dumps` takes.

        Raises:
            ConnectionClosed: the connection is over.
            TypeError, ValueError: the value cannot be written as JSON; nothing is sent or reported then.
        """
        await self.send(dumps(value, separators=(",", ":")))

    async def _drain(self, started: float) -> None:
        sessions_ended = self._life.sessions_ended
        try:
            await self.drained()
        except CancelledError:
            self.note_cancelled("send()", self.name, started)
            raise
        if self._life.sessions_ended != sessions_ended:
            error = self.closed_error()
            await self.fail_as_closed(_OPEN, SEND, self.name, started, error)
            raise error

    def write(self, opcode: int, payload: bytes) -> None:
        """Write and count a message that has a row of its own, not that of ``send``; drop it after a close frame."""
        # No data may follow a close frame (RFC 6455 section 5.5.1), not even an answer to a keepalive. On a dead socket
        # asyncio would log a line for each.
        if not self.connected or self.wire.transport.is_closing():
            return
        self._write_and_count(opcode, payload)

    def _write_and_count(self, opcode: int, payload: bytes) -> None:
        # A slot is read and then called: the interpreter is quick with slots and with methods, and slow with a slot
        # that is called as a method.
        wire_send = self._wire_send
        wire_send(opcode, payload)
        stats = self.stats
        if opcode == TEXT:
            stats.texts_sent += 1
            stats.text_bytes_sent += len(payload)
        else:
            stats.binaries_sent += 1
            stats.binary_bytes_sent += len(payload)

    # Receiving

    def recv(
        self, decode: bool | None = None, *, timeout: float | None = DEFAULT, since: SupportsFloat | None = None
    ) -> Coroutine[Any, Any, Any]:
        """
        Wait for the next message.

        The ``WS RECV`` row has the time from this call to the arrival of the message at the socket; 0 when it was there
        already. What it waited in the queue for this call is ``queue_wait``. A timeout is a failed row.

        Cancelling is safe: no message is lost, and the wait is not reported. Nor is a wait that ends because this side
        closed the connection.

        Args:
            decode: True gives every message as str, False as bytes.
            timeout: seconds to wait, None for no limit; by default ``recv_timeout``.
            since: count the time from this instant, a ``time.perf_counter()`` or a ``connection.arrived``. Any message
                will do, also one that arrived before; its time is 0.

        Returns:
            The message: str for text and bytes for binary, unless ``decode`` says otherwise.

        Raises:
            MessageTimeout: there was no message in time.
            ConnectionClosed: the connection ended and all messages are taken.
            websockets.exceptions.ConcurrencyError: another task waits in ``recv``.
            TypeError, ValueError: at once, if ``since`` is no instant that has passed.
        """
        if timeout is DEFAULT:
            timeout = self._recv_timeout
        if timeout is None and since is None:
            return self._receive(decode, False)
        return self._receive_within(decode, False, timeout, since)

    def discard(self) -> int:
        """Drop the messages that wait for ``recv``. Returns how many."""
        return len(self.queue.find(any_message))

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Any]:
        if self._recv_timeout is None:
            return self._receive(None, True)
        return self._receive_within(None, True, self._recv_timeout, None)

    async def recv_json(self, *, timeout: float | None = DEFAULT, since: SupportsFloat | None = None) -> Any:
        """
        Wait for the next message and parse it. Otherwise the same as :meth:`recv`, also when it is cancelled.

        Args:
            timeout: seconds to wait, None for no limit; by default ``recv_timeout``.
            since: see :meth:`recv`.

        Returns:
            The value that the message holds.

        Raises:
            json.JSONDecodeError: it is not JSON. The message is taken all the same, and its row is a success.
            MessageTimeout, ConnectionClosed, websockets.exceptions.ConcurrencyError, TypeError, ValueError: as
                :meth:`recv`.
        """
        return take_json(await self.recv(timeout=timeout, since=since))

    def _receive_within(
        self, decode: bool | None, iterating: bool, timeout: float | None, since: SupportsFloat | None
    ) -> Coroutine[Any, Any, str | bytes]:
        # Not async itself, so that a wrong instant is refused at the call.
        return self._receive_in_time(decode, iterating, timeout, None if since is None else checked_since(since))

    async def _receive_in_time(
        self, decode: bool | None, iterating: bool, timeout: float | None, since: float | None
    ) -> str | bytes:
        called = perf_counter()
        try:
            # On a connection that is over nothing is waited for but what slows this task down.
            async with asyncio.timeout(None if self._life.state is _CLOSED else timeout):
                message = await self._receive(decode, iterating, since)
        except TimeoutError:
            error = MessageTimeout("no message within the timeout" if self.ready else self._life.not_connected)
            self._report_failure(RECV, called if since is None else since, error)
            raise error from None
        self.queue_wait = max(0.0, called - self.arrived)
        return message

    async def _receive(self, decode: bool | None, iterating: bool, since: float | None = None) -> str | bytes:
        called = since or perf_counter()
        queue = self.queue
        has_waited = False
        while not queue:
            if self._life.state is _CLOSED:
                raise await self._no_more_messages(called, iterating, has_waited)
            if self._recv_waiter is not None:
                raise ConcurrencyError("cannot call recv while another task waits in recv on the same connection")
            has_waited = True
            self._sends_since_yield = 0
            # Fast path "inline wait": 8.8 k of 48.3 k instructions an echo (benchmarks/README.md). The task waits where
            # it is, without a future and a step of the task to come back to it. The future below is the plain twin.
            self._recv_waiter = WAITING_INLINE
            wait_for_io_inline = self.wait_for_io_inline
            if wait_for_io_inline() or self._recv_waiter is None:  # something was read, or woke us otherwise
                self._recv_waiter = None
                continue
            waiter = self._recv_waiter = self._create_future()
            try:
                await waiter
            except BaseException:
                if self._recv_waiter is waiter:
                    self._recv_waiter = None
                self.note_cancelled("recv()", self.name, called)
                raise
            # Not before a connection's second wait: an inline wait keeps 1 KiB more of the greenlet's stack, which a
            # connection that only idles need not cost.
            if wait_for_io_inline is no_inline_wait:
                self.enable_inline_wait()
        message, size, arrived = queue.popleft()
        if queue.bytes:
            queue.note_removed(size)
        self.arrived = arrived
        waited = arrived - called
        if waited < 0.0:
            self.queue_wait = -waited
            self.client.connections.tally.queue_waited(-waited)
            waited = 0.0
        else:
            self.queue_wait = 0.0
        report = self._report_recv
        if report is not None:
            report(RECV, self.name, waited * 1000.0, size, None, called, self.url, message)
        if decode is None:
            return message
        if decode:
            return message.decode() if isinstance(message, bytes) else message
        return message.encode() if isinstance(message, str) else message

    async def _no_more_messages(self, called: float, iterating: bool, has_waited: bool) -> Exception:
        error = self.closed_error()
        is_end = iterating and isinstance(error, ConnectionClosedOK)
        await self.fail_as_closed(_OPEN if has_waited else _CLOSED, None if is_end else RECV, self.name, called, error)
        return StopAsyncIteration() if is_end else error

    def message_received(self, message: str | bytes, size: int, arrived: float) -> None:
        """Count a message, and give it to the router, or to the queue that ``recv`` reads. Called by the engine."""
        stats = self.stats
        if type(message) is str:
            stats.texts_received += 1
            stats.text_bytes_received += size
        else:
            stats.binaries_received += 1
            stats.binary_bytes_received += size
        router = self._router
        if router is not None and router.route(message, size, arrived):
            return
        queue = self.queue
        queue.append((message, size, arrived))
        waiter = self._recv_waiter
        if waiter is not None:
            self._recv_waiter = None
            if waiter is not WAITING_INLINE and not waiter.done():
                waiter.set_result(None)
        else:
            length = len(queue)
            if length > stats.queue_high_water:
                stats.queue_high_water = length
            queue.bytes += size + PLACE_BYTES
            if length >= queue.limit or queue.bytes >= queue.byte_limit:
                queue.full()

    def requeue(self, received: Received) -> None:
        """Leave a message to whoever wants it after all. Called by ``expect``."""
        if not self.router.reroute(*received):
            self.queue.appendleft(received)
            self.queue.bytes += received.size + PLACE_BYTES
            self._wake_receiver()

    # Certain messages. Who gets what is in router.py.

    @property
    def router(self) -> MessageRouter:
        """What takes messages before ``recv``; made when first needed."""
        return self._router or self._add_router(())

    def _add_router(self, rules: tuple[KeepaliveRule, ...]) -> MessageRouter:
        self._router = MessageRouter(
            self,
            AutoReplies(self, self._loop, rules),
            PendingWaits(self, self._loop),
            Subscriptions(self, BoundedQueue(self, *self._queue_settings, ("a handler", "Handle them faster"))),
        )
        self.enable_inline_wait()
        return self._router

    @property
    def _stream_router(self) -> StreamRouter:
        """The router, with streams and trackers from now on."""
        router = self.router
        if not isinstance(router, StreamRouter):
            streams = Streams(self, self._loop, self._new_stream_queue)
            self._router = router = StreamRouter(self, router, streams)
        return router

    def _new_stream_queue(self) -> BoundedQueue[Any]:
        return BoundedQueue(self, *self._queue_settings, ("a stream", "Iterate faster"))

    def request(
        self,
        payload: Any,
        *,
        match: Match | Correlation = any_message,
        timeout: float | None = DEFAULT,
        name: str | None = None,
        catch_response: bool = False,
        since: SupportsFloat | None = None,
    ) -> MessageWait:
        """
        Send a message and wait for its reply: ``reply = await connection.request(...)``.

        The ``WS REQUEST`` row has the time from just before the send to the arrival of the reply. Any number of
        requests may be in flight, from any number of tasks. A request waits before it is written while the connection
        is being made again, and while the write buffer is over its limit, because the server reads too slowly; that is
        part of its time and timeout.

        A reply that comes after its timeout is a row of its own, ``<name> (late)``, and goes to nobody else; so does
        that of a request that was cancelled. Late replies are recognised for a minute, and for a thousand requests at
        most. While this side closes the connection, late replies are counted only.

        Give a ``match`` that tells replies apart, :func:`json_field` if there is an id. By default the next message is
        the reply, and replies are paired with requests in the order in which they were sent. That needs a server that
        answers every request: the place of one that it never answers is taken by the reply to the next, as late, so
        that the next one times out as well, and so on until there was no request for a minute.

        To check the reply before it is reported::

            async with connection.request({"op": "buy"}, catch_response=True) as reply:
                assert reply.json()["status"] == "ok"

        An ``AssertionError`` or ``CatchResponseError`` in the block makes the row a failure, and ends there. Any other
        exception makes it a failure too, and is raised.

        Cancelling stops the wait, which is then not reported; the message stays sent.

        Args:
            payload: str or bytes-like, or anything else to send as JSON.
            match: what the reply looks like: :func:`json_field` pairs it with the request; else a predicate on the
                message, or :func:`json_subset`, :func:`regex`, :func:`prefix`; by default the next message, see above.
            timeout: seconds to wait, None for no limit; by default ``request_timeout``.
            name: the row's name; by default the connection's.
            catch_response: for ``async with``.
            since: count the time from this instant, a ``time.perf_counter()`` or a ``connection.arrived``, and not from
                the send. The timeout counts from the call all the same.

        Raises:
            MessageTimeout: there was no reply in time.
            ConnectionClosed: the connection is over, or ended before the reply.
            ValueError: the request has no such field as ``json_field`` looks for, or ``since`` is in the future.
        """
        if not callable(match) and not isinstance(match, Correlation):
            checked_match(match, "request")
        request = _encoded_request(payload, match)
        return self._message_wait(request, match, timeout, name, False, catch_response, since)

    def expect(
        self,
        match: Match,
        *,
        timeout: float | None = DEFAULT,
        name: str | None = None,
        optional: bool = False,
        catch_response: bool = False,
        since: SupportsFloat | None = None,
    ) -> MessageWait:
        """
        Wait for a message that matches; also for one that is there already and waits for ``recv``.

        The ``WS RECV`` row has the time from this call to the arrival; 0 for a message that had arrived before, unless
        ``since`` says from when to count. Otherwise like :meth:`request`, except that a
        message that comes after the timeout is not late: it is for whoever wants it.

        Args:
            match: a predicate on the message.
            timeout: seconds to wait, None for no limit; by default ``request_timeout``.
            name: the row's name; by default the connection's.
            optional: a timeout is no failure: the result is None, and the row has no time.
            catch_response: for ``async with``.
            since: count the time from this instant, a ``time.perf_counter()`` or a ``connection.arrived``, and take
                only a message that arrived after it; older ones stay for others. ValueError if it is in the future.
        """
        checked_match(match, "expect")
        return self._message_wait(None, match, timeout, name, optional, catch_response, since)

    def _message_wait(
        self,
        payload: tuple[int, bytes, Any] | None,
        match: Match | Correlation,
        timeout: float | None,
        name: str | None,
        optional: bool,
        checked: bool,
        since: SupportsFloat | None,
    ) -> MessageWait:
        if timeout is DEFAULT:
            timeout = self._options.request_timeout
        name = self.name if name is None else name
        # Before there is a coroutine: one that nobody gets would complain that it was never awaited.
        instant = None if since is None else checked_since(since)
        return MessageWait(
            self, self.error_kinds, self.router.pending, payload, match, timeout, name, optional, checked, instant
        )

    def stream(
        self,
        payload: Any,
        *,
        end: Match,
        match: Match | Correlation = any_message,
        item: Match | None = None,
        name: str | None = None,
        since: SupportsFloat | None = None,
        first_timeout: float | None = DEFAULT,
        gap_timeout: float | None = DEFAULT,
        timeout: float | None = None,
        gaps: bool = True,
    ) -> StreamContext:
        """
        Send a message whose answer comes in many, and iterate over them::

            async with line.stream(prompt, match=json_field("response_id"), end=json_subset({"type": "done"})) as turn:
                async for delta in turn: ...

        The rows: ``WS REQUEST`` has the time from just before the send to the arrival of the end, and the bytes of all
        messages; it is reported when the block is left. ``WS FIRST`` has the time to the arrival of the first item.
        ``WS GAP`` has the time from the arrival of each item to that of the next; those of a second are reported
        together. What a timeout or a loss of the connection ends is a failed ``WS REQUEST``; so is ``WS FIRST``, if
        there was no item yet, and ``WS GAP``, if ``gap_timeout`` was exceeded.

        The connection stays free for others: any task, the one that iterates too, may send and receive meanwhile.
        Items that the block has not asked for yet wait, at most ``max_queue``.

        An ``AssertionError`` or ``CatchResponseError`` in the block makes the ``WS REQUEST`` a failure, and ends there.
        Any other exception makes it a failure too, and is raised.

        Who leaves the block before the end has cut the stream: it has no ``WS REQUEST`` row, as if it had been
        cancelled, and what still comes of it is discarded, for a minute, up to its end. An end that comes after a
        timeout is a row ``<name> (late)``. Cancelling cuts the stream too. What is sent stays sent.

        Args:
            payload: str or bytes-like, or anything else to send as JSON; None sends nothing, where the server speaks
                by itself. Then the stream also takes what has come already and waits for ``recv``.
            end: what the last message looks like: a predicate. If ``item`` matches it too, it is the last item.
            match: which messages belong to the stream: :func:`json_field` for those with the id of ``payload``, or a
                predicate; by default all of them.
            item: which of these are items: a predicate; by default all but the end. Those that are neither items nor
                the end go to others.
            name: the rows' name; by default the connection's.
            since: count the times from this instant, a ``time.perf_counter()`` or a ``connection.arrived``, and not
                from the send. The timeouts count from the call all the same.
            first_timeout: seconds until the first item, or the end, must have come; None for no limit; by default
                ``request_timeout``.
            gap_timeout: seconds from an item to the next, or to the end; None and the default as for the first.
            timeout: seconds until the end must have come; None for no limit.
            gaps: False reports no ``WS GAP`` rows.

        Raises:
            MessageTimeout: from the loop over the stream: it did not go on in time.
            ConnectionClosed: the connection is over, or ended before the stream did.
            TypeError, ValueError: at once, for a wrong argument, or if the payload has no such field as ``json_field``
                looks for.
        """
        rules = StreamRules(
            match=match,
            item=item,
            end=end,
            name=self.name if name is None else name,
            first_timeout=self._options.request_timeout if first_timeout is DEFAULT else first_timeout,
            gap_timeout=self._options.request_timeout if gap_timeout is DEFAULT else gap_timeout,
            timeout=timeout,
            reports_gaps=gaps,
        )
        if payload is None and isinstance(match, Correlation):
            raise TypeError("stream: json_field finds an answer by the id in the payload, and there is none")
        request = None if payload is None else _encoded_request(payload, match)
        instant = None if since is None else checked_since(since)
        return StreamContext(self, self.error_kinds, self._stream_router.streams, request, rules, instant)

    def track(
        self,
        *,
        seq: FieldOf,
        key: FieldOf | None = None,
        match: Match | None = None,
        name: str | None = None,
        resume: bool = False,
        window: int = 100,
    ) -> Tracker:
        """
        Follow the numbers of messages, each of which should be one more than the one before: are some missing, do some
        come twice, out of order, or does the numbering begin again? Everybody gets the messages all the same. Those
        that are here already and wait for ``recv`` count too.

        Each incident is a failed ``WS STREAM`` row with a constant text; what follows it at once and is of the same
        kind belongs to it. When the tracking ends, that is one more count of the row, a success. ``Tracker.counts``,
        and ``connection.stats.streams`` by name, say how many numbers each of them concerned.

        Args:
            seq: the JSON field with the number, an int: a name, or a tuple of names and indexes; or a function from the
                message to it. Without a ``match``, messages that have no such field are of another kind.
            key: where each of several numberings has a key: its field, or a function. What it gives must be hashable.
            match: which messages are numbered: a predicate. One without a number is then an incident.
            name: the row's name; by default the connection's.
            resume: whether the numbers go on across a reconnect, so that what the outage has cost is missing. By
                default each session begins anew.
            window: how many numbers behind the highest one a number may come. What has not come by then is missing;
                0 for a server that never mixes them up. At most so many numbers are remembered for each key.

        Raises:
            TypeError, ValueError: an argument is wrong.
        """
        router = self._stream_router

        def remove(tracker: Tracker) -> None:
            router.trackers = [other for other in router.trackers if other is not tracker]

        tracker = Tracker(self, remove, seq, key, match, self.name if name is None else name, resume, window)
        for message, _, arrived in self.queue:
            tracker.observe(message, arrived)
        router.trackers.append(tracker)
        return tracker

    def on(self, match: Match, handler: Handler, *, name: str | None = DEFAULT) -> Subscription:
        """
        Handle the messages that match, as they arrive and whatever the tasks do; also those that are there already and
        wait for ``recv``. They do not reach ``recv``.

        Each is a ``WS PUSH`` row without a time; it is a failure if the handler raises, and ends nothing else. With
        ``name=None`` there is no row, and what the handler raises goes to the loop's exception handler, by which Locust
        lists it.

        Args:
            match: a predicate on the message.
            handler: called with the message, in the order of arrival. If it is ``async def``, later messages for
                handlers wait until it is done.
            name: the rows' name, by default the connection's; None for no rows.
        """
        return self.router.subscriptions.on(match, handler, self.name if name is DEFAULT else name)

    def measure_push(
        self,
        match: Match,
        *,
        sent_at: SentAt,
        handler: Handler | None = None,
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
            handler: called with the message, as by :meth:`on`, so that it need not be counted twice. The row is
                reported when the handler is done, and fails if it raises.
            name: the rows' name; by default the connection's.
            clock_offset: seconds that the server's clock is ahead of this machine's.
            take: False leaves the messages to handlers and ``recv`` as well.
        """
        subscriptions = self.router.subscriptions
        name = self.name if name is None else name
        return subscriptions.measure_push(match, sent_at, name, clock_offset, take, handler)

    # Pings

    async def ping(self, data: str | bytes | None = None, *, timeout: float | None = None) -> Latency:
        """
        Send a ping and wait for its pong. The ``WS PING`` row has the time from ping to pong, both taken at the socket.
        A connection that is being made again is waited for first, which is part of the row's time and of the timeout.

        Cancelling stops the wait, which is then not reported. Nor is a wait that ends because this side closed the
        connection.

        Args:
            data: what the pong must carry, up to 125 bytes; by default 4 random bytes.
            timeout: seconds to wait; by default ``ping_timeout``.

        Returns:
            The seconds from ping to pong.

        Raises:
            PingTimeout: there was no pong in time.
            ConnectionClosed: the connection is over, or ended before the pong.
        """
        called = sent = perf_counter()
        began = self._life.state
        if timeout is None:
            timeout = self._options.ping_timeout
        try:
            if began is not _OPEN:
                await self.until_usable(timeout, PingTimeout, writes=False)
                sent = perf_counter()
                if timeout is not None:
                    timeout -= sent - called
            payload = self.pings.new_payload(data)
            latency = await self.pings.pong(payload, sent, timeout)
        except PingTimeout as exc:
            self._report_failure(PING, called, exc)
            raise
        except ConnectionClosed as exc:
            await self.fail_as_closed(began, PING, self.name, called, exc)
            raise
        except CancelledError:
            self.note_cancelled("ping()", self.name, called)
            raise
        self.report(PING, self.name, (sent + latency - called) * 1000.0, len(payload), None, called, None)
        return Latency(latency)

    def ping_received(self, payload: bytes, answered: bool) -> None:
        """Count a ping, and its pong if that is written already. Called by the engine."""
        self.stats.pings_received += 1
        self.stats.pongs_sent += answered
        if self.writing_paused:
            warn_once(self.name, "ping", "The server reads too slowly: while it does, only its last ping is answered.")

    def pong_sent(self, payload: bytes) -> None:
        """Count a pong that was written later than its ping came. Called by the engine."""
        self.stats.pongs_sent += 1

    def pong_received(self, payload: bytes, arrived: float) -> None:
        """Count a pong, and wake who waits for it. Called by the engine."""
        self.stats.pongs_received += 1
        self.pings.pong_received(payload, arrived)

    # Closing

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """
        Send a close frame and wait until the server has closed the connection, for at most ``close_timeout`` seconds;
        then cut it. On a connection that is closed already this does nothing; one that is being made again is given up.

        Messages that have arrived can still be taken. Cancelling stops the wait; the connection is closed or cut in
        time all the same.

        Args:
            code: the close code; 1005 sends a close frame without one.
            reason: at most 123 bytes of UTF-8.

        Raises:
            ValueError: a code that must not be sent (RFC 6455 section 7.4), or a reason over 123 bytes.
        """
        self.start_close(_checked_close(code, reason))
        await self._until_closed()

    def __enter__(self) -> Never:
        refuse_plain_with("a connection")

    def __exit__(self, *exc: object) -> None:  # so that Python calls __enter__
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Also after an exception with 1000, where websockets sends 1011: a failed check or a user that is stopped is
        # the author's business, and should not look like a broken client in the server's log.
        await self.close()


def _encoded_request(payload: Any, match: Match | Correlation) -> tuple[int, bytes, Any]:
    """The opcode and the bytes of a request, and the id by which its answer is found."""
    text: str | bytes
    if isinstance(payload, (bytes, bytearray, memoryview)):
        opcode, text = BINARY, bytes(payload)
        data = text
    else:
        opcode, text = TEXT, payload if isinstance(payload, str) else dumps(payload, separators=(",", ":"))
        data = text.encode()
    return opcode, data, match.key_of_request(text) if isinstance(match, Correlation) else None


# What Python's "was never awaited" says: the name that the author knows.
for _coroutine_function in (WebSocketConnection._receive, WebSocketConnection._receive_in_time):
    _coroutine_function.__qualname__ = "WebSocketConnection.recv"


def _checked_close(code: int, reason: str) -> Close:
    close = Close(code, reason)
    if code_in_frame(close) is not None:
        try:
            close.check()
        except Exception:
            raise ValueError(f"close code {code!r} must not be sent: use 1000 to 1014 or 3000 to 4999") from None
    if len(reason.encode()) > 123:
        raise ValueError("a close reason has at most 123 bytes of UTF-8 (RFC 6455 section 5.5)")
    return close
