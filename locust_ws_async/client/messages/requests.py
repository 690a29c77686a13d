"""Waiting for one certain message: requests with their replies, and expectations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Hashable
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, SupportsFloat

from ...exceptions import CatchResponseError, ConnectionClosed, MessageTimeout
from ..lazy_coroutine import LazyCoroutine
from ..observing.events import RECV, REQUEST
from .matching import Correlation, Match
from .message import Received
from .since import checked_since

if TYPE_CHECKING:
    from ..connection import WebSocketConnection

__all__ = ["MessageWait", "PendingWaits", "Reply"]

# A reply may come after its timeout, to be reported as late. For so long it is waited for, and for so many.
_LATE_SECONDS = 60.0
_LATE_COUNT = 1000

_NOT_READ = "no message that matches within the timeout, and none was read: the queue of recv is full (max_queue)"


class PendingWait:
    """One wait. ``future`` is None once it was given up; what comes now is late."""

    __slots__ = ("deadline", "future", "key", "match", "name", "number", "problem", "reports_late", "since", "started")

    def __init__(
        self,
        number: int,
        match: Match | Correlation,
        key: Hashable,
        name: str,
        started: float,
        deadline: float,
        future: asyncio.Future[Received],
        reports_late: bool,
    ) -> None:
        self.number = number
        self.match = match
        self.key = key
        self.name = name
        self.started = started
        self.deadline = deadline
        self.future: asyncio.Future[Received] | None = future
        self.reports_late = reports_late
        self.problem: Exception | None = None  # what the match raised for a message
        self.since: float | None = None  # messages that arrived before are for others

    @property
    def abandoned(self) -> bool:
        """Whether its task was cancelled, and has not got round to saying so: nothing is for it now, late or not."""
        return not self.reports_late and self.future is not None and self.future.cancelled()


class PendingWaits:
    """
    All waits of one connection, in the order in which they began: a message goes to the oldest that it matches.

    Replies that are overdue keep their place in that order, so that they are reported as late and do not pass for the
    reply to a younger request.

    One timer serves all of them. It is set for the earliest deadline, and left alone when that wait ends in time.
    """

    __slots__ = ("_all", "_connection", "_keyed", "_late", "_loop", "_number", "_plain", "_timer")

    def __init__(self, connection: WebSocketConnection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._number = 0
        self._all: dict[int, PendingWait] = {}
        self._plain: dict[int, PendingWait] = {}
        self._keyed: dict[Correlation, dict[Hashable, list[PendingWait]]] = {}
        self._late: dict[int, PendingWait] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(
        self,
        match: Match | Correlation,
        key: Hashable,
        name: str,
        started: float,
        timeout: float | None,
        reports_late: bool,
    ) -> PendingWait:
        """Begin a wait. ``key``: for a Correlation, the value to wait for. ``timeout``: seconds."""
        self._number += 1
        deadline = float("inf") if timeout is None else self._loop.time() + timeout
        waiter = PendingWait(
            self._number, match, key, name, started, deadline, self._loop.create_future(), reports_late
        )
        self._all[waiter.number] = waiter
        if isinstance(match, Correlation):
            self._keyed.setdefault(match, {}).setdefault(key, []).append(waiter)
        else:
            self._plain[waiter.number] = waiter
        self._set_timer(deadline)
        return waiter

    def try_consume(self, message: str | bytes, size: int, arrived: float) -> bool:
        """Give the message to the oldest wait that it matches; whether there was one."""
        oldest: PendingWait | None = None
        for correlation, waiters in self._keyed.items():
            found = waiters.get(correlation.key_of_reply(message))
            if found and (oldest is None or found[0].number < oldest.number):
                oldest = found[0]
        for waiter in self._plain.values():
            if oldest is not None and waiter.number > oldest.number:
                break
            if waiter.abandoned or (waiter.since is not None and arrived <= waiter.since):
                continue
            if self._matches(waiter, message):
                oldest = waiter
                break
        if oldest is None:
            return False
        self.remove(oldest)
        if oldest.future is None or oldest.future.done():
            self._connection.report_late(oldest.name, oldest.started, Received(message, size, arrived))
        else:
            oldest.future.set_result(Received(message, size, arrived))
        return True

    def _matches(self, waiter: PendingWait, message: str | bytes) -> bool:
        assert not isinstance(waiter.match, Correlation)
        try:
            return bool(waiter.match(message))
        except Exception as exc:
            waiter.problem = waiter.problem or exc
            return False

    def abandon(self, waiter: PendingWait) -> None:
        """The task does not wait any more; what comes for it now is late."""
        waiter.future = None
        if not waiter.reports_late:
            self.remove(waiter)
        elif waiter.number in self._all:
            self._late[waiter.number] = waiter
            waiter.deadline = self._loop.time() + _LATE_SECONDS
            self._set_timer(waiter.deadline)
            if len(self._late) > _LATE_COUNT:
                self.remove(next(iter(self._late.values())))

    def remove(self, waiter: PendingWait) -> None:
        """Forget a wait. One that is forgotten already does no harm."""
        if self._all.pop(waiter.number, None) is None:
            return
        self._late.pop(waiter.number, None)
        if isinstance(waiter.match, Correlation):
            keys = self._keyed[waiter.match]
            keys[waiter.key].remove(waiter)
            if not keys[waiter.key]:
                del keys[waiter.key]
                if not keys:
                    del self._keyed[waiter.match]
        else:
            del self._plain[waiter.number]

    def connection_lost(self, new_error: Callable[[], ConnectionClosed]) -> None:
        """Fail every wait; nothing can come for them any more."""
        for waiter in self._all.values():
            if waiter.future is not None and not waiter.future.done():
                waiter.future.set_exception(new_error())
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
        # The loop calls up to its clock's resolution early.
        now = self._loop.time() + 0.001
        for waiter in list(self._all.values()):
            if waiter.deadline > now:
                continue
            if waiter.future is None:
                self.remove(waiter)  # late beyond all patience
            elif not waiter.future.done():
                error = MessageTimeout(_NOT_READ) if self._connection.reading_paused else MessageTimeout()
                error.__cause__ = waiter.problem
                waiter.future.set_exception(error)
                self.abandon(waiter)
        self._set_timer(min((waiter.deadline for waiter in self._all.values()), default=float("inf")))


class Reply:
    """The message of an exchange that is checked, as Locust users know it from ``catch_response``."""

    __slots__ = ("message", "verdict")

    def __init__(self, message: str | bytes | None) -> None:
        self.message = message
        """The message; None if an optional expectation was not met."""
        self.verdict: Literal[True] | CatchResponseError | None = None

    def json(self) -> Any:
        """The message parsed as JSON."""
        if self.message is None:
            raise ValueError("there is no message: the expectation was not met")
        return json.loads(self.message)

    def success(self) -> None:
        """Report the exchange as a success, whatever else happens in the block."""
        self.verdict = True

    def failure(self, text: str) -> None:
        """Report the exchange as failed with this text. Keep it the same from one failure to the next."""
        self.verdict = CatchResponseError(text)


class MessageWait(LazyCoroutine[Any]):
    """
    What ``request`` and ``expect`` return: ``message = await exchange``, or, to check the message before it is
    reported, ``async with exchange as reply``. Nothing happens until then.
    """

    __slots__ = (
        "_checked",
        "_connection",
        "_match",
        "_name",
        "_optional",
        "_outcome",
        "_payload",
        "_reply",
        "_since",
        "_started",
        "_timeout",
    )

    def __init__(
        self,
        connection: WebSocketConnection,
        payload: tuple[int, bytes, Hashable] | None,
        match: Match | Correlation,
        timeout: float | None,
        name: str,
        optional: bool,
        checked: bool,
        since: SupportsFloat | None = None,
    ) -> None:
        super().__init__()
        self._connection = connection
        self._payload = payload
        self._match = match
        self._timeout = timeout
        self._name = name
        self._optional = optional
        self._checked = checked
        self._since = None if since is None else checked_since(since)
        self._started = 0.0
        self._outcome: Received | None = None
        self._reply: Reply | None = None

    def _begin(self) -> Coroutine[Any, Any, Any]:
        if self._checked:
            raise TypeError("catch_response=True needs a block to check in: `async with ... as reply:`")
        return self._complete()

    async def _complete(self) -> str | bytes | None:
        await self._perform()
        self._report(None)
        return None if self._outcome is None else self._outcome.message

    async def __aenter__(self) -> Reply:
        await self._perform()
        self._reply = Reply(None if self._outcome is None else self._outcome.message)
        return self._reply

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._reply is not None
        verdict = self._reply.verdict
        client = self._connection.client
        if verdict is not None:
            self._report(verdict if isinstance(verdict, CatchResponseError) else None)
            return False
        if exc is None or isinstance(exc, client.control_flow):
            self._report(None)
            return False
        if isinstance(exc, client.check_errors):
            self._report(exc)
            return True
        if isinstance(exc, Exception):
            self._report(exc)
        return False

    async def _perform(self) -> None:
        """Send, if it is a request, and wait. Failures are reported here."""
        connection = self._connection
        closed_before = connection.closed_by_user
        self._started = perf_counter() if self._since is None else self._since
        try:
            if self._take_from_queue():
                return
            timeout = self._timeout
            if not self._usable:
                timeout = await self._until_usable()
                if self._take_from_queue():  # what came right behind the handshake of a reconnect
                    return
            self._outcome = await self._wait(timeout)
            connection.arrived = self._outcome.arrived
        except MessageTimeout as exc:
            if not self._optional:
                self._report(exc)
                raise
        except ConnectionClosed as exc:
            # A wait that this side ended is as if it had been cancelled.
            if closed_before or not connection.closed_by_user:
                self._report(exc)
            raise

    def _take_from_queue(self) -> bool:
        """Whether what is expected is there already."""
        if self._payload is None:
            assert not isinstance(self._match, Correlation)
            if found := self._connection.queue.find(self._match, limit=1, since=self._since):
                self._outcome = found[0]
                self._connection.arrived = found[0].arrived
                return True
        return False

    async def _until_usable(self) -> float | None:
        """
        Wait while the connection is being made again, or the server reads so slowly that another request would pile up
        in memory; gives what this leaves of the timeout.

        The time of a reconnect is no reply time. That of a slow reader is: the request is under way from the first.
        """
        connection = self._connection
        began = perf_counter()
        try:
            async with asyncio.timeout(self._timeout):
                while not self._usable:
                    if connection.ready:
                        await connection.drained()
                    else:
                        lost = perf_counter()
                        await connection.until_ready()
                        if self._since is None:
                            self._started += perf_counter() - lost
        except TimeoutError:
            raise MessageTimeout() from None
        return None if self._timeout is None else self._timeout - (perf_counter() - began)

    @property
    def _usable(self) -> bool:
        connection = self._connection
        return connection.ready and (self._payload is None or not connection.writing_paused)

    async def _wait(self, timeout: float | None) -> Received:
        connection = self._connection
        pending = connection.router.pending
        opcode, payload, key = self._payload or (0, b"", None)
        is_request = self._payload is not None
        if is_request:
            connection.write(opcode, payload)
        waiter = pending.add(self._match, key, self._name, self._started, timeout, is_request)
        if not is_request:
            waiter.since = self._since
        future = waiter.future
        assert future is not None
        try:
            while not future.done() and connection.wait_for_io_inline():
                pass  # something was read, perhaps not for us
            return await future
        except asyncio.CancelledError:
            pending.abandon(waiter)
            # It may have come, or failed, in the same turn of the loop, and nobody has seen it.
            if future.done() and not future.cancelled() and future.exception() is None:
                if is_request:
                    connection.report_late(self._name, self._started, future.result())
                else:
                    connection.requeue(future.result())
            raise

    def _report(self, error: BaseException | None) -> None:
        received = self._outcome
        request_type = RECV if self._payload is None else REQUEST
        duration: float | None
        if received is not None:
            duration = max(0.0, received.arrived - self._started)
        else:
            # An optional expectation that was not met counts, and has no time: the wait was ours, not the server's.
            duration = None if error is None else perf_counter() - self._started
        self._connection.report(
            request_type,
            self._name,
            self._started,
            duration,
            0 if received is None else received.size,
            error,
            None if received is None else received.message,
        )
