"""What the opening handshake sends, redirects, and what is shared with the user's HTTP client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from http.cookiejar import CookieJar
from typing import Any

import pytest
import requests
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from locust_ws_async.client import Deflate
from locust_ws_async.exceptions import ConnectTimeout, HandshakeError, HandshakeRejected
from tests.support import SCALE

from .helpers import Bench, run, tcp_server, until_eof

Answer = Callable[[Request], Response | None]


class Site:
    """A WebSocket server that keeps the requests of the handshakes, and answers some of them by a rule."""

    def __init__(self, answer: Answer | None = None, set_cookie: tuple[str, ...] = (), **options: Any) -> None:
        self.requests: list[Request] = []
        self.url = ""
        self._answer = answer
        self._set_cookie = set_cookie
        self._options = options

    async def __aenter__(self) -> Site:
        self._server: Server = await serve(
            self._echo,
            "127.0.0.1",
            0,
            process_request=self._process,
            process_response=self._respond,
            **self._options,
        )
        scheme = "wss" if "ssl" in self._options else "ws"
        self.url = f"{scheme}://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _echo(self, connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    def _process(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        return None if self._answer is None else self._answer(request)

    def _respond(self, connection: ServerConnection, request: Request, response: Response) -> None:
        for value in self._set_cookie if response.status_code == 101 else ():
            response.headers["Set-Cookie"] = value

    @property
    def headers(self) -> Headers:
        """Those of the last request."""
        return self.requests[-1].headers


def answer(status: int, **headers: str) -> Response:
    """An HTTP answer without a body; ``Set_Cookie`` stands for ``Set-Cookie``."""
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return Response(status, "Because", Headers([*pairs, ("Content-Length", "0"), ("Connection", "close")]))


def redirect_to(location: str, status: int = 302, **headers: str) -> Response:
    return answer(status, Location=location, **headers)


def sent(bench: Bench, **options: Any) -> Headers:
    """The headers that a server sees for these options."""

    async def main() -> Headers:
        async with Site() as site, bench.client().connect(site.url, **options):
            return site.headers

    return run(main())


def basic(credentials: str) -> str:
    return "Basic " + b64encode(credentials.encode()).decode()


def test_the_headers_of_a_plain_connect(bench: Bench) -> None:
    headers = sent(bench)
    assert headers["User-Agent"] == "locust-ws-async"
    assert not {"Origin", "Authorization", "Cookie", "Sec-WebSocket-Extensions"} & set(headers)


def test_headers_of_settings(bench: Bench) -> None:
    headers = sent(
        bench,
        headers={"X-Tenant": "7"},
        cookies={"a": "1", "b": "2"},
        origin="https://shop.example",
        user_agent="Firefox",
        auth=("me", "pass:wörd"),
    )
    assert headers["X-Tenant"] == "7"
    assert headers["Cookie"] == "a=1; b=2"
    assert headers["Origin"] == "https://shop.example"
    assert headers["User-Agent"] == "Firefox"
    assert headers["Authorization"] == basic("me:pass:wörd")


def test_a_bearer_token(bench: Bench) -> None:
    assert sent(bench, bearer="abc")["Authorization"] == "Bearer abc"


def test_no_user_agent(bench: Bench) -> None:
    assert "User-Agent" not in sent(bench, user_agent=None)


def test_given_headers_come_first(bench: Bench) -> None:
    given = {"authorization": "Token x", "user-agent": "mine", "origin": "null", "cookie": "a=1"}
    headers = sent(bench, headers=given, bearer="y", origin="http://h", cookies={"b": "2"})
    assert headers.get_all("Authorization") == ["Token x"]
    assert headers.get_all("User-Agent") == ["mine"]
    assert headers.get_all("Origin") == ["null"]
    assert headers.get_all("Cookie") == ["a=1; b=2"]  # RFC 6265 section 5.4: there is one at most


@pytest.mark.parametrize(
    ("user_info", "options", "authorization"),
    [
        ("me:p%40ss", {}, basic("me:p@ss")),
        ("key", {}, basic("key:")),
        ("me:pass", {"auth": ("you", "word")}, basic("you:word")),
        ("me:pass", {"bearer": "token"}, "Bearer token"),
    ],
)
def test_user_and_password_of_the_url(
    bench: Bench, user_info: str, options: dict[str, Any], authorization: str
) -> None:
    async def main() -> None:
        async with Site() as site:
            url = site.url.replace("://", f"://{user_info}@")
            async with bench.client().connect(url, **options):
                assert site.headers["Authorization"] == authorization
                assert user_info not in site.headers["Host"]

    run(main())


# Compression


def offered(**parameters: Any) -> str:
    return sent(Bench("websockets", None), compression=Deflate(**parameters))["Sec-WebSocket-Extensions"]


def test_the_parameters_of_deflate() -> None:
    assert offered() == "permessage-deflate; client_max_window_bits"
    assert offered(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=10,
        client_max_window_bits=9,
    ) == (
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10; "
        "client_max_window_bits=9"
    )


@pytest.mark.parametrize(
    "deflate",
    [
        Deflate(),
        Deflate(server_no_context_takeover=True, client_no_context_takeover=True),
        Deflate(server_max_window_bits=9, client_max_window_bits=9, level=1, memory_level=1),
    ],
)
def test_messages_survive_any_parameters(deflate: Deflate) -> None:
    async def main() -> None:
        async with (
            Site() as site,
            Bench("websockets", site.url).client().connect("/", compression=deflate) as connection,
        ):
            for message in ("é" * 5000, b"\x00" * 100_000, "", "x"):
                await connection.send(message)
                assert await connection.recv() == message
            received, sent = connection.stats.bytes_received, connection.stats.bytes_sent
            assert received == sent == 110_001  # before compression

    run(main())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"server_max_window_bits": 16}, "Deflate: server_max_window_bits must be 8 to 15, or None, not 16"),
        ({"client_max_window_bits": 8}, "client_max_window_bits must be 9 to 15"),
        ({"level": 10}, "level must be 0 to 9"),
        ({"memory_level": 0}, "memory_level must be 1 to 9"),
    ],
)
def test_wrong_parameters_of_deflate(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Deflate(**parameters)


# Redirects


def hops(request: Request) -> Response | None:
    """/3 leads to /2, /1 and /0, which accepts."""
    left = int(request.path[1:])
    return redirect_to(f"/{left - 1}", (301, 302, 303, 307, 308)[left % 5]) if left else None


def test_redirects_are_followed(bench: Bench) -> None:
    async def main() -> None:
        async with (
            Site(hops) as site,
            bench.client().connect(
                site.url + "/5", bearer="secret", cookies={"a": "1"}, headers={"X": "y"}
            ) as connection,
        ):
            await connection.send("x")
            assert await connection.recv() == "x"
            assert [request.path for request in site.requests] == ["/5", "/4", "/3", "/2", "/1", "/0"]
            for request in site.requests:  # all of one origin
                assert request.headers["Authorization"] == "Bearer secret"
                assert request.headers["Cookie"] == "a=1"

    run(main())
    assert bench.types() == ["WS CONNECT", "WS SEND", "WS RECV", "WS SESSION"]
    assert bench.rows[0].name == "/5" and bench.rows[0].error is None


def redirect_fails(bench: Bench, rule: Answer, path: str = "/", **options: Any) -> HandshakeError:
    async def main() -> HandshakeError:
        async with Site(rule) as site:
            with pytest.raises(HandshakeError) as caught:
                await bench.client().connect(site.url + path, **options)
        return caught.value

    error = run(main())
    assert bench.only("WS CONNECT").error is error
    return error


def test_too_many_redirects(bench: Bench) -> None:
    error = redirect_fails(bench, hops, "/4", redirect_limit=3)
    assert str(error) == "the server redirects the handshake more often than redirect_limit"


def test_redirects_switched_off(bench: Bench) -> None:
    error = redirect_fails(bench, hops, "/2", redirect_limit=0)
    assert isinstance(error, HandshakeRejected) and error.status_code == 302 + 1  # 303 of the table in hops()


@pytest.mark.parametrize("location", ["ftp://h/", "ws://", "http://h:99999/"])
def test_a_redirect_to_no_websocket(bench: Bench, location: str) -> None:
    error = redirect_fails(bench, lambda request: redirect_to(location))
    assert str(error) == "the server redirects the handshake to what is not a WebSocket's URL"


def test_a_redirect_without_a_location(bench: Bench) -> None:
    error = redirect_fails(bench, lambda request: answer(302))
    assert isinstance(error, HandshakeRejected) and error.status_code == 302


@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_credentials_stay_with_their_origin(bench: Bench, scheme: str) -> None:
    async def main() -> None:
        async with Site() as other:
            location = other.url.replace("ws", scheme, 1) + "/there#fragment"
            async with (
                Site(lambda request: redirect_to(location)) as site,
                bench.client().connect(
                    site.url,
                    headers={
                        "Authorization": "secret",
                        "COOKIE": "secret",
                        "Host": "secret.example",
                        "X-Api-Key": "secret",
                        "X-Tenant": "7",
                        "Accept-Language": "de",
                    },
                    redirect_headers=["x-tenant"],
                    cookies={"session": "secret"},
                    origin="https://shop.example",
                    subprotocols=(),
                ),
            ):
                assert "secret" in site.headers["Authorization"]
                assert other.requests[0].path == "/there"
                assert not [value for _, value in other.headers.raw_items() if "secret" in value]
                assert other.headers["X-Tenant"] == "7" and other.headers["Origin"] == "https://shop.example"
                assert other.headers["Accept-Language"] == "de" and other.headers["Host"] in other.url

            async with (
                Site(lambda request: redirect_to(location)) as site,
                bench.client().connect(site.url.replace("://", "://me:secret@")),
            ):
                assert "Authorization" in site.headers and "Authorization" not in other.headers

    run(main())


# The URL


def test_a_url_with_what_must_be_encoded(bench: Bench) -> None:
    async def main() -> None:
        async with Site() as site, bench.client(base_url=site.url).connect("/a b/é?q=c d%20|") as connection:
            assert site.requests[0].path == "/a%20b/%C3%A9?q=c%20d%20%7C"
            assert connection.url.endswith("/a%20b/%C3%A9?q=c%20d%20%7C")

    run(main())
    assert {row.name for row in bench.rows} == {"/a b/é"}


def test_a_redirect_to_what_must_be_encoded(bench: Bench) -> None:
    async def main() -> None:
        async with (
            Site(lambda request: redirect_to("/a b?c|") if request.path == "/" else None) as site,
            bench.client().connect(site.url),
        ):
            assert site.requests[1].path == "/a%20b?c%7C"

    run(main())


# Cookies and headers of the HTTP client


class FastSession:
    """The shape that FastHttpUser's client is given by the glue: a plain jar."""

    def __init__(self) -> None:
        self.cookies = CookieJar()
        self.headers: dict[str, str] = {"Authorization": "Bearer of HTTP", "Accept": "*/*"}


