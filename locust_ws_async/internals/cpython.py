"""CPython's asyncio, ssl and selectors: their private names, with types, which typeshed mostly leaves out.

Tried with CPython 3.11 to 3.15. What asyncio changed on the way, as far as it concerns us:

- 3.12: ``current_task()`` is written in C, and tasks can be started eagerly: ``Task(..., eager_start=True)`` runs the
  first step of the coroutine inside of the constructor, on top of the frames of whoever creates the task. Such a task
  must never wait in place (``GreenletEventLoop.create_task``).
- 3.13: the running loop is kept in the state of the thread. ``TaskGroup`` passes on a cancellation that comes from
  outside while it cancels its own parent.
- 3.14: the current task is kept there too. ``enter_task`` and ``leave_task`` insist that the given loop is the running
  one, so a task has to be left before the running loop is cleared, and entered after it is set. ``create_task()`` of
  the loop and of asyncio take ``eager_start=``. ``call_soon_threadsafe()`` returns a handle with a lock, so that other
  threads can cancel it. ``asyncio.iscoroutinefunction`` is deprecated. The loop has one attribute more.
- 3.15: transports keep a context for their callbacks, and ``_make_ssl_transport`` takes it; we pass on what we get.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import selectors
import struct
import sys
from _socket import socket as NativeSocket  # the one in C, beneath the class that gevent replaces
from asyncio import base_events, events, selector_events, sslproto
from asyncio.events import _get_running_loop as get_running_loop
from asyncio.events import _set_running_loop as set_running_loop
from collections.abc import Iterator
from functools import lru_cache
from heapq import heappop
from itertools import accumulate, chain, repeat
from operator import attrgetter, itemgetter, methodcaller
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from .checks import names_in, require, unsupported

__all__ = [
    "SAMPLED",
    "SHARED_ATTRIBUTES",
    "Handle",
    "NativeSocket",
    "Selector",
    "SelectorEventLoop",
    "StampedReader",
    "Task",
    "begin_asyncgen",
    "current_task",
    "enter_task",
    "exception_of",
    "get_frame",
    "get_running_loop",
    "leave_task",
    "make_transport",
    "makes_transports",
    "must_cancel",
    "never_retrieved",
    "refuse_free_threading",
    "remove_cancelled_timers",
    "set_running_loop",
    "shrink_tls_buffer",
    "silence_destroy_warning",
    "stack_of_thread",
    "thread_safe_handle",
    "tls_stream_ended",
    "without_last_frame",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")

SHARED_ATTRIBUTES = 29
"""Up to this many attributes, the objects of a class share the keys of their attributes. With one more, each object has
a table of its own, of 1.3 KiB (``SHARED_KEYS_MAX_SIZE`` in CPython's ``dictobject.c``)."""

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import AsyncGenerator
    from concurrent.futures import Executor
    from contextvars import Context

    class Handle(asyncio.Handle):
        _loop: Any

        def _run(self) -> None: ...

    ThreadSafeHandle = Handle

    class Task(asyncio.Task[Any]):
        _loop: Any

    class TimerHandle(asyncio.TimerHandle):
        _scheduled: bool

    class SelectorEventLoop(asyncio.SelectorEventLoop):
        _asyncgen_finalizer_hook: Any
        _closed: bool
        _debug: bool
        _default_executor: Executor | None
        _executor_shutdown_called: bool
        _ready: deque[Handle]
        _scheduled: list[TimerHandle]
        _signal_handlers: dict[int, asyncio.Handle]
        _stopping: bool
        _task_factory: Any
        _timer_cancelled_count: int

        def _check_callback(self, callback: object, method: str) -> None: ...
        def _check_closed(self) -> None: ...
        def _check_running(self) -> None: ...
        def _check_signal(self, sig: int) -> None: ...
        def _handle_signal(self, sig: int) -> None: ...
        def _make_socket_transport(self, *args: Any, **kwargs: Any) -> Any: ...
        def _make_ssl_transport(self, *args: Any, **kwargs: Any) -> Any: ...
        def _run_once(self) -> None: ...

    class Selector(selectors.BaseSelector):
        _fd_to_key: dict[int, selectors.SelectorKey]

        def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey: ...
        def unregister(self, fileobj: Any) -> selectors.SelectorKey: ...
        def get_map(self) -> Any: ...

    def current_task(loop: asyncio.AbstractEventLoop, /) -> asyncio.Task[Any] | None: ...

    def enter_task(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """Make *task* the current one of *loop*, which has none and is the running loop."""

    def leave_task(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """Leave *loop*, the running loop, without a current task; *task* is the current one."""

    def must_cancel(task: asyncio.Task[Any], /) -> bool:
        """Return whether a cancellation of *task* waits for the next step of the task."""

    def exception_of(task: asyncio.Task[Any], /) -> BaseException | None:
        """Return the exception of a *task* that is done, without marking it as retrieved as ``exception()`` does."""

    def never_retrieved(task: asyncio.Task[Any], /) -> bool:
        """Return whether a *task* that is done has failed and nobody has asked for its result or its exception."""

else:
    require("asyncio.tasks", vars(asyncio.tasks), ["_enter_task", "_leave_task"])
    if sys.version_info < (3, 12):
        require("asyncio.tasks", vars(asyncio.tasks), ["_current_tasks"])
    require("selectors", vars(selectors), ["_BaseSelectorImpl"])

    Handle = asyncio.Handle
    SelectorEventLoop = asyncio.SelectorEventLoop
    Task = asyncio.Task
    Selector = selectors._BaseSelectorImpl
    ThreadSafeHandle = getattr(events, "_ThreadSafeHandle", Handle)  # since 3.14

    enter_task = asyncio.tasks._enter_task
    leave_task = asyncio.tasks._leave_task
    # In C since 3.12.
    current_task = asyncio.current_task if sys.version_info >= (3, 12) else asyncio.tasks._current_tasks.get
    must_cancel = attrgetter("_must_cancel")
    exception_of = attrgetter("_exception")
    never_retrieved = attrgetter("_log_traceback")


get_frame = sys._getframe


_DEEPEST = 500  # frames


def stack_of_thread(ident: int) -> list[FrameType]:
    """
    Return the frames of the thread with this ``get_ident()``, the innermost first; none if it runs no Python.

    They are taken while that thread cannot run. Frames of coroutines that have been left since have no valid
    ``f_back`` (seen in 3.11), and to follow it in Python would give the other thread a chance to leave them. So one
    call takes them all: nothing in it is Python, and no collection of garbage comes between.
    """
    innermost = map(itemgetter(ident), map(methodcaller("__call__"), (sys._current_frames,)))
    steps: Iterator[Any] = chain(innermost, repeat("f_back", _DEEPEST))
    stack: list[FrameType | None] = []
    collects = gc.isenabled()
    gc.disable()
    try:
        stack.extend(accumulate(steps, getattr))
    except (AttributeError, KeyError):  # behind the outermost; no Python at all
        pass
    finally:
        if collects:
            gc.enable()
    return [frame for frame in stack if frame is not None]


def _check() -> None:
    """Raise ``ImportError`` where a name is gone that the bridge cannot do without."""
    loop = base_events.BaseEventLoop
    attributes = (
        names_in(loop.__init__) | names_in(loop.set_debug) | names_in(selector_events.BaseSelectorEventLoop.__init__)
    )
    require(
        "an asyncio event loop",
        attributes,
        [
            "_closed",
            "_debug",
            "_default_executor",
            "_executor_shutdown_called",
            "_make_self_pipe",
            "_ready",
            "_scheduled",
            "_selector",
            "_stopping",
            "_task_factory",
            "_timer_cancelled_count",
        ],
    )
    methods = [
        "_asyncgen_finalizer_hook",
        "_asyncgen_firstiter_hook",
        "_check_callback",
        "_check_closed",
        "_check_running",
        "_check_thread",
        "_close_self_pipe",
        "_make_ssl_transport",
        "_make_self_pipe",
        "_run_once",
        "_write_to_self",
    ]
    if sys.platform != "win32":
        methods += ["_check_signal", "_handle_signal"]
        require("an asyncio event loop for Unix", names_in(SelectorEventLoop.__init__), ["_signal_handlers"])
    require("an asyncio event loop", dir(SelectorEventLoop), methods)
    # The short cut stands in _run_once(), which run_forever() has to call for each pass.
    require("asyncio's run_forever()", names_in(loop.run_forever), ["_run_once"])
    require(
        "a task", dir(asyncio.Task), ["_exception", "_log_destroy_pending", "_log_traceback", "_loop", "_must_cancel"]
    )
    require("a callback's handle", dir(asyncio.Handle), ["_loop", "_run", "_source_traceback"])
    require("a timer's handle", dir(asyncio.TimerHandle), ["_scheduled"])
    require("asyncio.sslproto", vars(sslproto), ["_SSLProtocolTransport"])
    require("a TLS transport", names_in(sslproto._SSLProtocolTransport.__init__), ["_ssl_protocol"])
    require("asyncio's TLS", names_in(sslproto.SSLProtocol.__init__), ["_eof_received"])
    require("a selector", names_in(selectors._BaseSelectorImpl.__init__), ["_fd_to_key"])


_check()


def refuse_free_threading() -> None:
    """Raise ``ImportError`` on a free-threaded build of CPython, also where its global interpreter lock is switched on.

    Such a build runs a step of a task inside of a critical section of that task, which belongs to the thread. A
    greenlet that leaves for the hub in the middle of a step would take the section along.
    """
    if "free-threading" in sys.version:  # as sys.version says since 3.13; where the lock is on again it still does
        raise unsupported("gevent's greenlets and free-threaded builds of Python do not go together", "gevent")


def thread_safe_handle(callback: Any, args: Any, loop: SelectorEventLoop, context: Context | None) -> Handle:
    """Return the kind of handle that ``call_soon_threadsafe()`` returns.

    In debug mode the stack that it keeps ends with the caller of our caller.
    """
    kind = ThreadSafeHandle
    handle = without_last_frame(without_last_frame(kind(callback, args, loop, context)))
    return handle if kind is Handle else without_last_frame(handle)  # it has an __init__() of its own


def silence_destroy_warning(task: asyncio.Task[Any]) -> None:
    """Let *task* be destroyed while it is pending, without a report."""
    cast(Any, task)._log_destroy_pending = False


def remove_cancelled_timers(loop: SelectorEventLoop) -> None:
    """Drop the cancelled timers in front of the first live one, as asyncio does in each pass over the loop."""
    scheduled = loop._scheduled
    while scheduled and scheduled[0].cancelled():
        heappop(scheduled)._scheduled = False
        loop._timer_cancelled_count -= 1


def begin_asyncgen(loop: Any, generator: AsyncGenerator[Any, Any]) -> None:
    """Tell *loop* of an asynchronous *generator* that is about to be iterated for the first time in it."""
    loop._asyncgen_firstiter_hook(generator)


def without_last_frame(created: T) -> T:
    """Return *created*, a handle or a task; in debug mode, without our frame at the end of the stack that it keeps."""
    stack: Any = getattr(created, "_source_traceback", None)
    if stack:
        del stack[-1]
    return created


# The receive buffer of a TLS connection. asyncio takes 256 KiB, which thousands of users would pay for.

_TLS_RECORD = 16 * 1024  # bytes; a record carries no more (RFC 8446 section 5.1)


def _set_buffer(protocol: Any) -> None:
    protocol.max_size = _TLS_RECORD
    protocol._ssl_buffer = bytearray(_TLS_RECORD)
    protocol._ssl_buffer_view = memoryview(protocol._ssl_buffer)


def _buffer_size(protocol: Any) -> int:
    return len(protocol.get_buffer(-1))


def _tls_buffer_shrinks() -> bool:
    """Return whether a protocol that is given our buffer reads into it, and we know its transport's way to it."""
    protocol: Any = object.__new__(sslproto.SSLProtocol)
    try:
        _set_buffer(protocol)
        ours = _buffer_size(protocol) == _TLS_RECORD
    except (AttributeError, TypeError):
        return False
    made = names_in(sslproto.SSLProtocol.__init__)
    transport = getattr(sslproto, "_SSLProtocolTransport", object)
    return ours and {"_ssl_buffer", "_ssl_buffer_view"} <= made and "_ssl_protocol" in names_in(transport.__init__)


_TLSTransport: Any = sslproto._SSLProtocolTransport

TLS_BUFFER_SHRINKS = _tls_buffer_shrinks()


@lru_cache(maxsize=1)
def _tell_of_large_buffers() -> None:
    logger.warning(
        "each wss connection costs 240 KiB more than it should: %s",
        unsupported("asyncio keeps the receive buffer of TLS elsewhere"),
    )


def shrink_tls_buffer(transport: Any) -> None:
    """Give a new TLS *transport* a receive buffer of one TLS record; warn once where that is impossible."""
    if TLS_BUFFER_SHRINKS:
        _set_buffer(transport._ssl_protocol)
    else:
        _tell_of_large_buffers()


def tls_stream_ended(transport: asyncio.BaseTransport) -> bool:
    """
    Whether asyncio's TLS knows that the peer has ended the stream, and has not yet told its protocol.

    While reading is paused asyncio keeps that to itself, and throws away what is written. For a transport without TLS
    and for one of another loop, as uvloop's, this is False.
    """
    return isinstance(transport, _TLSTransport) and cast(bool, cast(Any, transport)._ssl_protocol._eof_received)


# Reading from a socket, with what the kernel tells beside the bytes.

_SocketTransport: Any = getattr(selector_events, "_SelectorSocketTransport", object)


def _reads_straight() -> bool:
    """Return whether asyncio's transports read as :meth:`StampedReader.read` does, which takes the place of that."""
    read = getattr(_SocketTransport, "_read_ready__get_buffer", None)
    used = {"_conn_lost", "_fatal_error", "_protocol", "_read_ready__on_eof", "_sock", "buffer_updated", "get_buffer"}
    return used <= names_in(read) and {"_add_reader", "_read_ready"} <= names_in(
        getattr(_SocketTransport, "resume_reading", None)
    )


READS_STRAIGHT = _reads_straight()

SAMPLED = 63
"""A clock is asked about a stamp in whose nanoseconds all these bits are 0: one of 64."""

_timespec = struct.Struct("=qq").unpack  # seconds and nanoseconds


class Clock(Protocol):
    """What :class:`StampedReader` needs to know of the kernel's clock."""

    longest: float
    offset: float
    trusted_until: float

    def arrival(self, ancillary: list[tuple[int, int, bytes]], before: float, now: float, /) -> float: ...


def makes_transports(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether :func:`make_transport` can make transports for this loop, which it can for asyncio's own."""
    return (
        READS_STRAIGHT
        and isinstance(loop, SelectorEventLoop)
        and type(loop)._make_socket_transport is SelectorEventLoop._make_socket_transport
    )


def make_transport(
    loop: asyncio.AbstractEventLoop, socket: Any, protocol: asyncio.BaseProtocol, clock: Clock | None, space: int
) -> asyncio.Transport:
    """
    Make a transport on a connected socket, at once. It reads from the next pass of the loop on.

    Args:
        loop: one for which :func:`makes_transports` says so.
        socket: the socket.
        protocol: see :meth:`StampedReader.attach`.
        clock: makes times of arrival of what the kernel tells; None for a plain transport.
        space: bytes that the kernel's word takes.
    """
    if clock is None:
        return cast(asyncio.Transport, _SocketTransport(loop, socket, protocol))
    reader = StampedReader(None, socket, clock, space, is_tls=False)
    transport = _StampedTransport(loop, socket, protocol, reader.read)
    reader._transport = transport
    return cast(asyncio.Transport, transport)


class _StampedTransport(_SocketTransport):  # type: ignore[misc] # which mypy does not know
    """asyncio's transport, which reads by a function that it is given."""

    def __init__(self, loop: Any, socket: Any, protocol: Any, read: Any) -> None:
        self._read_ready = read  # what asyncio's constructor takes
        super().__init__(loop, socket, protocol)


class StampedReader:
    """Reads for a socket's transport, in place of asyncio's ``_read_ready__get_buffer()``, and as it does."""

    __slots__ = ("_clock", "_is_tls", "_socket", "_space", "_transport")

    def __init__(self, transport: Any, socket: Any, clock: Clock, space: int, *, is_tls: bool) -> None:
        self._is_tls = is_tls
        self._transport = transport
        self._socket = socket
        self._clock = clock
        self._space = space

    @classmethod
    def attach(cls, transport: Any, socket: Any, clock: Clock, space: int) -> None:
        """
        Let *transport*, or the one beneath its TLS, read so from now on, if it is asyncio's.

        Its protocol must be a buffered one, and stay the same. Without TLS it has an attribute ``buffers``: a tuple of
        what ``get_buffer()`` would return, or None where that has to be asked.

        Args:
            transport: the one that a protocol knows.
            socket: that of the transport. Its attribute ``arrived`` is kept.
            clock: makes times of arrival of what the kernel tells.
            space: bytes that the kernel's word takes.
        """
        if is_tls := isinstance(transport, _TLSTransport):
            transport = cast(Any, transport)._ssl_protocol._transport
        if READS_STRAIGHT and type(transport) is _SocketTransport:
            read = cls(transport, socket, clock, space, is_tls=is_tls).read
            transport._read_ready = read  # what resume_reading() takes as well
            transport._add_reader(transport._sock_fd, read)

    def read(self) -> None:
        """Read once, and hand it to the protocol."""
        transport = self._transport
        if transport._conn_lost:
            return
        protocol = transport._protocol
        socket = self._socket
        try:
            buffers = None if self._is_tls else protocol.buffers
            if buffers is None:
                buffers = (protocol.get_buffer(-1),)
            nbytes, ancillary, _, _ = socket.recvmsg_into(buffers, self._space)
        except (BlockingIOError, InterruptedError):
            return
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            transport._fatal_error(exc, "Fatal read error on socket transport")
            return
        if not nbytes:
            transport._read_ready__on_eof()
            return
        clock = self._clock
        now = perf_counter()
        # Fast path "stamp and bytes at once": 5.2 k instructions a read less (benchmarks/README.md). This is what
        # clock.arrival() would return, where it would note nothing. The plain twin is StampedSocket.recv_into().
        if ancillary and now < clock.trusted_until:
            seconds, nanoseconds = _timespec(ancillary[0][2])
            arrived = seconds - clock.offset + nanoseconds * 1e-9
            if socket.arrived <= arrived <= now and now - arrived <= clock.longest and nanoseconds & SAMPLED:
                socket.arrived = arrived
            else:
                socket.arrived = clock.arrival(ancillary, socket.arrived, now)
        else:
            socket.arrived = clock.arrival(ancillary, socket.arrived, now)
        try:
            protocol.buffer_updated(nbytes)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            transport._fatal_error(exc, "Fatal error: protocol.buffer_updated() call failed.")
