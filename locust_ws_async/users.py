"""The user classes: Locust's side of the bridge and of the client, and only glue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from gevent import GreenletExit
from gevent.monkey import get_original
from locust import User
from locust.env import Environment
from locust.exception import (
    CatchResponseError,
    InterruptTaskSet,
    RescheduleTask,
    RescheduleTaskImmediately,
    StopTest,
    StopUser,
)

from .bridge import LoopHost
from .client import (
    ALL_ROWS,
    Backoff,
    ConnectOptions,
    Deflate,
    KeepaliveRule,
    SourceAddresses,
    WebSocketClient,
    WebSocketConnection,
)
from .client.session.backoff import Retry
from .exceptions import ConnectError
from .http_session import http_session
from .internals.locust import adopt_root_task_set, is_stopping, is_waiting, set_running, set_waiting
from .request_events import reporter
from .tasksets import adopt, call, contains_only, refuse_generators, refuse_unawaited

if TYPE_CHECKING:
    from ssl import SSLContext  # at run time it has to come after Locust, which patches it

    from .client.options import FilePath

__all__ = ["AsyncUser", "AsyncWebSocketUser"]

T = TypeVar("T")

_DEFAULTS = ConnectOptions()

# What Locust's task sets understand, wherever in the user's loop it is raised (TaskSet.run() and EventHook.fire()).
_CONTROL_FLOW = (StopUser, StopTest, RescheduleTask, RescheduleTaskImmediately, InterruptTaskSet)


class AsyncUser(User):
    """A Locust user whose tasks, ``on_start``, ``on_stop``, ``wait_time`` may each be ``async def`` or plain ``def``.

    Every user has an asyncio event loop of its own, hosted by the user's greenlet, and any asyncio code works in it.
    The loop runs while a coroutine runs, and also during ``wait_time`` and while a plain ``def`` task blocks, so that
    background tasks and connections live on between tasks. ``contextvars`` are the user's own: what ``on_start`` sets,
    its tasks see. Nested task sets are Locust's own (``TaskSet``, ``SequentialTaskSet``, ``MarkovTaskSet``), and their
    tasks may be ``async def`` too.

    Inside ``async def``, call what blocks (``requests``, ``time.sleep``) with ``await asyncio.to_thread(...)``, and use
    ``await asyncio.sleep(self.wait_time())`` in place of ``self.wait()``. Without that they stall this user's loop,
    though no other user.

    When Locust stops the user, the running coroutine is cancelled and gets `cancel_timeout` seconds for its
    ``finally`` blocks; then ``on_stop`` runs; then background tasks are cancelled in the same way.
    """

    abstract = True

    cancel_timeout: float = 5.0
    """Seconds that cancelled coroutines have to clean up before they are left behind."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_generators(cls)

    def __init__(self, environment: Environment) -> None:
        self._loop_host = LoopHost(cancel_timeout=self.cancel_timeout, propagated=_CONTROL_FLOW)
        super().__init__(environment)
        self._report = reporter(self)

    def on_start(self) -> Any:
        """Called when the user starts running; ``async def`` or plain. An override may await ``super().on_start()``."""
        super().on_start()
        return _NOTHING

    def on_stop(self) -> Any:
        """Called when the user stops running; ``async def`` or plain. An override may await ``super().on_stop()``."""
        super().on_stop()  # type: ignore[no-untyped-call] # Locust's has no types
        return _NOTHING

    async def timed(self, name: str, awaitable: Awaitable[T], *, request_type: str = "ASYNC") -> T:
        """Await *awaitable*, of any asyncio library, and report it as one request.

        Its exception is reported as the failure and raised. Cancelling is not reported, nor are Locust's own exceptions
        (``StopUser``, ``RescheduleTask``...).
        """
        started = perf_counter()
        try:
            result = await awaitable
        except _CONTROL_FLOW:
            raise
        except Exception as exc:
            self._report(request_type, name, (perf_counter() - started) * 1000, 0, exc, started, "", None)
            raise
        self._report(request_type, name, (perf_counter() - started) * 1000, 0, None, started, "", result)
        return result

    def run(self) -> None:  # type: ignore[misc] # @final for type checkers only: Locust's PytestUser overrides it too
        """Run the user to its end, then close its loop."""
        self._on_start, self._on_stop = self.on_start, self.on_stop
        hooked: Any = self  # what Locust calls is synchronous
        hooked.on_start, hooked.on_stop = self._start, self._stop
        try:
            super().run()  # type: ignore[no-untyped-call] # Locust's has no types
        finally:
            self._close()

    def _start(self) -> Any:
        return call(self._loop_host, self._on_start)

    def _stop(self) -> Any:
        self._loop_host.stop_propagating()  # a StopUser of a background task, say, would cut on_stop short
        return call(self._loop_host, self._on_stop)

    def _close(self) -> None:
        self._loop_host.close()


adopt_root_task_set(AsyncUser, adopt)


