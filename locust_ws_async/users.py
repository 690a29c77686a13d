"""The user classes: Locust's side of the bridge and of the client, and only glue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from math import isfinite
from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Never, SupportsFloat, TypeAlias, TypeVar, cast
from weakref import WeakSet

from gevent import GreenletExit
from gevent.monkey import get_original
from locust import TaskSet, User, events
from locust.env import Environment
from locust.exception import CatchResponseError

from . import fleet, pacing, requirements, shown_hosts, together, view
from .bridge import LoopHost
from .cancelled_waits import cancelled_waits
from .class_checks import check_classes, tell_of_unknown_settings, values_on, watch_names
from .client import (
    ALL_ROWS,
    Backoff,
    ConnectOptions,
    Deflate,
    KeepaliveRule,
    SourceAddresses,
    WebSocketClient,
)
from .client.client import checked_rows
from .client.current import set_current_client
from .client.messages.since import checked_since
from .client.session.backoff import Retry
from .exceptions import ConnectError, RendezvousTimeout, WebSocketError
from .fleet import gauge, generator
from .http_session import http_session
from .internals.grpc import let_grpc_wait_in_a_thread
from .internals.locust import is_stopping, is_waiting, replace_root_task_set, set_running, set_waiting
from .pacing.arrivals import OnceThrough, Source, check_class
from .pacing.pace import Late, Pace
from .pacing.schedule import Law, Rate
from .request_events import AGGREGATED, reporter, reports_apart
from .requirements import require
from .statistics import buckets, end_of_run, last_reports, unread
from .tasksets import call_on_stop, call_sync, enable_async, refuse_generators, refuse_unawaited, tag, task
from .together.rendezvous import ROW as RENDEZVOUS
from .together.rendezvous import Wait, arrive
from .together.rendezvous import checked as check_rendezvous
from .user_errors import (
    CONTROL_FLOW,
    contains_only,
    is_row,
    list_exception,
    list_forgotten_awaits,
    log_exception,
    without_our_frames,
)

T = TypeVar("T")

if TYPE_CHECKING:
    from ssl import SSLContext  # at run time it has to come after Locust, which patches it

    from gevent import Greenlet
    from gevent.pool import Group

    from .client.options import FilePath, Headers

    # The method of a user class has a parameter more than the function that becomes the setting.
    OrMethod: TypeAlias = T | Callable[..., T | Awaitable[T]]

__all__ = ["AsyncUser", "AsyncWebSocketUser", "gauge", "require", "tag", "task"]

_logger = logging.getLogger(__name__)

_DEFAULTS = ConnectOptions()


# Seconds for closing handshakes when cancelled code has used up the time of the stop: a server that answers at once is
# not to be reported as one that does not.
_LEAST_TO_CLOSE = 1.0


class _StartFailed(BaseException):
    """Ends ``User.run()`` after an ``on_start`` that has failed, which is told already."""


if TYPE_CHECKING:

    class _User:
        """What type checkers see of Locust's ``User``: with it in sight, mypy would allow no ``async def`` hook."""

        host: Any
        wait_time: Any
        tasks: Any
        weight: float
        fixed_count: int
        abstract: bool
        environment: Environment

        def __init__(self, environment: Environment) -> None: ...
        def on_start(self) -> Any: ...
        def on_stop(self) -> Any: ...
        def wait(self) -> None: ...
        def start(self, group: Group) -> Greenlet[..., Any]: ...
        def stop(self, force: bool = False) -> bool: ...
        def context(self) -> dict[str, Any]: ...
        @property
        def group(self) -> Group: ...
        @property
        def greenlet(self) -> Greenlet[..., Any]: ...
        @classmethod
        def json(cls) -> dict[str, Any]: ...
        @classmethod
        def fullname(cls) -> str: ...

else:
    _User = User


