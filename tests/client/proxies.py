"""Small proxies for the tests: HTTP CONNECT (RFC 9110 section 9.3.6), SOCKS 5 (RFC 1928, RFC 1929) and SOCKS 4a."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from base64 import b64encode
from types import TracebackType

__all__ = ["Proxy"]


class Proxy:
    """
    A proxy of one kind on a port of its own.

    Args:
        kind: "http", "socks5" or "socks4".
        credentials: user name and password that clients must give.
        answer: what it answers to every request instead, before it hangs up.
        names: what it resolves names to; others it does not know.
    """

    def __init__(
        self,
        kind: str,
        *,
        credentials: tuple[str, str] | None = None,
        answer: bytes | None = None,
        names: dict[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self.asked: list[tuple[str, int]] = []
        """The (host, port) that clients asked for."""
        self.requests: list[bytes] = []
        """What the clients of an HTTP proxy sent it."""
        self.peers: list[str] = []
        """The addresses that clients came from."""
        self._credentials = credentials
        self._answer = answer
        self._names = names or {}
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._server.wait_closed()

    def url(self, scheme: str | None = None, user_info: str = "") -> str:
        return f"{scheme or self.kind}://{user_info}127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        self.peers.append(writer.get_extra_info("peername")[0])
        try:
            await getattr(self, f"_{self.kind}")(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(request)
        method, authority, _ = request.split(b"\r\n", 1)[0].decode().split(" ")
        host, _, port = authority.rpartition(":")
        if self._answer is not None:
            writer.write(self._answer)
            await writer.drain()
            return
        if self._credentials is not None:
            token = b64encode(":".join(self._credentials).encode())
            if b"\r\nProxy-Authorization: Basic " + token + b"\r\n" not in request:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n")
                return
        assert method == "CONNECT"
        upstream = await self._connect(host.strip("[]"), int(port))
        if upstream is None:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        # In pieces, as a slow proxy may: the client must not take the first for the whole.
        for piece in (b"HTTP/1.0 20", b"0 Connection established\r\nVia: ", b"test\r\n\r\n"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        await _relay(reader, writer, *upstream)

    async def _socks5(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        offered = await reader.readexactly(count)
        if self._answer is not None:
            writer.write(self._answer)
            return
        method = 0 if self._credentials is None else 2
        if method not in offered:
            writer.write(b"\x05\xff")
            return
        writer.write(bytes([5, method]))
        if self._credentials is not None:
            await reader.readexactly(1)
            given = []
            for _ in range(2):
                given.append((await reader.readexactly((await reader.readexactly(1))[0])).decode())
            if tuple(given) != self._credentials:
                writer.write(b"\x01\x01")
                return
            writer.write(b"\x01\x00")
        _, _, _, kind = await reader.readexactly(4)
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, await reader.readexactly(size))
        port = int.from_bytes(await reader.readexactly(2), "big")
        upstream = await self._connect(host, port)
        if upstream is None:
            writer.write(b"\x05\x05\x00\x01" + bytes(6))
            return
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        await _relay(reader, writer, *upstream)

    async def _socks4(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, _, high, low, *address = await reader.readexactly(8)
        await reader.readuntil(b"\0")
        host = ".".join(map(str, address))
        if address[:3] == [0, 0, 0]:  # 4a: the name follows
            host = (await reader.readuntil(b"\0"))[:-1].decode()
        upstream = await self._connect(host, high * 256 + low)
        if upstream is None:
            writer.write(b"\x00\x5b" + bytes(6))
            return
        writer.write(b"\x00\x5a" + bytes(6))
        await _relay(reader, writer, *upstream)

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        self.asked.append((host, port))
        try:
            return await asyncio.open_connection(self._names.get(host, host), port)
        except OSError:
            return None


async def _relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    upstream_reader: asyncio.StreamReader,
    upstream_writer: asyncio.StreamWriter,
) -> None:
    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.close()

    try:
        await asyncio.gather(pump(reader, upstream_writer), pump(upstream_reader, writer))
    finally:
        upstream_writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await upstream_writer.wait_closed()
