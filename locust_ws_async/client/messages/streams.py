"""``stream``: one message out, and an answer that comes in many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Any, Protocol, Self

from websockets.exceptions import ConcurrencyError

from ...exceptions import CatchResponseError, ConnectionClosed, MessageTimeout
from ..lazy_coroutine import LazyCoroutine
from ..observing.events import FIRST, GAP, REQUEST, ErrorKinds, ReportOperation
from .matching import Correlation, Match, checked_match, matches
from .message import Received
from .queue import BoundedQueue, ReceiveQueue
from .requests import ConnectionForMessageWait

__all__ = ["MessageStream", "StreamContext", "StreamRules", "Streams"]

_NO_FIRST = "no first item within first_timeout"
_NO_NEXT = "no further item, and no end, within gap_timeout"
_NO_END = "the stream did not end within the timeout"
_NOT_READ = "nothing of the stream within the timeout, and nothing was read: {}"

# What still comes of a stream that nobody waits for is discarded: for so many seconds, of so many streams at a time.
_LEFT_SECONDS = 60.0
_LEFT_COUNT = 1000

# Gaps are reported together, so many seconds after the last ones at the earliest: a stream may have a hundred a second.
_GAPS_SECONDS = 1.0

_FOREVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRules:
    """What belongs to a stream, and how long it may take: parameters of ``stream``."""

    match: Match | Correlation
    item: Match | None
    end: Match
    name: str
    first_timeout: float | None
    gap_timeout: float | None
    timeout: float | None
    reports_gaps: bool

    def __post_init__(self) -> None:
        """
        Raises:
            TypeError, ValueError: one of these is wrong.
        """
        if not isinstance(self.match, Correlation):
            checked_match(self.match, "stream")
        checked_match(self.end, "stream")
        if self.item is not None:
            checked_match(self.item, "stream")
        for name in ("first_timeout", "gap_timeout", "timeout"):
            seconds = getattr(self, name)
            if seconds is None:
                continue
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
                raise TypeError(f"stream: {name} must be a number of seconds or None, not {seconds!r}")
            if not seconds > 0:
                raise ValueError(f"stream: {name} must be greater than 0, or None, not {seconds!r}")


class ConnectionForStreams(Protocol):
    """What :class:`Streams` needs of its connection."""

    @property
    def queue(self) -> ReceiveQueue: ...

    @property
    def report_in_background(self) -> ReportOperation: ...

    @property
    def unread_because(self) -> str | None: ...

    @property
    def wait_for_io_inline(self) -> Callable[[], bool]: ...

    def report_late(self, name: str, started: float, received: Received) -> None: ...


class Arriving:
    """What has arrived of one stream."""

    __slots__ = (
        "called",
        "count",
        "end",
        "error",
        "gaps",
        "is_left",
        "is_open",
        "is_reported",
        "key",
        "last",
        "reported_at",
        "rules",
        "size",
        "started",
        "timer",
        "waiter",
        "waiting",
    )

    def __init__(
        self, rules: StreamRules, key: Hashable, called: float, started: float, waiting: BoundedQueue[Any]
    ) -> None:
        self.rules = rules
        self.key = key
        self.called = called
        """From when the timeouts count, by :func:`time.perf_counter`, like all times here."""
        self.started = started
        """From when the times of the rows count."""
        self.waiting = waiting
        """The items that wait for the author's loop."""
        self.count = 0
        self.size = 0
        """Bytes of all messages so far."""
        self.last = 0.0
        """When the last item arrived."""
        self.end: Received | None = None
        self.error: Exception | None = None
        """Why there is no end."""
        self.is_open = True
        """Whether messages may still come of it."""
        self.is_left = False
        """Whether the author's block is left."""
        self.is_reported = False
        """Whether the ``WS REQUEST`` row has failed already."""
        self.gaps: list[tuple[float, int, float]] = []
        """Those that are not reported yet: milliseconds, bytes of the item behind it, and when it began."""
        self.reported_at = 0.0
        self.waiter: asyncio.Future[None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    @property
    def deadline(self) -> tuple[float, str]:
        """Until when the next message must come, and what is wrong otherwise."""
        rules = self.rules
        next_one = rules.gap_timeout if self.count else rules.first_timeout
        begun = self.last if self.count else self.called
        return min(
            (_FOREVER if next_one is None else begun + next_one, _NO_NEXT if self.count else _NO_FIRST),
            (_FOREVER if rules.timeout is None else self.called + rules.timeout, _NO_END),
        )

    def wake(self) -> None:
        """Let the author's loop see what is new."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Streams:
    """
    The streams of one connection. A message goes to the stream that has its id, or else to the oldest that it matches.

    Args:
        connection: the connection whose messages these are.
        loop: its loop.
        new_queue: makes the queue of a stream.
    """

    __slots__ = ("_connection", "_keyed", "_left", "_loop", "_new_queue", "_plain")

    def __init__(
        self,
        connection: ConnectionForStreams,
        loop: asyncio.AbstractEventLoop,
        new_queue: Callable[[], BoundedQueue[Any]],
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._new_queue = new_queue
        self._keyed: dict[Correlation, dict[Hashable, list[Arriving]]] = {}
        self._plain: list[Arriving] = []
        self._left: dict[Arriving, None] = {}

    @property
    def queues(self) -> list[BoundedQueue[Any]]:
        """The items that wait, for each stream."""
        return [stream.waiting for stream in self._all()]

    def open(self, rules: StreamRules, key: Hashable, called: float, started: float) -> Arriving:
        """Begin with a stream: from now on messages go to it."""
        stream = Arriving(rules, key, called, started, self._new_queue())
        if isinstance(rules.match, Correlation):
            self._keyed.setdefault(rules.match, {}).setdefault(key, []).append(stream)
        else:
            self._plain.append(stream)
        self._watch(stream)
        return stream

    def take_queued(self, stream: Arriving, since: float | None) -> None:
        """Take what has come of a stream already, after ``since``, out of the messages that wait for ``recv``."""
        match = stream.rules.match
        assert not isinstance(match, Correlation)
        ended = False

        def wants(message: str | bytes) -> bool:
            nonlocal ended
            if ended or not matches(match, message):
                return False
            is_item, ended = _what(stream.rules, message)
            return is_item or ended

        for message, size, arrived in self._connection.queue.find(wants, since=since):
            self._take(stream, message, size, arrived)

    def try_consume(self, message: str | bytes, size: int, arrived: float) -> bool:
        """Give the message to the stream that it belongs to; return whether there was one."""
        for correlation, streams in self._keyed.items():
            found = streams.get(correlation.key_of_reply(message), ())
            if any(self._take(stream, message, size, arrived) for stream in found):
                return True
        for stream in self._plain:
            match = stream.rules.match
            assert not isinstance(match, Correlation)
            if matches(match, message) and self._take(stream, message, size, arrived):
                return True
        return False

    async def changed(self, stream: Arriving) -> None:
        """
        Wait until there is something new of a stream.

        Raises:
            ConcurrencyError: another task waits for it.
        """
        if stream.waiter is not None:
            raise ConcurrencyError("cannot iterate over a stream while another task does")
        waiter = stream.waiter = self._loop.create_future()
        wait_for_io_inline = self._connection.wait_for_io_inline
        try:
            while not waiter.done() and wait_for_io_inline():
                pass  # something was read, perhaps for somebody else
            await waiter
        finally:
            if stream.waiter is waiter:
                stream.waiter = None

    def leave(self, stream: Arriving) -> None:
        """Nobody waits for this stream any more. What still comes of it is for nobody else."""
        if stream.is_left:
            return
        stream.is_left = True
        stream.waiting.discard()
        self._report_gaps(stream)
        if stream.is_open:
            self._forget_later(stream)
            self._left[stream] = None
            if len(self._left) > _LEFT_COUNT:
                self._forget(next(iter(self._left)))

    def connection_lost(self, new_error: Callable[[], ConnectionClosed], by_us: bool) -> None:
        """Let every stream fail with an error of its own. Where this side has closed, that is no failed row."""
        for stream in self._all():
            self._forget(stream)
            if not stream.is_left and stream.error is None:
                stream.error = new_error()
                if not by_us:
                    self._report_failure(stream, stream.error, None)
            stream.wake()

    # Inside

    def _all(self) -> list[Arriving]:
        keyed = [stream for keys in self._keyed.values() for streams in keys.values() for stream in streams]
        return keyed + self._plain

    def _take(self, stream: Arriving, message: str | bytes, size: int, arrived: float) -> bool:
        is_item, is_end = _what(stream.rules, message)
        if not (is_item or is_end):
            return False
        stream.size += size
        if is_item and stream.error is None and not stream.is_left:
            self._take_item(stream, message, size, arrived)
        if is_end:
            self._forget(stream)
            stream.end = Received(message, size, arrived)
            if stream.error is not None:
                self._connection.report_late(stream.rules.name, stream.started, stream.end)
            self._report_gaps(stream)
        stream.wake()
        return True

    def _take_item(self, stream: Arriving, message: str | bytes, size: int, arrived: float) -> None:
        stream.count += 1
        if stream.count == 1:
            milliseconds = max(0.0, arrived - stream.started) * 1000.0
            self._connection.report_in_background(
                FIRST, stream.rules.name, milliseconds, size, None, stream.started, message
            )
            stream.reported_at = stream.last = arrived
            self._watch(stream)  # another timeout holds from now on, which may be shorter
        else:
            if stream.rules.reports_gaps:
                stream.gaps.append(((arrived - stream.last) * 1000.0, size, stream.last))
                if arrived - stream.reported_at >= _GAPS_SECONDS:
                    self._report_gaps(stream)
                    stream.reported_at = arrived
            stream.last = arrived
        stream.waiting.put((message, size, arrived))

    def _report_gaps(self, stream: Arriving) -> None:
        gaps, stream.gaps = stream.gaps, []
        report = self._connection.report_in_background
        for milliseconds, size, began in gaps:
            report(GAP, stream.rules.name, milliseconds, size, None, began, None)

    def _watch(self, stream: Arriving) -> None:
        if stream.timer is not None:
            stream.timer.cancel()
            stream.timer = None
        deadline, _ = stream.deadline
        if deadline != _FOREVER:
            stream.timer = self._loop.call_later(max(0.0, deadline - perf_counter()), self._expire, stream)

    def _expire(self, stream: Arriving) -> None:
        deadline, text = stream.deadline
        # Each item moves the deadline, and leaves the timer alone. The loop calls early, by up to a clock's resolution.
        if perf_counter() < deadline - 0.001:
            self._watch(stream)
            return
        reason = self._connection.unread_because
        stream.error = MessageTimeout(text if reason is None else _NOT_READ.format(reason))
        self._forget_later(stream)
        self._report_gaps(stream)
        self._report_failure(stream, stream.error, GAP if text == _NO_NEXT else None)
        stream.wake()

    def _report_failure(self, stream: Arriving, error: Exception, gap: str | None) -> None:
        stream.is_reported = True
        now, name = perf_counter(), stream.rules.name
        report = self._connection.report_in_background
        if not stream.count:
            report(FIRST, name, (now - stream.started) * 1000.0, 0, error, stream.started, None)
        elif gap is not None and stream.rules.reports_gaps:
            report(gap, name, (now - stream.last) * 1000.0, 0, error, stream.last, None)
        report(REQUEST, name, (now - stream.started) * 1000.0, stream.size, error, stream.started, None)

    def _forget_later(self, stream: Arriving) -> None:
        if stream.timer is not None:
            stream.timer.cancel()
        stream.timer = self._loop.call_later(_LEFT_SECONDS, self._forget, stream)

    def _forget(self, stream: Arriving) -> None:
        """Nothing more goes to this stream."""
        if not stream.is_open:
            return
        stream.is_open = False
        if stream.timer is not None:
            stream.timer.cancel()
            stream.timer = None
        self._left.pop(stream, None)
        match = stream.rules.match
        if isinstance(match, Correlation):
            ids = self._keyed[match]
            ids[stream.key].remove(stream)
            if not ids[stream.key]:
                del ids[stream.key]
                if not ids:
                    del self._keyed[match]
        else:
            self._plain.remove(stream)
        if stream.waiting.paused:
            stream.waiting.resume()  # it gets no fuller


def _what(rules: StreamRules, message: str | bytes) -> tuple[bool, bool]:
    """Whether a message that matches is an item, and whether it is the end."""
    is_end = matches(rules.end, message)
    return (not is_end if rules.item is None else matches(rules.item, message)), is_end


class MessageStream:
    """
    What ``async with connection.stream(...)`` gives: iterate over it for the items. After the loop, ``end`` is there.
    """

    __slots__ = ("_connection", "_stream", "_streams", "verdict")

    def __init__(self, connection: ConnectionForMessageWait, streams: Streams, stream: Arriving) -> None:
        self._connection = connection
        self._streams = streams
        self._stream = stream
        self.verdict: CatchResponseError | None = None

    @property
    def end(self) -> str | bytes | None:
        """The message that ended the stream; None before it has come."""
        return None if self._stream.end is None else self._stream.end.message

    @property
    def count(self) -> int:
        """How many items have arrived so far."""
        return self._stream.count

    def failure(self, text: str) -> None:
        """
        Report the stream as a failure, whatever else happens in the block.

        Args:
            text: what was wrong. Keep it the same from one failure to the next: Locust counts failures by their text.
        """
        self.verdict = CatchResponseError(text)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        stream = self._stream
        waiting = stream.waiting
        while not waiting:
            if stream.is_left:
                raise RuntimeError("the block of this stream is left: iterate inside `async with ... as stream:`")
            if stream.error is not None:
                raise stream.error
            if stream.end is not None:
                raise StopAsyncIteration
            await self._streams.changed(stream)
        message, size, arrived = waiting.popleft()
        waiting.note_removed(size)
        self._connection.arrived = arrived
        return message  # type: ignore[no-any-return] # a queue's entries may have further fields


class StreamContext(LazyCoroutine[MessageStream]):
    """What ``stream`` returns. Nothing happens until it is entered, which can be done once."""

    __slots__ = (
        "_began",
        "_called_at",
        "_connection",
        "_error_kinds",
        "_payload",
        "_rules",
        "_since",
        "_stream",
        "_streams",
    )

    _called = "WebSocketConnection.stream"
    _hint = "`async with connection.stream(...) as stream:`"

    def __init__(
        self,
        connection: ConnectionForMessageWait,
        error_kinds: ErrorKinds,
        streams: Streams,
        payload: tuple[int, bytes, Hashable] | None,
        rules: StreamRules,
        since: float | None,
    ) -> None:
        """``payload``: opcode, bytes and the id of the answer; None if nothing is to be sent."""
        super().__init__(depth=3)
        self._connection = connection
        self._error_kinds = error_kinds
        self._streams = streams
        self._payload = payload
        self._rules = rules
        self._since = since
        self._called_at = 0.0
        self._began: Any = None  # the state of the connection then
        self._stream: MessageStream | None = None

    def _begin(self) -> Coroutine[Any, Any, MessageStream]:
        self._caller = None  # which needs no warning beside this
        raise TypeError(f"a stream needs a block: {self._hint}")

    async def __aenter__(self) -> MessageStream:
        self._use()
        connection = self._connection
        self._began, self._called_at = connection.life_state, perf_counter()
        started = self._called_at if self._since is None else self._since
        writes = self._payload is not None
        try:
            if not connection.usable(writes=writes):
                limits = [each for each in (self._rules.first_timeout, self._rules.timeout) if each is not None]
                await connection.until_usable(min(limits, default=None), MessageTimeout, writes=writes)
        except MessageTimeout as exc:
            self._report((perf_counter() - started) * 1000.0, exc, started)
            raise
        except ConnectionClosed as exc:
            await connection.fail_as_closed(self._began, REQUEST, self._rules.name, started, exc)
            raise
        except asyncio.CancelledError:
            connection.note_cancelled("stream()", self._rules.name, self._called_at)
            raise
        opcode, payload, key = self._payload or (0, b"", None)
        arriving = self._streams.open(self._rules, key, self._called_at, started)
        if writes:
            connection.write(opcode, payload)
        else:
            self._streams.take_queued(arriving, self._since)
        self._stream = MessageStream(connection, self._streams, arriving)
        return self._stream

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._stream is not None
        arriving, verdict = self._stream._stream, self._stream.verdict
        self._streams.leave(arriving)
        if arriving.is_reported:
            return False
        end, started, kinds = arriving.end, arriving.started, self._error_kinds
        milliseconds = max(0.0, (perf_counter() if end is None else end.arrived) - started) * 1000.0
        if verdict is not None:
            self._report(milliseconds, verdict, started)
        elif isinstance(exc, kinds.failed_checks):
            self._report(milliseconds, exc, started)
            return True
        elif isinstance(exc, ConnectionClosed):
            await self._connection.fail_as_closed(self._began, REQUEST, self._rules.name, started, exc)
        elif isinstance(exc, Exception) and not isinstance(exc, kinds.control_flow):
            self._report(milliseconds, exc, started)
        elif end is not None:
            self._report(milliseconds, None, started)
        elif isinstance(exc, asyncio.CancelledError):
            self._connection.note_cancelled("stream()", self._rules.name, self._called_at)
        return False

    def _report(self, milliseconds: float, error: BaseException | None, started: float) -> None:
        stream = self._stream
        size = 0 if stream is None else stream._stream.size
        response = None if stream is None else stream.end
        self._connection.report(REQUEST, self._rules.name, milliseconds, size, error, started, response)
