"""
A hostile WebSocket server: what a connection gets is named by the path of its URL. It shares no code with an engine.

    python -m tests.adversary.server          prints its port, and serves until its standard input ends
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False) -> bytes:
    """A frame as a server sends it."""
    size = len(payload)
    first = bytes([fin << 7 | rsv1 << 6 | opcode])
    if size < 126:
        return first + bytes([size]) + payload
    if size < 65536:
        return first + b"\x7e" + size.to_bytes(2, "big") + payload
    return first + b"\x7f" + size.to_bytes(8, "big") + payload


def deflated(size: int) -> bytes:
    """A compressed text message of so many zeros (RFC 7692 section 7.2.1)."""
    deflate = zlib.compressobj(wbits=-15)
    payload = deflate.compress(b"0" * size) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return frame(TEXT, payload.removesuffix(b"\x00\x00\xff\xff"), rsv1=True)


Stream = Iterable[bytes]


class Endless:
    """These chunks ``before``, and then one over and over. Each connection gets them from the beginning."""

    def __init__(self, chunk: bytes, *before: bytes) -> None:
        self._chunk = chunk
        self._before = before

    def __iter__(self) -> Iterator[bytes]:
        return itertools.chain(self._before, itertools.repeat(self._chunk))


# What follows the opening handshake. Nobody reads what the client sends.
FRAMES: dict[str, Stream] = {
    "small": Endless(frame(TEXT, b"m" * 100) * 500),
    "large": Endless(frame(BINARY, b"m" * 1_000_000)),
    "empty": Endless(frame(TEXT) * 20_000),
    # A long message first, for a client that then has room for a long read.
    "long-then-empty": Endless(frame(TEXT) * 500_000, frame(BINARY, b"m" * 1_000_000)),
    "keepalives": Endless(frame(TEXT, b"KA" + b"k" * 1000) * 100),
    "pings": Endless(frame(PING, b"p" * 125) * 200),
    "empty-pings": Endless(frame(PING) * 20_000),
    "pongs": Endless(frame(PONG) * 20_000),
    "closes": Endless(frame(CLOSE, b"\x03\xe8") * 10_000),
    "no-end-after-close": Endless(frame(BINARY, b"m" * 1_000_000), frame(CLOSE, b"\x03\xe8")),
    "empty-fragments": Endless(frame(CONT, fin=False) * 20_000, frame(BINARY, fin=False)),
    "small-fragments": Endless(frame(CONT, b"f" * 100, fin=False) * 500, frame(BINARY, fin=False)),
    "absurd-length": Endless(b"x" * 65536, b"\x82\x7f" + (2**62).to_bytes(8, "big")),
    # A length that could be true: without max_size all that comes is kept, but not all that is announced.
    "announced-length": [b"\x82\x7f" + (2**28).to_bytes(8, "big"), b"x" * 65536],
    "impossible-length": Endless(b"x" * 65536, b"\x82\x7f" + (2**64 - 1).to_bytes(8, "big")),
    "large-ping": Endless(b"x" * 65536, b"\x89\x7f" + (2**20).to_bytes(8, "big")),
    "bombs": Endless(deflated(1_000_000) * 60),
    "bomb": Endless(deflated(200_000_000)),
}
NO_CONTEXT = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"

# What comes instead of the answer to the opening handshake.
ANSWERS: dict[str, Stream] = {
    "huge-header": [b"HTTP/1.1 101 Switching Protocols\r\nX-Huge: " + b"h" * 1_000_000 + b"\r\n\r\n"],
    "endless-header": Endless(b"h" * 65536, b"HTTP/1.1 101 Switching Protocols\r\nX-Endless: "),
    "endless-headers": Endless(b"X-Header: value\r\n" * 1000, b"HTTP/1.1 101 Switching Protocols\r\n"),
    "endless-status": Endless(b"1" * 65536, b"HTTP/1.1 "),
    "endless-body": Endless(b"b" * 65536, b"HTTP/1.1 403 Forbidden\r\n\r\n"),
    "redirect-loop": [b"HTTP/1.1 302 Found\r\nLocation: /redirect-loop\r\nContent-Length: 0\r\n\r\n"],
}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    path = head.split()[1].decode().strip("/")
    if path in ANSWERS:
        await write_all(writer, ANSWERS[path])
    elif path == "slow-header":
        await slowly(writer, b"HTTP/1.1 101 Switching Protocols\r\nX-Slow: " + b"s" * 100_000)
    else:
        key = next(
            line.split(b":")[1].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
        )
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        extensions = NO_CONTEXT if b"permessage-deflate" in head else ""
        writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{extensions}\r\n".encode()
        )
        if path == "slow-message":
            await slowly(writer, frame(TEXT, b"s" * 100_000))
        else:
            await write_all(writer, FRAMES[path])


async def write_all(writer: asyncio.StreamWriter, stream: Stream) -> None:
    for chunk in stream:
        writer.write(chunk)
        await writer.drain()


async def slowly(writer: asyncio.StreamWriter, data: bytes) -> None:
    for byte in data:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.01)


async def serve_and_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await serve(reader, writer)
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # the client has ended it
    finally:
        writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve_and_end, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # the end of the test, however it ends
    server.close()


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

if __name__ == "__main__":
    asyncio.run(main())