class AsyncUser(_User):
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
    ``finally`` blocks; then ``on_stop`` runs; then background tasks are cancelled, and have what is left of these
    seconds.
    """

    abstract = True

    _on_start: Callable[[], Any]
    _on_stop: Callable[[], Any]

    cancel_timeout: float = 5.0
    """Seconds that a stop may take besides its ``on_stop``, in all: for cancelled coroutines to clean up before they
    are left behind, and for connections to close. An ``on_stop`` that takes longer is told in the log, and goes on."""

    arrivals: Rate | None = None
    """New virtual users a second, over all workers; or a function from the seconds since the test began to that number.
    Each of Locust's users of the class is then a source of virtual users: each of these is a fresh instance of the
    class, with ``on_start``, its tasks once through, ``on_stop``, and connections of its own."""

    arrivals_law: Law = "even"
    """``"even"``: each source at equal distances. ``"poisson"``: at random ones, as independent people come."""

    arrivals_limit: int = 1000
    """Virtual users of the class that run at a time, over all workers; those that are due meanwhile are dropped."""

    _arrived = False  # whether this is a virtual user
    _to_wake: WeakSet[Pace | Wait] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_generators(cast("type[User]", cls))
        check_class(cls)

    def __init__(self, environment: Environment) -> None:
        self._loop_host = LoopHost(
            cancel_timeout=self.cancel_timeout, propagated=CONTROL_FLOW, exception_handler=self._background_error
        )
        super().__init__(environment)
        self._report = reporter(self._locust_user)
        self._stops = False

    @property
    def _locust_user(self) -> User:
        """This user, for functions that ask for Locust's type: type checkers see another base class (``_User``)."""
        return cast("User", self)

    def on_start(self) -> Any:
        """Called when the user starts running; ``async def`` or plain. An override may await ``super().on_start()``."""
        super().on_start()
        return _NOTHING

    def on_stop(self) -> Any:
        """Called when the user stops running; ``async def`` or plain. An override may await ``super().on_stop()``."""
        super().on_stop()
        return _NOTHING

    def pace(self, rate: Rate, *, law: Law = "even", late: Late = "catch-up", limit: int = 1000) -> Pace:
        """
        Ticks at a rate, whatever the server does: ``async for tick in self.pace(20):``.

        ::

            async for tick in self.pace(20):
                await feed.request(order(), since=tick)          # counted from when it was meant to go out
            async for tick in self.pace(lambda t: 1 + t / 60, law="poisson"):
                tick.spawn(feed.request(order(), since=tick))    # and the next does not wait for the reply

        The first comes at a random point of the first period, so that users do not march in step. Each is due a period
        after the one before was due, and not after it was given, so that nothing drifts. The loop ends by itself when
        Locust asks the user to stop, as it does with ``--stop-timeout``. Cancelling it is safe.

        Args:
            rate: ticks a second; or a function from the seconds since the test began to such a number, where 0 is a
                pause. All users and workers agree on when that was.
            law: "even", or "poisson" for random distances.
            late: what becomes of ticks that are due while the block still runs. "catch-up" gives them at once, one
                after the other; "skip" gives the newest, and counts the others as skipped.
            limit: how many awaitables of ``tick.spawn`` may run at a time; what is more is dropped and counted.

        Raises:
            TypeError, ValueError: at the call, for a rate that is not above 0 or another wrong argument; in the loop,
                when a function gives a rate that is none.
        """
        pace = Pace(rate, law, late, limit, stopping=self._is_stopping, on_error=self._spawned_error)
        self._wake_at_stop(pace)
        return pace

    async def rendezvous(self, name: str, users: int, timeout: float = 60.0) -> float:
        """
        Wait until *users* users, over all workers, wait here; then all of them go on at one instant.

        ::

            await self.rendezvous("all in", users=5000)
            await self.line.send("bid")

        It can be used again and again: who comes after the others have gone on waits for the next *users*. The
        ``WS RENDEZVOUS`` row has how long each user has waited. How close together they went on is told at the end of
        the run.

        Where Locust gives users time to stop (``--stop-timeout``), the wait ends with Locust's ``StopUser``. Cancelling
        it is safe: the user is no longer counted, and nothing is reported.

        Args:
            name: the name of the row, and of the place: it is the same for all users, on all workers.
            users: how many must be there.
            timeout: seconds to wait for them.

        Returns:
            The seconds that this user has waited.

        Raises:
            RendezvousTimeout: too few came in time; a failed row.
            TypeError, ValueError: a wrong argument; or the test has fewer users; or others wait here for another
                number.
        """
        check_rendezvous(name, users, timeout)
        started = perf_counter()
        wait = arrive(name, users)
        self._wake_at_stop(wait)
        try:
            await wait.over(timeout)
        except RendezvousTimeout as exc:
            exc.is_row = True
            self._report(RENDEZVOUS, name, (perf_counter() - started) * 1000, 0, exc, started, "", None)
            raise
        except asyncio.CancelledError:
            if self._is_being_stopped():
                waits = cancelled_waits(self.environment)
                waits.add(self, "rendezvous()", name, perf_counter() - started, wait.never)
            raise
        waited = perf_counter() - started
        self._report(RENDEZVOUS, name, waited * 1000, 0, None, started, "", None)
        return waited

    def _wake_at_stop(self, waiting: Pace | Wait) -> None:
        if self._to_wake is None:
            self._to_wake = WeakSet()
        self._to_wake.add(waiting)

    def stop(self, force: bool = False) -> Any:
        """Stop the user, and end its waits for a tick or for others. Locust calls it from another greenlet."""
        result = super().stop(force)
        for waiting in list(self._to_wake or ()):
            waiting.wake()
        return result

    def _is_stopping(self) -> bool:
        return is_stopping(self._locust_user)

    def _spawned_error(self, exc: Exception) -> None:
        """Tell what an awaitable of ``tick.spawn`` has raised, unless it has to leave the loop."""
        loop = self._loop_host.loop
        if loop is not None and loop.to_propagate(exc) is not None:
            raise exc
        # A connection that this side closes ends what was spawned, which is no row and no error.
        if not contains_only(exc, WebSocketError):
            without_our_frames(exc)
            list_exception(self._locust_user, exc)
            log_exception(__name__, exc)
        if not self.environment.catch_exceptions:
            self._loop_host.propagate(exc)

    async def timed(
        self, name: str, awaitable: Awaitable[T], *, request_type: str = "ASYNC", since: SupportsFloat | None = None
    ) -> T:
        """Await *awaitable*, of any asyncio library, and report it as one request.

        Its exception is reported as the failure and raised. Cancelling is not reported, nor are Locust's own exceptions
        (``StopUser``, ``RescheduleTask``...).

        Args:
            name: the name of the row. Keep it the same: each name is a row.
            awaitable: a coroutine, a future, or anything else that can be awaited.
            request_type: the type of the row.
            since: count the time from this instant, a ``time.perf_counter()`` or a tick of ``pace``, and not from the
                call.

        Returns:
            What the awaitable returns.

        Raises:
            TypeError, ValueError: ``since`` is no instant that has passed; else whatever the awaitable raises.
        """
        started = perf_counter() if since is None else checked_since(since)
        try:
            result = await awaitable
        except CONTROL_FLOW:
            raise
        except Exception as exc:
            self._report(request_type, name, (perf_counter() - started) * 1000, 0, exc, started, "", None)
            raise
        self._report(request_type, name, (perf_counter() - started) * 1000, 0, None, started, "", result)
        return result

    def report(
        self,
        name: str,
        milliseconds: float | None,
        *,
        request_type: str = "ASYNC",
        length: int = 0,
        exception: BaseException | None = None,
    ) -> None:
        """Report one operation of the author's own: it adds one to the row of this type and name.

        Args:
            name: the name of the row. Keep it the same: each name is a row.
            milliseconds: the time; None counts without one.
            request_type: the type of the row.
            length: bytes.
            exception: why it failed; None for a success. Locust groups failures by their text.

        Raises:
            TypeError, ValueError: an argument that Locust could not count.
        """
        for argument, value in (("name", name), ("request_type", request_type)):
            if not isinstance(value, str) or not value:
                raise TypeError(f"report: {argument} must be a text, not {value!r}")
        if milliseconds is not None and not (isinstance(milliseconds, (int, float)) and isfinite(milliseconds)):
            raise ValueError(f"report: milliseconds must be a finite number or None, not {milliseconds!r}")
        if exception is not None and not isinstance(exception, BaseException):
            raise TypeError(f"report: exception must be an exception or None, not {exception!r}")
        started = perf_counter() - (milliseconds or 0.0) / 1000.0
        self._report(request_type, name, milliseconds, length, exception, started, "", None)

    if not TYPE_CHECKING:  # for which every attribute would be there

        def __getattr__(self, name: str) -> Never:
            missing = _MISSING.get(name)
            advice = "" if missing is None else f": {missing}"
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}{advice}", name=name, obj=self
            )

    if not TYPE_CHECKING:  # for which it is @final in Locust, whose own PytestUser overrides it too

        def run(self) -> None:
            """Run the user to its end, then close its loop; or be a source of virtual users to the end."""
            generator.enter(self.environment)
            try:
                if self.arrivals is not None and not self._arrived:
                    Source(self).run()
                    return
                self._on_start, self._on_stop = self.on_start, self.on_stop
                hooked: Any = self  # what Locust calls is synchronous
                hooked.on_start, hooked.on_stop = self._start, self._stop
                try:
                    super().run()
                except _StartFailed:
                    pass
                finally:
                    self._close()
            finally:
                generator.leave()

    def _start(self) -> Any:
        try:
            return self._run_on_start()
        except CONTROL_FLOW:
            raise
        except GreenletExit:
            if self._arrived:
                hooked: Any = self
                hooked.on_stop = _nothing  # at each stop some are in on_start: what on_stop needs is not there
            raise
        except Exception as exc:
            without_our_frames(exc)
            if not self.environment.catch_exceptions:
                raise
            if not (self._arrived and is_row(exc)):  # which would be logged for each arrival
                # As User.run() does it, where the traceback would begin with frames of ours.
                log_exception("locust.user.users", exc)
            if not is_row(exc):
                list_exception(self._locust_user, exc)
        raise _StartFailed

    def _run_on_start(self) -> Any:
        return call_sync(self._loop_host, self._on_start)

    def _stop(self) -> Any:
        self._stops = True
        self._loop_host.stop_propagating()  # a StopUser of a background task, say, would cut on_stop short
        return call_on_stop(self._loop_host, self._locust_user, self._on_stop)

    def _is_being_stopped(self) -> bool:
        return self._stops or self._loop_host.killed

    def _escalate(self, exc: BaseException) -> None:
        """Take what the client met where no task waits for it: kills and control flow end the task that runs now."""
        loop = self._loop_host.loop
        if loop is None or not self.environment.catch_exceptions:
            self._loop_host.propagate(exc)
        else:
            loop.call_exception_handler({"message": "exception in the background of a connection", "exception": exc})

    def _background_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take what a background task or a callback of the loop has raised, as asyncio's exception handler."""
        exc = context.get("exception")
        if isinstance(exc, BaseException):
            if is_row(exc):
                _logger.debug("in the background, and told by a row: %r", exc)
                return
            without_our_frames(exc)
            list_exception(self._locust_user, exc)
        loop.default_exception_handler(context)

    def _close(self) -> None:
        self._loop_host.close()


