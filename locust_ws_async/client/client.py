"""The client of one user: makes connections, keeps them, closes them."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from time import monotonic, perf_counter
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Never, Unpack

from websockets.frames import Close

from ..exceptions import CatchResponseError, ConnectError
from .connection import WebSocketConnection
from .current import current_client
from .lazy_coroutine import LazyCoroutine
from .observing.events import ALL_ROWS, ErrorKinds, Report
from .observing.names import row_name
from .observing.tally import OpenConnections, Tally
from .observing.timing import ConnectPhases
from .opening.connect import connect_to_url, engine_settings
from .opening.cookies import HTTPSession
from .opening.network import SocketFactory
from .opening.url import join_url, without_credentials
from .options import ConnectOptions, ConnectSettings, result_of
from .session.backoff import Backoff, Retry
from .session.reports import NOTHING_CAME, Waited
from .wire import load_engine
from .wire.interface import Sink

if TYPE_CHECKING:
    from .websockets_api import connect as websockets_connect

__all__ = ["ConnectContext", "URLFunction", "WebSocketClient", "checked_rows"]

URLFunction = Callable[[], str | Awaitable[str]]
"""Gives the path or URL of each attempt to connect; may be ``async def``."""

_logger = logging.getLogger("locust_ws_async.client")

_MANY = 20  # connections of one name that a client holds
_told_of: set[str] = set()  # the names of which a client held so many; one warning for each is enough

_HTTP_METHODS = frozenset({"delete", "get", "head", "patch", "post", "put", "request"})


class WebSocketClient:
    """
    Makes WebSocket connections and reports what is done with them.

    Use it in one event loop only.

    Args:
        base_url: the host that paths are joined to; None when every connect gives a whole URL.
        report: called once for each operation, see :class:`Report`.
        options: the settings of connections that ``connect`` does not override.
        refresh: called before each connect; may set ``base_url`` and ``options``.
        engine: "websockets" or "picows".
        reported: the row types to report.
        reports: the row types of which another function than ``report`` takes the operations.
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
        tally: where the connections are counted, for clients to share; by default one of its own.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        report: Report,
        options: ConnectOptions | None = None,
        refresh: Callable[[], object] | None = None,
        engine: str = "websockets",
        reported: Collection[str] = ALL_ROWS,
        reports: Mapping[str, Report] = MappingProxyType({}),
        connect_backoff: Backoff | None = None,
        stopping: Callable[[], bool] = lambda: False,
        waited: Waited = lambda operation, name, seconds, never: None,
        escalate: Callable[[BaseException], None] | None = None,
        check_errors: tuple[type[Exception], ...] = (),
        control_flow: tuple[type[Exception], ...] = (),
        new_socket: SocketFactory = socket.socket,
        http_session: HTTPSession | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.base_url = base_url
        self.report = report
        self.options = options or ConnectOptions()
        self._refresh = refresh
        self.engine = load_engine(engine)
        self.engine.check_settings(engine_settings(self.options))
        self.reported = checked_rows(reported, "reported")
        self._reports = reports
        if connect_backoff is not None and not isinstance(connect_backoff, Backoff):
            raise TypeError(f"connect_backoff must be a Backoff(...) or None, not {connect_backoff!r}")
        self.escalate = escalate or _to_exception_handler
        self.error_kinds = ErrorKinds((AssertionError, CatchResponseError, *check_errors), control_flow)
        self.new_socket = new_socket
        self.http_session = http_session
        self.connections = OpenConnections(Tally() if tally is None else tally)
        """The connections that are open, or lost and being made again."""
        self.ever_connected = False
        self.connect_backoff = connect_backoff
        self.stopping = stopping
        self.waited = waited
        self._retry = None if connect_backoff is None else Retry(connect_backoff)
        self._not_before = 0.0  # by monotonic; the next connect begins no sooner

    if not TYPE_CHECKING:  # for which every attribute would be there

        def __getattr__(self, name: str) -> Never:
            if name in _HTTP_METHODS:
                raise AttributeError(
                    f"this is a WebSocket client, which has no {name}(): to call HTTP, let the user class inherit from "
                    "HttpUser or FastHttpUser too, and self.client is the HTTP client",
                    name=name,
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def connect(
        self,
        path_or_url: str | URLFunction,
        *,
        name: str | Callable[[str], str] | None = None,
        **options: Unpack[ConnectSettings],
    ) -> ConnectContext:
        """
        Connect, by ``connection = await client.connect(...)`` or ``async with client.connect(...) as connection``.

        The ``WS CONNECT`` row has the time from name lookup to the arrival of the server's answer. Cancelling gives up
        the attempt, which is then not reported.

        Args:
            path_or_url: a path, joined to ``base_url``, or a whole URL. Or a function that gives either, which may be
                ``async def``: it is called before each attempt to connect, reconnects included.
            name: the name of the connection's rows, or what makes it of the URL; by default the path without its query
                string.
            options: the fields of :class:`ConnectOptions`.

        Raises:
            ConnectError: there is no connection; see :mod:`locust_ws_async.exceptions` for the kinds.
            TypeError, ValueError: at once, for a wrong URL or option.
        """
        if self._refresh is not None:
            self._refresh()
        merged = self.options.replace(options)
        self.engine.check_settings(engine_settings(merged))
        if self.http_session is None and (merged.share_cookies or merged.share_headers):
            raise ValueError(
                "share_cookies and share_headers need an HTTP client of the same user: add HttpUser or FastHttpUser to "
                "the bases of the user class, or give WebSocketClient an http_session"
            )
        if callable(path_or_url):
            return ConnectContext(self, path_or_url, name, merged)
        url = join_url(self.base_url, path_or_url)
        return ConnectContext(self, url, _name(name, path_or_url, url, merged), merged)

    def websockets_connect(self, uri: str, **keywords: Any) -> websockets_connect:
        """
        Connect as ``websockets.connect`` does, for libraries that expect it: to be awaited, entered, or iterated over.

        The connections have the API of ``websockets``' own, and the rows of ours. See
        :class:`~locust_ws_async.client.websockets_api.connect` for the keywords; one that is unknown raises.
        """
        from .websockets_api import connect  # only now: nothing else of this client needs so much of websockets

        token = current_client.set(self)
        try:
            return connect(uri, **keywords)
        finally:
            current_client.reset(token)

    async def open_connection(
        self, url: str | URLFunction, name: str | Callable[[str], str] | None, options: ConnectOptions
    ) -> WebSocketConnection:
        """
        Connect for a :class:`ConnectContext`, no sooner than ``connect_backoff`` allows.

        Raises:
            ConnectError: there is no connection.
        """
        if (delay := self._not_before - monotonic()) > 0:
            await asyncio.sleep(delay)
        if callable(url):
            connection = self._without_url(url, name, options)
        else:
            assert isinstance(name, str)
            connection = WebSocketConnection(self, url, name, options)
        started = perf_counter()
        try:
            await connection.open()
        except asyncio.CancelledError:
            self.note_cancelled("connect()", connection.name, started, "" if self.ever_connected else NOTHING_CAME)
            raise
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
        if len(self.connections) >= _MANY:
            self._tell_of_many(connection.name)
        return connection

    def _without_url(
        self, function: URLFunction, name: str | Callable[[str], str] | None, options: ConnectOptions
    ) -> WebSocketConnection:
        """A connection that asks this function for its URL, and is named by the first one, unless it has a name."""
        provisional = name if isinstance(name, str) else f"{getattr(function, '__name__', 'URL')}()"
        connection = WebSocketConnection(self, "", provisional, options)

        async def next_url() -> str:
            path = await _path_of(function)
            url = join_url(self.base_url, path)
            if not connection.url:
                connection.name = _name(name, path, url, options)
            return url

        connection.next_url = next_url
        return connection

    def _tell_of_many(self, name: str) -> None:
        if name not in _told_of and sum(each.name == name for each in self.connections) >= _MANY:
            _told_of.add(name)
            _logger.warning(
                "%s: one user holds %d connections of this name. Each stays open until it is closed, also after the "
                "task that made it: use `async with self.ws.connect(...)`, or close(). (Warned once for each name.)",
                name,
                _MANY,
            )

    def connect_to_url(
        self, url: str, options: ConnectOptions, sink: Sink, phases: ConnectPhases
    ) -> Coroutine[Any, Any, None]:
        """Open a WebSocket for a connection of this client: see :func:`.opening.connect.connect_to_url`."""
        # A coroutine of its own around it would be stack, thus memory, of every user that connects.
        return connect_to_url(
            self.engine,
            url,
            options,
            sink,
            phases,
            new_socket=self.new_socket,
            http_session=self.http_session,
            base_url=self.base_url,
        )

    def report_of(self, request_type: str) -> Report | None:
        """Return what takes the operations of this type; None if they are not reported."""
        return self._reports.get(request_type, self.report) if request_type in self.reported else None

    def note_cancelled(self, operation: str, name: str, started: float, never: str) -> None:
        """Tell of a wait that was cancelled, if that is because the user stops: it has no row."""
        if self.stopping():
            self.connections.tally.cancelled_waits += 1
            self.waited(operation, name, perf_counter() - started, never)

    async def aclose(self, timeout: float | None = None) -> None:
        """
        Close all open connections at once, with a normal close frame each.

        Args:
            timeout: seconds after which all that are left are cut, if that is less than their own ``close_timeout``.
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

    _called = "WebSocketClient.connect"
    _hint = "`connection = await self.ws.connect(...)`, or `async with self.ws.connect(...) as connection:`"

    def __init__(
        self,
        client: WebSocketClient,
        url: str | URLFunction,
        name: str | Callable[[str], str] | None,
        options: ConnectOptions,
    ) -> None:
        super().__init__(depth=3)
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


def checked_rows(rows: Collection[str], setting: str) -> frozenset[str]:
    """
    Return the row types that a setting names.

    Raises:
        TypeError, ValueError: it names none, or unknown ones.
    """
    if isinstance(rows, str) or not isinstance(rows, Collection):
        raise TypeError(f'{setting} must be a set of row types, {{"WS CONNECT"}} for instance, not {rows!r}')
    if unknown := frozenset(rows) - ALL_ROWS:
        raise ValueError(
            f"{setting}: unknown row type {sorted(map(str, unknown))[0]!r}; there are: {', '.join(sorted(ALL_ROWS))}"
        )
    return frozenset(rows)


def _name(name: str | Callable[[str], str] | None, path_or_url: str, url: str, options: ConnectOptions) -> str:
    if name is None:
        return row_name(path_or_url, fold_ids=options.fold_ids)
    if isinstance(name, str):
        return name
    made = name(without_credentials(url))
    if not isinstance(made, str):
        raise TypeError(f"name must be a str, or a function from the URL to a str; it gave {made!r}")
    return made


async def _path_of(function: URLFunction) -> str:
    path = await result_of(function)
    if not isinstance(path, str):
        raise TypeError(f"the function that is given to connect must return a path or a URL, not {type(path).__name__}")
    return path
