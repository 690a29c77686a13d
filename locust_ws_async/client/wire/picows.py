"""
The fast engine: ``picows``, which reads and writes frames in C.

``picows`` checks and cuts frames, and leaves the rest of RFC 6455 to its users. So this module adds fragments, the
limit on a message, UTF-8 and the closing handshake. It has no permessage-deflate and no unix sockets; these options
are refused.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from time import perf_counter
from typing import Any, cast

import picows
from websockets.datastructures import Headers
from websockets.exceptions import WebSocketException
from websockets.frames import Close
from websockets.headers import build_host, parse_subprotocol
from websockets.http11 import Request, Response

from ...exceptions import HandshakeError, HandshakeRejected
from ..options import ConnectOptions
from .frames import InvalidFrame, MessageAssembler, not_utf8, parse_close
from .interface import NO_ANSWER, NOT_OFFERED, TOO_LONG, CloseInfo, Sink, Target, Wire, invalid_header

__all__ = ["check_options", "open_wire"]

_TEXT = picows.WSMsgType.TEXT
_BINARY = picows.WSMsgType.BINARY
_CONT = picows.WSMsgType.CONTINUATION
_PING = picows.WSMsgType.PING
_PONG = picows.WSMsgType.PONG
_CLOSE = picows.WSMsgType.CLOSE

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([^\r\n]*)")
_READ_BUFFER = 2048  # bytes at first, per connection; it grows for longer frames


class _Log(logging.LoggerAdapter[logging.Logger]):
    """
    What picows logs of one connection.

    Its errors are rows of the statistics; in the log they are for debugging. And that it fails a connection by itself,
    it tells here and nowhere else, just before it does so.
    """

    wire: _Wire | None = None

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        super().log(min(level, logging.DEBUG), msg, *args, **kwargs)
        if level >= logging.WARNING and self.wire is not None:
            asyncio.get_running_loop().call_soon(self.wire.notice_failure)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs


class _QuietHandshakes:
    """
    The loop's exception handler, without what ``open_wire`` raises anyway.

    When a connection is lost in the TLS handshake, aiofastnet tells the loop of it as well, and gives it the class of
    the exception where asyncio expects an exception: to log that is an error in turn.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next = loop.get_exception_handler() or _default_exception_handler

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("exception") is not ConnectionResetError:
            self._next(loop, context)


def _default_exception_handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    loop.default_exception_handler(context)


_logger = logging.getLogger("locust_ws_async.picows")


def check_options(options: ConnectOptions) -> None:
    """See :class:`~.interface.Engine`."""
    if options.compression is not None:
        raise ValueError(
            f'the engine "picows" has no compression: set compression=None (now {options.compression!r}), '
            'or engine = "websockets"'
        )
    if options.unix_socket is not None:
        raise ValueError(
            'the engine "picows" has no unix sockets: set unix_socket=None and connect by TCP, or engine = "websockets"'
        )


async def open_wire(target: Target, sock: socket.socket, options: ConnectOptions, sink: Sink) -> Wire:
    """See :class:`~.interface.Engine`."""

    if not isinstance(sock, socket.socket):
        # picows and aiofastnet insist on this class, which gevent replaces.
        sock = socket.socket(fileno=sock.detach())
        sock.setblocking(False)

    def new_listener(request: picows.WSUpgradeRequest, response: picows.WSUpgradeResponse) -> _Wire:
        return _Wire(options, sink, _agreed_subprotocol(response, options.subprotocols), log)

    def read_headers() -> Iterator[tuple[str, str]]:
        sink.upgrading()  # picows reads them when it writes the request, after TLS
        yield from headers

    headers = [("Host", build_host(target.uri.host, target.uri.port, target.uri.secure)), *target.headers]
    if options.subprotocols:
        headers.append(("Sec-WebSocket-Protocol", ", ".join(options.subprotocols)))
    log = _Log(_logger)
    tls: dict[str, Any] = {}
    if target.ssl is not None:
        tls = {"ssl_shutdown_timeout": options.close_timeout, "server_hostname": target.server_hostname}
        loop = asyncio.get_running_loop()
        if not isinstance(loop.get_exception_handler(), _QuietHandshakes):
            loop.set_exception_handler(_QuietHandshakes(loop))
    try:
        _, listener = await picows.ws_connect(
            new_listener,
            target.url,
            ssl_context=target.ssl,
            socket_factory=lambda url: sock,
            websocket_handshake_timeout=None,
            logger_name=cast(Any, log),  # any object with a logger's methods will do
            enable_auto_pong=False,
            max_frame_size=_limit(options),
            extra_headers=cast(Any, read_headers()),  # any iterable of pairs will do
            max_redirects=0,
            read_buffer_init_size=_READ_BUFFER,
            **tls,
        )
    except picows.WSHandshakeError as exc:
        await _cut(sock)
        raise _handshake_error(exc) from exc
    except BaseException:
        await _cut(sock)
        raise
    # picows returns without a listener when the connection was lost before the answer came.
    if cast(object, listener) is None:
        raise HandshakeError(NO_ANSWER)
    return cast(Wire, listener)


