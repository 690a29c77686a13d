"""The client of one user: makes connections, keeps them, closes them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from time import monotonic
from types import TracebackType
from typing import Any

from websockets.frames import Close

from ..exceptions import CatchResponseError, ConnectError
from .connection import WebSocketConnection
from .lazy_coroutine import LazyCoroutine
from .observing.events import ALL_ROWS, Report
from .observing.names import row_name
from .observing.timing import ConnectPhases
from .opening.connect import connect_to_url, engine_settings
from .opening.cookies import HTTPSession
from .opening.network import SocketFactory
from .opening.url import join_url
from .options import ConnectOptions
from .session.backoff import Backoff, Retry
from .session.reports import Waited
from .wire import load_engine
from .wire.interface import Sink

__all__ = ["ConnectContext", "WebSocketClient"]


class WebSocketClient:
    """
    Makes WebSocket connections and reports what is done with them.

    Use it in one event loop only.

    Args:
        base_url: the host that paths are joined to; None when every connect gives a whole URL.
        report: called once for each operation, see :class:`Report`.
        options: the settings of connections that ``connect`` does not override.
        engine: "websockets" or "picows".
        reported: the row types to report.
        connect_backoff: after a failed connect, the next one begins no sooner than this, so that a task that keeps
            failing does not spin. Operations on a connection that is over are slowed down in the same way. None for no
            wait.
        stopping: tells whether the user is being stopped. What that ends is not reported, and nothing is slowed down.
        waited: takes what the stop has cancelled, see :class:`Waited`.
        escalate: takes an exception of ``report``, of a handler or of ``on_connected`` that no task waits for; by
            default the loop's exception handler.
        check_errors: exceptions that mean a failed check, besides ``AssertionError`` and ``CatchResponseError``.
        control_flow: exceptions that mean no failure at all: raised in a check they leave its row a success, raised in
            a handler they are escalated.
        new_socket: makes sockets; for an environment that replaces :class:`socket.socket`.
        http_session: whose cookies and headers ``share_cookies`` and ``share_headers`` mean.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        report: Report,
        options: ConnectOptions | None = None,
        engine: str = "websockets",
        reported: frozenset[str] = ALL_ROWS,
        connect_backoff: Backoff | None = None,
        stopping: Callable[[], bool] = lambda: False,
        waited: Waited = lambda operation, name, seconds, had_any: None,
        escalate: Callable[[BaseException], None] | None = None,
        check_errors: tuple[type[Exception], ...] = (),
        control_flow: tuple[type[Exception], ...] = (),
        new_socket: SocketFactory = socket.socket,
        http_session: HTTPSession | None = None,
    ) -> None:
        self.base_url = base_url
        self.report = report
        self.options = options or ConnectOptions()
        self.engine = load_engine(engine)
        self.engine.check_settings(engine_settings(self.options))
        if unknown := reported - ALL_ROWS:
            raise ValueError(f"unknown row type {sorted(unknown)[0]!r}; there are: {', '.join(sorted(ALL_ROWS))}")
        self.reported = reported
        self.escalate = escalate or _to_exception_handler
        self.check_errors: tuple[type[Exception], ...] = (AssertionError, CatchResponseError, *check_errors)
        self.control_flow = control_flow
        self.new_socket = new_socket
        self.http_session = http_session
        self.connections: set[WebSocketConnection] = set()
        """The connections that are open."""
        self.ever_connected = False
        self.connect_backoff = connect_backoff
        self.stopping = stopping
        self.waited = waited
        self._retry = None if connect_backoff is None else Retry(connect_backoff)
        self._not_before = 0.0  # by monotonic; the next connect begins no sooner

    def connect(
        self, path_or_url: str, *, name: str | Callable[[str], str] | None = None, **options: Any
    ) -> ConnectContext:
        """
        Connect, by ``connection = await client.connect(...)`` or ``async with client.connect(...) as connection``.

        The ``WS CONNECT`` row has the time from name lookup to the arrival of the server's answer. Cancelling gives up
        the attempt, which is then not reported.

        Args:
            path_or_url: a path, joined to ``base_url``, or a whole URL.
            name: the name of the connection's rows, or what makes it of the URL; by default the path without its query
                string.
            options: the fields of :class:`ConnectOptions`.

        Raises:
            ConnectError: there is no connection; see :mod:`locust_ws_async.exceptions` for the kinds.
            TypeError, ValueError: at once, for a wrong URL or option.
        """
        merged = self.options.replace(options)
        self.engine.check_settings(engine_settings(merged))
        if self.http_session is None and (merged.share_cookies or merged.share_headers):
            raise ValueError(
                "share_cookies and share_headers need an HTTP client of the same user: add HttpUser or FastHttpUser to "
                "the bases of the user class, or give WebSocketClient an http_session"
            )
        url = join_url(self.base_url, path_or_url)
        if name is None:
            name = row_name(path_or_url, fold_ids=merged.fold_ids)
        elif not isinstance(name, str):
            name = name(url)
            if not isinstance(name, str):
                raise TypeError(f"name must be a str, or a function from the URL to a str; it gave {name!r}")
        return ConnectContext(self, url, name, merged)

    async def open_connection(self, url: str, name: str, options: ConnectOptions) -> WebSocketConnection:
        """Called by :class:`ConnectContext`."""
        if (delay := self._not_before - monotonic()) > 0:
            await asyncio.sleep(delay)
        connection = WebSocketConnection(self, url, name, options)
        try:
            await connection.open()
        except ConnectError:
            # Connects that fail together, of one task group, count once.
            if self._retry is not None and (now := monotonic()) >= self._not_before:
                self._retry.failed()
                self._not_before = now + self._retry.next_delay()
            raise
        self.ever_connected = True
        if self._retry is not None:
            self._retry.succeeded()
        self._not_before = 0.0
        return connection

    def connect_to_url(
        self, url: str, options: ConnectOptions, sink: Sink, phases: ConnectPhases
    ) -> Coroutine[Any, Any, None]:
        """Open a WebSocket for a connection of this client: see :func:`.opening.connect.connect_to_url`."""
        # A coroutine of its own around it would be stack, thus memory, of every user that connects.
        return connect_to_url(
            self.engine, url, options, sink, phases, new_socket=self.new_socket, session=self.http_session
        )

    async def aclose(self, timeout: float | None = None) -> None:
        """
        Close all open connections at once, with a normal close frame each.

        Args:
            timeout: seconds after which all that are left are cut; by default each has its own ``close_timeout``.
        """
        connections = list(self.connections)
        for connection in connections:
            connection.start_close(Close(1000, ""), timeout)
        for connection in connections:
            await connection.wait_closed()

    def abort(self) -> None:
        """Cut all connections that are still open, at once and without a close frame."""
        for connection in list(self.connections):
            connection.abort()


class ConnectContext(LazyCoroutine[WebSocketConnection]):
    """What :meth:`WebSocketClient.connect` returns. Nothing happens until it is awaited or entered."""

    __slots__ = ("_client", "_connection", "_name", "_options", "_url")

    def __init__(self, client: WebSocketClient, url: str, name: str, options: ConnectOptions) -> None:
        super().__init__()
        self._client = client
        self._url = url
        self._name = name
        self._options = options
        self._connection: WebSocketConnection | None = None

    def _begin(self) -> Coroutine[Any, Any, WebSocketConnection]:
        return self._client.open_connection(self._url, self._name, self._options)

    async def __aenter__(self) -> WebSocketConnection:
        self._connection = await self
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._connection is not None
        await self._connection.__aexit__(kind, exc, traceback)


def _to_exception_handler(exc: BaseException) -> None:
    asyncio.get_running_loop().call_exception_handler(
        {"message": "an exception that no task of the WebSocket client waits for", "exception": exc}
    )