def requests_session() -> requests.Session:
    session = requests.Session()
    session.headers["Authorization"] = b"Bearer of HTTP"
    return session


@pytest.mark.parametrize("new_session", [requests_session, FastSession])
def test_cookies_go_both_ways(bench: Bench, new_session: Callable[[], Any]) -> None:
    session = new_session()

    def login(request: Request) -> Response | None:
        if request.path == "/login":
            return redirect_to("/room/1", Set_Cookie="user=7; Path=/")
        return None

    async def main() -> None:
        client = bench.client(http_session=session)
        async with Site(login, set_cookie=("room=1; Path=/room", "secret=2; Path=/; Secure")) as site:
            async with client.connect(site.url + "/login", share_cookies=True):
                assert "Cookie" not in site.requests[0].headers
                assert site.headers["Cookie"] == "user=7"
            async with client.connect(site.url + "/room/2", share_cookies=True, cookies={"user": "8", "own": "1"}):
                assert site.headers["Cookie"] == "room=1; user=8; own=1"
            async with client.connect(site.url + "/other", share_cookies=True):
                assert site.headers["Cookie"] == "user=7"
            async with client.connect(site.url + "/other"):
                assert "Cookie" not in site.headers

    run(main())
    assert {cookie.name for cookie in session.cookies} == {"user", "room", "secret"}


