"""
The default engine: the sans-I/O protocol of ``websockets`` on an asyncio transport.

``websockets`` does the handshake, control frames, fragments, compression, the closing handshake and every check. Two
things are done here, because a load test spends its time in them:

- A whole, unfragmented, uncompressed data frame is read and written without it, in a fraction of the instructions.
- Data arrives through :class:`asyncio.BufferedProtocol` in one buffer that all connections of a thread share.
  ``asyncio.Protocol`` allocates 256 KiB for each ``recv``: three system calls and two page faults a message.

For the first, both must agree on where frames begin. So ``_scan`` cuts the stream, and hands ``websockets`` the frames
that it does not read itself, byte by byte and whole.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import sys
import threading
from time import perf_counter
from typing import Literal, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHeader, InvalidMessage, InvalidStatus, SecurityError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Close, Frame
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.typing import Subprotocol

from ...exceptions import HandshakeError, HandshakeRejected
from ..options import ConnectOptions
from .compression import Deflate
from .frames import BINARY, CLOSE, PING, PONG, TEXT, InvalidFrame, MessageAssembler, decode_text, not_utf8
from .interface import NO_ANSWER, NOT_OFFERED, TOO_LONG, CloseInfo, Sink, Target, Wire, invalid_header

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without websockets' C extension
    from websockets.utils import apply_mask

__all__ = ["check_options", "open_wire"]

_BUFFER_SIZE = 64 * 1024
_TLS_RECORD = 16 * 1024  # bytes that OpenSSL may hold, beside what asyncio tells of (RFC 8446 section 5.1)
_LARGEST = 2**26  # bytes to allocate because a header says so; of more, only what has come
_buffers: dict[int, memoryview] = {}

# RFC 6455 section 10.3 wants masks that the author of a payload cannot predict, lest a hostile script shapes the bytes
# on the wire. Here that author owns the process, so a fast generator will do; not the global one, whose sequence is
# the tester's.
_random_bits = random.Random().getrandbits

_HEADERS_END = b"\r\n\r\n"
_HEADER = struct.Struct("!BB").pack
_HEADER_16 = struct.Struct("!BBH").pack
_HEADER_64 = struct.Struct("!BBQ").pack
_WHOLE_TEXT, _WHOLE_BINARY = 0x80 | TEXT, 0x80 | BINARY  # the first byte of a frame with FIN and no RSV bit


def check_options(options: ConnectOptions) -> None:
    """This engine can do everything."""


async def open_wire(target: Target, sock: socket.socket, options: ConnectOptions, sink: Sink) -> Wire:
    """See :class:`~.interface.Engine`."""
    loop = asyncio.get_running_loop()
    wire = _Wire(target, options, sink)
    await loop.create_connection(
        lambda: wire, sock=sock, ssl=target.ssl, server_hostname=target.server_hostname if target.ssl else None
    )
    await wire.handshake(loop)
    return wire


def _extensions(compression: Literal["deflate"] | Deflate | None) -> list[ClientPerMessageDeflateFactory] | None:
    if compression is None:
        return None
    deflate = Deflate() if compression == "deflate" else compression
    settings = {"level": deflate.level, "memLevel": deflate.memory_level}
    return [
        ClientPerMessageDeflateFactory(
            deflate.server_no_context_takeover,
            deflate.client_no_context_takeover,
            deflate.server_max_window_bits,
            deflate.client_max_window_bits or True,  # True: that the server may choose it
            {name: value for name, value in settings.items() if value is not None},
        )
    ]


def _shared_buffer() -> memoryview:
    # Keyed by the native id. Under gevent the other thread ids are greenlets', and those may share a buffer: nothing
    # switches between the read into it and the copy out of it.
    thread = threading.get_native_id()
    buffer = _buffers.get(thread)
    if buffer is None:
        buffer = _buffers[thread] = memoryview(bytearray(_BUFFER_SIZE))
    return buffer


class _Wire(asyncio.BufferedProtocol):
    __slots__ = (
        "_answered",
        "_buffer",
        "_carry",
        "_closing",
        "_compressed",
        "_detour",
        "_failed",
        "_fragments",
        "_handshake_error",
        "_large",
        "_large_is_text",
        "_max_size",
        "_missing",
        "_opened",
        "_parser",
        "_paused",
        "_rest",
        "_scanning",
        "_short",
        "_sink",
        "_target",
        "_view",
        "_write",
        "request",
        "response",
        "subprotocol",
        "transport",
    )

    transport: asyncio.Transport
    request: Request
    response: Response
    subprotocol: str | None

    def __init__(self, target: Target, options: ConnectOptions, sink: Sink) -> None:
        self._target = target
        self._sink = sink
        self._view = _shared_buffer()
        self._buffer = cast(bytearray, self._view.obj)
        self._parser = ClientProtocol(
            target.uri,
            extensions=_extensions(options.compression),
            subprotocols=[Subprotocol(name) for name in options.subprotocols] or None,
            max_size=options.max_size,
        )
        self._answered: asyncio.Future[None] | None = None
        self._handshake_error: HandshakeError | None = None
        self._opened = False
        self._max_size = sys.maxsize if options.max_size is None else options.max_size
        self._fragments = MessageAssembler(options.max_size)
        self._compressed = False
        self._scanning = False  # whether we cut the stream into frames; else the parser gets it as it comes
        self._short = 0  # a chunk that is exactly one data frame of up to this size needs no scan now
        self._large: bytearray | None = None  # the payload of a data frame that is under way
        self._large_is_text = False
        self._rest: memoryview | None = None  # the part of it that is yet to come
        self._detour: memoryview | None = None  # where the present chunk goes if it is for neither `_view` nor `_rest`
        self._paused = False  # whether reading is
        self._carry = b""  # the beginning of a header whose rest has not come yet
        self._missing = 0  # bytes still to come of the frame that the parser is reading
        self._closing = False  # whether a close frame went out
        self._failed = False  # whether what else arrives is to be discarded

    # The opening handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._write = self.transport.write
        self._sink.upgrading()
        request = self.request = self._parser.connect()
        for name, value in self._target.headers:
            if name.lower() == "host":
                del request.headers["Host"]
            request.headers[name] = value
        self._parser.send_request(request)
        self._flush()

    async def handshake(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for the server's answer."""
        try:
            if not self._opened and self._handshake_error is None:
                self._answered = loop.create_future()
                await self._answered
            if self._handshake_error is not None:
                raise self._handshake_error
        except BaseException:
            self.transport.abort()
            raise

    def _read_answer(self, data: bytes, arrived: float) -> None:
        # What follows the answer are frames, for `_scan` to see first. Unless it is the body of a rejection.
        parser = self._parser
        seen = len(self._carry)
        self._carry += data
        end = self._carry.find(_HEADERS_END)
        cut = len(data) if end < 0 else max(0, end + len(_HEADERS_END) - seen)
        if cut:
            parser.receive_data(data[:cut])
        if parser.state is State.CONNECTING and cut < len(data) and parser.handshake_exc is None:
            parser.receive_data(data[cut:])
            cut = len(data)
        self._check_answer()
        if self._opened and cut < len(data):
            self._scan(data[cut:], arrived)

    def _check_answer(self) -> None:
        parser = self._parser
        if self._handshake_error is not None:
            return
        if parser.handshake_exc is not None:
            self._handshake_error = _handshake_error(parser.handshake_exc)
        elif parser.state is State.OPEN:
            (answer,) = parser.events_received()
            assert isinstance(answer, Response)
            self.response = answer
            self.subprotocol = parser.subprotocol
            self._opened = True
            self._compressed = "Sec-WebSocket-Extensions" in answer.headers
            self._scanning = not self._compressed
            self._carry = b""
            self._align()
            self._sink.opened(self)
        else:
            return
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    # Reading

    def get_buffer(self, sizehint: int) -> memoryview:
        # With TLS sizehint is what asyncio has of the stream. All of it has to fit in: once the server has ended the
        # connection, asyncio reads into one buffer, and throws the rest away.
        self._detour = None  # one into which nothing was read
        rest = self._rest
        if rest is None:
            if sizehint <= _BUFFER_SIZE - _TLS_RECORD:
                return self._view
        elif sizehint < 0 or sizehint <= len(rest) - _TLS_RECORD:
            return rest
        self._detour = memoryview(bytearray(sizehint + _TLS_RECORD))
        self._short = 0  # what it is for is not in `_view`
        return self._detour

    def buffer_updated(self, nbytes: int) -> None:
        arrived = perf_counter()
        rest = self._rest
        if rest is not None and self._detour is None:
            self._continue_large(rest, nbytes, arrived)
            return
        # The short cut for what an echo or a push is: one chunk, one frame. `_short` is 0 where another frame is under
        # way. Nobody else gets to the buffer before the payload is copied out of it.
        short = self._short
        if short and nbytes > 4:
            buffer = self._buffer
            size = buffer[1]
            start = 2
            if size > 125:  # the length is in two bytes; or in eight, or the frame is masked: not here
                size = buffer[2] << 8 | buffer[3] if size == 126 else nbytes
                start = 4
            if start + size == nbytes and size <= short:
                head = buffer[0]
                if head == _WHOLE_TEXT:
                    try:
                        message = buffer[start:nbytes].decode()
                    except UnicodeDecodeError as exc:
                        self.fail(not_utf8(exc).close)
                        return
                    self._sink.message_received(message, size, arrived)
                    return
                if head == _WHOLE_BINARY:
                    self._sink.message_received(self._view[start:nbytes].tobytes(), size, arrived)
                    return
        data = self._view[:nbytes].tobytes() if self._detour is None else self._end_detour(nbytes, arrived)
        # Here and not in a method: each level of calls that opens a connection is memory of every user.
        if self._scanning:
            self._scan(data, arrived)
        elif self._opened:
            self._parse(data, arrived)
        else:
            self._read_answer(data, arrived)

    def _end_detour(self, nbytes: int, arrived: float) -> bytes:
        # Gives what is not the rest of a frame that is under way.
        assert self._detour is not None
        data = self._detour[:nbytes].tobytes()
        self._detour = None
        rest = self._rest
        if rest is None:
            return data
        part = min(len(rest), nbytes)
        rest[:part] = data[:part]
        self._continue_large(rest, part, arrived)
        return data[part:]

    def _scan(self, data: bytes, arrived: float) -> None:
        if self._carry:
            data = self._carry + data
            self._carry = b""
        position, end = 0, len(data)
        try:
            while position < end:
                if not self._scanning:
                    self._parse(data[position:], arrived)
                    return
                if self._missing:
                    part = data[position : position + self._missing]
                    position += len(part)
                    self._missing -= len(part)
                    self._parse(part, arrived)
                    continue
                # A header: RFC 6455 section 5.2.
                start = position + 2
                length = data[position + 1] if start <= end else 0
                start += 2 if length & 0x7F == 126 else 8 if length & 0x7F == 127 else 0
                if start > end:
                    self._carry = data[position:]
                    return
                size = length & 0x7F
                if size > 125:
                    size = int.from_bytes(data[position + 2 : start], "big")
                stop = start + size
                head = data[position]
                if (
                    (head == _WHOLE_TEXT or head == _WHOLE_BINARY)  # noqa: SIM109  # cheaper than a tuple of globals
                    and size <= self._max_size
                    and length < 128  # a server must not mask: the parser will say so
                    and not self._fragments.pending
                ):
                    if stop <= end:
                        position = stop
                        payload = data[start:stop]
                        message = decode_text(payload) if head == _WHOLE_TEXT else payload
                        self._sink.message_received(message, size, arrived)
                        continue
                    if size <= _LARGEST:
                        self._begin_large(head, size, data[start:])
                        return
                self._missing = stop - position
        except InvalidFrame as exc:
            self.fail(exc.close)
        finally:
            self._align()

    def _align(self) -> None:
        under_way = self._carry or self._missing or self._rest is not None or self._fragments.pending
        self._short = min(self._max_size, 65535) if self._scanning and not under_way else 0

    def _begin_large(self, head: int, size: int, received: bytes) -> None:
        # The rest of a data frame is read to where it belongs, without a copy.
        self._large = bytearray(size)
        self._large[: len(received)] = received
        self._large_is_text = head == _WHOLE_TEXT
        self._rest = memoryview(self._large)[len(received) :]

    def _continue_large(self, rest: memoryview, nbytes: int, arrived: float) -> None:
        if nbytes < len(rest):
            self._rest = rest[nbytes:]
            return
        large, self._large, self._rest = self._large, None, None
        assert large is not None
        self._align()
        try:
            message = decode_text(large) if self._large_is_text else bytes(large)
        except InvalidFrame as exc:
            self.fail(exc.close)
        else:
            self._sink.message_received(message, len(large), arrived)

    def _parse(self, data: bytes, arrived: float) -> None:
        parser = self._parser
        parser.receive_data(data)
        events = parser.events_received()
        self._flush()
        for event in events:
            assert isinstance(event, Frame)
            opcode = event.opcode
            if opcode < CLOSE:
                try:
                    message = self._fragments.add(opcode, event.fin, bytes(event.data))
                except InvalidFrame as exc:
                    self.fail(exc.close)
                    return
                if message is not None:
                    self._sink.message_received(message[0], message[1], arrived)
                    if self._failed:
                        return
            elif opcode == PING:
                self._sink.ping_received(bytes(event.data), True)  # the parser answers each ping that it gives
            elif opcode == PONG:
                self._sink.pong_received(bytes(event.data), arrived)
            else:
                self._scanning = False  # whatever follows a close frame is to be discarded
        if parser.parser_exc is not None:
            self._scanning = False
        if not self._closing and parser.state is State.CLOSING:
            self._end_data()
            self._sink.closing()

    def eof_received(self) -> None:
        self._parser.receive_eof()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        parser = self._parser
        parser.receive_eof()
        self._scanning = False
        self._short = 0
        if self._opened:
            close = parser.close_exc
            self._sink.closed(CloseInfo(close.rcvd, close.sent, close.rcvd_then_sent, exc))
        else:
            self._check_answer()

    def pause_reading(self) -> None:
        self.transport.pause_reading()
        self._paused = True
        if not self._closing:
            self._write = self._write_unread

    def resume_reading(self) -> None:
        self.transport.resume_reading()
        self._paused = False
        if not self._closing:
            self._write = self.transport.write

    def _write_unread(self, data: bytes | bytearray | memoryview) -> None:
        self._meet_end()
        self.transport.write(data)

    def _meet_end(self) -> None:
        # While nothing is read, asyncio's TLS keeps it for itself that the server has ended the connection, and throws
        # away what is written.
        if getattr(getattr(self.transport, "_ssl_protocol", None), "_eof_received", False):
            self.resume_reading()

    # Writing. Between the end of the server's stream, which closes the parser, and asyncio's connection_lost(), which
    # the connection will hear of, an iteration of the loop passes. What is sent in it is lost without a word.

    def send(self, opcode: int, payload: bytes, /) -> None:
        if self._compressed:
            if self._parser.state is not State.OPEN:
                return  # also for what came with the server's close frame, which the parser answered with the chunk
            if opcode == TEXT:
                self._parser.send_text(payload)
            else:
                self._parser.send_binary(payload)
            self._flush()
            return
        size = len(payload)
        if size < 126:
            header = _HEADER(0x80 | opcode, 0x80 | size)
        elif size < 65536:
            header = _HEADER_16(0x80 | opcode, 0x80 | 126, size)
        else:
            header = _HEADER_64(0x80 | opcode, 0x80 | 127, size)
        mask = _random_bits(32).to_bytes(4, "little")
        write = self._write  # not as a method: see WebSocketConnection.send
        write(header + mask + apply_mask(payload, mask))

    def send_ping(self, payload: bytes, /) -> None:
        if self._parser.state is State.CLOSED:
            return
        self._parser.send_ping(payload)
        self._flush()

    def send_close(self, close: Close, /) -> None:
        self._end_data()
        if self._parser.state is State.CLOSED:
            return
        if close.code == 1005:
            self._parser.send_close()
        else:
            self._parser.send_close(close.code, close.reason)
        self._flush()

    def fail(self, close: Close, /) -> None:
        if self._parser.state is State.CLOSED:
            return
        self._failed = True
        self._scanning = False
        self._large = self._rest = None
        self._short = 0
        self._parser.fail(close.code, close.reason)
        self._flush()
        if not self._closing:
            self._end_data()
            self._sink.closing()

    def _end_data(self) -> None:
        # A close frame went out. No data may follow it (RFC 6455 section 5.5.1), not even an answer to a keepalive.
        self._closing = True
        self._write = _lose

    def _flush(self) -> None:
        if self._paused:
            self._meet_end()
        for data in self._parser.data_to_send():
            if data:
                self.transport.write(data)
            else:
                self.transport.close()

    def pause_writing(self) -> None:
        self._sink.pause_writing()

    def resume_writing(self) -> None:
        self._sink.resume_writing()


def _lose(data: object) -> None:
    pass


def _handshake_error(exc: Exception) -> HandshakeError:
    error: HandshakeError
    match exc:
        case InvalidStatus():
            error = HandshakeRejected(exc.response.status_code, exc.response)
        case InvalidMessage():
            error = HandshakeError(NO_ANSWER)
        case SecurityError():
            error = HandshakeError(TOO_LONG)
        case InvalidHeader():
            error = HandshakeError(invalid_header(exc.name))
        case _:
            error = HandshakeError(NOT_OFFERED)
    error.__cause__ = exc
    return error
