"""Through a proxy: a TCP connection to the server that somebody else makes."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.datastructures import Headers
from websockets.exceptions import InvalidProxy, SecurityError
from websockets.headers import build_authorization_basic, build_host
from websockets.http11 import Response
from websockets.proxy import Proxy, get_proxy, parse_proxy
from websockets.streams import StreamReader
from websockets.uri import WebSocketURI

from ...exceptions import ConnectError, ProxyError
from .network import connect_error

__all__ = ["check_proxy", "connect_through", "proxy_for"]

OpenSocket = Callable[[str, int], Awaitable[socket.socket]]
"""Opens a TCP connection to (host, port)."""


def check_proxy(proxy: str) -> Proxy:
    """
    Parse a proxy's URL.

    Raises:
        ValueError: it is none that can be used.
        ImportError: a SOCKS proxy needs the package python-socks.
    """
    try:
        parsed = parse_proxy(proxy)
    except (InvalidProxy, ValueError) as exc:
        raise ValueError(
            f"proxy must be http://host:port or socks5h://host:port (also socks5, socks4a, socks4): {exc}"
        ) from exc
    if parsed.scheme == "https":
        # Engines take a connected socket, and TLS within TLS is none.
        raise ValueError("proxy: TLS to the proxy itself (https://) is not supported: use http:// or socks5h://")
    if parsed.scheme == "http" and ":" in (parsed.username or ""):
        raise ValueError("proxy: a user name cannot contain a colon (RFC 7617 section 2)")
    if parsed.scheme.startswith("socks") and importlib.util.find_spec("python_socks") is None:
        raise ImportError(
            f'proxy = "{parsed.scheme}://..." needs the package python-socks: pip install python-socks',
            name="python_socks",
        )
    return parsed


def proxy_for(setting: str | bool | None, uri: WebSocketURI) -> Proxy | None:
    """The proxy for this URL: the one of the setting, or for True that of the system (``HTTPS_PROXY``, ...) if any."""
    if setting is True:
        setting = get_proxy(uri)
    return check_proxy(setting) if isinstance(setting, str) else None


async def connect_through(proxy: Proxy, host: str, port: int, open_socket: OpenSocket) -> socket.socket:
    """
    Connect to a host and port through a proxy.

    Cancelling closes the socket.

    Raises:
        ProxyError: the proxy cannot be reached, or does not connect.
    """

    async def open_to_proxy(proxy_host: str, proxy_port: int) -> socket.socket:
        try:
            return await open_socket(proxy_host, proxy_port)
        except OSError as exc:
            raise ProxyError(f"no connection to the proxy: {connect_error(exc)}") from exc

    connect = _http_connect if proxy.scheme == "http" else _socks_connect
    return await connect(proxy, host, port, open_to_proxy)


async def _http_connect(proxy: Proxy, host: str, port: int, open_socket: OpenSocket) -> socket.socket:
    # RFC 9110 section 9.3.6; RFC 6455 section 4.1 wants it for ws:// as well.
    authority = build_host(host, port, False, always_include_port=True)
    headers = Headers(Host=authority)
    if proxy.user_info is not None:
        headers["Proxy-Authorization"] = build_authorization_basic(*proxy.user_info)
    loop = asyncio.get_running_loop()
    sock = await open_socket(proxy.host, proxy.port)
    try:
        await loop.sock_sendall(sock, f"CONNECT {authority} HTTP/1.1\r\n".encode() + headers.serialize())
        stream = StreamReader()
        answer = await _read_answer(loop, sock, stream)
        if not 200 <= answer.status_code < 300:
            phrase = f" {answer.reason_phrase}" if answer.reason_phrase else ""
            raise ProxyError(f"the proxy answered CONNECT with HTTP {answer.status_code}{phrase}")
        if stream.buffer:
            # The server behind it cannot have spoken: in TLS as in HTTP the client is the first to speak.
            raise ProxyError("the proxy sent more than its answer to CONNECT")
    except BaseException:
        sock.close()
        raise
    return sock


async def _read_answer(loop: asyncio.AbstractEventLoop, sock: socket.socket, stream: StreamReader) -> Response:
    parser = Response.parse(stream.read_line, stream.read_exact, stream.read_to_eof, proxy=True)
    while True:
        try:
            next(parser)
        except StopIteration as parsed:
            response: Response = parsed.value
            return response
        except (EOFError, LookupError, ValueError, SecurityError) as exc:
            raise ProxyError("the proxy did not answer CONNECT, or not in HTTP") from exc
        try:
            data = await loop.sock_recv(sock, 65536)
        except ConnectionError:
            data = b""
        if data:
            stream.feed_data(data)
        else:
            stream.feed_eof()


async def _socks_connect(proxy: Proxy, host: str, port: int, open_socket: OpenSocket) -> socket.socket:
    import python_socks
    from python_socks.async_.asyncio import Proxy as SocksProxy

    class Direct(SocksProxy):
        """The hop before the proxy: python-socks opens its sockets through it. So they are of our making."""

        async def connect(
            self, dest_host: str, dest_port: int, timeout: float | None = None, **kwargs: Any
        ) -> socket.socket:
            return await open_socket(dest_host, dest_port)

    kind = python_socks.ProxyType.SOCKS5 if proxy.scheme.startswith("socks5") else python_socks.ProxyType.SOCKS4
    remote_lookup = proxy.scheme in ("socks5h", "socks4a")
    direct = Direct(kind, proxy.host, proxy.port)
    socks = SocksProxy(kind, proxy.host, proxy.port, proxy.username, proxy.password, remote_lookup, direct)
    try:
        return await socks.connect(host, port, timeout=math.inf)  # open_timeout is the limit
    except python_socks.ProxyError as exc:
        raise ProxyError(f"the SOCKS proxy did not connect: {exc}") from exc
    except ConnectionError as exc:
        if isinstance(exc, ConnectError):
            raise
        raise ProxyError("the SOCKS proxy closed the connection") from exc