_MISSING = {
    "client": "to call HTTP, inherit from HttpUser or FastHttpUser too",
    "ws": "to connect by WebSocket, inherit from AsyncWebSocketUser",
}


def _enable_async_root(taskset: TaskSet) -> TaskSet:
    user: Any = taskset.user
    return enable_async(OnceThrough(user) if user._arrived else taskset)


replace_root_task_set(cast("type[User]", AsyncUser), _enable_async_root)


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
    """The row types to report, e.g. ``{"WS CONNECT", "WS REQUEST"}``."""

    aggregated: Collection[str] = AGGREGATED
    """The row types that count into Locust's *Aggregated*; by default all but ``WS SESSION``, ``WS RECOVERY`` and
    ``WS KEEPALIVE``, which have no response time. A row of another type is a row as ever, and its failures count."""

    connect_backoff: Backoff | None = Backoff()
    """How long the user waits after a failed connect before its next one. An ``on_start`` that could not connect is
    called again after this delay, at most ``attempts`` times in all; otherwise Locust would end the user for good
    (``User.run``). None does neither."""

    # The defaults of ConnectOptions, which documents each of them.
    headers: OrMethod[Headers] = _DEFAULTS.headers
    cookies: OrMethod[Mapping[str, str]] = _DEFAULTS.cookies
    auth: tuple[str, str] | None = _DEFAULTS.auth
    bearer: OrMethod[str | None] = _DEFAULTS.bearer
    origin: str | None = _DEFAULTS.origin
    user_agent: str | None = _DEFAULTS.user_agent
    share_cookies: bool = _DEFAULTS.share_cookies
    share_headers: Sequence[str] = _DEFAULTS.share_headers
    subprotocols: Sequence[str] = _DEFAULTS.subprotocols
    compression: Literal["deflate"] | Deflate | None = _DEFAULTS.compression
    redirect_limit: int = _DEFAULTS.redirect_limit
    redirect_headers: tuple[str, ...] = _DEFAULTS.redirect_headers
    ssl: SSLContext | None = _DEFAULTS.ssl
    verify: bool | FilePath = _DEFAULTS.verify
    cert: FilePath | tuple[FilePath, FilePath | None] | None = _DEFAULTS.cert
    server_hostname: str | None = _DEFAULTS.server_hostname
    proxy: str | bool | None = _DEFAULTS.proxy
    unix_socket: FilePath | None = _DEFAULTS.unix_socket
    local_address: str | Sequence[str] | SourceAddresses | None = None
    lookups: int = _DEFAULTS.lookups
    fold_ids: bool = _DEFAULTS.fold_ids
    max_size: int | None = _DEFAULTS.max_size
    max_queue: int | None = _DEFAULTS.max_queue
    max_queue_bytes: int | None = _DEFAULTS.max_queue_bytes
    overflow: Literal["pause", "drop", "fail"] = _DEFAULTS.overflow
    read_rate: float | None = _DEFAULTS.read_rate
    open_timeout: float | None = _DEFAULTS.open_timeout
    on_connected_timeout: float | Literal["open_timeout"] | None = _DEFAULTS.on_connected_timeout
    close_timeout: float = _DEFAULTS.close_timeout
    ping_interval: float | None = _DEFAULTS.ping_interval
    ping_timeout: float | None = _DEFAULTS.ping_timeout
    arrival: Literal["kernel", "read"] = _DEFAULTS.arrival
    record_last: int | None = _DEFAULTS.record_last
    record_to: FilePath | None = _DEFAULTS.record_to
    record_unmasked: Sequence[str] = _DEFAULTS.record_unmasked
    request_timeout: float | None = _DEFAULTS.request_timeout
    recv_timeout: float | None = _DEFAULTS.recv_timeout
    keepalive: KeepaliveRule | Sequence[KeepaliveRule] = _DEFAULTS.keepalive
    reconnect: Backoff | None = _DEFAULTS.reconnect
    on_connected: Callable[..., Awaitable[object]] | None = _DEFAULTS.on_connected

    _settings: ClassVar[_Settings]
    """Those of the class; users share them as long as their own do not differ."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "ws" in vars(cls):
            raise TypeError(f"{cls.__name__}.ws: {_RESERVED}")

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        type(self)._settings = _refreshed(self, self._settings)
        self._fixed = _fixed_settings(self)
        self._ws = WebSocketClient(
            base_url=self.host,
            report=self._report,
            options=self._settings[1],
            refresh=self._refresh_settings,
            engine=self.engine,
            reported=self.reported,
            reports=reports_apart(self._locust_user, self.aggregated),
            connect_backoff=self.connect_backoff,
            stopping=self._is_being_stopped,
            waited=partial(cancelled_waits(environment).add, self),
            escalate=self._escalate,
            check_errors=(CatchResponseError,),
            control_flow=CONTROL_FLOW,
            # gevent's sockets are made for blocking calls; under an event loop they only cost memory and time.
            new_socket=get_original("socket", "socket"),
            tally=fleet.tally,
        )
        if not hasattr(self, "client"):
            self.client: Any = self._ws

    @property
    def ws(self) -> WebSocketClient:
        """The user's WebSocket client."""
        return self._ws

    @ws.setter
    def ws(self, value: Never) -> None:
        raise AttributeError(f"self.ws: {_RESERVED}", name="ws", obj=self)

    def _refresh_settings(self) -> None:
        """Give the client the settings as they are now. Called before each connect."""
        for name, now, before in zip(_FIXED, _fixed_settings(self), self._fixed, strict=True):
            if now is not before and now != before:
                raise ValueError(
                    f"{name} is read when the user is created, and cannot be changed later: set it on the class, or in "
                    "__init__ before super().__init__(environment)"
                )
        settings = self._settings
        refreshed = _refreshed(self, settings)
        if refreshed is not settings:
            vars(self)["_settings"] = refreshed
        self._ws.options = refreshed[1]
        self._ws.base_url = self.host

    def _run_on_start(self) -> Any:
        set_current_client(self._ws)
        self.ws.http_session = http_session(self.client)  # not before: the bases may stand in either order
        retry = None if self.connect_backoff is None else Retry(self.connect_backoff)
        while True:
            try:
                result = super()._run_on_start()
            except (ConnectError, ExceptionGroup) as exc:
                if retry is None or not contains_only(exc, ConnectError):
                    raise
                retry.failed()
                if retry.exhausted:
                    raise
                if not is_row(exc):
                    without_our_frames(exc)
                    list_exception(self._locust_user, exc)
                if is_stopping(self._locust_user):
                    raise GreenletExit() from exc  # as if killed now; Locust would log StopUser as an error here
                set_waiting(self._locust_user)  # a stop waits for no attempt (User.stop())
                # The next one makes them again.
                self._loop_host.cancel_tasks()
                self._close_connections()
            else:
                if is_waiting(self._locust_user):
                    set_running(self._locust_user)
                return result

    def _close(self) -> None:
        try:
            self._loop_host.cancel_tasks()  # before they meet closed connections
        finally:
            try:
                self._close_all()
            except GreenletExit:
                # Killed meanwhile, as a user is that ended by itself just when the test did. Its server may still
                # answer, in the time that a kill leaves.
                self._close_all()
                raise
            finally:
                self.ws.abort()
                super()._close()

    def _close_all(self) -> None:
        while self.ws.connections:
            # Each end is a row, of which a request listener may make a StopUser: the user is stopping.
            with suppress(*CONTROL_FLOW):
                self._close_connections(max(self._loop_host.time_left, _LEAST_TO_CLOSE))

    def _close_connections(self, timeout: float | None = None) -> None:
        self._loop_host.run(self.ws.aclose(timeout))


