"""Waiting for one certain message: requests with their replies, and expectations."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from time import perf_counter
from types import TracebackType
from typing import Any, Literal, Protocol, cast

from ...exceptions import CatchResponseError, ConnectionClosed, MessageTimeout
from ..lazy_coroutine import LazyCoroutine
from ..observing.events import RECV, REQUEST, ErrorKinds, ReportOperation
from .matching import Correlation, Match, match_raised, take_json
from .message import Received
from .queue import ReceiveQueue

__all__ = ["MessageWait", "PendingWaits", "Reply"]

# A reply that comes after its timeout is reported as late, within so many seconds, and for so many requests at a time.
_LATE_SECONDS = 60.0
_LATE_COUNT = 1000

_logger = logging.getLogger("locust_ws_async.client")
_told_of: set[str] = set()  # the names of waits that have timed out; the message that they did not match is told once

_SHOWN = 200  # characters or bytes of a message, in the log

_NOT_READ = "no message that matches within the timeout, and none was read: {}"


class PendingWait:
    """One wait. ``future`` is None once nobody waits any more; a message that comes for it then is late."""

    __slots__ = (
        "deadline",
        "future",
        "key",
        "match",
        "match_error",
        "name",
        "reports_late",
        "sequence",
        "since",
        "started",
    )

    def __init__(
        self,
        sequence: int,
        match: Match | Correlation,
        key: Hashable,
        name: str,
        started: float,
        deadline: float,
        future: asyncio.Future[Received],
        reports_late: bool,
        since: float | None,
    ) -> None:
        self.sequence = sequence
        self.match = match
        self.key = key
        self.name = name
        self.started = started
        self.deadline = deadline
        self.future: asyncio.Future[Received] | None = future
        self.reports_late = reports_late
        self.since = since
        self.match_error: Exception | None = None  # the first exception that the match raised for a message

    @property
    def abandoned(self) -> bool:
        """
        Whether the awaiting task is cancelled, but has not yet called :meth:`PendingWaits.abandon`.

        No message is for such a wait, unless it reports late ones.
        """
        return not self.reports_late and self.future is not None and self.future.cancelled()


class ConnectionForWaits(Protocol):
    """What :class:`PendingWaits` needs of its connection."""

    @property
    def queue(self) -> ReceiveQueue: ...

    @property
    def unread_because(self) -> str | None: ...

    @property
    def wait_for_io_inline(self) -> Callable[[], bool]: ...

    def report_late(self, name: str, started: float, received: Received) -> None: ...

    def requeue(self, received: Received) -> None: ...


class PendingWaits:
    """
    All waits of one connection, in the order in which they began: a message goes to the oldest that it matches.

    Replies that are overdue keep their place in that order, so that they are reported as late and do not pass for the
    reply to a younger request.

    One timer serves all waits. It is set for the earliest deadline, and left alone when that wait ends in time.
    """

    __slots__ = ("_all", "_connection", "_keyed", "_late", "_loop", "_plain", "_sequence", "_timer", "_unmatched")

    def __init__(self, connection: ConnectionForWaits, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._sequence = 0
        self._all: dict[int, PendingWait] = {}
        self._plain: dict[int, PendingWait] = {}
        # By the path to the value in a reply. What belongs to a path stays: the next request will use it.
        self._keyed: dict[tuple[str | int, ...], tuple[Correlation, dict[Hashable, list[PendingWait]]]] = {}
        self._late: dict[int, PendingWait] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._unmatched: tuple[str | bytes, float] | None = None
        """The last message that no wait wanted while there was one, or its beginning, and its arrival."""

    def take_queued(self, match: Match, since: float | None) -> Received | None:
        """Take the first message that matches, and arrived after ``since``, out of those that wait for ``recv``."""
        found = self._connection.queue.find(match, limit=1, since=since)
        return found[0] if found else None

    async def wait(
        self,
        match: Match | Correlation,
        key: Hashable,
        name: str,
        started: float,
        timeout: float | None,
        reports_late: bool,
        since: float | None = None,
    ) -> Received:
        """
        Wait for a message.

        Args:
            match: what it looks like.
            key: for a :class:`Correlation`, the value that it must carry.
            name: the name of the row.
            started: when the operation began, by :func:`time.perf_counter`.
            timeout: seconds to wait; None for no limit.
            reports_late: whether a message that comes after the timeout, or after the wait was cancelled, is reported
                as late. Otherwise it goes to whoever else wants it.
            since: only a message that arrived after this time will do, by perf_counter.

        Raises:
            MessageTimeout: no message came in time.
            ConnectionClosed: the connection ended before it came.
        """
        wait = self.add(match, key, name, started, timeout, reports_late, since)
        future = wait.future
        assert future is not None
        connection = self._connection
        try:
            while not future.done() and connection.wait_for_io_inline():
                pass  # something was read, perhaps for somebody else
            return await future
        except asyncio.CancelledError:
            self.abandon(wait)
            self._pass_on(wait, future)
            raise

    def add(
        self,
        match: Match | Correlation,
        key: Hashable,
        name: str,
        started: float,
        timeout: float | None,
        reports_late: bool,
        since: float | None = None,
    ) -> PendingWait:
        """Begin a wait; the parameters are those of :meth:`wait`."""
        self._sequence += 1
        deadline = float("inf") if timeout is None else self._loop.time() + timeout
        wait = PendingWait(
            self._sequence, match, key, name, started, deadline, self._loop.create_future(), reports_late, since
        )
        self._all[wait.sequence] = wait
        if isinstance(match, Correlation):
            same_path = self._keyed.get(match.reply_path)
            if same_path is None:
                same_path = self._keyed[match.reply_path] = match, {}
            waits = same_path[1].get(key)
            if waits is None:
                same_path[1][key] = [wait]
            else:
                waits.append(wait)
        else:
            self._plain[wait.sequence] = wait
        self._set_timer(deadline)
        return wait

    def try_consume(self, message: str | bytes, size: int, arrived: float) -> bool:
        """Give the message to the oldest wait that it matches; return whether there was one."""
        oldest: PendingWait | None = None
        for correlation, waits in self._keyed.values():
            found = waits.get(correlation.key_of_reply(message)) if waits else None
            if found and (oldest is None or found[0].sequence < oldest.sequence):
                oldest = found[0]
        for wait in self._plain.values():
            if oldest is not None and wait.sequence > oldest.sequence:
                break
            if wait.abandoned or (wait.since is not None and arrived <= wait.since):
                continue
            if self._matches(wait, message):
                oldest = wait
                break
        if oldest is None:
            if self._all:
                self._unmatched = (message if size <= _SHOWN else message[:_SHOWN]), arrived
            return False
        self.remove(oldest)
        if oldest.future is None or oldest.future.done():
            self._connection.report_late(oldest.name, oldest.started, Received(message, size, arrived))
        else:
            oldest.future.set_result(Received(message, size, arrived))
        return True

    def _matches(self, wait: PendingWait, message: str | bytes) -> bool:
        assert not isinstance(wait.match, Correlation)
        try:
            return bool(wait.match(message))
        except Exception as exc:
            if wait.match_error is None:
                wait.match_error = exc
                match_raised(wait.match, exc)
            return False

    def abandon(self, wait: PendingWait) -> None:
        """Note that no task waits any more: a message that comes for this wait now is late."""
        wait.future = None
        if not wait.reports_late:
            self.remove(wait)
        elif wait.sequence in self._all:
            self._late[wait.sequence] = wait
            wait.deadline = self._loop.time() + _LATE_SECONDS
            self._set_timer(wait.deadline)
            if len(self._late) > _LATE_COUNT:
                self.remove(next(iter(self._late.values())))

    def _pass_on(self, wait: PendingWait, future: asyncio.Future[Received]) -> None:
        # In the turn of the loop in which the task was cancelled, its message may have come, or its wait have failed.
        # A message must not get lost; a failure concerns nobody else.
        if future.done() and not future.cancelled() and future.exception() is None:
            if wait.reports_late:
                self._connection.report_late(wait.name, wait.started, future.result())
            else:
                self._connection.requeue(future.result())

    def remove(self, wait: PendingWait) -> None:
        """Forget a wait. One that is forgotten already does no harm."""
        if self._all.pop(wait.sequence, None) is None:
            return
        if wait.future is None:
            self._late.pop(wait.sequence, None)
        if isinstance(wait.match, Correlation):
            waits = self._keyed[wait.match.reply_path][1]
            if len(same_key := waits[wait.key]) == 1:
                del waits[wait.key]
            else:
                same_key.remove(wait)
        else:
            del self._plain[wait.sequence]

    def connection_lost(self, new_error: Callable[[], ConnectionClosed]) -> None:
        """Let every wait fail with an error of its own: nothing can come for them any more."""
        for wait in self._all.values():
            if wait.future is not None and not wait.future.done():
                wait.future.set_exception(new_error())
        for registry in (self._all, self._plain, self._keyed, self._late):
            registry.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, deadline: float) -> None:
        if deadline == float("inf"):
            return
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        # The loop calls early, by up to the resolution of its clock.
        now = self._loop.time() + 0.001
        for wait in list(self._all.values()):
            if wait.deadline > now:
                continue
            if wait.future is None:
                self.remove(wait)  # its reply is too late even to be reported as late
            elif not wait.future.done():
                reason = self._connection.unread_because
                error = MessageTimeout() if reason is None else MessageTimeout(_NOT_READ.format(reason))
                error.__cause__ = wait.match_error
                if wait.name not in _told_of:
                    self._tell_of_unmatched(wait)
                wait.future.set_exception(error)
                self.abandon(wait)
        self._set_timer(min((wait.deadline for wait in self._all.values()), default=float("inf")))

    def _tell_of_unmatched(self, wait: PendingWait) -> None:
        queue = self._connection.queue
        if self._unmatched is not None and self._unmatched[1] >= wait.started:
            message = self._unmatched[0]
        elif queue:  # it had come before
            message = queue[-1][0]
        else:
            return
        _told_of.add(wait.name)
        _logger.info(
            "%s: no message matched within the timeout. The last one that did not begins with %r. "
            "(Told once for each name.)",
            wait.name,
            message[:_SHOWN],
        )


class Reply:
    """The message of a request or an expectation that is checked, as Locust's users know it from ``catch_response``."""

    __slots__ = ("message", "verdict")

    def __init__(self, message: str | bytes | None) -> None:
        self.message = message
        """The message; None if an optional expectation was not met."""
        self.verdict: Literal[True] | CatchResponseError | None = None

    def json(self) -> Any:
        """
        The message parsed as JSON.

        Raises:
            ValueError: there is no message, or it is not JSON.
        """
        if self.message is None:
            raise ValueError("there is no message: the expectation was not met")
        return take_json(self.message)

    def success(self) -> None:
        """Report a success, whatever else happens in the block."""
        self.verdict = True

    def failure(self, text: str) -> None:
        """
        Report a failure.

        Args:
            text: what was wrong. Keep it the same from one failure to the next: Locust counts failures by their text.
        """
        self.verdict = CatchResponseError(text)


