"""What we use of ``picows``, and of ``aiofastnet`` beneath it, beside their documented API."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, cast

import picows
from aiofastnet import create_connection

__all__ = [
    "ConnectionLog",
    "collect_error",
    "create_connection",
    "forget_headers",
    "new_protocol",
    "quiet_tls_handshake",
    "receive",
    "retry_tls_read",
]

_Protocol: Any = getattr(importlib.import_module("picows.picows"), "WSProtocol", None)

_TLSTransport: Any = getattr(importlib.import_module("aiofastnet.ssl_transport"), "SSLTransportBase", None)

_NO_HEADERS: Any = {}


def _check() -> None:
    needed: list[tuple[object, str, str]] = [
        (picows.WSTransport, "picows.WSTransport", name)
        for name in ("close_handshake", "is_close_frame_sent", "underlying_transport", "wait_disconnected")
    ]
    needed += [(picows.WSFrame, "picows.WSFrame", name) for name in ("last_in_buffer", "tail_size")]
    needed += [
        (_Protocol, "picows.picows.WSProtocol", name) for name in ("buffer_updated", "connection_made", "get_buffer")
    ]
    needed += [(_TLSTransport, "aiofastnet.ssl_transport.SSLTransportBase", "_retry_ssl_read")]
    for owner, path, name in needed:
        if not hasattr(owner, name):
            from importlib.metadata import version  # an import that takes long

            raise ImportError(
                f"picows {version('picows')} with aiofastnet {version('aiofastnet')} has no {path}.{name}, which the "
                'engine "picows" needs: install picows 2.3.1 with aiofastnet 1.2.0, a newer locust_ws_async, or use '
                'engine = "websockets"'
            )


_check()


class ConnectionLog(logging.LoggerAdapter["logging.LoggerAdapter[logging.Logger]"]):
    """
    Takes what picows logs of one connection.

    Its errors are rows of the statistics already, so they are logged for debugging only.

    picows closes a connection by itself when a frame is malformed or too long. It calls no method of the listener
    then, but logs an error just before. So each warning or error calls ``on_warning`` in the next iteration of the
    loop, when the close frame is out. Should a version no longer log it, the engine still sees the close frame when
    the connection is lost. An error also calls ``on_error`` at once, before picows writes its close frame.

    The request of the handshake goes into the log below as it is: that has to mask its headers.
    """

    on_warning: Callable[[], None] | None = None
    on_error: Callable[[], None] | None = None

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        super().log(min(level, logging.DEBUG), msg, *args, **kwargs)
        if level >= logging.ERROR and self.on_error is not None:
            self.on_error()
        if level >= logging.WARNING and self.on_warning is not None:
            asyncio.get_running_loop().call_soon(self.on_warning)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs


def new_protocol(
    path: str,
    headers: Iterable[tuple[str, str]],
    new_listener: Callable[[], picows.WSListener],
    log: ConnectionLog,
    max_frame_size: int,
    read_buffer: int,
) -> Any:
    """
    Return the asyncio protocol that ``picows.ws_connect`` would make, for a transport that is there already.

    ``connection_made`` writes the request, ``receive`` gives it the answer and what follows.

    Args:
        path: what to GET.
        headers: those of the request beside the ones of the opening handshake, ``Host`` among them.
        new_listener: called when the answer is there.
        log: takes what picows logs.
        max_frame_size: in bytes.
        read_buffer: bytes that it begins with.
    """
    positive, never = 1.0, None
    return _Protocol(
        "",  # the host, which is among the headers
        path,
        True,  # a client
        new_listener,
        log,
        True,  # an exception of the listener ends the connection
        never,  # the handshake has no time limit here
        False,  # no pings by itself
        positive,
        positive,
        picows.WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # no pongs by itself
        max_frame_size,
        headers,
        read_buffer,
    )


def receive(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    """Give a protocol what its transport would read."""
    position = 0
    while position < len(data):
        buffer = cast(memoryview, protocol.get_buffer(len(data) - position))
        size = min(len(buffer), len(data) - position)
        buffer[:size] = data[position : position + size]
        position += size
        protocol.buffer_updated(size)


def forget_headers(transport: picows.WSTransport) -> None:
    """Free the headers of the opening handshake, which are needed no more and take 3 KiB."""
    transport.request.headers = transport.response.headers = _NO_HEADERS


class _HandshakeFilter:
    """A loop's exception handler while TLS handshakes run: passes on everything but what aiofastnet tells of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.previous = loop.get_exception_handler()
        self.handshakes = 0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("exception") is ConnectionResetError:
            return
        if self.previous is None:
            loop.default_exception_handler(context)
        else:
            self.previous(loop, context)


@contextmanager
def quiet_tls_handshake(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """
    Keep from the loop's exception handler, during a TLS handshake, what ``ws_connect`` raises anyway.

    When the peer ends the stream in the handshake, aiofastnet (seen in 1.2.0) calls the loop's exception handler with
    the class ``ConnectionResetError`` where asyncio's contract wants an exception. To log that is an error in turn.

    The handler of before is back when the last of the handshakes that run at a time is over. A handler that somebody
    sets meanwhile stays.
    """
    handler = loop.get_exception_handler()
    if not isinstance(handler, _HandshakeFilter):
        handler = _HandshakeFilter(loop)
        loop.set_exception_handler(handler)
    handler.handshakes += 1
    try:
        yield
    finally:
        handler.handshakes -= 1
        if not handler.handshakes and loop.get_exception_handler() is handler:
            loop.set_exception_handler(handler.previous)


def retry_tls_read(transport: asyncio.BaseTransport) -> None:
    """
    Make a transport whose reading was paused decrypt, in the next iteration of the loop, what it had read before.

    aiofastnet (seen in 1.2.0) holds that back until more comes from the socket, which may be never. When what comes is
    the end of the stream, it throws the rest away.
    """
    if isinstance(transport, _TLSTransport):
        asyncio.get_running_loop().call_soon(cast(Any, transport)._retry_ssl_read)


def collect_error(transport: picows.WSTransport) -> None:
    """
    Take the error of a connection that is over, which asyncio would else report as never retrieved.

    picows keeps it in a future that only a coroutine of its own reads. The future is done once the connection is over,
    so that the coroutine ends at its first step.
    """
    waiter = transport.wait_disconnected()
    try:
        waiter.send(None)
    except (StopIteration, Exception):
        pass
    finally:
        waiter.close()
