"""
The fast engine: ``picows``, which reads and writes frames in C, over the transports of ``aiofastnet``.

``picows`` checks and cuts frames, and leaves the rest of RFC 6455 to its users. So this module adds fragments, the
limit on a message, UTF-8 and the closing handshake. ``picows`` has no permessage-deflate and no unix sockets, so these
settings are refused.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any, cast

import picows
from websockets.frames import Close

from ...exceptions import HandshakeError
from ...fast_paths import PLAIN
from ...internals.picows import (
    ConnectionLog,
    collect_error,
    create_connection,
    forget_headers,
    new_protocol,
    quiet_tls_handshake,
    receive,
    retry_tls_read,
)
from ...masking import MaskingLog
from .answer import Answer
from .base import NO_FAST_PATH, TURN_FRAMES, TURN_SECONDS, BaseWire
from .closing import code_in_frame
from .frames import InvalidFrame, not_utf8, parse_close
from .interface import NOT_OFFERED, EngineSettings, Sink, Target, Wire
from .layers import ProtocolLayer
from .request import request_text
from .upgrade import Upgrade

__all__ = ["check_settings", "open_wire"]

_TEXT = picows.WSMsgType.TEXT
_BINARY = picows.WSMsgType.BINARY
_PING = picows.WSMsgType.PING
_PONG = picows.WSMsgType.PONG
_CLOSE = picows.WSMsgType.CLOSE

_ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n"
)
"""What picows gets to see of the answer, which has been checked: it has limits and rules of its own."""
_READ_BUFFER = 2048  # bytes at first, per connection; it grows for longer frames, and whenever a read fills it
_LONGEST_READ = 64 * 1024  # bytes, once a connection has shown that it has so many at a time
_SHORTEST_READ = 8 * 1024  # the same while the frames in it are too many for one turn
_logger = MaskingLog(logging.getLogger("locust_ws_async.picows"))


def check_settings(settings: EngineSettings) -> None:
    """See :class:`~.interface.Engine`."""
    if settings.compression is not None:
        raise ValueError(
            f'the engine "picows" has no compression: set compression=None (now {settings.compression!r}), '
            'or engine = "websockets"'
        )
    if settings.unix_socket:
        raise ValueError(
            'the engine "picows" has no unix sockets: set unix_socket=None and connect by TCP, or engine = "websockets"'
        )


async def open_wire(target: Target, sock: socket.socket, settings: EngineSettings, sink: Sink) -> Wire:
    """See :class:`~.interface.Engine`."""
    if not isinstance(sock, socket.socket):
        # picows and aiofastnet insist on this class, which gevent replaces.
        sock = socket.socket(fileno=sock.detach())
        sock.setblocking(False)
    loop = asyncio.get_running_loop()
    wire = _Wire(settings, sink)
    headers = [("Host", target.host), *target.headers]
    if settings.subprotocols:
        headers.append(("Sec-WebSocket-Protocol", ", ".join(settings.subprotocols)))
    protocol = new_protocol(target.uri.resource_name, headers, lambda: wire, wire.log, settings.max_size, _READ_BUFFER)

    request = ""

    def send_request(transport: asyncio.Transport) -> str:
        sink.upgrading()
        protocol.connection_made(transport)
        nonlocal request
        sent = protocol.transport.request
        request = request_text(sent.path.decode(), sent.headers.items())
        return cast(str, sent.headers["Sec-WebSocket-Key"])

    def switch(transport: asyncio.Transport, answer: Answer, subprotocol: str | None, arrived: float) -> Wire:
        response = answer.response
        assert response is not None
        if "Sec-WebSocket-Extensions" in response.headers:
            raise HandshakeError(NOT_OFFERED)
        wire._keep(request, answer)
        wire.subprotocol = subprotocol
        wire.answer_arrived = arrived
        transport.set_protocol(protocol)
        accept = response.headers.get_all("Sec-WebSocket-Accept")[0]
        receive(protocol, _ANSWER % accept.encode() + answer.rest)
        forget_headers(protocol.transport)
        return cast(Wire, wire)

    upgrade = Upgrade(send_request, switch, settings.subprotocols)
    tls: dict[str, Any] = {}
    guard: AbstractContextManager[None] = nullcontext()
    if target.ssl is not None:
        tls = {"ssl_shutdown_timeout": settings.close_timeout, "server_hostname": target.server_hostname}
        guard = quiet_tls_handshake(loop)
    with guard:
        await create_connection(loop, lambda: upgrade, sock=sock, ssl=target.ssl, **tls)
    return await upgrade.wait()


_Frame = tuple[picows.WSMsgType, bool, bool, bytes, float]
"""A copy of a frame: its type, FIN, whether a reserved bit is set, its payload, and when it came."""


class _ShortReads(ProtocolLayer):
    """Stands between a transport and picows' protocol, to give the transport less of the buffer."""

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        self.limit = _LONGEST_READ

    def get_buffer(self, sizehint: int) -> memoryview:
        return super().get_buffer(sizehint)[: self.limit]

    def buffer_updated(self, nbytes: int) -> None:
        self.limit = min(2 * self.limit, _LONGEST_READ)
        super().buffer_updated(nbytes)


