"""permessage-deflate (RFC 7692), as servers may use it."""

from __future__ import annotations

import asyncio
import random
import zlib
from typing import Any

import pytest

from locust_ws_async.client import Deflate
from locust_ws_async.exceptions import ConnectionClosedError, HandshakeError

from .helpers import Bench, frame, raw_server, run, until_eof

OFFER = "Sec-WebSocket-Extensions: permessage-deflate"


@pytest.fixture
def engine() -> str:
    return "websockets"  # the one that has compression


def compressed(payload: bytes, *, opcode: int = 1, fin: bool = True) -> bytes:
    first, *rest = frame(opcode, payload, fin=fin)
    return bytes([first | (0x40 if opcode else 0), *rest])


def stream(data: bytes, *, ends: bool = True) -> bytes:
    """A deflate stream of its own; one that ends is followed by the header of the next block (section 7.2.3.4)."""
    deflater = zlib.compressobj(wbits=-15)
    if ends:
        return deflater.compress(data) + deflater.flush() + b"\0"
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


def received(bench: Bench, frames: bytes, count: int, parameters: str = "", **options: Any) -> list[str | bytes]:
    async def main() -> list[str | bytes]:
        options.setdefault("compression", "deflate")
        async with (
            raw_server(until_eof, headers=f"{OFFER}{parameters}\r\n", then=frames) as url,
            bench.client().connect(url, close_timeout=0.01, **options) as connection,
        ):
            return [await connection.recv() for _ in range(count)]

    return run(main())


@pytest.mark.parametrize("parameters", ["", "; server_no_context_takeover"])
@pytest.mark.parametrize("size", [3, 100_000])
def test_a_final_block_in_each_message(bench: Bench, size: int, parameters: str) -> None:
    texts = [random.Random(i).randbytes(size // 2).hex() for i in range(5)]
    frames = b"".join(compressed(stream(text.encode())) for text in texts)
    assert received(bench, frames, 5, parameters) == texts


def test_final_blocks_within_a_message(bench: Bench) -> None:
    long = random.Random(1).randbytes(4000).hex()
    frames = (
        compressed(stream(b"one")[:-1] + stream(b"two"))
        + compressed(stream(b"th")[:-1], fin=False)
        + compressed(stream(b"ree"), opcode=0)
        + compressed(stream(b"four", ends=False))
        + compressed(stream(b"five")[:-1])  # without the header that should follow
        + compressed(stream(long.encode())[:-1])
        + compressed(stream(b"six"))
    )
    assert received(bench, frames, 6) == ["onetwo", "three", "four", "five", long, "six"]


def test_a_limit_holds_over_final_blocks(bench: Bench) -> None:
    text = b"x" * 600
    assert received(bench, compressed(stream(text)[:-1] + stream(text)), 1, max_size=1200) == ["x" * 1200]
    with pytest.raises(ConnectionClosedError, match="over max_size"):
        received(bench, compressed(stream(text)[:-1] + stream(text)), 1, max_size=1199)


def test_no_end_of_final_blocks(bench: Bench) -> None:
    with pytest.raises(ConnectionClosedError, match="malformed frame"):
        received(bench, compressed(b"\x03\x00" * 100_000), 1)


@pytest.mark.parametrize("compression", ["deflate", Deflate(client_max_window_bits=12), Deflate(level=9)])
def test_the_server_chooses_the_smallest_window(bench: Bench, compression: Any) -> None:
    """zlib has no window of 256 bytes to compress with, but one to read it."""
    rng = random.Random(5)
    words = [rng.randbytes(rng.randrange(1, 90)).hex() for _ in range(40)]
    texts = ["".join(rng.choices(words, k=60)) for _ in range(20)] + ["ab" * 5000, "x" * 300_000]
    arrived: list[bytes] = []

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inflater = zlib.decompressobj(wbits=-8)
        for _ in texts:
            head = await reader.readexactly(2)
            assert head[0] == 0xC1
            size = head[1] & 0x7F
            if size > 125:
                size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
            mask = await reader.readexactly(4)
            payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(await reader.readexactly(size)))
            arrived.append(inflater.decompress(payload + b"\0\0\xff\xff"))

    async def main() -> None:
        async with raw_server(read, headers=f"{OFFER}; client_max_window_bits=8\r\n") as url:
            connection = await bench.client().connect(url, compression=compression)
            for text in texts:
                await connection.send(text)
            await connection.wait_closed()

    run(main())
    assert [data.decode() for data in arrived] == texts


@pytest.mark.parametrize("parameters", ["; client_max_window_bits=14", "; server_max_window_bits=7", "; other"])
def test_parameters_that_were_not_offered(bench: Bench, parameters: str) -> None:
    async def main() -> str:
        async with raw_server(until_eof, headers=f"{OFFER}{parameters}\r\n") as url:
            with pytest.raises(HandshakeError) as caught:
                await bench.client().connect(url, compression=Deflate(client_max_window_bits=12))
        return str(caught.value)

    text = "the server chose an extension, or a parameter of permessage-deflate, that was not offered"
    assert run(main()) == text