class ConnectionForMessageWait(Protocol):
    """What :class:`MessageWait` needs of its connection."""

    arrived: float

    @property
    def life_state(self) -> Any: ...

    @property
    def report(self) -> ReportOperation: ...

    def write(self, opcode: int, payload: bytes) -> None: ...

    def usable(self, *, writes: bool) -> bool: ...

    async def until_usable(
        self, seconds: float | None, timed_out: Callable[[str], MessageTimeout], *, writes: bool
    ) -> None: ...

    async def fail_as_closed(
        self, began: Any, request_type: str, name: str, started: float, error: ConnectionClosed
    ) -> None: ...

    def note_cancelled(self, operation: str, name: str, started: float) -> None: ...


_Outcome = tuple[Received | None, float]
"""What came, if it did, and from when the row's time counts, by :func:`time.perf_counter`."""


class MessageWait(LazyCoroutine[Any]):
    """
    What ``request`` and ``expect`` return. Nothing happens until it is awaited or entered, which can be done once.

    ``message = await connection.request(...)`` gives the message. To check it before it is reported:
    ``async with connection.request(..., catch_response=True) as reply``.
    """

    __slots__ = (
        "_checked",
        "_connection",
        "_error_kinds",
        "_match",
        "_name",
        "_optional",
        "_outcome",
        "_payload",
        "_pending",
        "_reply",
        "_since",
        "_timeout",
    )

    def __init__(
        self,
        connection: ConnectionForMessageWait,
        error_kinds: ErrorKinds,
        pending: PendingWaits,
        payload: tuple[int, bytes, Hashable] | None,
        match: Match | Correlation,
        timeout: float | None,
        name: str,
        optional: bool,
        checked: bool,
        since: float | None,
    ) -> None:
        super().__init__(depth=4)
        self._connection = connection
        self._error_kinds = error_kinds
        self._pending = pending
        self._payload = payload  # opcode, bytes and the key of the reply; None if nothing is to be sent
        self._match = match
        self._timeout = timeout
        self._name = name
        self._optional = optional
        self._checked = checked
        self._since = since
        self._outcome: _Outcome | None = None  # of a block that checks
        self._reply: Reply | None = None

    @property
    def _called(self) -> str:
        return "WebSocketConnection.expect" if self._payload is None else "WebSocketConnection.request"

    _hint = "`message = await connection...`, or `async with` to check it"

    def _begin(self) -> Coroutine[Any, Any, Any]:
        if self._checked:
            self._caller = None  # which needs no warning beside this
            raise TypeError("catch_response=True needs a block to check in: `async with ... as reply:`")
        return self._complete()

    async def _complete(self) -> str | bytes | None:
        outcome = await self._perform()
        self._report(outcome, None)
        received = outcome[0]
        return None if received is None else received.message

    async def __aenter__(self) -> Reply:
        self._use()
        self._outcome = outcome = await self._perform()
        self._reply = reply = Reply(None if outcome[0] is None else outcome[0].message)
        return reply

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._reply is not None and self._outcome is not None
        verdict = self._reply.verdict
        kinds = self._error_kinds
        if verdict is not None:
            self._report(self._outcome, None if verdict is True else verdict)
            return False
        if exc is None or isinstance(exc, kinds.control_flow):
            self._report(self._outcome, None)
            return False
        if isinstance(exc, kinds.failed_checks):
            self._report(self._outcome, exc)
            return True
        if isinstance(exc, Exception):
            self._report(self._outcome, exc)
        return False

    async def _perform(self) -> _Outcome:
        """
        Wait until the connection is writable, send the request if it is one, and await the message.

        A failure is reported here, and raised.
        """
        # An attribute of an object with __getattr__ is slow to read, so each is read once.
        connection = self._connection
        match, name, payload, pending, since = self._match, self._name, self._payload, self._pending, self._since
        timeout = self._timeout
        began, called = connection.life_state, perf_counter()
        is_request = payload is not None
        started = called if since is None else since
        received = None
        try:
            if not is_request:  # it may be there already; the reply to a request cannot
                received = pending.take_queued(cast("Match", match), since)
            if received is None and not connection.usable(writes=is_request):
                await connection.until_usable(timeout, MessageTimeout, writes=is_request)
                if timeout is not None:
                    timeout -= perf_counter() - called
                if not is_request:
                    # A message right behind the handshake of a reconnect.
                    received = pending.take_queued(cast("Match", match), since)
            if received is None:
                key = None
                if payload is not None:
                    opcode, sent, key = payload
                    connection.write(opcode, sent)
                received = await pending.wait(
                    match, key, name, started, timeout, is_request, None if is_request else since
                )
            connection.arrived = received.arrived
        except MessageTimeout as exc:
            if not self._optional:
                self._report((None, started), exc)
                raise
        except ConnectionClosed as exc:
            await connection.fail_as_closed(began, self._request_type, name, started, exc)
            raise
        except asyncio.CancelledError:
            connection.note_cancelled("request()" if is_request else "expect()", name, called)
            raise
        return received, started

    @property
    def _request_type(self) -> str:
        return RECV if self._payload is None else REQUEST

    def _report(self, outcome: _Outcome, error: BaseException | None) -> None:
        received, started = outcome
        response_time: float | None
        if received is not None:
            message, size, arrived = received
            response_time = max(0.0, arrived - started) * 1000.0
        else:
            message, size = None, 0
            # An optional expectation that was not met counts, and has no time: the wait was ours, not the server's.
            response_time = None if error is None else (perf_counter() - started) * 1000.0
        request_type = RECV if self._payload is None else REQUEST
        self._connection.report(request_type, self._name, response_time, size, error, started, message)