def _limit(options: ConnectOptions) -> int:
    return sys.maxsize if options.max_size is None else options.max_size


async def _cut(sock: socket.socket) -> None:
    # A cancelled ws_connect() gives no hand on the transport, which would stay open. It closes once it reads the end
    # of the stream, in one or two turns of the loop.
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed already
    for _ in range(10):
        if sock.fileno() < 0:
            return
        await asyncio.sleep(0)


class _Wire(picows.WSListener):
    """Listens to one connection, and is its :class:`~.interface.Wire`."""

    def __init__(self, options: ConnectOptions, sink: Sink, subprotocol: str | None, log: _Log) -> None:
        self._sink = sink
        self._fragments: MessageAssembler | None = None
        self._max_size = options.max_size
        # picows fails the connection for a longer frame, and delivers it all the same if more follows.
        self._limit = _limit(options)
        self._short = self._limit  # a whole frame of up to this size is a message; -1 where it is not, or not wanted
        self.subprotocol = subprotocol
        self._rcvd: Close | None = None
        self._sent: Close | None = None
        self._rcvd_first: bool | None = None
        self._discarding = False
        self._arrived = 0.0  # when the chunk came of which more frames follow; 0: a new one comes next
        self._log = log

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._log.wire = self
        self._picows = transport
        self.transport = transport.underlying_transport
        self.send = transport.send  # takes the same arguments: no call of ours in between
        self._sink.opened(cast(Any, self))

    # Made when asked for: picows keeps its own, and twice the headers would be 3 KiB a connection.
    @property
    def request(self) -> Request:
        request = self._picows.request
        return Request(request.path.decode(), _headers(request.headers))

    @property
    def response(self) -> Response:
        return _response(self._picows.response)

    # Reading

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        # One time for all frames of a chunk: the later ones have not waited for the server.
        arrived = self._arrived
        if not arrived:
            arrived = perf_counter()
            if not frame.last_in_buffer:
                self._arrived = arrived
        elif frame.last_in_buffer:
            self._arrived = 0.0
        kind = frame.msg_type
        try:
            if (
                (size := frame.payload_size) <= self._short
                and frame.fin
                and not (frame.rsv1 or frame.rsv2 or frame.rsv3)
            ):
                if kind is _TEXT:
                    self._sink.message_received(frame.get_payload_as_utf8_text(), size, arrived)
                    return
                if kind is _BINARY:
                    self._sink.message_received(frame.get_payload_as_bytes(), size, arrived)
                    return
            self._other_frame(kind, frame, arrived)
        except UnicodeDecodeError as exc:
            self.fail(not_utf8(exc).close)
        except InvalidFrame as exc:
            self.fail(exc.close)
        except BaseException:
            self._arrived = 0.0  # as KeyboardInterrupt, which ends the chunk here and not the connection
            raise

    def _other_frame(self, kind: picows.WSMsgType, frame: picows.WSFrame, arrived: float) -> None:
        if self._discarding:
            return
        if self._sent is None and self._picows.is_close_frame_sent and not self._precedes_failure(frame):
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            raise InvalidFrame(1002, "reserved bits must be 0")
        if kind is _PING:
            payload = frame.get_payload_as_bytes()
            answered = not self._picows.is_close_frame_sent  # after its close frame picows writes nothing
            self._picows.send_pong(payload)
            self._sink.ping_received(payload, answered)
        elif kind is _PONG:
            self._sink.pong_received(frame.get_payload_as_bytes(), arrived)
        elif kind in (_TEXT, _BINARY, _CONT):
            if self._fragments is None:
                self._fragments = MessageAssembler(self._max_size)
                self._short = -1
            message = self._fragments.add(kind.value, bool(frame.fin), frame.get_payload_as_bytes())
            if not self._fragments.pending:
                self._fragments = None
                self._short = self._limit
            if message is not None:
                self._sink.message_received(message[0], message[1], arrived)
        else:
            self._close_received(frame.get_payload_as_bytes())

    def _precedes_failure(self, frame: picows.WSFrame) -> bool:
        # picows has failed the connection by itself. It reads one frame ahead: if that was the malformed one, this is
        # the good one before it, and there is more behind it. But after a frame over the limit it reads on, and this
        # may be any.
        sent = self._picows.close_handshake.sent
        return frame.tail_size > 0 and sent is not None and cast(int, sent.code) != 1009

    def _close_received(self, payload: bytes) -> None:
        if self._fragments is not None:
            raise InvalidFrame(1002, "incomplete fragmented message")
        self._rcvd = parse_close(payload)
        self._rcvd_first = self._sent is None
        self._discard()
        if self._sent is None:
            self._sent = self._rcvd
            if not self._picows.is_close_frame_sent:  # else see _precedes_failure
                self._send_close(self._rcvd)
            self._sink.closing()

    def _discard(self) -> None:
        self._discarding = True
        self._short = -1

    def notice_failure(self) -> None:
        """See whether picows has failed the connection by itself, for a malformed or too long frame."""
        handshake = self._picows.close_handshake
        if self._sent is None and handshake is not None and handshake.sent is not None:
            self._sent = Close(cast(int, handshake.sent.code), handshake.sent.reason)  # its codes are plain ints
            self._discard()
            self._sink.closing()

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.notice_failure()
        self._log.wire = None
        both = self._rcvd is not None and self._sent is not None
        self._sink.closed(CloseInfo(self._rcvd, self._sent, self._rcvd_first if both else None))
        asyncio.get_running_loop().call_soon(_collect_error, transport)

    def pause_reading(self) -> None:
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        # aiofastnet 1.2 holds what it had read and not yet decrypted until more comes from the socket: perhaps never,
        # and if that is the end of the stream it throws the rest away.
        retry = getattr(self.transport, "_retry_ssl_read", None)
        if retry is not None:
            asyncio.get_running_loop().call_soon(retry)
        self.transport.resume_reading()

    # Writing

    def send_ping(self, payload: bytes, /) -> None:
        self._picows.send_ping(payload)

    def send_close(self, close: Close, /) -> None:
        self._sent = close
        self._send_close(close)

    def fail(self, close: Close, /) -> None:
        self._discard()
        if self._sent is None and not self.transport.is_closing():
            self._sent = close
            self._send_close(close)
            self._sink.closing()

    def _send_close(self, close: Close) -> None:
        if close.code == 1005:  # stands for a frame without a code
            self._picows.send(_CLOSE, b"")
        else:
            self._picows.send_close(cast(picows.WSCloseCode, close.code), close.reason.encode())

    def pause_writing(self) -> None:
        self._sink.pause_writing()

    def resume_writing(self) -> None:
        self._sink.resume_writing()


