"""``websockets.connect`` and its connections, by our client: for libraries that call it themselves.

:class:`connect` is a ``websockets.connect``, of which it keeps what does not open a connection: that it can be awaited,
entered and iterated over, its checks, its retries. So it can be put in the place of the original, and a library may
also inherit from it. Outside of a user it is the original.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, Never, Protocol, Self, cast

import websockets.asyncio.client
from websockets.datastructures import Headers
from websockets.uri import parse_uri

from ..exceptions import HandshakeError, HandshakeRejected
from ..internals.websockets_client import process_exception
from .connection import WebSocketConnection
from .current import current_client

__all__ = ["ClientConnection", "Connects", "connect"]

_Original = websockets.asyncio.client.connect

Data = str | bytes | bytearray | memoryview


class Connects(Protocol):
    """What :class:`connect` needs of a client."""

    @property
    def connect(self) -> Callable[..., Awaitable[WebSocketConnection]]:
        """Connects to a URL, with the settings that are given as keywords."""


class ClientConnection:
    """
    A connection with the methods and attributes of ``websockets.asyncio.client.ClientConnection``.

    It has the same rows as any connection of ours. Unlike there, a message that is sent in fragments goes out as one
    frame, and ``recv_streaming`` gives a message in one piece.
    """

    def __init__(self, connection: WebSocketConnection, logger: Any) -> None:
        self.connection = connection
        """The connection of ours."""
        self.logger = logger
        # Called as they are: a message costs no call more.
        self.recv = connection.recv
        self.close = connection.close
        self.wait_closed = connection.wait_closed
        self.loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<ClientConnection of {self.connection!r}>"

    def __getattr__(self, name: str) -> Never:
        raise AttributeError(
            f"{name!r} is not among what websockets_connect gives of the connections of websockets", name=name, obj=self
        )

    @property
    def id(self) -> Any:
        """A unique identifier, for logs."""
        return self.connection.id

    @property
    def state(self) -> Any:
        """The state of RFC 6455, as of ``websockets.protocol.State``."""
        return self.connection.state

    @property
    def request(self) -> Any:
        """The opening handshake as it was sent."""
        return self.connection.handshake_request

    @property
    def response(self) -> Any:
        """The server's answer to the opening handshake."""
        return self.connection.response

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose."""
        return self.connection.subprotocol

    @property
    def local_address(self) -> Any:
        """The address of this side's socket."""
        return self.connection.local_address

    @property
    def remote_address(self) -> Any:
        """The address of the server's socket."""
        return self.connection.remote_address

    @property
    def latency(self) -> float:
        """Seconds from the last answered ping to its pong."""
        return self.connection.latency

    @property
    def close_code(self) -> int | None:
        """The server's close code; None until closed."""
        return self.connection.close_code

    @property
    def close_reason(self) -> str | None:
        """The server's close reason; None until closed."""
        return self.connection.close_reason

    @property
    def transport(self) -> asyncio.Transport:
        """The transport that the engine writes to."""
        return self.connection.wire.transport

    async def send(self, message: Data | Iterable[Data] | AsyncIterable[Data], text: bool | None = None) -> None:
        """Send a message: the ``WS SEND`` row of :meth:`WebSocketConnection.send`. Fragments are joined."""
        if not isinstance(message, (str, bytes, bytearray, memoryview)):
            if isinstance(message, Mapping):
                raise TypeError("data is a dict-like object")
            pieces = [each async for each in message] if isinstance(message, AsyncIterable) else list(message)
            if not pieces:
                return
            message = _joined(pieces)
        await self.connection.send(message, text=text)

    async def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[Any]:
        """Give the next message, in one piece."""
        yield await self.recv(decode)

    async def ping(self, data: str | bytes | None = None) -> Awaitable[float]:
        """
        Send a ping: the ``WS PING`` row.

        Returns:
            What gives the seconds to the pong when it is awaited, and need not be.
        """
        waiting = asyncio.ensure_future(self.connection.ping(data))
        waiting.add_done_callback(_retrieved)
        await asyncio.sleep(0)  # the ping goes out in the first step of the task
        return waiting

    def __aiter__(self) -> AsyncIterator[Any]:
        return self.connection.__aiter__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.connection.close()


def _joined(pieces: list[Any]) -> str | bytes:
    if all(isinstance(piece, str) for piece in pieces):
        return "".join(pieces)
    if any(isinstance(piece, str) for piece in pieces):
        raise TypeError("all fragments of a message must be of one type: str, or bytes-like")
    return b"".join(pieces)


def _retrieved(future: asyncio.Future[Any]) -> None:
    """Whoever wants to know has the future: without anybody asyncio would log a failed ping, which is a row."""
    if not future.cancelled():
        future.exception()


