"""The tasks that wait on a connection: for a message, for another state, for the write buffer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from time import perf_counter
from typing import Any

from ... import fast_paths
from ...exceptions import ConnectionClosed
from ...hosting import inline_wait_of, no_inline_wait
from .reports import ConnectionOwner, ConnectionReports
from .state import ConnectionState, State

__all__ = ["WAITING_INLINE", "ConnectionWaits", "initializing"]

WAITING_INLINE: Any = object()
"""Stands in ``_recv_waiter`` for a task that waits inline in ``recv``, where there is no future to resolve."""

initializing: ContextVar[ConnectionWaits | None] = ContextVar("initializing", default=None)
"""In ``on_connected``, and in the tasks that it makes: the connection that it initializes."""


class ConnectionWaits(ConnectionReports):
    """
    The part of a :class:`WebSocketConnection` that lets tasks wait, and wakes them. It is never used alone.

    ``ConnectionReports`` says why the parts are base classes.
    """

    __slots__ = ("_create_future", "_drain_waiters", "_loop", "_recv_waiter", "_state_waiters", "wait_for_io_inline")

    def __init__(self, client: ConnectionOwner, url: str, name: str, life: ConnectionState) -> None:
        super().__init__(client, url, name, life)
        self._loop = asyncio.get_running_loop()
        self._create_future = self._loop.create_future
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
        Wait while the connection is being made again.

        Raises:
            ConnectionClosed: it is over.
        """
        while not self.ready:
            if self._life.state is State.CLOSED:
                raise self.closed_error()
            await self._state_change()

    async def _ready_for(self, request_type: str, started: float) -> float:
        # Gives the time from which the operation counts: that of a reconnect is not part of it.
        if self.ready:
            return started
        was_possible = not self.closed_by_user
        try:
            await self.until_ready()
        except ConnectionClosed as exc:
            if not self.ended_by_us(was_possible=was_possible):
                self._report_failure(request_type, started, exc)
            raise
        return perf_counter()

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
