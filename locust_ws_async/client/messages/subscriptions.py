"""Messages that the server pushes: handlers that get them, and the measuring of their age."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from math import isfinite
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from ...hosting import cancels_current_task, is_kill
from ..observing.events import PUSH, ErrorKinds, ReportOperation
from .matching import Match, checked_match, field, matches
from .queue import BoundedQueue, ReceiveQueue

__all__ = ["Handler", "Observer", "SentAt", "Subscription", "Subscriptions"]

Handler = Callable[[Any], Awaitable[None] | None]
"""Called with the message; may be ``async def``."""

Observer = Callable[[Any, float], None]
"""Called with the message, and with when it arrived (:func:`time.perf_counter`)."""

SentAt = str | int | tuple[str | int, ...] | Callable[[Any], float]
"""Where the time of a push is: a JSON field (a name, an index, or a tuple of them), or a function of the message."""

# As seconds since the epoch, a greater number is after the year 5138: it must be milliseconds.
_MAX_SECONDS = 1e11


class Subscription:
    """What ``on`` and ``measure_push`` return: the messages that match, and what to do with them."""

    __slots__ = (
        "_subscriptions",
        "consumes",
        "context",
        "handler",
        "match",
        "measure",
        "name",
        "observer",
        "on_end",
        "returned",
    )

    def __init__(
        self,
        subscriptions: Subscriptions,
        match: Match,
        name: str | None,
        handler: Handler | None,
        measure: Callable[[Any, float], float] | None,
        consumes: bool,
    ) -> None:
        self._subscriptions = subscriptions
        self.match = match
        self.name = name
        self.handler = handler
        self.measure = measure
        self.consumes = consumes
        self.observer: Observer | None = None
        self.on_end: Callable[[bool], None] | None = None
        self.returned = False
        """Whether an ``async def`` handler has ever come to its end."""
        # Like a callback of asyncio, the handler runs in the context of the code that subscribed. So a handler that
        # on_connected makes may use the connection before other tasks may, as on_connected itself does.
        self.context = copy_context()

    def cancel(self) -> None:
        """Handle no more messages. To cancel twice does no harm."""
        self._subscriptions.remove(self)


class ConnectionForSubscriptions(Protocol):
    """What :class:`Subscriptions` needs of its connection."""

    arrived: float
    name: str

    @property
    def error_kinds(self) -> ErrorKinds: ...

    @property
    def killed(self) -> bool: ...

    @property
    def queue(self) -> ReceiveQueue: ...

    @property
    def report_in_background(self) -> ReportOperation: ...

    def escalate(self, exc: BaseException) -> None: ...

    def note_cancelled(self, operation: str, name: str, started: float, never: str) -> None: ...


class _Push(NamedTuple):
    """A message for a subscription, and what its row will tell."""

    message: str | bytes
    size: int
    arrived: float
    subscription: Subscription
    age: float | None = None
    """Milliseconds, where they are measured."""
    error: BaseException | None = None


def _check_handler(handler: object, caller: str) -> None:
    if not callable(handler):
        raise TypeError(f"{caller}: the handler must be a function of the message, async def or def, not {handler!r}")


class Subscriptions:
    """
    The subscriptions of one connection, in the order in which they were made: the first that matches takes a message.

    Handlers run in the order of arrival, one at a time: while an ``async def`` handler runs, in a task of its own,
    later messages wait for it. Only the handlers wait; replies and ``recv`` go on, unless so many messages wait that
    reading stops.

    Args:
        connection: the connection whose messages these are.
        waiting: the messages that wait for their handler, while another one runs.
    """

    __slots__ = ("_connection", "_subscriptions", "_task", "waiting")

    def __init__(self, connection: ConnectionForSubscriptions, waiting: BoundedQueue[_Push]) -> None:
        self._connection = connection
        self._subscriptions: list[Subscription] = []
        self.waiting = waiting
        self._task: asyncio.Task[None] | None = None

    def on(self, match: Match, handler: Handler, name: str | None) -> Subscription:
        """Do what ``WebSocketConnection.on`` promises."""
        checked_match(match, "on")
        _check_handler(handler, "on")
        return self._add(Subscription(self, match, name, handler, None, True))

    def measure_push(
        self,
        match: Match,
        sent_at: SentAt,
        name: str,
        clock_offset: float,
        consumes: bool,
        handler: Handler | None,
    ) -> Subscription:
        """Do what ``WebSocketConnection.measure_push`` promises."""
        checked_match(match, "measure_push")
        if handler is not None:
            _check_handler(handler, "measure_push")
        value_of = sent_at if callable(sent_at) else field(sent_at)

        def age(message: Any, arrived: float) -> float:
            value = value_of(message)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
                raise TypeError("measure_push: sent_at is not a number of seconds or milliseconds since the epoch")
            seconds = value / 1000 if abs(value) > _MAX_SECONDS else value
            return time.time() - (perf_counter() - arrived) + clock_offset - seconds

        return self._add(Subscription(self, match, name, handler, age, consumes))

    def observe(self, match: Match, observer: Observer, on_end: Callable[[bool], None], consumes: bool) -> Subscription:
        """
        Show the messages that match to *observer*, as they arrive, without a row.

        Args:
            match: a predicate on the message.
            observer: what it raises is escalated.
            on_end: called when the connection is over for good, with whether this side has ended it.
            consumes: False leaves the messages to others as well.
        """
        subscription = Subscription(self, match, None, None, None, consumes)
        subscription.observer, subscription.on_end = observer, on_end
        return self._add(subscription)

    def finish(self, by_us: bool) -> None:
        """The connection is over for good."""
        for subscription in self._subscriptions:
            if subscription.on_end is not None:
                subscription.on_end(by_us)

    def _add(self, subscription: Subscription) -> Subscription:
        self._subscriptions.append(subscription)
        # Messages may have come before the task got here, right behind the handshake for instance.
        for message, size, arrived in self._connection.queue.find(subscription.match, take=subscription.consumes):
            self._handle(subscription, message, size, arrived)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Called by :meth:`Subscription.cancel`."""
        if subscription in self._subscriptions:
            # This makes a new list, since a handler may call this while try_consume goes through the old one.
            self._subscriptions = [other for other in self._subscriptions if other is not subscription]

    def try_consume(self, message: str | bytes, size: int, arrived: float) -> bool:
        """Handle the message where a subscription matches; return whether one took it."""
        for subscription in self._subscriptions:
            if matches(subscription.match, message):
                self._handle(subscription, message, size, arrived)
                if subscription.consumes:
                    return True
        return False

    def _handle(self, subscription: Subscription, message: str | bytes, size: int, arrived: float) -> None:
        if self._connection.killed:
            return
        if subscription.observer is not None:
            try:
                subscription.observer(message, arrived)
            except BaseException as exc:
                self._connection.escalate(exc)
            return
        push = _Push(message, size, arrived, subscription)
        if subscription.measure is not None:
            try:
                push = push._replace(age=subscription.measure(message, arrived) * 1000.0)
            except BaseException as exc:
                if is_kill(exc):
                    self._connection.escalate(exc)
                    return
                push = push._replace(error=exc)
        if subscription.handler is None:
            self._report(push, None)
        elif self._task is None:
            self.waiting.append(push)
            self._drain()
        else:
            self.waiting.put(push)

    def _drain(self) -> None:
        waiting = self.waiting
        while waiting:
            push = waiting.popleft()
            if waiting.bytes:
                waiting.note_removed(push.size)
            subscription = push.subscription
            assert subscription.handler is not None
            try:
                context = subscription.context.copy()  # a context cannot be entered twice at a time
                self._connection.arrived = push.arrived
                result = context.run(subscription.handler, push.message)
            except BaseException as exc:
                if is_kill(exc):
                    self._connection.escalate(exc)
                    return
                self._report(push, exc)
                continue
            if inspect.isawaitable(result):
                finish = self._await_handler(result, push)
                self._task = asyncio.get_running_loop().create_task(finish, context=context)
                self._task.add_done_callback(partial(self._awaited, result, subscription, perf_counter()))
                return
            self._report(push, None)

    async def _await_handler(self, result: Awaitable[None], push: _Push) -> None:
        error: BaseException | None = None
        try:
            await result
        except (Exception, asyncio.CancelledError) as exc:
            if cancels_current_task(exc):
                raise
            error = exc
        self._task = None
        push.subscription.returned = True
        self._report(push, error)
        self._drain()

    def _awaited(
        self, result: Awaitable[None], subscription: Subscription, started: float, task: asyncio.Task[None]
    ) -> None:
        if task.cancelled():
            self.waiting.discard()  # the user is being stopped
            name = subscription.name or self._connection.name
            never = "" if subscription.returned else "it never returned"
            self._connection.note_cancelled("a handler of on()", name, started, never)
            if inspect.iscoroutine(result):
                result.close()  # else Python would complain of it, if the task was cancelled before its first step

    def _report(self, push: _Push, error: BaseException | None) -> None:
        """Report a push, with the ``error`` of its handler."""
        subscription = push.subscription
        if isinstance(error, self._connection.error_kinds.control_flow):
            self._connection.escalate(error)
            error = None
        if subscription.name is not None:
            # Without an age the row has no time: how long the author's own code takes is no property of the server.
            self._connection.report_in_background(
                PUSH, subscription.name, push.age, push.size, push.error or error, push.arrived, push.message
            )
        elif error is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "exception in a handler of pushed messages that has no row", "exception": error}
            )
