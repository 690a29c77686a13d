"""
The default engine: the sans-I/O protocol of ``websockets`` on an asyncio transport.

``websockets`` does control frames, fragments, compression, and every check. Data arrives through
:class:`asyncio.BufferedProtocol` in one buffer that all connections of a thread share, as :class:`asyncio.Protocol`
would allocate 256 KiB for each read.

A load test spends its time in whole, unfragmented, uncompressed data frames. So the fast paths of this file read and
write those without ``websockets``: a :class:`~.splitter.FrameSplitter` finds them in the stream, and leaves the rest to
the parser of ``websockets``. Without the fast paths, and with compression, the parser gets the whole stream.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache
from time import perf_counter
from typing import cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions import Extension
from websockets.frames import Close, Frame
from websockets.headers import build_extension
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import WebSocketURI
from websockets.utils import generate_key

from ...exceptions import HandshakeError
from ...fast_paths import PLAIN
from ...hosting import inline_wait_of
from ...internals.cpython import makes_transports, tls_stream_ended
from ...internals.websockets import apply_mask
from ...masking import MaskingLog
from .answer import Answer
from .base import NO_FAST_PATH, BaseWire
from .closing import code_in_frame
from .compression import deflate_factory
from .frames import BINARY, CLOSE, PING, PONG, TEXT, InvalidFrame, parse_close
from .interface import NOT_AGREED, NOT_OFFERED, EngineSettings, Sink, Target, Wire, invalid_header
from .request import request_text
from .splitter import FrameSplitter, Piece
from .stamps import StampedSocket, new_transport, stamped
from .upgrade import BareSocket, Upgrade

__all__ = ["check_settings", "open_wire"]

_BUFFER_SIZE = 64 * 1024
_TLS_RECORD = 16 * 1024  # bytes that OpenSSL may hold, beside what asyncio tells of (RFC 8446 section 5.1)
_LARGEST_HINT = _BUFFER_SIZE - _TLS_RECORD
_log = MaskingLog(logging.getLogger("websockets.client"))  # the logger that websockets takes by itself
_buffers: dict[int, memoryview] = {}

# The first byte of a frame with FIN and without RSV bits.
_WHOLE_TEXT, _WHOLE_BINARY = 0x80 | TEXT, 0x80 | BINARY
_WHOLE_CLOSE, _WHOLE_PING, _WHOLE_PONG = 0x80 | CLOSE, 0x80 | PING, 0x80 | PONG
_GAP = "\0"  # where the key goes; no URL and no header has it
_SLICE = 2048  # bytes that the parser gets at a time: they may be a thousand frames, or 2 MB of text, compressed
_HEADER = struct.Struct("!BB").pack
_HEADER_16 = struct.Struct("!BBH").pack
_HEADER_64 = struct.Struct("!BBQ").pack

# RFC 6455 section 10.3 wants masks that the author of a payload cannot predict, lest a hostile script shapes the bytes
# that go over the network. Here that author owns the process, so a fast generator will do. It is not the global one,
# as the author of the locustfile may have seeded that.
_random_bits = random.Random().getrandbits


def check_settings(settings: EngineSettings) -> None:
    """Accept everything: this engine can do all of it."""


async def open_wire(target: Target, sock: socket.socket, settings: EngineSettings, sink: Sink) -> Wire:
    """See :class:`~.interface.Engine`."""
    key = generate_key()
    text = _request_with_gap(target, settings).replace(_GAP, key)
    loop = asyncio.get_running_loop()
    stamped_sock = stamped(sock) if settings.arrival == "kernel" else None
    used_sock = cast(socket.socket, stamped_sock or sock)  # asyncio takes the class in C as well
    # Fast path "transport at last": without TLS the handshake needs none (benchmarks/README.md). The plain twin gives
    # the transport to the handshake, and then to the wire.
    bare = not PLAIN and target.ssl is None and makes_transports(loop)

    def send_request(transport: asyncio.Transport) -> str:
        sink.upgrading()
        _log.debug("> %s", text)
        transport.write(text.encode())
        return key

    def switch(transport: asyncio.Transport, answer: Answer, subprotocol: str | None, arrived: float) -> Wire:
        # Another loop than asyncio's reads by itself, so that the socket does not know.
        kernel = None if stamped_sock is None or stamped_sock.arrived < 0 else stamped_sock
        wire = _Wire(target.uri, settings, sink, text, answer, subprotocol, kernel)
        if bare:
            wire.use(bare_socket.replace(lambda sock: new_transport(loop, sock, wire)))
        else:
            wire.use(transport)
            transport.set_protocol(wire)
            if kernel is not None:
                kernel.read_straight(transport)
        sink.opened(wire, arrived)
        if answer.rest:
            wire.feed(answer.rest, arrived)
        return wire

    upgrade = Upgrade(send_request, switch, settings.subprotocols, stamped_sock)
    if bare:
        bare_socket = BareSocket(loop, used_sock, upgrade)
        bare_socket.begin()
        return await upgrade.wait(inline_wait_of(loop))
    await loop.create_connection(
        lambda: upgrade,
        sock=used_sock,
        ssl=target.ssl,
        server_hostname=target.server_hostname if target.ssl else None,
    )
    return await upgrade.wait()


@lru_cache(maxsize=256)
def _request_with_gap(target: Target, settings: EngineSettings) -> str:
    """The request, with a gap for the key, which alone differs from one connect to the next."""
    headers = [
        ("Host", target.host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", _GAP),
        ("Sec-WebSocket-Version", "13"),
    ]
    if settings.compression is not None:
        factory = deflate_factory(settings.compression)
        extension = build_extension([(factory.name, factory.get_request_params())])
        headers.append(("Sec-WebSocket-Extensions", extension))
    if settings.subprotocols:
        headers.append(("Sec-WebSocket-Protocol", ", ".join(settings.subprotocols)))
    return request_text(target.uri.resource_name, (*headers, *target.headers))


def _shared_buffer() -> memoryview:
    # Keyed by the native id. Under gevent the other thread ids are greenlets', and those may share a buffer: nothing
    # switches between the read into it and the copy out of it.
    thread = threading.get_native_id()
    buffer = _buffers.get(thread)
    if buffer is None:
        buffer = _buffers[thread] = memoryview(bytearray(_BUFFER_SIZE))
    return buffer


class _Wire(BaseWire, asyncio.BufferedProtocol):
    __slots__ = (
        "_assembler",
        "_bytes",
        "_closing",
        "_ended",
        "_fast_path_limit",
        "_inflates",
        "_kernel",
        "_max_size",
        "_other_buffer",
        "_parser",
        "_parser_only",
        "_ping_to_answer",
        "_reading_paused",
        "_request_text",
        "_response",
        "_response_head",
        "_shared",
        "_sink",
        "_splitter",
        "_turn_due",
        "_uri",
        "_work",
        "_write",
        "_writing_paused",
        "buffers",
        "subprotocol",
        "transport",
    )

    transport: asyncio.Transport
    subprotocol: str | None

    def __init__(
        self,
        uri: WebSocketURI,
        settings: EngineSettings,
        sink: Sink,
        request: str,
        answer: Answer,
        subprotocol: str | None,
        kernel: StampedSocket | None,
    ) -> None:
        """
        Raises:
            HandshakeError: the server chose other extensions than were offered.
        """
        self._begin()
        self._sink = sink
        response = answer.response
        assert response is not None
        self._keep(request, answer)
        self.subprotocol = subprotocol
        self._kernel = kernel
        self._shared = _shared_buffer()
        self.buffers: tuple[memoryview] | None = None
        """What the next read goes into; None: ask :meth:`get_buffer`."""
        self._bytes = cast(bytearray, self._shared.obj)
        self._max_size = settings.max_size
        self._uri = uri
        self._parser: ClientProtocol | None = None
        self._ended = False  # whether the server's stream has
        self._inflates = not answer.known and "Sec-WebSocket-Extensions" in response.headers
        self._parser_only = PLAIN or self._inflates  # whether the parser reads and writes every frame
        if self._parser_only:
            parser = self._made_parser()
            if self._inflates:
                parser.extensions = _agreed_extensions(parser, response, settings)
        # Fast path "frames read without the parser": 35 k instructions a message less (benchmarks/README.md). The plain
        # twin is the parser alone, which gets the stream as it comes.
        self._splitter = None if self._parser_only else FrameSplitter(settings.max_size)
        self._other_buffer: memoryview | None = None  # what the next read goes into, if not into the shared buffer
        self._update_fast_path()

    def use(self, transport: asyncio.Transport) -> None:
        """Begin with this transport."""
        self.transport = transport
        self._write = transport.write

    @property
    def stamped(self) -> bool:
        return self._kernel is not None

    def _made_parser(self) -> ClientProtocol:
        """The parser, which is made when it is needed: most connections never do."""
        parser = self._parser
        if parser is None:
            parser = self._parser = ClientProtocol(self._uri, state=State.OPEN, max_size=self._max_size, logger=_log)
            sent = self._closing.sent
            if sent is not None:  # written by hand
                parser.send_close(code_in_frame(sent), sent.reason)
                parser.data_to_send()
        return parser

    # Reading

    def get_buffer(self, sizehint: int) -> memoryview:
        # With TLS sizehint is what asyncio has of the stream. All of it has to fit in: once the server has ended the
        # connection, asyncio reads into one buffer, and throws the rest away.
        if self._fast_path_limit >= 0 and sizehint <= _LARGEST_HINT:
            return self._shared
        self._other_buffer = self._buffer_of_its_own(sizehint)
        return self._shared if self._other_buffer is None else self._other_buffer

    def _buffer_of_its_own(self, sizehint: int) -> memoryview | None:
        # Fast path "payloads read in place": 300 k instructions less for a message of 200,000 bytes: it is not copied
        # (benchmarks/README.md). The plain twin is FrameSplitter.feed, which copies.
        space = self._splitter.payload_space if self._splitter is not None and self._work is None else None
        if space is not None and (sizehint < 0 or sizehint <= len(space) - _TLS_RECORD):
            return space
        if sizehint <= _LARGEST_HINT:
            return None
        self._fast_path_limit = NO_FAST_PATH
        self.buffers = None
        return memoryview(bytearray(sizehint + _TLS_RECORD))

    def buffer_updated(self, nbytes: int) -> None:
        kernel = self._kernel
        arrived = perf_counter() if kernel is None else kernel.arrived
        # Fast path "one chunk, one frame": 11 k instructions an echo or a push less (benchmarks/README.md). The plain
        # twin is what follows it. Nobody else gets to the shared buffer before the payload is copied out.
        if nbytes > 1:
            buffer = self._bytes
            size = buffer[1]
            start = 2
            if size > 125:  # the length is in two bytes; or in eight, or the frame is masked: not here
                size = buffer[2] << 8 | buffer[3] if size == 126 else nbytes
                start = 4
            if start + size == nbytes and size <= self._fast_path_limit:
                head = buffer[0]
                if head == _WHOLE_TEXT:
                    try:
                        message = buffer[start:nbytes].decode()
                    except UnicodeDecodeError:
                        pass  # the other path finds it out again
                    else:
                        self._sink.message_received(message, size, arrived)
                        return
                elif head == _WHOLE_BINARY:
                    self._sink.message_received(self._shared[start:nbytes].tobytes(), size, arrived)
                    return
                elif size < 126 and self._control_frame(head, self._shared[start:nbytes].tobytes(), arrived):
                    return
        other = self._other_buffer
        if other is None:
            data = self._shared[:nbytes].tobytes()
        elif self._splitter is not None and other is self._splitter.payload_space:
            self._continue_payload(self._splitter, nbytes, arrived)
            return
        else:
            data = other[:nbytes].tobytes()
            self._other_buffer = None
        self.feed(data, arrived)

    # Fast path "control frames by hand": a connection without compression and fragments needs no parser, which takes
    # time to make and memory to keep (benchmarks/README.md). The plain twin is the parser.

    def _control_frame(self, head: int, payload: bytes, arrived: float) -> bool:
        """Take a whole control frame that came alone; returns whether it was one that needs no parser."""
        if head == _WHOLE_PONG:
            self._sink.pong_received(payload, arrived)
        elif head == _WHOLE_PING:
            self._sink.ping_received(payload, self._answer_ping(payload))
        elif head == _WHOLE_CLOSE and self._parser is None:
            try:
                close = parse_close(payload)
            except InvalidFrame:
                return False  # the parser finds it out again, and says what is wrong
            if self._closing.sent is None:
                self._write_by_hand(CLOSE, payload)
            if self._closing.receive(close):
                self._write = _discard
                self._sink.closing()
            self._update_fast_path()
        else:
            return False
        return True

    def _answer_ping(self, payload: bytes) -> bool:
        if self._writing_paused:
            self._ping_to_answer = payload
            return False
        if self.transport.is_closing():  # asyncio would log a line for each
            return False
        self._write_by_hand(PONG, payload)
        return True

    def _write_by_hand(self, opcode: int, payload: bytes) -> None:
        if self._reading_paused:
            self._resume_if_tls_ended()
        mask = _random_bits(32).to_bytes(4, "little")
        self.transport.write(_HEADER(0x80 | opcode, 0x80 | len(payload)) + mask + apply_mask(payload, mask))

    def feed(self, data: bytes, arrived: float) -> None:
        """Take a chunk of the server's frames, which came at this time."""
        pieces = _slices(data) if self._splitter is None else self._splitter.feed(data)
        self._handle(self._frames(pieces, arrived), perf_counter())

    def _continue_payload(self, splitter: FrameSplitter, nbytes: int, arrived: float) -> None:
        piece = splitter.filled(nbytes)
        if piece is not None:
            self._other_buffer = None
            self._handle(self._frames((piece,), arrived), perf_counter())

    def _frames(self, pieces: Iterable[Piece], arrived: float) -> Iterator[None]:
        """Work for :meth:`_handle`."""
        left = iter(pieces)
        try:
            for piece in left:
                if self._closing.discarding:
                    return
                if isinstance(piece, bytes):
                    yield from self._parse(piece, arrived)
                else:
                    self._receive_data_frame(piece[0], True, piece[1], arrived)
                    yield
        except (KeyboardInterrupt, SystemExit):
            self._postpone(self._frames(left, arrived))  # they end a program, but not the connection
            raise

    def _update_fast_path(self) -> None:
        if self._closing.discarding:
            self._splitter = None  # and with it the memory of a payload that was under way
        allowed = self._splitter is not None and self._work is None and self._splitter.between_messages
        self._fast_path_limit = min(self._max_size, 65535) if allowed else NO_FAST_PATH
        self.buffers = (self._shared,) if allowed else None

    def _parse(self, data: bytes, arrived: float) -> Iterator[None]:
        parser = self._made_parser()
        parser.receive_data(data)
        events = parser.events_received()
        pongs = self._flush()  # the parser has answered the pings that it gives
        for event in events:
            if self._closing.discarding:
                return
            assert isinstance(event, Frame)
            opcode = event.opcode
            if opcode < CLOSE:
                self._receive_data_frame(opcode, event.fin, bytes(event.data), arrived)
            elif opcode == PING:
                pongs -= 1
                self._sink.ping_received(bytes(event.data), pongs >= 0)
            elif opcode == PONG:
                self._sink.pong_received(bytes(event.data), arrived)
            yield
        self._follow_parser()

    def _follow_parser(self) -> None:
        # The parser answers a close frame and fails the connection for a broken frame by itself.
        parser, closing = self._parser, self._closing
        if parser is None:
            return
        rcvd, sent = parser.close_rcvd, parser.close_sent
        if rcvd is not None and closing.rcvd is None:
            close_frame_went_out = closing.receive(rcvd, sent)
        elif sent is not None and parser.parser_exc is not None:
            close_frame_went_out = closing.fail(sent)
        else:
            return
        if close_frame_went_out:
            self._write = _discard
            self._sink.closing()

    def eof_received(self) -> None:
        if self._work is None:  # else connection_lost() comes when this is done
            self._end()
            self._flush()

    def _end(self) -> None:
        self._ended = True
        if self._parser is not None:
            self._parser.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish_work()
        self._end()
        self._sink.closed(self._closing.info(exc))

    def pause_reading(self) -> None:
        super().pause_reading()
        if self._closing.sent is None:
            self._write = self._write_while_reading_paused

    def resume_reading(self) -> None:
        super().resume_reading()
        if self._closing.sent is None:
            self._write = self.transport.write

    # Writing. An iteration of the loop passes between the end of the server's stream, which closes the parser, and
    # asyncio's connection_lost(), of which the connection hears. What is sent in that iteration is lost without a word.

    def send(self, opcode: int, payload: bytes, /) -> None:
        if self._parser_only:
            self._send_by_parser(opcode, payload)
            return
        # Fast path "frames written by hand": 14 k instructions a message less (benchmarks/README.md). The plain twin is
        # `_send_by_parser`.
        size = len(payload)
        if size < 126:
            header = _HEADER(0x80 | opcode, 0x80 | size)
        elif size < 65536:
            header = _HEADER_16(0x80 | opcode, 0x80 | 126, size)
        else:
            header = _HEADER_64(0x80 | opcode, 0x80 | 127, size)
        mask = _random_bits(32).to_bytes(4, "little")
        self._write(header + mask + apply_mask(payload, mask))

    def _send_by_parser(self, opcode: int, payload: bytes) -> None:
        parser = self._made_parser()
        if parser.state is not State.OPEN:
            return  # also for what came with the server's close frame, which the parser answered with the chunk
        if opcode == TEXT:
            parser.send_text(payload)
        else:
            parser.send_binary(payload)
        self._flush()

    def send_ping(self, payload: bytes, /) -> None:
        if self._ended:
            return
        if not self._parser_only:
            self._write_by_hand(PING, payload)
            return
        self._made_parser().send_ping(payload)
        self._flush()

    def fail(self, close: Close, /) -> None:
        self._follow_parser()
        super().fail(close)
        self._update_fast_path()

    def _can_write_close(self) -> bool:
        return not self._ended

    def _write_close(self, close: Close) -> None:
        self._write = _discard
        if self._parser is None:
            self._write_by_hand(CLOSE, b"" if code_in_frame(close) is None else close.serialize())
        else:
            self._parser.send_close(code_in_frame(close), close.reason)
            self._flush()

    def _write_while_reading_paused(self, data: bytes | bytearray | memoryview) -> None:
        self._resume_if_tls_ended()
        self.transport.write(data)

    def _resume_if_tls_ended(self) -> None:
        if tls_stream_ended(self.transport):
            self.resume_reading()

    def _send_pong(self, payload: bytes) -> None:
        if self._closing.sent is None and not self._ended:
            self._write_by_hand(PONG, payload)

    def _flush(self) -> int:
        """Write what the parser wants to be written; returns how many pongs were among it."""
        if self._reading_paused:
            self._resume_if_tls_ended()
        pongs = 0
        for data in () if self._parser is None else self._parser.data_to_send():
            if not data:
                self.transport.close()
            elif data[0] != _WHOLE_PONG:
                self.transport.write(data)
            elif self._writing_paused:
                self._ping_to_answer = apply_mask(data[6:], data[2:6])  # a masked frame of at most 125 bytes
            elif not self.transport.is_closing():  # asyncio would log a line for each
                self.transport.write(data)
                pongs += 1
        return pongs


def _slices(data: bytes) -> Iterator[Piece]:
    return (data[start : start + _SLICE] for start in range(0, len(data), _SLICE))


def _discard(data: object) -> None:
    """Stands in for ``transport.write`` once a close frame went out: no data may follow it (RFC 6455 section 5.5.1)."""


def _agreed_extensions(parser: ClientProtocol, response: Response, settings: EngineSettings) -> list[Extension]:
    if settings.compression is None:
        raise HandshakeError(NOT_OFFERED)
    parser.available_extensions = [deflate_factory(settings.compression)]
    try:
        return parser.process_extensions(response.headers)
    except InvalidHeader as exc:
        raise HandshakeError(invalid_header(exc.name)) from exc
    except NegotiationError as exc:
        raise HandshakeError(NOT_AGREED) from exc
