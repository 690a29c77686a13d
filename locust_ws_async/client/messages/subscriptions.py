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

from ...hosting import cancels_current_task, is_kill
from ..observing.events import PUSH
from .matching import Match, field, matches

if TYPE_CHECKING:
    from ..connection import WebSocketConnection

__all__ = ["Handler", "SentAt", "Subscription", "Subscriptions"]

Handler = Callable[[Any], Awaitable[None] | None]
"""Called with the message; may be ``async def``."""

SentAt = str | int | tuple[str | int, ...] | Callable[[Any], float]
"""Where the time of a push is: a JSON field (a name, an index, or a tuple of them), or a function of the message."""

# A number of seconds since the epoch above this is in the year 5138: it is milliseconds.
_MILLISECONDS = 1e11


class Subscription:
    """What ``on`` and ``measure_push`` return."""

    __slots__ = ("_handlers", "consumes", "context", "handler", "match", "measure", "name")

    def __init__(
        self,
        handlers: Subscriptions,
        match: Match,
        name: str,
        handler: Handler | None,
        measure: Callable[[Any, float], float] | None,
        consumes: bool,
    ) -> None:
        self._handlers = handlers
        self.match = match
        self.name = name
        self.handler = handler
        self.measure = measure
        self.consumes = consumes
        # As callbacks of asyncio do, the handler runs in the context of the code that made it. So one that an
        # on_connected makes may use the connection, as on_connected itself may.
        self.context = copy_context()

    def cancel(self) -> None:
        """Handle no more messages."""
        self._handlers.remove(self)


class Subscriptions:
    """
    The subscriptions of one connection, in the order in which they were made: the first that matches takes a message.

    Handlers run in the order of arrival, one at a time: while an ``async def`` handler runs, in a task of its own,
    later messages wait for it. Only the handlers wait; replies and ``recv`` go on.
    """

    __slots__ = ("_connection", "_queued", "_subscriptions", "_task")

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection
        self._subscriptions: list[Subscription] = []
        self._queued: deque[tuple[Subscription, str | bytes, int, float]] = deque()
        self._task: asyncio.Task[None] | None = None

    def on(self, match: Match, handler: Handler, name: str) -> Subscription:
        """See :meth:`WebSocketConnection.on`."""
        return self._add(Subscription(self, match, name, handler, None, True))

    def measure_push(
        self, match: Match, sent_at: SentAt, name: str, clock_offset: float, consumes: bool
    ) -> Subscription:
        """See :meth:`WebSocketConnection.measure_push`."""
        value_of = sent_at if callable(sent_at) else field(sent_at)

        def age(message: Any, arrived: float) -> float:
            value = value_of(message)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
                raise TypeError("measure_push: sent_at is not a number of seconds or milliseconds since the epoch")
            seconds = value / 1000 if abs(value) > _MILLISECONDS else value
            return time.time() - (perf_counter() - arrived) + clock_offset - seconds

        return self._add(Subscription(self, match, name, None, age, consumes))

    def _add(self, subscription: Subscription) -> Subscription:
        self._subscriptions.append(subscription)
        # What came before the task got so far, right after the handshake for instance.
        for message, size, arrived in self._connection.queue.find(subscription.match, take=subscription.consumes):
            self._handle(subscription, message, size, arrived)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Called by :meth:`Subscription.cancel`."""
        if subscription in self._subscriptions:
            # A new list: this may be called by a handler, while `take` goes through the old one.
            self._subscriptions = [other for other in self._subscriptions if other is not subscription]

    def try_consume(self, message: str | bytes, size: int, arrived: float) -> bool:
        """Handle the message; whether it was taken."""
        for subscription in self._subscriptions:
            if matches(subscription.match, message):
                self._handle(subscription, message, size, arrived)
                if subscription.consumes:
                    return True
        return False

    def _handle(self, subscription: Subscription, message: str | bytes, size: int, arrived: float) -> None:
        if self._connection.interrupted:
            return
        if subscription.measure is not None:
            self._measure(subscription, subscription.measure, message, size, arrived)
            return
        self._queued.append((subscription, message, size, arrived))
        if self._task is None:
            self._drain()

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
            if is_kill(exc):
                self._connection.escalate(exc)
                return
            error = exc
        self._connection.report_in_background(PUSH, subscription.name, arrived, duration, size, error, message)

    def _drain(self) -> None:
        while self._queued:
            subscription, message, size, arrived = self._queued.popleft()
            assert subscription.handler is not None
            try:
                context = subscription.context.copy()  # no context is entered twice
                self._connection.arrived = arrived
                result = context.run(subscription.handler, message)
            except BaseException as exc:
                if is_kill(exc):
                    self._connection.escalate(exc)
                    return
                self._report(subscription, message, size, arrived, exc)
                continue
            if inspect.isawaitable(result):
                finish = self._await_handler(result, subscription, message, size, arrived)
                self._task = asyncio.get_running_loop().create_task(finish, context=context)
                return
            self._report(subscription, message, size, arrived, None)

    async def _await_handler(
        self, result: Awaitable[None], subscription: Subscription, message: str | bytes, size: int, arrived: float
    ) -> None:
        error: BaseException | None = None
        try:
            await result
        except (Exception, asyncio.CancelledError) as exc:
            if cancels_current_task(exc):
                self._queued.clear()  # the user is being stopped
                raise
            error = exc
        self._task = None
        self._report(subscription, message, size, arrived, error)
        self._drain()

    def _report(
        self, subscription: Subscription, message: str | bytes, size: int, arrived: float, error: BaseException | None
    ) -> None:
        if isinstance(error, self._connection.client.control_flow):
            self._connection.client.escalate(error)
            error = None
        # No time: how long the tester's own code takes is no property of the server.
        self._connection.report_in_background(PUSH, subscription.name, arrived, None, size, error, message)
