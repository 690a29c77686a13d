"""Socket.IO over a user's connection, in the packets of ``python-socketio``.

::

    class Player(AsyncWebSocketUser):
        async def on_start(self):
            self.game = SocketIO(self.ws)
            self.game.on("move", self.moved)
            await self.game.connect("/socket.io/", auth={"token": "..."})

        @task
        async def ask(self):
            assert await self.game.call("ask", "why") == {"answer": "why"}

A ``call`` is a ``WS REQUEST`` row with the name of its event, from the call to the arrival of the acknowledgement. An
event that a handler takes is a ``WS PUSH`` row with its name. An ``emit`` is a ``WS SEND``. Engine.IO is spoken in
version 4, with WebSocket as the only transport; its pings are answered at once, whatever the tasks do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from itertools import count
from typing import Any

from ..client import WebSocketClient, WebSocketConnection, ignore, prefix, reply
from ..client.connection import DEFAULT
from ..client.messages.matching import Correlation
from ..client.options import result_of
from ..client.wire.frames import BINARY, TEXT

try:
    from socketio import packet as packets
    from socketio.exceptions import BadNamespaceError, ConnectionError
    from socketio.packet import Packet
except ImportError as exc:
    raise ImportError(
        'locust_ws_async.protocols.socketio needs python-socketio: pip install "locust-ws-async[socketio]"'
    ) from exc

__all__ = ["SocketIO"]

# Engine.IO, https://github.com/socketio/engine.io-protocol: the first character of a text message. Binary messages are
# attachments.
_PING, _PONG, _MESSAGE = "2", "3", "4"

_EVENTS = frozenset({packets.EVENT, packets.BINARY_EVENT})
_ACKS = frozenset({packets.ACK, packets.BINARY_ACK})


class SocketIO:
    """
    A Socket.IO client on one connection. Use it in the tasks of the user whose client it is given.

    Args:
        client: ``self.ws``.
    """

    def __init__(self, client: WebSocketClient) -> None:
        self._client = client
        self._connection: WebSocketConnection | None = None
        self._namespaces: tuple[str, ...] = ()
        self._joined: set[str] = set()
        self._auth: Any = None
        self._handlers: dict[tuple[str, str], Callable[..., Any]] = {}
        self._ids = count(1)
        self._calls: set[Hashable] = set()
        self._opened = asyncio.Event()
        self._last: tuple[str, Any] = ("", None)
        self._incomplete: _Incomplete | None = None
        self._with_attachments: dict[str, deque[_Incomplete]] = {}

    @property
    def connection(self) -> WebSocketConnection:
        """
        The connection.

        Raises:
            RuntimeError: ``connect`` was not called.
        """
        if self._connection is None:
            raise RuntimeError("this SocketIO has no connection yet: `await socket.connect(...)`")
        return self._connection

    async def connect(
        self,
        path_or_url: str = "/socket.io/",
        *,
        namespaces: Sequence[str] = ("/",),
        auth: Any = None,
        name: str | None = None,
        **settings: Any,
    ) -> None:
        """
        Connect, and join the namespaces. With the setting ``reconnect`` that is done again after a loss.

        Each namespace is a ``WS REQUEST connect`` row (``connect /chat``). Cancelling gives up the attempt.

        Args:
            path_or_url: where the server's Socket.IO is, with a query of your own if it needs one.
            namespaces: which to join.
            auth: what the server's ``connect`` handler gets; or a function that gives it, which may be ``async def``.
            name: the name of the connection's rows; by default the path.
            settings: those of ``self.ws.connect``, except ``keepalive`` and ``on_connected``.

        Raises:
            ConnectError: there is no connection.
            socketio.exceptions.ConnectionError: the server has refused a namespace.
        """
        self._namespaces = tuple(namespaces)
        self._auth = auth
        url = f"{path_or_url}{'&' if '?' in path_or_url else '?'}EIO=4&transport=websocket"
        rules = [reply(prefix(_PING), _PONG), ignore(self._looks_at)]
        self._connection = await self._client.connect(
            url, name=name, keepalive=rules, on_connected=self._join, **settings
        )

    def on(self, event: str, handler: Callable[..., Any], *, namespace: str = "/") -> None:
        """
        Handle an event: each is a ``WS PUSH`` row with its name. Events without a handler are dropped.

        Args:
            event: its name.
            handler: called with the data of the event; may be ``async def``. What it returns is the acknowledgement,
                where the server asks for one: None, a value, or a tuple of several.
            namespace: of which namespace.
        """
        self._handlers[namespace, event] = handler
        if self._connection is not None:
            self._subscribe(self._connection, namespace, event, handler)

    async def emit(self, event: str, data: Any = None, *, namespace: str = "/") -> None:
        """
        Send an event: a ``WS SEND`` row.

        Args:
            event: its name.
            data: a value, which may hold bytes anywhere; a tuple for several; None for none.
            namespace: to which namespace.

        Raises:
            ConnectionClosed: the connection is over.
            socketio.exceptions.BadNamespaceError: the namespace is not connected.
        """
        self._check_joined(namespace)
        await self._send(Packet(packets.EVENT, [event, *_as_list(data)], namespace))

    async def call(
        self,
        event: str,
        data: Any = None,
        *,
        namespace: str = "/",
        timeout: float | None = DEFAULT,
        name: str | None = None,
    ) -> Any:
        """
        Send an event, and wait for its acknowledgement: a ``WS REQUEST`` row.

        Cancelling stops the wait, which is then not reported.

        Args:
            event: its name.
            data: as for :meth:`emit`.
            namespace: to which namespace.
            timeout: seconds to wait, None for no limit; by default ``request_timeout``.
            name: the row's name; by default the event's.

        Returns:
            What the server's handler returned: None, a value, or a tuple of several.

        Raises:
            MessageTimeout: there was no acknowledgement in time.
            ConnectionClosed: the connection is over, or ended before.
            socketio.exceptions.BadNamespaceError: the namespace is not connected.
        """
        self._check_joined(namespace)
        number = next(self._ids)
        key = (namespace, number)
        last = await self._write_all_but_last(Packet(packets.EVENT, [event, *_as_list(data)], namespace, id=number))
        self._calls.add(key)
        try:
            answer = await self.connection.request(
                last, match=_Acknowledgement(self, key), timeout=timeout, name=event if name is None else name
            )
        finally:
            self._calls.discard(key)
        return _as_result((await self._complete(answer)).data)

    async def disconnect(self) -> None:
        """Leave the namespaces and close the connection."""
        if self._connection is None:
            return
        for namespace in list(self._joined):
            await self._send(Packet(packets.DISCONNECT, namespace=namespace))
        self._joined.clear()
        await self._connection.close()

    # Joining

    async def _join(self, connection: WebSocketConnection) -> None:
        """Awaited after each connect, before anybody uses the connection."""
        self._incomplete = None
        self._with_attachments.clear()
        self._joined.clear()
        if self._connection is not connection:
            self._connection = connection
            for (namespace, event), handler in self._handlers.items():
                self._subscribe(connection, namespace, event, handler)
        await self._opened.wait()
        self._opened.clear()
        auth = await result_of(self._auth) if callable(self._auth) else self._auth
        for namespace in self._namespaces:
            request = _MESSAGE + Packet(packets.CONNECT, auth, namespace).encode()
            name = "connect" if namespace == "/" else f"connect {namespace}"
            async with connection.request(
                request, match=partial(self._answers, namespace), name=name, catch_response=True
            ) as answer:
                refused = self._packet(answer.message).packet_type == packets.CONNECT_ERROR
                if refused:
                    answer.failure("the server refused the namespace")
            if refused:
                raise ConnectionError(f"the server refused the namespace {namespace}")
            self._joined.add(namespace)

    def _answers(self, namespace: str, message: str | bytes) -> bool:
        packet = self._packet(message)
        return (
            packet is not None
            and packet.packet_type in (packets.CONNECT, packets.CONNECT_ERROR)
            and (packet.namespace or "/") == namespace
        )

    def _check_joined(self, namespace: str) -> None:
        if namespace not in self._joined and self.connection.ready:
            raise BadNamespaceError(f"{namespace} is not a connected namespace.")

    # Sending

    async def _send(self, packet: Any) -> None:
        await self.connection.send(await self._write_all_but_last(packet))

    async def _write_all_but_last(self, packet: Any) -> str | bytes:
        """Write what goes before the last frame of a packet, and return that one, to be sent at once: nobody else may
        write between a packet and its attachments."""
        encoded = packet.encode()
        if isinstance(encoded, str):
            return _MESSAGE + encoded
        header, *attachments = encoded
        connection = self.connection
        while not connection.usable(writes=True):
            await connection.until_ready()
            await connection.drained()
        connection.write(TEXT, (_MESSAGE + header).encode())
        for attachment in attachments[:-1]:
            connection.write(BINARY, bytes(attachment))
        return bytes(attachments[-1])

    # Receiving

    def _looks_at(self, message: str | bytes) -> bool:
        """See each message first; return whether nobody else has to."""
        if isinstance(message, bytes):
            self._attach(message)
            return True
        if not message.startswith(_MESSAGE):
            if message.startswith("0"):
                self._opened.set()
            return True
        packet = self._packet(message)
        kind, namespace = packet.packet_type, packet.namespace or "/"
        wanted = True
        if kind in _EVENTS:
            wanted = (namespace, packet.data[0]) in self._handlers
        elif kind in _ACKS:
            wanted = (namespace, packet.id) in self._calls
        elif kind == packets.DISCONNECT:
            self._joined.discard(namespace)
            return True
        if packet.attachment_count:
            self._incomplete = _Incomplete(packet)
            if wanted:
                self._with_attachments.setdefault(message, deque()).append(self._incomplete)
        return kind in _EVENTS and not wanted

    def _attach(self, attachment: bytes) -> None:
        incomplete = self._incomplete
        if incomplete is not None and incomplete.packet.add_attachment(attachment):
            incomplete.done.set_result(None)
            self._incomplete = None

    def _packet(self, message: Any) -> Any:
        """The packet that a message begins; parsed once for all who look at the same message."""
        if self._last[0] is not message:
            is_packet = isinstance(message, str) and message.startswith(_MESSAGE)
            self._last = (message, Packet(encoded_packet=message[1:]) if is_packet else None)
        return self._last[1]

    async def _complete(self, message: Any) -> Any:
        """The packet that a message begins, with its attachments."""
        waiting = self._with_attachments.get(message)
        if not waiting:
            return self._packet(message)
        incomplete = waiting.popleft()
        if not waiting:
            del self._with_attachments[message]
        await incomplete.done
        return incomplete.packet

    def _subscribe(
        self, connection: WebSocketConnection, namespace: str, event: str, handler: Callable[..., Any]
    ) -> None:
        def is_it(message: str | bytes) -> bool:
            packet = self._packet(message)
            return (
                packet is not None
                and packet.packet_type in _EVENTS
                and packet.data[0] == event
                and (packet.namespace or "/") == namespace
            )

        async def handle(message: str | bytes) -> None:
            packet = await self._complete(message)
            result = await result_of(partial(handler, *packet.data[1:]))
            if packet.id is not None:
                await self._send(Packet(packets.ACK, _as_list(result), namespace, id=packet.id))

        connection.on(is_it, handle, name=event)

    def key_of_acknowledgement(self, message: str | bytes) -> Hashable | None:
        """Which call a message acknowledges."""
        packet = self._packet(message)
        if packet is None or packet.packet_type not in _ACKS:
            return None
        return packet.namespace or "/", packet.id


class _Incomplete:
    """A packet whose attachments are still to come."""

    def __init__(self, packet: Any) -> None:
        self.packet = packet
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Acknowledgement(Correlation):
    """Pairs a call with its acknowledgement by namespace and id; what is sent last may be an attachment."""

    __slots__ = ("_key", "_socket")

    def __init__(self, socket: SocketIO, key: Hashable) -> None:
        super().__init__((), ())
        self._socket = socket
        self._key = key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Acknowledgement) and other._socket is self._socket

    def __hash__(self) -> int:
        return id(self._socket)

    def key_of_request(self, payload: str | bytes) -> Hashable:
        return self._key

    def key_of_reply(self, message: str | bytes) -> Hashable | None:
        return self._socket.key_of_acknowledgement(message)


def _as_list(data: Any) -> list[Any]:
    if data is None:
        return []
    return list(data) if isinstance(data, tuple) else [data]


def _as_result(data: list[Any]) -> Any:
    if not data:
        return None
    return data[0] if len(data) == 1 else tuple(data)