_RESERVED = (
    "this is the user's WebSocket client. Keep a connection under another name: "
    "`self.connection = await self.ws.connect(...)`"
)

_NAMES = tuple(field.name for field in fields(ConnectOptions))
_FIXED = ("engine", "reported", "aggregated", "connect_backoff", "cancel_timeout")
_fixed_settings = attrgetter(*_FIXED)
_values_of = attrgetter(*_NAMES)

_Settings = tuple[tuple[Any, ...], ConnectOptions]
"""The values of a user's settings, and the options that were made of them."""

AsyncWebSocketUser._settings = (_values_of(_DEFAULTS), _DEFAULTS)


def _refreshed(user: AsyncWebSocketUser, settings: _Settings) -> _Settings:
    """The settings of *user* as they are now; the same object if nothing has changed."""
    before, options = settings
    values = _values_of(user)
    now = tuple([_snapshot(value) for value in values])
    if now == before:
        return settings
    each = zip(_NAMES, values, now, before, strict=True)
    changed = {name: value for name, value, new, old in each if new is not old and new != old}
    return now, options.replace(changed)


def _snapshot(value: Any) -> Any:
    """What tells later whether *value* was changed in place: ``self.headers["X-Id"] = ...``."""
    if type(value) is dict:
        return tuple(value.items())
    return tuple(value) if type(value) is list else value


