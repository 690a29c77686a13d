"""Messages that the server pushes: handlers that take them, and the measuring of their age."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from math import isfinite
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .matching import Match, field, matches
from .report import PUSH

if TYPE_CHECKING:
    from .connection import WebSocketConnection

__all__ = ["Handler", "Handlers", "SentAt", "Subscription", "is_cancellation", "is_interruption"]

Handler = Callable[[Any], Awaitable[None] | None]
"""Called with the message; may be ``async def``."""

SentAt = str | int | tuple[str | int, ...] | Callable[[Any], float]
"""Where the time of a push is: a JSON field (a name, an index, or a tuple of them), or a function of the message."""

# A number of seconds since the epoch above this is in the year 5138: it is milliseconds.
_MILLISECONDS = 1e11


def is_interruption(exc: BaseException) -> bool:
    """Whether it is a kill, say, and not an error of the code that it came through."""
    if isinstance(exc, asyncio.CancelledError):
        return exc.__cause__ is not None  # where a task blocks, the bridge makes a cancellation of a kill
    return not isinstance(exc, Exception)


def is_cancellation(exc: BaseException) -> bool:
    """Whether the current task is cancelled, and not something else that it awaited."""
    task = asyncio.current_task()
    assert task is not None
    return isinstance(exc, asyncio.CancelledError) and (task.cancelling() > 0 or is_interruption(exc))


class Subscription:
    """What ``on`` and ``measure_push`` return."""

    __slots__ = ("_handlers", "context", "handler", "match", "measure", "name", "takes")

    def __init__(
        self,
        handlers: Handlers,
        match: Match,
        name: str,
        handler: Handler | None,
        measure: Callable[[Any, float], float] | None,
        takes: bool,
    ) -> None:
        self._handlers = handlers
        self.match = match
        self.name = name
        self.handler = handler
        self.measure = measure
        self.takes = takes
        # As callbacks of asyncio do, the handler runs in the context of the code that made it. So one that an
        # on_connected makes may use the connection, as on_connected itself may.
        self.context = copy_context()

    def cancel(self) -> None:
        """Handle no more messages."""
        self._handlers.remove(self)


class Handlers:
    """
    The subscriptions of one connection, in the order in which they were made: the first that matches takes a message.

    Handlers run in the order of arrival, one at a time: while an ``async def`` handler runs, in a task of its own,
    later messages wait for it. Only the handlers wait; replies and ``recv`` go on.
    """

    __slots__ = ("_connection", "_subscriptions", "_task", "_todo")

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection
        self._subscriptions: list[Subscription] = []
        self._todo: deque[tuple[Subscription, str | bytes, int, float]] = deque()
        self._task: asyncio.Task[None] | None = None

    def on(self, match: Match, handler: Handler, name: str) -> Subscription:
        """See :meth:`WebSocketConnection.on`."""
        return self._add(Subscription(self, match, name, handler, None, True))

    def measure_push(self, match: Match, sent_at: SentAt, name: str, clock_offset: float, takes: bool) -> Subscription:
        """See :meth:`WebSocketConnection.measure_push`."""
        value_of = sent_at if callable(sent_at) else field(sent_at)

        def age(message: Any, arrived: float) -> float:
            value = value_of(message)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
                raise TypeError("measure_push: sent_at is not a number of seconds or milliseconds since the epoch")
            seconds = value / 1000 if abs(value) > _MILLISECONDS else value
            return time.time() - (perf_counter() - arrived) + clock_offset - seconds

        return self._add(Subscription(self, match, name, None, age, takes))

    def _add(self, subscription: Subscription) -> Subscription:
        self._subscriptions.append(subscription)
        # What came before the task got so far, right after the handshake for instance.
        for message, size, arrived in self._connection.inbox.find(subscription.match, take=subscription.takes):
            self._handle(subscription, message, size, arrived)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Called by :meth:`Subscription.cancel`."""
        if subscription in self._subscriptions:
            # A new list: this may be called by a handler, while `take` goes through the old one.
            self._subscriptions = [other for other in self._subscriptions if other is not subscription]

    def take(self, message: str | bytes, size: int, arrived: float) -> bool:
        """Handle the message; whether it was taken."""
        for subscription in self._subscriptions:
            if matches(subscription.match, message):
                self._handle(subscription, message, size, arrived)
                if subscription.takes:
                    return True
        return False

    def _handle(self, subscription: Subscription, message: str | bytes, size: int, arrived: float) -> None:
        if self._connection.interrupted:
            return
        if subscription.measure is not None:
            self._measure(subscription, subscription.measure, message, size, arrived)
            return
        self._todo.append((subscription, message, size, arrived))
        if self._task is None:
            self._work()

    def _measure(
        self,
        subscription: Subscription,
        age: Callable[[Any, float], float],
        message: str | bytes,
        size: int,
        arrived: float,
    ) -> None:
        duration: float | None = None
        error: BaseException | None = None
        try:
            duration = age(message, arrived)
        except BaseException as exc:
            if is_interruption(exc):
                self._connection.escalate(exc)
                return
            error = exc
        self._connection.report_unawaited(PUSH, subscription.name, arrived, duration, size, error, message)

    def _work(self) -> None:
        while self._todo:
            subscription, message, size, arrived = self._todo.popleft()
            assert subscription.handler is not None
            try:
                context = subscription.context.copy()  # no context is entered twice
                result = context.run(subscription.handler, message)
            except BaseException as exc:
                if is_interruption(exc):
                    self._connection.escalate(exc)
                    return
                self._done(subscription, message, size, arrived, exc)
                continue
            if inspect.isawaitable(result):
                finish = self._finish(result, subscription, message, size, arrived)
                self._task = asyncio.get_running_loop().create_task(finish, context=context)
                return
            self._done(subscription, message, size, arrived, None)

    async def _finish(
        self, result: Awaitable[None], subscription: Subscription, message: str | bytes, size: int, arrived: float
    ) -> None:
        error: BaseException | None = None
        try:
            await result
        except (Exception, asyncio.CancelledError) as exc:
            if is_cancellation(exc):
                self._todo.clear()  # the user is being stopped
                raise
            error = exc
        self._task = None
        self._done(subscription, message, size, arrived, error)
        self._work()

    def _done(
        self, subscription: Subscription, message: str | bytes, size: int, arrived: float, error: BaseException | None
    ) -> None:
        if isinstance(error, self._connection.client.control_flow):
            self._connection.client.escalate(error)
            error = None
        # No time: how long the tester's own code takes is no property of the server.
        self._connection.report_unawaited(PUSH, subscription.name, arrived, None, size, error, message)