class AsyncWebSocketUser(AsyncUser):
    """An ``AsyncUser`` with a WebSocket client, ``self.ws``, that reports what it does.

    ::

        class ChatUser(AsyncWebSocketUser):
            host = "wss://chat.example"

            @task
            async def talk(self):
                async with self.ws.connect("/room") as room:
                    await room.send("hello")
                    print(await room.recv())

    ``self.client`` is the same object, unless another base class gives a client (``HttpUser``, ``FastHttpUser``; in
    either order). Connections belong to the user, not to the task that made them; those that are open when the user
    stops are closed with code 1000.

    The class attributes that have no docstring here are the defaults of ``self.ws.connect(...)``, which takes each of
    them as a keyword; :class:`~locust_ws_async.client.ConnectOptions` documents them.
    """

    abstract = True

    engine: str = "websockets"
    """The library that reads and writes the frames: ``"websockets"``, or ``"picows"``, which is faster with large
    messages."""

    reported: Collection[str] = ALL_ROWS
    """The row types to report; every row counts into Locust's Aggregated. E.g. ``{"WS CONNECT", "WS REQUEST"}``."""

    connect_backoff: Backoff | None = Backoff()
    """How long the user waits after a failed connect before its next one. An ``on_start`` that could not connect is
    called again after this delay, at most ``attempts`` times in all; otherwise Locust would end the user for good
    (``User.run``). None does neither."""

    # The defaults of ConnectOptions, which documents each of them.
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = _DEFAULTS.headers
    cookies: Mapping[str, str] = _DEFAULTS.cookies
    auth: tuple[str, str] | None = _DEFAULTS.auth
    bearer: str | None = _DEFAULTS.bearer
    origin: str | None = _DEFAULTS.origin
    user_agent: str | None = _DEFAULTS.user_agent
    share_cookies: bool = _DEFAULTS.share_cookies
    share_headers: Sequence[str] = _DEFAULTS.share_headers
    subprotocols: Sequence[str] = _DEFAULTS.subprotocols
    compression: Literal["deflate"] | Deflate | None = _DEFAULTS.compression
    redirect_limit: int = _DEFAULTS.redirect_limit
    ssl: SSLContext | None = _DEFAULTS.ssl
    verify: bool | FilePath = _DEFAULTS.verify
    cert: FilePath | tuple[FilePath, FilePath | None] | None = _DEFAULTS.cert
    server_hostname: str | None = _DEFAULTS.server_hostname
    proxy: str | bool | None = _DEFAULTS.proxy
    unix_socket: FilePath | None = _DEFAULTS.unix_socket
    local_address: str | Sequence[str] | SourceAddresses | None = None
    fold_ids: bool = _DEFAULTS.fold_ids
    max_size: int | None = _DEFAULTS.max_size
    max_queue: int | None = _DEFAULTS.max_queue
    max_queue_bytes: int | None = _DEFAULTS.max_queue_bytes
    overflow: Literal["pause", "drop", "fail"] = _DEFAULTS.overflow
    open_timeout: float | None = _DEFAULTS.open_timeout
    close_timeout: float = _DEFAULTS.close_timeout
    ping_interval: float | None = _DEFAULTS.ping_interval
    ping_timeout: float | None = _DEFAULTS.ping_timeout
    record_last: int | None = _DEFAULTS.record_last
    record_to: FilePath | None = _DEFAULTS.record_to
    request_timeout: float | None = _DEFAULTS.request_timeout
    keepalive: KeepaliveRule | Sequence[KeepaliveRule] = _DEFAULTS.keepalive
    reconnect: Backoff | None = _DEFAULTS.reconnect
    on_connected: Callable[[WebSocketConnection], Awaitable[object]] | None = _DEFAULTS.on_connected

    _options: ClassVar[ConnectOptions] = _DEFAULTS

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.ws = WebSocketClient(
            base_url=self.host,
            report=self._report,
            options=self._shared_options(),
            engine=self.engine,
            reported=frozenset(self.reported),
            connect_backoff=self.connect_backoff,
            escalate=self._loop_host.propagate,
            check_errors=(CatchResponseError,),
            control_flow=_CONTROL_FLOW,
            # gevent's sockets are made for blocking calls; under an event loop they only cost memory and time.
            new_socket=get_original("socket", "socket"),
        )
        if not hasattr(self, "client"):
            self.client: Any = self.ws

    def _shared_options(self) -> ConnectOptions:
        """The settings above; users of a class share one object as long as they do not differ."""
        cls = type(self)
        options = ConnectOptions(**{field.name: getattr(self, field.name) for field in fields(ConnectOptions)})
        if options != cls._options:
            cls._options = options
        return cls._options

    def _start(self) -> Any:
        self.ws.http_session = http_session(self.client)  # not before: the bases may stand in either order
        retry = None if self.connect_backoff is None else Retry(self.connect_backoff)
        while True:
            try:
                result = super()._start()
            except (ConnectError, ExceptionGroup) as exc:
                if retry is None or not contains_only(exc, ConnectError):
                    raise
                retry.failed()
                if retry.exhausted:
                    raise
                # As Locust's TaskSet.run() reports an exception in a task.
                self.environment.events.user_error.fire(user_instance=self, exception=exc, tb=exc.__traceback__)
                if is_stopping(self):
                    raise GreenletExit() from exc  # as if killed now; Locust would log StopUser as an error here
                set_waiting(self)  # a stop waits for no attempt (User.stop())
                # The next one makes them again.
                self._loop_host.cancel_tasks()
                self._close_connections()
            else:
                if is_waiting(self):
                    set_running(self)
                return result

    def _close(self) -> None:
        try:
            self._loop_host.cancel_tasks()  # before they meet closed connections
        finally:
            try:
                while self.ws.connections:
                    # Each end is a row, of which a request listener may make a StopUser: the user is stopping.
                    with suppress(*_CONTROL_FLOW):
                        self._close_connections()
            finally:
                self.ws.abort()
                super()._close()

    def _close_connections(self) -> None:
        self._loop_host.run(self.ws.aclose())


class _Nothing:
    """What the hooks of ``AsyncUser`` return: may be awaited, and need not be."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


_NOTHING = _Nothing()


def _refuse_unawaited_tasks(cls: type[User], /, **kwargs: Any) -> None:
    super(User, cls).__init_subclass__(**kwargs)
    if not cls.abstract and cls.run is User.run:
        refuse_unawaited(cls)


# Locust's own user classes never await a task. This is the only thing that importing the package changes in Locust.
User.__init_subclass__ = classmethod(_refuse_unawaited_tasks)  # type: ignore[assignment] # set from outside