class _Nothing:
    """What the hooks of ``AsyncUser`` return: may be awaited, and need not be."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


_NOTHING = _Nothing()


def _nothing() -> _Nothing:
    return _NOTHING


_KNOWN = frozenset({*_NAMES, *_FIXED, "host", "wait_time", "weight", "fixed_count", "on_start", "on_stop"})


def _check_settings(user_class: type[User], host: str | None) -> None:
    """Raise what is wrong with the settings of a class; warn of attributes that look like settings."""
    if not issubclass(user_class, AsyncUser):
        return
    tell_of_unknown_settings(user_class, AsyncWebSocketUser, _KNOWN)
    values = values_on(user_class, (name for name in (*_NAMES, *_FIXED) if hasattr(user_class, name)))
    seconds = values.pop("cancel_timeout", 1.0)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds <= 0:
        raise ValueError(f"cancel_timeout must be a number of seconds greater than 0, not {seconds!r}")
    if issubclass(user_class, AsyncWebSocketUser):
        checked_rows(values.pop("aggregated"), "aggregated")
        of_client = {name: values.pop(name) for name in _FIXED if name in values}
        client = WebSocketClient(base_url=host, report=_no_report, options=ConnectOptions(**values), **of_client)
        if host is not None:
            # What is shared is the business of the user, whose HTTP client comes with it.
            client.connect("/", share_cookies=False, share_headers=()).close()


def _no_report(*operation: object) -> None:
    """Take the operations of a client that does nothing."""


def _before_the_run(environment: Environment, **_: Any) -> None:
    list_forgotten_awaits(environment)
    for event in (environment.events.usage_monitor, environment.events.test_stop):
        event.add_listener(watch_names)  # type: ignore[no-untyped-call] # Locust's has no types
    check_classes(environment, _check_settings)


let_grpc_wait_in_a_thread()
events.init.add_listener(_before_the_run)  # type: ignore[no-untyped-call] # Locust's has no types


def _refuse_unawaited_tasks(cls: type[User], /, **kwargs: Any) -> None:
    super(User, cls).__init_subclass__(**kwargs)
    if not cls.abstract and cls.run is User.run:
        refuse_unawaited(cls)


# What importing this changes in Locust: how finely it tells times apart, what it prints at its end, how it shows a host
# that holds a password, that its master waits for the last reports of its workers, and that its own user classes, which
# never await a task, are told so. It also adds listeners of its documented events, and options.
buckets.install()
end_of_run.register()
last_reports.register()
pacing.register()
together.register()
requirements.register()
shown_hosts.register()
unread.register()
fleet.register()
requirements.judge_generator_by(generator.saturated)
view.register()
User.__init_subclass__ = classmethod(_refuse_unawaited_tasks)  # type: ignore[assignment] # set from outside