class _Wire(BaseWire, picows.WSListener):
    """Listens to one connection, and is its :class:`~.interface.Wire`."""

    __slots__ = (
        "_answer",
        "_arrived",
        "_assembler",
        "_closing",
        "_fast_path_limit",
        "_frames_left",
        "_inflates",
        "_max_size",
        "_picows",
        "_ping_to_answer",
        "_postponed",
        "_reading_paused",
        "_request_text",
        "_response",
        "_response_head",
        "_short_reads",
        "_sink",
        "_turn_due",
        "_work",
        "_writing_paused",
        "answer_arrived",
        "log",
        "subprotocol",
        "transport",
    )

    answer_arrived: float
    stamped = False  # picows reads by itself, without the kernel's stamps
    subprotocol: str | None

    def __init__(self, settings: EngineSettings, sink: Sink) -> None:
        self._begin()
        self._sink = sink
        self._max_size = settings.max_size
        self._answer: Close | None = None  # to a close frame that has been answered, but not delivered
        self._arrived = 0.0  # when the chunk came whose frames are being delivered; 0 between two chunks
        self._frames_left = 0  # how many more frames of that chunk this turn may handle
        self._postponed: deque[_Frame] | None = None  # the other frames of that chunk
        self._short_reads: _ShortReads | None = None
        self.log = ConnectionLog(_logger)
        self._update_fast_path()

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.log.on_warning = self._notice_failure
        self.log.on_error = self._answer_close_first
        self._picows = transport
        self.transport = transport.underlying_transport
        self._sink.opened(self, self.answer_arrived)

    # Reading

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        # All frames of a chunk have the time of its first: the later ones have not waited for the server.
        arrived = self._arrived
        if not arrived:
            arrived = perf_counter()
            if not frame.last_in_buffer:
                self._arrived = arrived
                self._frames_left = TURN_FRAMES
                if frame.tail_size > _LONGEST_READ:
                    self._read_less()
        else:
            if frame.last_in_buffer:
                self._arrived = 0.0
            self._frames_left -= 1
            if self._frames_left <= 0 or perf_counter() - arrived > TURN_SECONDS:
                self._begin_to_postpone()
        kind = frame.msg_type
        try:
            # Fast path "whole frames": 5 k instructions a message less (benchmarks/README.md). The plain twin is
            # `_receive_frame`.
            if (
                (size := frame.payload_size) <= self._fast_path_limit
                and frame.fin
                and not (frame.rsv1 or frame.rsv2 or frame.rsv3)
            ):
                if kind is _TEXT:
                    self._sink.message_received(frame.get_payload_as_utf8_text(), size, arrived)
                    return
                if kind is _BINARY:
                    self._sink.message_received(frame.get_payload_as_bytes(), size, arrived)
                    return
            self._receive_frame(kind, frame, arrived)
        except UnicodeDecodeError as exc:
            self.fail(not_utf8(exc).close)
        except InvalidFrame as exc:
            self.fail(exc.close)
        except BaseException:
            self._arrived = 0.0  # KeyboardInterrupt, for one, ends the delivery of the chunk but not the connection
            raise

    def _receive_frame(self, kind: picows.WSMsgType, frame: picows.WSFrame, arrived: float) -> None:
        if self._closing.discarding:
            return
        if self._closing.sent is None and self._picows.is_close_frame_sent and not self._precedes_failure(frame):
            return
        reserved = bool(frame.rsv1 or frame.rsv2 or frame.rsv3)
        copy = kind, bool(frame.fin), reserved, frame.get_payload_as_bytes(), arrived
        if self._postponed is None:
            self._take_frame(*copy)
        else:
            self._postponed.append(copy)

    def _take_frame(self, kind: picows.WSMsgType, fin: bool, reserved: bool, payload: bytes, arrived: float) -> None:
        if self._closing.discarding:
            return
        if reserved:
            raise InvalidFrame(1002, "reserved bits must be 0")
        if kind is _PING:
            self._receive_ping(payload)
        elif kind is _PONG:
            self._sink.pong_received(payload, arrived)
        elif kind is _CLOSE:
            self._receive_close(payload)
        else:
            self._receive_data_frame(kind.value, fin, payload, arrived)
            self._update_fast_path()
            if len(payload) > _LONGEST_READ:
                self._read_less()

    def _receive_ping(self, payload: bytes) -> None:
        # After its close frame picows writes nothing. On a dead socket its transport would log a line for each pong.
        answered = not (self._writing_paused or self._picows.is_close_frame_sent or self.transport.is_closing())
        if answered:
            self._send_pong(payload)
        elif self._writing_paused:
            self._ping_to_answer = payload
        self._sink.ping_received(payload, answered)

    def _send_pong(self, payload: bytes) -> None:
        self._picows.send_pong(payload)

    # Turns of the loop. picows delivers each frame of a read, and cannot be stopped. So the frames that are too many
    # are copied, for the turns that follow.

    def _begin_to_postpone(self) -> None:
        if self._postponed is None:
            self._postponed = deque()
            self._postpone(self._take_postponed(self._postponed))
            self._update_fast_path()
            self._read_less().limit = _SHORTEST_READ

    def _take_postponed(self, frames: deque[_Frame]) -> Iterator[None]:
        try:
            while frames:
                self._take_frame(*frames.popleft())
                yield
        except InvalidFrame:
            self._postponed = None  # what follows means nothing
            raise
        except (KeyboardInterrupt, SystemExit):
            self._postpone(self._take_postponed(frames))  # they end a program, but not the connection
            raise
        self._postponed = None
        self._notice_failure()

    def _read_less(self) -> _ShortReads:
        """
        Bound what one read may bring. picows doubles its buffer whenever a read has filled it, and does not make it
        smaller again. Behind a server that is faster than we are, one read would bring all that the kernel has, which
        is millions of frames. As this costs a little for each read, it begins with the first read that is long.
        """
        if self._short_reads is None:
            self._short_reads = _ShortReads(self.transport.get_protocol())
            self.transport.set_protocol(self._short_reads)
            self._update_fast_path()
        return self._short_reads

    def _update_fast_path(self) -> None:
        allowed = not PLAIN and self._assembler is None and self._postponed is None and not self._closing.discarding
        # picows fails the connection for a frame over max_size, and delivers it all the same if more follows. A frame
        # over _LONGEST_READ calls `_read_less`, once.
        most = self._max_size if self._short_reads is not None else min(self._max_size, _LONGEST_READ)
        self._fast_path_limit = most if allowed else NO_FAST_PATH

    def _precedes_failure(self, frame: picows.WSFrame) -> bool:
        """
        Whether this frame is still good, although picows has failed the connection by itself.

        picows reads one frame ahead. If the frame that it read ahead was malformed, the one before is delivered after
        the failure, and has bytes behind it. But after a frame over max_size picows goes on to read, so that any frame
        may be one that came later.
        """
        if self._answer is not None:
            return True
        sent = self._picows.close_handshake.sent
        return frame.tail_size > 0 and sent is not None and cast(int, sent.code) != 1009

    def _receive_close(self, payload: bytes) -> None:
        if self._assembler is not None:
            raise InvalidFrame(1002, "incomplete fragmented message")
        close = parse_close(payload)
        if self._closing.receive(close, self._answer):
            if not self._picows.is_close_frame_sent:  # else see _precedes_failure
                self._write_close(close)
            self._sink.closing()
        self._update_fast_path()

    def _answer_close_first(self) -> None:
        """
        Answer a close frame before picows fails the connection for what follows it, which means nothing.

        picows has read the close frame ahead, and has not delivered it yet.
        """
        handshake = self._picows.close_handshake
        if handshake is None or handshake.recv is None or self._closing.sent is not None:
            return
        if self._picows.is_close_frame_sent or self._cuts_message:
            return
        code = handshake.recv.code
        # For a frame without a code a whole answer with one: after an empty answer picows would write its own as well.
        self._answer = (
            Close(1000, "")
            if code == picows.WSCloseCode.NO_INFO
            else Close(cast(int, code), handshake.recv.reason or "")
        )
        self._write_close(self._answer)

    @property
    def _cuts_message(self) -> bool:
        """Whether a close frame after all frames so far, those that wait for their turn included, cuts a message."""
        for kind, fin, *_ in reversed(self._postponed or ()):
            if kind not in (_PING, _PONG, _CLOSE):
                return not fin
        return self._assembler is not None

    def _notice_failure(self) -> None:
        """See whether picows has failed the connection by itself, for a malformed or too long frame."""
        handshake = self._picows.close_handshake
        if self._postponed is not None:
            return  # they came before, and count
        if self._closing.sent is None and handshake is not None and handshake.sent is not None:
            self._closing.fail(Close(cast(int, handshake.sent.code), handshake.sent.reason))  # its codes are plain ints
            self._update_fast_path()
            self._sink.closing()

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._finish_work()
        self._notice_failure()
        self.log.on_warning = self.log.on_error = None
        self._sink.closed(self._closing.info())
        asyncio.get_running_loop().call_soon(collect_error, transport)

    def _resume_transport(self) -> None:
        retry_tls_read(self.transport)
        self.transport.resume_reading()

    # Writing

    def send(self, opcode: int, payload: bytes, /) -> None:
        self._picows.send(cast(picows.WSMsgType, opcode), payload)  # its codes are plain ints

    def send_ping(self, payload: bytes, /) -> None:
        self._picows.send_ping(payload)

    def _can_write_close(self) -> bool:
        return not self.transport.is_closing()

    def _write_close(self, close: Close) -> None:
        code = code_in_frame(close)
        if code is None:
            self._picows.send(_CLOSE, b"")
        else:
            self._picows.send_close(cast(picows.WSCloseCode, code), close.reason.encode())