def _collect_error(transport: picows.WSTransport) -> None:
    # picows keeps the reason of a failure in a future, which asyncio would report as never retrieved. It is done by
    # now, so that the coroutine that waits for it ends at its first step.
    waiter = transport.wait_disconnected()
    try:
        waiter.send(None)
    except (StopIteration, Exception):
        pass
    finally:
        waiter.close()


def _agreed_subprotocol(response: picows.WSUpgradeResponse, offered: tuple[str, ...]) -> str | None:
    if "Sec-WebSocket-Extensions" in response.headers:
        raise HandshakeError(NOT_OFFERED)
    header = response.headers.get("Sec-WebSocket-Protocol")
    if header is None:
        return None
    try:
        chosen = parse_subprotocol(header)
    except WebSocketException as exc:
        raise HandshakeError(invalid_header("Sec-WebSocket-Protocol")) from exc
    if len(chosen) != 1 or chosen[0] not in offered:
        raise HandshakeError(NOT_OFFERED)
    return chosen[0]


def _headers(headers: Mapping[str, str]) -> Headers:
    """As the other engine has them: bytes beyond ASCII read as ISO 8859-1 (RFC 9110 section 5.5)."""
    result = Headers()
    for name, value in headers.items():
        result.set_insecure(name, value.encode("utf-8", "surrogateescape").decode("iso-8859-1"))
    return result


def _response(response: picows.WSUpgradeResponse) -> Response:
    return Response(int(response.status), response.status.phrase, _headers(response.headers))


def _handshake_error(exc: picows.WSHandshakeError) -> HandshakeError:
    if isinstance(exc, picows.WSInvalidStatusError) and exc.response is not None:
        response = _response(exc.response)
        response.body = exc.raw_body or b""
        return HandshakeRejected(response.status_code, response)
    if isinstance(exc, picows.WSInvalidHeaderError):
        return HandshakeError(invalid_header(exc.name))
    header = exc.raw_header or b""
    # A status that Python's http.HTTPStatus does not list, as 522 of some proxies, is malformed to picows.
    status_line = _STATUS_LINE.match(header)
    if status_line and exc.response is None:
        status = int(status_line[1])
        return HandshakeRejected(status, Response(status, status_line[2].decode("latin-1"), Headers()))
    return HandshakeError(TOO_LONG if len(header) >= 16 * 1024 else NO_ANSWER)
