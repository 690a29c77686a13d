"""The splitter finds in any stream, cut anywhere, what the parser of ``websockets`` finds in it as a whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.protocol import State
from websockets.uri import parse_uri

from locust_ws_async.client.wire.frames import BINARY, TEXT
from locust_ws_async.client.wire.splitter import FrameSplitter

pytestmark = pytest.mark.once

URI = parse_uri("ws://localhost/")
PATTERN = bytes(range(251)) * 265

# First bytes of the frames that may come between two messages, and within one.
BETWEEN = [0x81, 0x82, 0x81, 0x82, 0x81, 0x01, 0x02, 0x89, 0x8A, 0x88]
WITHIN = [0x00, 0x80, 0x80, 0x89, 0x8A]
SIZES = [0, 1, 2, 3, 5, 9, 124, 125, 126, 127, 128, 300, 65534, 65535, 65536, 65540]
LIMITS = [sys.maxsize, sys.maxsize, 2**20, 2**20, 65536, 65535, 126, 125]


class SomeFrame(NamedTuple):
    head: int
    size: int
    form: int  # 7: masked; 6 and 5: a longer form of the length than need be; else a frame as it should be

    def encode(self) -> bytes:
        mask = 128 if self.form == 7 else 0
        if self.size < 126 and self.form not in (5, 6):
            header = bytes([self.head, mask | self.size])
        elif self.size < 65536 and self.form != 6:
            header = bytes([self.head, mask | 126]) + self.size.to_bytes(2, "big")
        else:
            header = bytes([self.head, mask | 127]) + self.size.to_bytes(8, "big")
        payload = PATTERN[self.size % 7 :][: self.size]
        if self.head == 0x88:
            payload = (b"\x03\xe8" + b"reason" * 20)[: self.size]
        return header + (b"mask" if mask else b"") + payload


class Case(NamedTuple):
    max_size: int
    in_place: bool  # whether a payload under way is read straight to where it belongs, as far as it goes
    frames: list[bytes]
    cuts: list[int]

    @property
    def stream(self) -> bytes:
        return b"".join(self.frames)

    def chunks(self) -> Iterator[bytes]:
        stream = self.stream
        for start, stop in pairwise([0, *sorted({cut for cut in self.cuts if 0 < cut < len(stream)}), len(stream)]):
            yield stream[start:stop]


def case_from(seed: bytes) -> Case:
    """Makes a case of random bytes: hypothesis draws these thirty times as fast as it would draw its parts."""
    source = iter(seed)

    def choice(options: Sequence[int]) -> int:
        return options[next(source, 0) % len(options)]

    max_size, in_place = choice(LIMITS), choice([0, 1]) == 1
    frames, fragmented = [], False
    for _ in range(choice([1, 2, 3, 4, 6])):
        if choice(range(12)):
            head = choice(WITHIN if fragmented else BETWEEN)
            size = choice(SIZES[:8] if head >= 0x88 else SIZES)
            form = choice([0, 0, 0, 5, 6])
        else:  # as likely as not it breaks a rule
            head, size, form = choice([next(source, 0), *BETWEEN[:5]]), choice(SIZES), choice([0, 0, 0, 7])
        frames.append(SomeFrame(head, size, form).encode())
        fragmented = head in (0x01, 0x02, 0x00) or (fragmented and head >= 0x88)
    starts = [*accumulate(map(len, frames), initial=0)]
    # The cuts that matter are in and around headers.
    cuts = [start + offset - 3 for start, offset in zip(starts, source, strict=False) if offset < 128]
    cuts += [choice(starts) + choice(range(18)) * choice([1, 4000]) for _ in range(choice(range(4)))]
    return Case(max_size, in_place, frames, cuts)


class Outcome:
    """What a parser saw and did."""

    def __init__(self, max_size: int) -> None:
        self.frames: list[tuple[int, bool, bytes]] = []
        self.parser = ClientProtocol(URI, max_size=max_size, state=State.OPEN)
        self._sent: list[bytes] = []

    @property
    def over(self) -> bool:
        return self.parser.parser_exc is not None or self.parser.close_rcvd is not None

    def parse(self, data: bytes) -> None:
        self.parser.receive_data(data)
        for event in self.parser.events_received():
            assert isinstance(event, Frame)
            self.frames.append((int(event.opcode), event.fin, bytes(event.data)))

    def summary(self) -> object:
        parser = self.parser
        return self.frames, repr(parser.parser_exc), parser.close_rcvd, parser.close_sent


def of_the_parser(stream: bytes, max_size: int) -> object:
    outcome = Outcome(max_size)
    outcome.parse(stream)
    return outcome.summary()


def of_the_splitter(case: Case) -> object:
    outcome = Outcome(case.max_size)
    splitter = FrameSplitter(case.max_size)
    for chunk in case.chunks():
        pieces = []
        space = splitter.payload_space
        if case.in_place and space is not None:
            size = min(len(space), len(chunk))
            space[:size] = chunk[:size]
            chunk = chunk[size:]
            if (message := splitter.filled(size)) is not None:
                pieces.append(message)
        pieces += splitter.feed(chunk)
        for piece in pieces:
            if isinstance(piece, bytes):
                outcome.parse(piece)
                if outcome.over:
                    return outcome.summary()
            else:
                outcome.frames.append((piece[0], True, bytes(piece[1])))
    return outcome.summary()


@given(st.binary(min_size=8, max_size=50).map(case_from))
@settings(max_examples=10_000, database=None, suppress_health_check=list(HealthCheck))
def test_any_stream_cut_anywhere(case: Case) -> None:
    assert of_the_splitter(case) == of_the_parser(case.stream, case.max_size)


@pytest.mark.parametrize("size", [0, 5, 125, 126, 65535, 65536])
def test_a_whole_message_needs_no_parser(size: int) -> None:
    for form in (0, 5, 6):
        splitter = FrameSplitter(sys.maxsize)
        one, two = SomeFrame(0x80 | TEXT, size, form).encode(), SomeFrame(0x80 | BINARY, size, form).encode()
        payload = SomeFrame(0, size, 0).encode()[-size:] if size else b""
        assert list(splitter.feed(one + two)) == [(TEXT, payload), (BINARY, payload)]
        assert splitter.between_messages


def test_byte_by_byte() -> None:
    splitter = FrameSplitter(sys.maxsize)
    pieces = [piece for byte in b"\x81\x03abc\x89\x01p\x82\x00" for piece in splitter.feed(bytes([byte]))]
    assert pieces == [(TEXT, b"abc"), b"\x89\x01", b"p", (BINARY, b"")]


def test_what_is_under_way_is_no_place_to_begin_a_message() -> None:
    for begin in (b"\x81", b"\x82\x7e\x01", b"\x82\x05abc", b"\x89\x05abc", b"\x01\x01a"):
        splitter = FrameSplitter(sys.maxsize)
        list(splitter.feed(begin))
        assert not splitter.between_messages
    list(splitter.feed(b"\x80\x01b"))  # the last fragment
    assert splitter.between_messages


def test_no_memory_for_a_header_alone() -> None:
    splitter = FrameSplitter(sys.maxsize)
    header = b"\x82\x7f" + (2**40).to_bytes(8, "big")
    assert list(splitter.feed(header)) == [header]
    assert splitter.payload_space is None