def test_a_rejected_handshake_may_set_cookies(bench: Bench) -> None:
    session = requests.Session()

    async def main() -> None:
        async with Site(lambda request: answer(401, Set_Cookie="tried=1")) as site:
            with pytest.raises(HandshakeRejected):
                await bench.client(http_session=session).connect(site.url, share_cookies=True)

    run(main())
    assert session.cookies["tried"] == "1"


def test_the_cookies_of_http_are_sent(bench: Bench) -> None:
    """Set by a real HTTP answer, of requests."""
    session = requests.Session()

    async def main() -> None:
        async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\nSet-Cookie: sid=42\r\n\r\n")

        async with tcp_server(page) as url:
            await asyncio.to_thread(session.get, url.replace("ws", "http", 1))
        async with Site() as site:
            async with bench.client(http_session=session).connect(site.url, share_cookies=True):
                assert site.headers["Cookie"] == "sid=42"  # cookies know no ports: RFC 6265 section 8.5
            async with bench.client(http_session=session).connect(
                site.url.replace("127.0.0.1", "localhost"), share_cookies=True
            ):
                assert "Cookie" not in site.headers

    run(main())
    session.close()


@pytest.mark.parametrize("new_session", [requests_session, FastSession])
def test_shared_headers(bench: Bench, new_session: Callable[[], Any]) -> None:
    async def main() -> None:
        client = bench.client(http_session=new_session())
        async with Site() as site:
            async with client.connect(site.url, share_headers=("authorization", "X-Unknown")):
                assert site.headers["Authorization"] == "Bearer of HTTP"
                assert "Accept" not in site.headers and "X-Unknown" not in site.headers
            async with client.connect(site.url, share_headers=("Authorization",), bearer="mine"):
                assert site.headers["Authorization"] == "Bearer mine"

    run(main())


