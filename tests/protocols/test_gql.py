"""GraphQL by `gql`, over our connections."""

from __future__ import annotations

import pytest

pytest.importorskip("gql")

from gql import Client, gql
from gql.transport.exceptions import TransportConnectionFailed, TransportQueryError

from locust_ws_async.protocols.gql import GQLConnection, GQLTransport
from tests.client.helpers import Bench, run, tcp_server, until_eof


def transport(bench: Bench, path: str = "/graphql") -> GQLTransport:
    return GQLTransport(bench.client(), path, connect_args={"open_timeout": 5}, ack_timeout=5)


def test_a_query_and_a_subscription(bench: Bench) -> None:
    async def main() -> None:
        async with Client(transport=transport(bench)) as session:
            result = await session.execute(gql("query { price { value time } }"))
            assert set(result["price"]) == {"value", "time"}
            pushed = [answer async for answer in session.subscribe(gql("subscription { price { value } }"))]
            assert len(pushed) == 3

    run(main())
    assert bench.failures() == {}
    assert [bench.types().count(row) for row in ("WS CONNECT", "WS SESSION")] == [1, 1]
    assert bench.types().count("WS RECV") >= 7  # acknowledged, a result, complete, three pushed, complete


def test_an_answer_with_errors(bench: Bench) -> None:
    async def main() -> None:
        async with Client(transport=transport(bench)) as session:
            with pytest.raises(TransportQueryError, match="must have a selection"):
                await session.execute(gql("query { price }"))

    run(main())


def test_a_server_that_is_none(bench: Bench) -> None:
    async def main() -> None:
        with pytest.raises(TransportConnectionFailed):
            async with Client(transport=transport(bench, "/nowhere")):
                pass

    run(main())
    assert "HandshakeRejected" in bench.failures()["WS CONNECT"]


def test_a_connection_that_is_lost(bench: Bench) -> None:
    async def main() -> None:
        async with tcp_server(until_eof):
            adapter = GQLConnection(bench.client(), "/graphql")
            with pytest.raises(TransportConnectionFailed, match="already closed"):
                await adapter.send("too early")
            adapter.subprotocols = ["graphql-transport-ws"]
            await adapter.connect()
            assert adapter.response_headers["Sec-WebSocket-Protocol"] == "graphql-transport-ws"
            assert adapter._connection is not None
            adapter._connection.wire.abort()
            with pytest.raises(TransportConnectionFailed, match="Error trying to receive data: ConnectionClosedError"):
                await adapter.receive()
            with pytest.raises(TransportConnectionFailed, match="Error trying to send data: ConnectionClosedError"):
                await adapter.send("too late")
            await adapter.close()
            await adapter.close()

    run(main())
