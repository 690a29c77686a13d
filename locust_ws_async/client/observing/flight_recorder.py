"""
The flight recorder keeps the last frames of a connection, and writes them to a file when something on it has failed.

It is off by default. Where it is on, it stands between the engine and the connection, in both directions; so a
connection without a recorder has nothing to do with it. ``LOCUST_WS_TRACE=1`` in the environment also turns it on, to
log each frame.

Of data it sees whole messages: their fragments are joined, and their compression is undone.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
import uuid
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from websockets.frames import Close
from websockets.http11 import Request, Response

from ...masking import masked_headers, masked_text, masked_url
from ..wire.closing import code_in_frame
from ..wire.frames import TEXT
from ..wire.interface import CloseInfo, Sink, Wire
from .stats import Statistics

__all__ = ["FOLDER", "Recorder", "recorder_for"]

FOLDER = "websocket-recordings"
"""Where recordings go by default, in the working directory."""

_KEPT_SIZE = 128  # characters or bytes that are kept of a message
_MAX_FILES = 1000  # of one process: a test in which everything fails must not fill the disk

_logger = logging.getLogger("locust_ws_async.client")
_trace_logger = logging.getLogger("locust_ws_async.trace")
_written = 0


class ConnectionForRecorder(Protocol):
    """What :class:`Recorder` needs of its connection."""

    @property
    def id(self) -> uuid.UUID: ...

    @property
    def name(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def stats(self) -> Statistics: ...

    @property
    def handshake_request(self) -> Request: ...

    @property
    def response(self) -> Response: ...


def recorder_for(
    connection: ConnectionForRecorder,
    record_last: int | None,
    record_to: str | os.PathLike[str] | None,
    record_unmasked: Iterable[str],
) -> Recorder | None:
    """The recorder of a new connection, if these settings or the environment ask for one."""
    trace = os.environ.get("LOCUST_WS_TRACE", "") not in ("", "0")
    if record_last is None and not trace:
        return None
    return Recorder(connection, record_last, Path(record_to or FOLDER), record_unmasked, trace)


class _Frame(NamedTuple):
    time: float
    direction: str
    kind: str
    size: int
    head: str | bytes


class Recorder:
    """
    Records the frames of one connection, through all its reconnects.

    Args:
        connection: the connection.
        last: how many frames to keep; None to keep none.
        folder: where to write them.
        unmasked: what is shown, as in :attr:`ConnectOptions.record_unmasked`.
        trace: whether to log each frame.
    """

    def __init__(
        self, connection: ConnectionForRecorder, last: int | None, folder: Path, unmasked: Iterable[str], trace: bool
    ) -> None:
        self._connection = connection
        self._last = last
        self._folder = folder
        self._unmasked = frozenset(name.lower() for name in unmasked)
        self._trace = trace
        self._frames: deque[_Frame] = deque(maxlen=last or 0)
        self._epoch = time.time() - perf_counter()

    def recording_sink(self, sink: Sink) -> Sink:
        """A sink for the engine that records each call and passes it on to this one."""
        return _RecordingSink(sink, self)

    def record(self, direction: str, kind: str, content: str | bytes, size: int, when: float) -> None:
        """
        Keep a frame.

        Args:
            direction: "received" or "sent".
            kind: "text", "binary", "ping", "pong" or "close".
            content: its payload.
            size: bytes of its payload.
            when: the time, by :func:`time.perf_counter`.
        """
        frame = _Frame(when + self._epoch, direction, kind, size, content[:_KEPT_SIZE])
        self._frames.append(frame)
        if self._trace:
            arrow = "<-" if direction == "received" else "->"
            _trace_logger.info("%s %s %s, %d bytes: %s", self._connection.name, arrow, kind, size, _readable(frame))

    def save(self, request_type: str, name: str, error: BaseException) -> None:
        """
        Write a file with the frames up to this failure, and begin anew.

        If the file cannot be written, that is a warning in the log and nothing else: the test goes on.

        Args:
            request_type: the type of the row that failed.
            name: the name of that row.
            error: why it failed.
        """
        global _written
        if not self._frames:
            return
        frames = list(self._frames)
        self._frames.clear()
        if _written >= _MAX_FILES:
            return
        _written += 1
        if _written == _MAX_FILES:
            _logger.warning("There are %d recordings of failures now; this process writes no more.", _MAX_FILES)
        now = datetime.now(UTC)
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-") or "connection"
        path = (
            self._folder
            / f"{now:%Y%m%dT%H%M%S}-{slug[:60]}-{self._connection.id.hex[:8]}-{os.getpid()}-{_written}.jsonl"
        )
        head = {
            "connection": str(self._connection.id),
            "time": now.isoformat(),
            "failed": request_type,
            "name": name,
            "error": masked_text(repr(error)),
            "url": masked_url(self._connection.url, self._unmasked),
            **self._handshake(),
            "stats": self._connection.stats.as_dict(),
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
                for line in (head, *map(_as_json, frames)):
                    print(json.dumps(line, ensure_ascii=False), file=file)
        except OSError as exc:
            _logger.warning("A recording could not be written to record_to=%r: %s", str(self._folder), exc)

    def _handshake(self) -> dict[str, Any]:
        request, response = self._connection.handshake_request, self._connection.response
        unmasked = self._unmasked
        return {
            "request": {
                "path": masked_url(request.path, unmasked),
                "headers": masked_headers(request.headers.raw_items(), unmasked),
            },
            "response": {
                "status": response.status_code,
                "headers": masked_headers(response.headers.raw_items(), unmasked),
            },
        }


class _RecordingSink:
    """The :class:`~..wire.interface.Sink` between an engine and a connection that is recorded."""

    def __init__(self, sink: Sink, recorder: Recorder) -> None:
        self._sink = sink
        self._recorder = recorder
        self._wire: _RecordingWire | None = None
        # These calls are no frames, and go straight to the connection.
        self.upgrading = sink.upgrading
        self.closing = sink.closing
        self.pause_writing = sink.pause_writing
        self.resume_writing = sink.resume_writing

    def opened(self, wire: Wire, arrived: float) -> None:
        self._wire = _RecordingWire(wire, self._recorder)
        self._sink.opened(self._wire, arrived)

    def message_received(self, message: str | bytes, size: int, arrived: float) -> None:
        kind = "text" if isinstance(message, str) else "binary"
        self._recorder.record("received", kind, message, size, arrived)
        self._sink.message_received(message, size, arrived)

    def ping_received(self, payload: bytes, answered: bool) -> None:
        now = perf_counter()
        self._recorder.record("received", "ping", payload, len(payload), now)
        if answered:
            self._recorder.record("sent", "pong", payload, len(payload), now)
        self._sink.ping_received(payload, answered)

    def pong_sent(self, payload: bytes) -> None:
        self._recorder.record("sent", "pong", payload, len(payload), perf_counter())
        self._sink.pong_sent(payload)

    def pong_received(self, payload: bytes, arrived: float) -> None:
        self._recorder.record("received", "pong", payload, len(payload), arrived)
        self._sink.pong_received(payload, arrived)

    def closed(self, info: CloseInfo) -> None:
        now = perf_counter()
        if info.rcvd is not None:
            self._recorder.record("received", "close", *_close(info.rcvd), now)
        if info.sent is not None and self._wire is not None and not self._wire.close_recorded:
            self._recorder.record("sent", "close", *_close(info.sent), now)  # the engine sent it by itself
        self._sink.closed(info)


class _RecordingWire:
    """The :class:`~..wire.interface.Wire` between a connection that is recorded and an engine."""

    def __init__(self, wire: Wire, recorder: Recorder) -> None:
        self._wire = wire
        self._recorder = recorder
        self.close_recorded = False
        self.transport = wire.transport
        self.subprotocol = wire.subprotocol
        self.stamped = wire.stamped
        self.pause_reading = wire.pause_reading
        self.resume_reading = wire.resume_reading
        self.abort = wire.abort
        self.fall_silent = wire.fall_silent
        self.forget_response = wire.forget_response

    @property
    def request(self) -> Any:
        return self._wire.request

    @property
    def response(self) -> Any:
        return self._wire.response

    def send(self, opcode: int, payload: bytes) -> None:
        kind = "text" if opcode == TEXT else "binary"
        content = payload[:_KEPT_SIZE].decode(errors="replace") if opcode == TEXT else payload
        self._recorder.record("sent", kind, content, len(payload), perf_counter())
        self._wire.send(opcode, payload)

    def send_ping(self, payload: bytes) -> None:
        self._recorder.record("sent", "ping", payload, len(payload), perf_counter())
        self._wire.send_ping(payload)

    def send_close(self, close: Close) -> None:
        self._record_close(close)
        self._wire.send_close(close)

    def fail(self, close: Close) -> None:
        self._record_close(close)
        self._wire.fail(close)

    def _record_close(self, close: Close) -> None:
        self.close_recorded = True
        self._recorder.record("sent", "close", *_close(close), perf_counter())


def _close(close: Close) -> tuple[str, int]:
    return f"{int(close.code)} {close.reason}".rstrip(), 0 if code_in_frame(close) is None else 2 + len(
        close.reason.encode()
    )


def _readable(frame: _Frame) -> str:
    head = _masked(frame.head)
    text = head if isinstance(head, str) else head.hex(" ", 4)
    return text + (" ..." if frame.size > len(frame.head) else "")


def _as_json(frame: _Frame) -> dict[str, Any]:
    head = _masked(frame.head)
    content = {"text": head} if isinstance(head, str) else {"hex": head.hex()}
    return {
        "time": datetime.fromtimestamp(frame.time, UTC).isoformat(),
        "direction": frame.direction,
        "kind": frame.kind,
        "size": frame.size,
        **content,
    }


def _masked(head: str | bytes) -> str | bytes:
    return masked_text(head) if isinstance(head, str) else masked_text(head.decode("latin-1")).encode("latin-1")