@pytest.mark.parametrize("options", [{"share_cookies": True}, {"share_headers": ("Authorization",)}])
def test_nothing_to_share_with(bench: Bench, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="share_cookies and share_headers need an HTTP client of the same user"):
        bench.client().connect("/echo", **options)


# The time limit, in each phase


@contextlib.asynccontextmanager
async def full_backlog() -> AsyncIterator[str]:
    """A port that accepts no TCP connection: its backlog is full, so SYN packets are dropped."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        await asyncio.sleep(0)
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"


def silent() -> contextlib.AbstractAsyncContextManager[str]:
    return tcp_server(until_eof)


@pytest.mark.parametrize(
    ("server", "scheme", "proxy", "phase"),
    [
        (full_backlog, "ws", None, "the TCP connection"),
        (silent, "wss", None, "the TLS handshake"),
        (silent, "ws", None, "the answer to the opening handshake"),
        (silent, "ws", "http", "the proxy"),
        (silent, "ws", "socks5h", "the proxy"),
    ],
)
def test_the_time_limit_covers_each_phase(
    bench: Bench,
    server: Callable[[], contextlib.AbstractAsyncContextManager[str]],
    scheme: str,
    proxy: str | None,
    phase: str,
) -> None:
    async def main() -> None:
        async with server() as url:
            options: dict[str, Any] = {} if proxy is None else {"proxy": url.replace("ws", proxy, 1)}
            with pytest.raises(ConnectTimeout) as caught:
                await bench.client().connect(url.replace("ws", scheme, 1), open_timeout=1 * SCALE, **options)
        assert repr(caught.value) == f"ConnectTimeout('no connection within open_timeout, while waiting for {phase}')"

    run(main())
    row = bench.only("WS CONNECT")
    assert row.time is not None and row.time >= 1000 * SCALE


class LoopWithSilentResolver(asyncio.SelectorEventLoop):
    async def getaddrinfo(self, *arguments: Any, **hints: Any) -> Any:
        await self.create_future()


def test_the_time_limit_covers_name_lookup(bench: Bench) -> None:
    async def main() -> None:
        with pytest.raises(ConnectTimeout) as caught:
            await bench.client().connect("ws://server.invalid/", open_timeout=0.05)
        assert str(caught.value) == "no connection within open_timeout, while waiting for name lookup"

    run(main(), new_loop=LoopWithSilentResolver)
    row = bench.only("WS CONNECT")
    assert isinstance(row.error, ConnectTimeout) and row.time is not None and row.time >= 50


def test_a_redirect_does_not_restart_the_time(bench: Bench) -> None:
    async def main() -> None:
        async with silent() as url, Site(lambda request: redirect_to(url)) as site:
            with pytest.raises(ConnectTimeout):
                await bench.client().connect(site.url, open_timeout=0.2)

    run(main())


def test_cancelling_each_phase(bench: Bench) -> None:
    """Leaves nothing open: a socket that stays would be a ResourceWarning."""

    async def connect(url: str, options: dict[str, Any]) -> None:
        await bench.client().connect(url, **options)

    async def main() -> None:
        for server, scheme, proxy in (
            (full_backlog, "ws", None),
            (silent, "wss", None),
            (silent, "ws", None),
            (silent, "ws", "http"),
            (silent, "ws", "socks5h"),
        ):
            async with server() as url:
                options: dict[str, Any] = {} if proxy is None else {"proxy": url.replace("ws", proxy, 1)}
                connecting = asyncio.create_task(connect(url.replace("ws", scheme, 1), options))
                await asyncio.sleep(0.05)
                connecting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await connecting

    run(main())
    assert bench.rows == []
