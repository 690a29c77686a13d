"""
What both engines do in the same way with the frames that their libraries read and write.

One read may bring a hundred thousand frames. To handle them all at once would keep the loop from everything else, and
with Locust every other user of the process too. So what a read brings is handled in turns of the loop: after so many
frames, or so much time, the rest waits for the next turn, and nothing more is read meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING

from websockets.frames import Close
from websockets.http11 import Request, Response

from .answer import Answer, parse_head
from .closing import ClosingHandshake
from .frames import CONT, InvalidFrame, MessageAssembler, decode_message
from .interface import CloseInfo, Sink, Wire
from .request import parse_request

__all__ = ["NO_FAST_PATH", "TURN_FRAMES", "TURN_SECONDS", "BaseWire"]

NO_FAST_PATH = -1
"""A limit that no frame is under."""

TURN_FRAMES = 256
"""How many frames of a connection are handled in one turn of the loop."""

TURN_SECONDS = 0.002
"""Seconds after which a connection begins with no other frame in the same turn. The author's handlers may take long. A
hosted loop lets the other users run at least every eighth turn (``POLLS_PER_HUB_TURN`` of the bridge)."""


class BaseWire:
    """
    Half of a :class:`~.interface.Wire`: turns of the loop, messages from frames, both directions of the closing
    handshake, flow control.

    An engine's class has this among its bases, and gives the attributes below slots.
    """

    if not TYPE_CHECKING:  # mypy would want them here, where they clash with the layout of picows.WSListener
        __slots__ = ()

    transport: asyncio.Transport
    _request_text: str
    _response: Response | None
    _response_head: bytes
    """Of which the response is made again, when there is none."""
    _sink: Sink
    _closing: ClosingHandshake
    _max_size: int
    _assembler: MessageAssembler | None
    """There is one only while a fragmented message is under way."""
    _fast_path_limit: int
    """The longest frame that a fast path may take now, in bytes of payload; :data:`NO_FAST_PATH` for none."""
    _work: Iterator[None] | None
    """What is left of the last read: each step handles a frame. Nothing more is read before it is done."""
    _turn_due: bool
    """Whether the loop is to call :meth:`_turn`."""
    _inflates: bool
    """Whether what is read may be compressed."""
    _reading_paused: bool
    """Whether :meth:`pause_reading` was called."""
    _writing_paused: bool
    """Whether the write buffer is over its limit."""
    _ping_to_answer: bytes | None
    """The payload of the last ping that came while the write buffer was over its limit."""

    def _begin(self) -> None:
        # Not __init__, which each engine inherits from a base class of its library.
        self._assembler = None
        self._closing = ClosingHandshake()
        self._fast_path_limit = NO_FAST_PATH
        self._work = None
        self._turn_due = False
        self._inflates = False
        self._reading_paused = False
        self._writing_paused = False
        self._ping_to_answer = None

    # The opening handshake

    @property
    def request(self) -> Request:
        """See :class:`~.interface.Wire`."""
        return parse_request(self._request_text)

    @property
    def response(self) -> Response:
        """See :class:`~.interface.Wire`."""
        return self._response or parse_head(self._response_head)

    def forget_response(self) -> None:
        """See :class:`~.interface.Wire`."""
        self._response = None

    def _keep(self, request: str, answer: Answer) -> None:
        self._request_text = request
        self._response = answer.response
        self._response_head = answer.head

    # What the engine adds.

    def _update_fast_path(self) -> None:
        """Set ``_fast_path_limit`` to what holds now."""
        raise NotImplementedError

    def _send_pong(self, payload: bytes) -> None:
        """Write a pong."""
        raise NotImplementedError

    def _can_write_close(self) -> bool:
        """Whether a close frame can still reach the peer."""
        raise NotImplementedError

    def _write_close(self, close: Close) -> None:
        """Write this close frame, which is the first."""
        raise NotImplementedError

    def _resume_transport(self) -> None:
        """Let the transport read on."""
        self.transport.resume_reading()

    # Turns of the loop

    def _handle(self, work: Iterator[None], since: float) -> None:
        """Do this work, of which each step handles a frame; ``since``: when this turn began."""
        frames = TURN_FRAMES
        try:
            for _ in work:
                frames -= 1
                if not frames or perf_counter() - since > TURN_SECONDS or self._must_hold_back:
                    self._postpone(work)
                    break
        except InvalidFrame as exc:
            self.fail(exc.close)
        finally:
            self._update_fast_path()

    def _postpone(self, work: Iterator[None]) -> None:
        """Do this work in the turns that follow."""
        self._work = work
        self.transport.pause_reading()
        self._schedule_turn()

    def _schedule_turn(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        if self._work is None or self._must_hold_back:
            return
        work, self._work = self._work, None
        try:
            self._handle(work, perf_counter())
        finally:
            if self._work is None and not self._reading_paused and not self.transport.is_closing():
                self._resume_transport()

    def _finish_work(self) -> None:
        """Do all that is left at once: the connection is lost, and nothing more can come."""
        work, self._work = self._work, None
        try:
            for _ in work or ():
                pass
        except InvalidFrame as exc:
            self.fail(exc.close)

    @property
    def _must_hold_back(self) -> bool:
        # What was read is delivered even to a full queue, as a close frame may be behind it. But compressed, one read
        # may be a thousand times as long as it looks.
        return self._inflates and self._reading_paused

    def pause_reading(self) -> None:
        self._reading_paused = True
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        self._reading_paused = False
        if self._work is None:
            self._resume_transport()
        else:
            self._schedule_turn()

    # Messages

    def _receive_data_frame(self, opcode: int, fin: bool, payload: bytes | bytearray, arrived: float) -> None:
        """
        Take a TEXT, BINARY or CONT frame, and hand up the message that it completes.

        Raises:
            InvalidFrame: the peer broke the protocol.
        """
        assembler = self._assembler
        size = len(payload)
        if assembler is None and fin and opcode != CONT and size <= self._max_size:
            self._sink.message_received(decode_message(opcode, payload), size, arrived)
            return
        if assembler is None:
            assembler = self._assembler = MessageAssembler(self._max_size)
        whole = assembler.add(opcode, fin, payload)
        if whole is not None:
            self._assembler = None
            self._sink.message_received(whole[0], whole[1], arrived)

    # The closing handshake

    def send_close(self, close: Close, /) -> None:
        if self._can_write_close() and self._closing.start(close):
            self._write_close(close)

    def fail(self, close: Close, /) -> None:
        self._fast_path_limit = NO_FAST_PATH
        if not self._can_write_close():
            self._closing.discarding = True
        elif self._closing.fail(close):
            self._write_close(close)
            self._sink.closing()

    def abort(self) -> None:
        self._closing.discarding = True
        self.transport.abort()

    def fall_silent(self) -> Sink:
        sink, self._sink = self._sink, _NOBODY
        self._closing.discarding = True
        self._work = None
        self.pause_reading()
        self._update_fast_path()
        return sink

    # Flow control: the transport calls these.

    def pause_writing(self) -> None:
        self._writing_paused = True
        self._sink.pause_writing()

    def resume_writing(self) -> None:
        self._writing_paused = False
        payload, self._ping_to_answer = self._ping_to_answer, None
        if payload is not None and self._closing.sent is None and not self.transport.is_closing():
            self._send_pong(payload)
            self._sink.pong_sent(payload)
        self._sink.resume_writing()


class _Nobody:
    """The sink of a wire that nobody holds any more."""

    def upgrading(self) -> None: ...

    def opened(self, wire: Wire, arrived: float, /) -> None: ...

    def message_received(self, message: str | bytes, size: int, arrived: float, /) -> None: ...

    def ping_received(self, payload: bytes, answered: bool, /) -> None: ...

    def pong_sent(self, payload: bytes, /) -> None: ...

    def pong_received(self, payload: bytes, arrived: float, /) -> None: ...

    def closing(self) -> None: ...

    def closed(self, info: CloseInfo, /) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


_NOBODY = _Nobody()