class connect(_Original):
    """
    ``websockets.connect`` whose connections are those of the user's client.

    It takes the keywords of ``websockets.connect``. What the library does not give is as the user's settings say: no
    compression, for instance, which is on by default in ``websockets``. But pings go out every 20 seconds, as there.
    The settings ``keepalive``, ``reconnect`` and ``on_connected`` do not hold: the library does these things itself.

    Raises:
        TypeError: a keyword that has no counterpart here.
        websockets.exceptions.InvalidURI, ValueError: as the original raises them.
    """

    def __init__(self, uri: str, **keywords: Any) -> None:
        self._client: Connects | None = current_client.get()
        if self._client is None:
            super().__init__(uri, **keywords)
            return
        parse_uri(uri)  # older ones look at it later
        for_retries = {name: keywords[name] for name in _FOR_RETRIES if name in keywords}
        for_retries.setdefault("process_exception", _process_exception)
        super().__init__(uri, **for_retries)
        self._settings = _settings(keywords)
        self._write_limit = keywords.get("write_limit")
        if type(self).process_redirect is not _Original.process_redirect:
            self._settings["redirect_limit"] = 0  # somebody has rules of his own for them, which we do not know

    def __await__(self) -> Generator[Any, None, Any]:
        if self._client is None:
            return super().__await__()
        return self._open(self._client).__await__()

    async def _open(self, client: Connects) -> ClientConnection:
        connection = await client.connect(self.uri, **self._settings)
        if self._write_limit is not None:
            high, low = self._write_limit if isinstance(self._write_limit, tuple) else (self._write_limit, None)
            connection.wire.transport.set_write_buffer_limits(high, low)
        opened: Any = ClientConnection(connection, self.logger)
        self.connection = opened  # what __aexit__ closes
        return cast(ClientConnection, opened)

    async def __aenter__(self) -> Any:
        return await (super().__aenter__() if self._client is None else self)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._client is None:
            await super().__aexit__(kind, exc, traceback)
        else:
            await self.connection.close()


_FOR_RETRIES = ("logger", "process_exception", "reconnect_delays")

_SERVER_IS_AWAY = frozenset({500, 502, 503, 504})


def _process_exception(exc: Exception) -> Exception | None:
    """What of our errors ``websockets`` tries again: here all errors of a connect are an ``OSError``, too."""
    if isinstance(exc, HandshakeRejected):
        return None if exc.status_code in _SERVER_IS_AWAY else exc
    if isinstance(exc, HandshakeError):
        return exc
    return process_exception(exc)


# From the keywords of websockets to our settings: the name, and the value where it is another.


def _first_of_pair(name: str, value: Any) -> Any:
    match value:
        case tuple((first, _)):
            return first
    return value


def _no_fragment_limit(name: str, value: Any) -> Any:
    match value:
        case tuple((whole, None)):
            return whole
        case tuple():
            raise TypeError("max_size: there is no limit for a fragment by itself here, only for a message")
    return value


def _pairs(name: str, value: Any) -> Any:
    if value is None:
        return ()
    return tuple(Headers(value).raw_items())


def _nothing_but_none(name: str, value: Any) -> None:
    if value is not None and value != []:
        raise TypeError(f"{name} is about the insides of websockets, and has no counterpart here")


def _address(name: str, value: Any) -> Any:
    match value:
        case (str() as host, 0):
            return host
    raise TypeError(f"local_addr must be a pair of an address and 0 here, not {value!r}")


def _same(name: str, value: Any) -> Any:
    return value


_SETTINGS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "additional_headers": ("headers", _pairs),
    "close_timeout": ("close_timeout", _same),
    "compression": ("compression", _same),
    "local_addr": ("local_address", _address),
    "max_queue": ("max_queue", _first_of_pair),
    "max_size": ("max_size", _no_fragment_limit),
    "open_timeout": ("open_timeout", _same),
    "origin": ("origin", _same),
    "path": ("unix_socket", _same),
    "ping_interval": ("ping_interval", _same),
    "ping_timeout": ("ping_timeout", _same),
    "proxy": ("proxy", _same),
    "server_hostname": ("server_hostname", _same),
    "subprotocols": ("subprotocols", lambda name, value: value or ()),
    "user_agent_header": ("user_agent", _same),
}
_REFUSED = frozenset({"create_connection", "extensions"})
_ELSEWHERE = frozenset({*_FOR_RETRIES, "ssl", "unix", "write_limit"})
_AS_USERS_SAY_WITHOUT_IT = frozenset({"close_timeout", "ssl"})  # None is another thing there than here


def _settings(keywords: dict[str, Any]) -> dict[str, Any]:
    """Our settings for these keywords of ``websockets.connect``."""
    settings: dict[str, Any] = {
        "ping_interval": 20,
        "ping_timeout": 20,
        "keepalive": (),
        "reconnect": None,
        "on_connected": None,
        "overflow": "pause",
    }
    for name, value in keywords.items():
        if name in _REFUSED:
            _nothing_but_none(name, value)
        elif value is None and name in _AS_USERS_SAY_WITHOUT_IT:
            continue
        elif name in _SETTINGS:
            ours, convert = _SETTINGS[name]
            settings[ours] = convert(name, value)
        elif name not in _ELSEWHERE:
            raise TypeError(
                f"websockets_connect: {name!r} has no counterpart here; there are: "
                f"{', '.join(sorted({*_SETTINGS, *_ELSEWHERE}))}"
            )
    context = keywords.get("ssl")
    if context is not None and context is not True:
        settings |= {"ssl": context, "verify": True, "cert": None}
    return settings
