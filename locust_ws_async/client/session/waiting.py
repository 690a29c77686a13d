"""The tasks that wait on a connection: for a message, for another state, for the write buffer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from time import perf_counter
from typing import Any

from ... import fast_paths
from ...exceptions import ConnectionClosed, WebSocketError
from ...hosting import inline_wait_of, no_inline_wait
from .overuse import Overuse
from .reports import ConnectionOwner, ConnectionReports
from .state import ConnectionState, State

__all__ = ["WAITING_INLINE", "ConnectionWaits", "initializing"]

_OPEN = State.OPEN

WAITING_INLINE: Any = object()
"""Stands in ``_recv_waiter`` for a task that waits inline in ``recv``, where there is no future to resolve."""

initializing: ContextVar[ConnectionWaits | None] = ContextVar("initializing", default=None)
"""In ``on_connected``, and in the tasks that it makes: the connection that it initializes."""


class ConnectionWaits(ConnectionReports):
    """
    The part of a :class:`WebSocketConnection` that lets tasks wait, and wakes them. It is never used alone.

    ``ConnectionReports`` says why the parts are base classes.
    """

    __slots__ = (
        "_create_future",
        "_drain_waiters",
        "_loop",
        "_overuse",
        "_recv_waiter",
        "_state_waiters",
        "wait_for_io_inline",
    )

    def __init__(self, client: ConnectionOwner, url: str, name: str, life: ConnectionState) -> None:
        super().__init__(client, url, name, life)
        self._loop = asyncio.get_running_loop()
        self._create_future = self._loop.create_future
        self._overuse: Overuse | None = None  # made when it is needed
        self._recv_waiter: asyncio.Future[None] | None = None  # at most one task waits in recv
        self._state_waiters: list[asyncio.Future[None]] = []
        self._drain_waiters: list[asyncio.Future[None]] | None = None  # None unless writing is paused
        self.wait_for_io_inline: Callable[[], bool] = no_inline_wait
        """See :func:`.hosting.inline_wait_of`."""

    # For a state: it is "connected" while frames may be written, and "ready" for a task that may use it

    @property
    def connected(self) -> bool:
        """Whether frames may be written: the handshake is complete, and no close frame is out."""
        return self._life.connected

    @property
    def ready(self) -> bool:
        """Whether the current task may use the connection: it is connected, and no ``on_connected`` of others runs."""
        return self._life.ready(in_on_connected=self._in_on_connected)

    @property
    def _in_on_connected(self) -> bool:
        return initializing.get() is self

    async def until_ready(self) -> None:
        """
        Wait while the connection is being made again. What sends or receives does so by itself.

        Cancelling stops the wait.

        Raises:
            ConnectionClosed: it is over.
        """
        began, started = self._life.state, perf_counter()
        try:
            await self._until_ready()
        except ConnectionClosed as exc:
            await self.fail_as_closed(began, None, self.name, started, exc)
            raise
        except asyncio.CancelledError:
            self.note_cancelled("until_ready()", self.name, started)
            raise

    async def _until_ready(self) -> None:
        while not self.ready:
            if self._life.state is State.CLOSED:
                await asyncio.sleep(0)  # see Overuse
                raise self.closed_error()
            await self._state_change()

    def usable(self, *, writes: bool) -> bool:
        """Whether the current task may use the connection and, if it ``writes``, the server reads fast enough."""
        return (self._life.state is _OPEN or self.ready) and not (writes and self._drain_waiters is not None)

    async def until_usable(
        self, seconds: float | None, timed_out: Callable[[str], WebSocketError], *, writes: bool
    ) -> None:
        """
        Wait while the connection is being made again or, if the task ``writes``, while the server reads so slowly that
        another message would pile up in memory.

        Args:
            seconds: for at most so long; None for no limit.
            timed_out: the type of the error to raise then.
            writes: whether the task is about to write.

        Raises:
            ConnectionClosed: it is over.
        """
        try:
            async with asyncio.timeout(seconds):
                while not self.usable(writes=writes):
                    if self.ready:
                        await self.drained()
                    else:
                        await self._until_ready()
        except TimeoutError:
            if self.ready:
                raise timed_out("not sent within the timeout: the server reads too slowly") from None
            raise timed_out(self._life.not_connected) from None

    async def fail_as_closed(
        self, began: State, request_type: str | None, name: str, started: float, error: ConnectionClosed
    ) -> None:
        """
        Report an operation that this error is about to end, unless this side has closed the connection meanwhile.

        If the connection was over before the operation began, this also waits: see :class:`Overuse`. Otherwise a task
        that ignores such errors would keep the loop from everything else.

        Args:
            began: the state in which the operation began.
            request_type: the type of the row; None for no row, where the end of the connection is no error.
            name: the name of the row.
            started: when the operation began, by perf_counter.
            error: why the operation ends.
        """
        if request_type is not None and not self._life.ended_by_us(began=began):
            self.report(request_type, name, (perf_counter() - started) * 1000.0, 0, error, started, None)
        if began is State.CLOSED:
            if self.client.stopping():
                await asyncio.sleep(0)
                return
            if self._overuse is None:
                self._overuse = Overuse(self.name, self.client.connect_backoff)
            await self._overuse.slow_down(error)

    async def _wait_while(self, *states: State) -> None:
        while self._life.state in states:
            await self._state_change()

    async def _state_change(self) -> None:
        await self._wait_in(self._state_waiters)

    def _wake_state_waiters(self) -> None:
        if self._state_waiters:
            waiters, self._state_waiters = self._state_waiters, []
            _wake(waiters)

    # For a message

    def enable_inline_wait(self) -> None:
        """Wait inline from now on, where the loop can: see the fast path "inline wait" of ``recv``."""
        if not fast_paths.PLAIN:
            self.wait_for_io_inline = inline_wait_of(self._loop)

    def _wake_receiver(self) -> None:
        waiter, self._recv_waiter = self._recv_waiter, None
        if waiter is not None and waiter is not WAITING_INLINE:
            _wake((waiter,))

    # For the write buffer

    def pause_writing(self) -> None:
        """Note that the write buffer is over its limit. Called by the engine."""
        self._drain_waiters = []

    def resume_writing(self) -> None:
        """Wake the tasks that wait for the write buffer. Called by the engine."""
        waiters, self._drain_waiters = self._drain_waiters, None
        _wake(waiters or ())

    @property
    def writing_paused(self) -> bool:
        """Whether the write buffer is over its limit, because the server reads too slowly."""
        return self._drain_waiters is not None

    async def drained(self) -> None:
        """Wait until the write buffer gets under its limit, or the connection ends."""
        if self._drain_waiters is not None:
            await self._wait_in(self._drain_waiters)

    async def _wait_in(self, waiters: list[asyncio.Future[None]]) -> None:
        waiter = self._create_future()
        waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in waiters:
                waiters.remove(waiter)
            raise


def _wake(waiters: Iterable[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
