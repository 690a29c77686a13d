"""GraphQL by ``gql``, over a user's connection.

::

    class Shopper(AsyncWebSocketUser):
        @task
        async def ask(self):
            async with Client(transport=GQLTransport(self.ws, "/graphql")) as session:
                await self.timed("price", session.execute(gql("{ price { value } }")))
"""

from __future__ import annotations

from typing import Any

from ..client import WebSocketClient, WebSocketConnection
from ..exceptions import ConnectError, ConnectionClosed

try:
    from gql.transport.common.adapters.connection import AdapterConnection
    from gql.transport.exceptions import TransportConnectionFailed, TransportProtocolError
    from gql.transport.websockets_protocol import WebsocketsProtocolTransportBase
except ImportError as exc:
    raise ImportError('locust_ws_async.protocols.gql needs gql 4: pip install "locust-ws-async[gql]"') from exc

__all__ = ["GQLConnection", "GQLTransport"]


class GQLTransport(WebsocketsProtocolTransportBase):
    """
    What a ``gql.Client`` takes as its ``transport``, on a connection of the user.

    Args:
        client: ``self.ws``.
        path_or_url: a path, joined to the user's host, or a whole URL.
        connect_args: settings of ``self.ws.connect``.
        options: those of ``gql``'s ``WebsocketsTransport`` besides: ``init_payload``, ``ack_timeout``,
            ``keep_alive_timeout``, ``ping_interval``, ``subprotocols`` and others.
    """

    def __init__(
        self, client: WebSocketClient, path_or_url: str, *, connect_args: dict[str, Any] | None = None, **options: Any
    ) -> None:
        # Before the base is initialized, which looks at it before it sets it.
        self.adapter = GQLConnection(client, path_or_url, **connect_args or {})
        super().__init__(adapter=self.adapter, **options)


class GQLConnection(AdapterConnection):
    """
    A connection of the user for the transports of ``gql``: their ``adapter``.

    It has the rows of any connection. A new one is opened whenever ``gql`` connects: its own reconnects included, for
    which ``reconnect``, ``keepalive`` and ``on_connected`` of the user do not hold here.

    Args:
        client: ``self.ws``.
        path_or_url: a path, joined to the user's host, or a whole URL.
        settings: those of ``self.ws.connect``. ``subprotocols`` are by default those of ``gql``.
    """

    def __init__(self, client: WebSocketClient, path_or_url: str, **settings: Any) -> None:
        super().__init__(url=path_or_url, connect_args=settings)
        self._client = client
        self._connection: WebSocketConnection | None = None
        self._headers: dict[str, str] = {}

    async def connect(self) -> None:
        """Open a connection. Called by ``gql``."""
        settings: dict[str, Any] = {"reconnect": None, "keepalive": (), "on_connected": None}
        if self.subprotocols:
            settings["subprotocols"] = self.subprotocols
        try:
            self._connection = await self._client.connect(self.url, **settings | self.connect_args)
        except ConnectError as exc:
            raise TransportConnectionFailed("Connect failed") from exc
        self._headers = dict(self._connection.response.headers.raw_items())

    async def send(self, message: str) -> None:
        """Send a message. Called by ``gql``."""
        try:
            await self._open.send(message)
        except ConnectionClosed as exc:
            raise TransportConnectionFailed(f"Error trying to send data: {type(exc).__name__}") from exc

    async def receive(self) -> str:
        """Wait for the next message. Called by ``gql``."""
        try:
            message = await self._open.recv()
        except ConnectionClosed as exc:
            raise TransportConnectionFailed(f"Error trying to receive data: {type(exc).__name__}") from exc
        if not isinstance(message, str):
            raise TransportProtocolError("Binary data received in the websocket")
        return message

    async def close(self) -> None:
        """Close the connection. Called by ``gql``."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @property
    def response_headers(self) -> dict[str, str]:
        """Those of the server's answer to the last opening handshake."""
        return self._headers

    @property
    def _open(self) -> WebSocketConnection:
        if self._connection is None:
            raise TransportConnectionFailed("WebSocket connection is already closed")
        return self._connection
