"""
What the servers do, whatever library they are made with.

``/echo`` echoes. At any other path each message is an order: ``{"do": "close", "code": 4000}``. So the test says when
a server is slow, silent or broken, and reads its own story from top to bottom.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import time
from typing import Any, NamedTuple, Protocol

__all__ = ["SUBPROTOCOLS", "Page", "Session", "page_for", "serve"]

SUBPROTOCOLS = ("chat.v2", "chat")

Headers = list[tuple[str, str]]


class Session(Protocol):
    """A WebSocket connection, as the routes see it."""

    headers: Headers
    """Those of the handshake."""
    transport: asyncio.Transport
    """For what no library does willingly."""
    pongs: list[str]
    """The payloads of the pongs that have come."""
    close_code: int
    """When it is closed."""

    async def receive(self) -> str | bytes | None:
        """The next message; None when the connection is closed."""

    async def send(self, message: str | bytes) -> None:
        """Raises OSError when the connection is closed."""

    async def ping(self, payload: bytes) -> None: ...

    async def close(self, code: int, reason: str) -> None: ...


class Page(NamedTuple):
    """An answer of HTTP."""

    status: int
    headers: Headers
    body: bytes = b""


async def page_for(path: str, query: dict[str, str]) -> Page | None:
    """What is answered to a request or a handshake; None to accept the handshake."""
    match path.split("/")[1:]:
        case ["counts"]:
            counted = json.dumps({**counts, "closes": closes}).encode()
            counts.clear()
            closes.clear()
            return Page(200, [], counted)
        case ["login"]:
            return Page(200, [("Set-Cookie", "sid=11303; Path=/")])
        case ["redirect"]:
            return Page(302, [("Location", query["to"])])
        case ["reject", status]:
            return Page(int(status), [])
        case ["silence"]:
            await asyncio.sleep(60)
    return None


counts: collections.Counter[str] = collections.Counter()
closes: collections.Counter[int] = collections.Counter()


async def serve(path: str, session: Session) -> None:
    """Serve a connection until it is closed."""
    counts["opened"] += 1
    orders = Orders(session)
    with contextlib.suppress(OSError):
        while (message := await session.receive()) is not None:
            counts["received"] += 1
            if path == "/echo":
                await session.send(message)
                counts["sent"] += 1
            else:
                await orders.obey(**json.loads(message))
    orders.drop()
    closes[session.close_code] += 1


class Orders:
    """What a client can make the server do on a connection: one method each, its parameters the fields."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._held: list[str] = []
        self._replying: set[asyncio.Task[None]] = set()

    async def obey(self, do: str, **fields: Any) -> None:
        await getattr(self, do)(**fields)

    def drop(self) -> None:
        for task in self._replying:
            task.cancel()

    async def _say(self, **message: Any) -> None:
        await self._session.send(json.dumps(message))

    # Replies and pushes

    async def reply(self, id: int, copies: int = 1, delay: float = 0, hold: int = 1) -> None:
        """So many copies, after a delay in seconds; or when so many are held, the last request's first."""
        self._held += [json.dumps({"id": id})] * copies
        if delay:
            task = asyncio.create_task(self._reply_later(self._held.pop(), delay))
            self._replying.add(task)
            task.add_done_callback(self._replying.discard)
        elif len(self._held) >= hold:
            while self._held:
                await self._session.send(self._held.pop())

    async def _reply_later(self, message: str, delay: float) -> None:
        await asyncio.sleep(delay)
        with contextlib.suppress(OSError):
            await self._session.send(message)

    async def push(self, count: int, age: float = 0) -> None:
        """So many messages with the time in their payload, so many seconds ago."""
        for number in range(count):
            await self._say(number=number, sent=time.time() - age)

    async def echo(self, text: str) -> None:
        await self._session.send(text)

    async def handshake(self) -> None:
        """What the client said of itself."""
        transport = self._session.transport
        certificate = transport.get_extra_info("peercert") or {}
        await self._say(
            headers=self._session.headers,
            address=transport.get_extra_info("peername"),
            certificate=[name for _, name in certificate.get("subjectAltName", ())],
        )

    # Keepalive

    async def keepalive(self, beats: int) -> None:
        """Send so many, and close unless each comes back."""
        for number in range(beats):
            message = json.dumps({"type": "keepalive", "number": number})
            await self._session.send(message)
            if await self._session.receive() != message:
                await self._session.close(4408, "no keepalive")
                return
        await self._say(type="alive")

    async def ping(self, payloads: list[str]) -> None:
        for payload in payloads:
            await self._session.ping(payload.encode())

    async def pongs(self) -> None:
        await self._say(pongs=self._session.pongs)

    # Ends and faults

    async def close(self, code: int, reason: str = "") -> None:
        await self._session.close(code, reason)

    async def cut(self) -> None:
        self._session.transport.abort()

    async def half_close(self) -> None:
        self._session.transport.write_eof()

    async def read_no_more(self) -> None:
        self._session.transport.pause_reading()
        await self._session.send("from now on")

    async def write(self, hex: str, step: int | None = None) -> None:
        """These bytes as they are, in chunks of so many."""
        data = bytes.fromhex(hex)
        for start in range(0, len(data), step or len(data)):
            self._session.transport.write(data[start : start + (step or len(data))])
            await asyncio.sleep(0)
