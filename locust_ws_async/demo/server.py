"""The embedded server, against which authors of locustfiles and the tests of this package try things out.

WebSocket paths are in ``routes.py``, except what happens before the handshake is done:

``/reject/<status>``    answers with this HTTP status instead of 101; ``/redirect?to=`` with 307 and a location
``/not-http``           greets like a mail server and hangs up
``/slow-handshake``     answers after ``?seconds=`` (30 unless told), then echoes
``/whoami``             answers 401 without the cookie that ``/login`` sets

Each handshake of somebody who has logged in sets a cookie ``visits``, which counts these handshakes.

The same port answers plain HTTP: ``/`` lists the paths, ``/login?user=`` sets a cookie ``session``, ``/cookies`` shows
the cookies of the request, and ``/stats`` shows what the server has counted (``counting.py``). All but the first answer
with JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import http
import http.cookies
import json
import secrets
import ssl
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from .counting import CountedConnection, Counts
from .routes import ROUTES, BadRequest, Query
from .signals import handling_signals

__all__ = ["DemoServer", "add_arguments", "main", "run"]

MAX_MESSAGE = 2**27  # bytes: above the 64 MiB that the client is tested with
MAX_HANDSHAKE = 60  # seconds: what /slow-handshake may take
MAX_CLOSE_REASON = 123  # bytes: RFC 6455 section 5.5.1, less the two of the close code


class DemoServer:
    """The demo server. It listens as long as its ``async with`` block lasts. Create it in a running event loop.

    Leaving the block closes every connection with 1001 (going away), and waits for that at most 2 seconds.

    Args:
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one, which ``url`` tells.
        tls: a server-side ``ssl.SSLContext``, with which the server speaks ``wss`` and ``https``.

    Raises:
        OSError: the address is taken, or is not one of this machine.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None) -> None:
        self.counts = {path: Counts() for path in ROUTES}
        self.rejected: dict[int, int] = {}
        self._host = host
        self._tls = tls
        self._sessions: dict[str, str] = {}
        self._visits: dict[str, int] = {}
        self._opening: set[CountedConnection] = set()
        self._is_out = False
        # A factory, which websockets documents but does not annotate.
        connection = cast(type[ServerConnection], functools.partial(CountedConnection, self._opening))
        self._serving = serve(
            self._handle,
            host,
            port,
            ssl=tls,
            backlog=4096,  # a load test connects many users at once
            create_connection=connection,
            process_request=self._process_request,
            process_response=self._process_response,
            select_subprotocol=first_subprotocol,
            open_timeout=MAX_HANDSHAKE,
            close_timeout=2,
            ping_interval=None,  # /pings pings; no other path drops those that do not answer
            max_size=MAX_MESSAGE,
        )

    async def __aenter__(self) -> Self:
        self._server = await self._serving.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for connection in self._opening:
            connection.transport.abort()  # websockets would wait for these until their handshake times out
        await self._serving.__aexit__(exc_type, exc_value, traceback)

    async def outage(self, seconds: float) -> None:
        """Be away for so long, as a service that crashes behind a load balancer.

        Every connection is cut without a close frame, and handshakes are answered with 503.
        """
        self._is_out = True
        try:
            for connection in [*self._server.connections, *self._opening]:
                connection.transport.abort()
            await asyncio.sleep(seconds)
        finally:
            self._is_out = False

    @property
    def port(self) -> int:
        return cast(int, next(iter(self._server.sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        """The URL to which WebSocket clients connect: ``ws://host:port``, or ``wss://``."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'wss' if self._tls else 'ws'}://{host}:{self.port}"

    @property
    def http_url(self) -> str:
        """The URL of the same server for plain HTTP."""
        return "http" + self.url.removeprefix("ws")

    def stats(self) -> dict[str, Any]:
        """Return the counts as ``/stats`` serves them: ``total``, ``routes`` that were used, ``rejected`` by status."""
        total = Counts()
        for counts in self.counts.values():
            total.add(counts)
        return {
            "total": total.as_json(),
            "routes": {path: counts.as_json() for path, counts in self.counts.items() if counts.opened},
            "rejected": {str(status): number for status, number in sorted(self.rejected.items())},
        }

    # ------------------------------------------------------------------------- before the handshake

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        path, query = split(request)
        if not is_websocket(request):
            return self._page(path, query, request)
        if self._is_out:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "The service is away for some seconds.\n")
        match path.split("/"):
            case ["", "reject", status]:
                if status not in {str(int(known)) for known in http.HTTPStatus if known >= 200}:
                    return connection.respond(http.HTTPStatus.NOT_FOUND, f"{status} is no status to reject with.\n")
                return connection.respond(http.HTTPStatus(int(status)), "Rejected, as asked.\n")
            case ["", "redirect"]:
                response = connection.respond(http.HTTPStatus.TEMPORARY_REDIRECT, "Elsewhere.\n")
                response.headers["Location"] = query.text("to", "/echo")
                return response
            case ["", "not-http"]:
                connection.transport.write(b"220 mail.example ESMTP\r\n")
                connection.transport.close()
                await connection.wait_closed()
            case ["", "whoami"] if self._user(request) is None:
                return connection.respond(http.HTTPStatus.UNAUTHORIZED, "Log in at /login first.\n")
            case ["", "slow-handshake"]:
                try:
                    async with asyncio.timeout(query.number("seconds", 30)):
                        await connection.wait_closed()
                except TimeoutError:
                    pass
                except BadRequest as error:
                    return connection.respond(http.HTTPStatus.BAD_REQUEST, f"{error}\n")
        route, _ = split_route(path)
        if route not in ROUTES:
            return connection.respond(http.HTTPStatus.NOT_FOUND, listing())
        cast(CountedConnection, connection).counts = self.counts[route]
        return None

    def _process_response(self, connection: ServerConnection, request: Request, response: Response) -> None:
        if not is_websocket(request):
            return
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self.rejected[response.status_code] = self.rejected.get(response.status_code, 0) + 1
        elif (user := self._user(request)) is not None:
            self._visits[user] = self._visits.get(user, 0) + 1
            response.headers["Set-Cookie"] = f"visits={self._visits[user]}; Path=/"

    def _user(self, request: Request) -> str | None:
        """Return the name with which the sender of this request has logged in; None if it has not."""
        return self._sessions.get(cookies(request).get("session", ""))

    def _page(self, path: str, query: Query, request: Request) -> Response:
        """Answer a plain HTTP request."""
        match path:
            case "/":
                return page(200, listing(), "text/plain")
            case "/stats":
                return json_page(self.stats())
            case "/cookies":
                return json_page(cookies(request))
            case "/login":
                user, token = query.text("user", "demo"), secrets.token_hex(8)
                self._sessions[token] = user
                return json_page({"user": user}, ("Set-Cookie", f"session={token}; Path=/; HttpOnly"))
            case _:
                return page(404, listing(), "text/plain")

    # -------------------------------------------------------------------------- after the handshake

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, CountedConnection) and connection.request is not None
        path, query = split(connection.request)
        route, segment = split_route(path)
        connection.count_open()
        try:
            await ROUTES[route](connection, query, segment)
        except* ConnectionClosed:
            pass
        except* BadRequest as group:
            reason = str(group.exceptions[0]).encode()[:MAX_CLOSE_REASON].decode(errors="ignore")
            await connection.close(CloseCode.POLICY_VIOLATION, reason)


def split(request: Request) -> tuple[str, Query]:
    url = urlsplit(request.path)
    return url.path, Query(url.query)


def split_route(path: str) -> tuple[str, str]:
    """Return the key of ``ROUTES`` for a path, and the last segment of the path."""
    parent, _, segment = path.rpartition("/")
    if path in ROUTES:
        return path, segment
    return next((route for route in ROUTES if route.startswith(f"{parent}/<")), path), segment


def is_websocket(request: Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def first_subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Choose the subprotocol that the client prefers."""
    return offered[0] if offered else None


def cookies(request: Request) -> dict[str, str]:
    header = http.cookies.SimpleCookie("; ".join(request.headers.get_all("Cookie")))
    return {name: morsel.value for name, morsel in header.items()}


def listing() -> str:
    paths = sorted([*ROUTES, "/not-http", "/redirect", "/reject/<status>"])
    return "\n".join(["WebSocket:", *paths, "", "HTTP:", "/cookies", "/login", "/stats", ""])


def page(status: int, text: str, content_type: str, *headers: tuple[str, str]) -> Response:
    body = text.encode()
    common = {"Content-Type": content_type, "Content-Length": str(len(body)), "Connection": "close"}
    return Response(status, http.HTTPStatus(status).phrase, Headers([*common.items(), *headers]), body)


def json_page(value: Any, *headers: tuple[str, str]) -> Response:
    return page(200, json.dumps(value), "application/json", *headers)


# ----------------------------------------------------------------------------------------- command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--cert", help="PEM file with the certificate chain: serve wss:// and https://")
    parser.add_argument("--key", help="PEM file with the private key, unless it is in the --cert file")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM comes; return the exit code."""
    tls = None
    if arguments.key and not arguments.cert:
        print("locust-ws-async: --key needs --cert, the certificate that it belongs to", file=sys.stderr)
        return 2
    if arguments.cert:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            tls.load_cert_chain(arguments.cert, arguments.key)
        except OSError as error:  # ssl.SSLError among them
            print(f"locust-ws-async: --cert and --key did not load: {error}", file=sys.stderr)
            return 2
    raise_file_limit()
    try:
        asyncio.run(serve_until_signal(arguments.host, arguments.port, tls))
    except OSError as error:
        print(f"locust-ws-async: cannot listen on {arguments.host}:{arguments.port}: {error}", file=sys.stderr)
        return 1
    return 0


async def serve_until_signal(host: str, port: int, tls: ssl.SSLContext | None) -> None:
    stop = asyncio.Event()
    with handling_signals(lambda _: stop.set()):
        async with DemoServer(host, port, tls=tls) as server:
            print(f"Demo server listening on {server.url}", flush=True)
            await stop.wait()


def raise_file_limit() -> None:
    """Allow as many connections as the system lets this user have; Windows has no such limit."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # macOS names no limit, and accepts none above this one.
        soft = 10_240 if sys.platform == "darwin" and hard == resource.RLIM_INFINITY else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="WebSocket server to try locust_ws_async against.")
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
