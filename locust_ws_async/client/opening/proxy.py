"""The way to a server through a proxy, which makes the TCP connection to it."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import math
import socket
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from websockets.datastructures import Headers
from websockets.exceptions import InvalidProxy
from websockets.headers import build_authorization_basic, build_host
from websockets.uri import WebSocketURI

from ...exceptions import ConnectError, HandshakeError, ProxyError
from ...internals.websockets import Proxy, get_proxy, parse_proxy
from ...masking import quoted_url
from ..observing.timing import ConnectPhases
from ..wire.answer import Answer
from ..wire.interface import TOO_LONG
from .network import Dialer, connect_error

__all__ = ["check_proxy", "proxy_dialer", "proxy_for"]

_NO_ANSWER = "the proxy did not answer CONNECT, or not in HTTP"
_TOO_LONG = "the proxy's answer to CONNECT has headers of over 64 KiB"


def check_proxy(proxy: str) -> Proxy:
    """
    Parse a proxy's URL.

    Raises:
        ValueError: it is no URL of a proxy that can be used.
        ImportError: a SOCKS proxy needs the package python-socks.
    """
    try:
        parsed = _with_credentials(parse_proxy(proxy), proxy)
    except (InvalidProxy, ValueError) as exc:
        # Not their own texts, which quote the password.
        why = exc.msg if isinstance(exc, InvalidProxy) else "no valid host and port"
        raise ValueError(
            "proxy must be http://host:port or socks5h://host:port (also socks5, socks4a, socks4), not "
            f"{quoted_url(proxy)}: {why}"
        ) from None
    if parsed.scheme == "https":
        # Engines take a connected socket, which a TLS connection within a TLS connection is not.
        raise ValueError("proxy: TLS to the proxy itself (https://) is not supported: use http:// or socks5h://")
    if parsed.scheme == "http" and ":" in (parsed.username or ""):
        raise ValueError("proxy: a user name cannot contain a colon (RFC 7617 section 2)")
    if parsed.scheme.startswith("socks") and importlib.util.find_spec("python_socks") is None:
        raise ImportError(
            f'proxy = "{parsed.scheme}://..." needs the package python-socks: pip install python-socks',
            name="python_socks",
        )
    return parsed


def _with_credentials(parsed: Proxy, proxy: str) -> Proxy:
    """The user name and the password as they are meant: websockets before 17.2 leaves them encoded for a URL."""
    url = urlsplit(proxy)
    if url.username is None or url.password is None:
        return parsed
    username, password = unquote(url.username, errors="strict"), unquote(url.password, errors="strict")
    return dataclasses.replace(parsed, username=username, password=password)


def proxy_for(setting: str | bool | None, uri: WebSocketURI) -> Proxy | None:
    """The proxy for this URL: the one of the setting, or for True that of the system (``HTTPS_PROXY``, ...) if any."""
    if setting is True:
        setting = get_proxy(uri)
    return check_proxy(setting) if isinstance(setting, str) else None


def proxy_dialer(proxy: Proxy, direct: Dialer, phases: ConnectPhases) -> Dialer:
    """
    The way to servers through this proxy.

    Its ``connect`` raises :exc:`ProxyError` when the proxy cannot be reached, or does not connect to the server.

    Args:
        proxy: the proxy, as :func:`check_proxy` gives it.
        direct: the way to the proxy.
        phases: is told when the proxy is asked.
    """
    to_proxy = _ToProxy(direct, phases)
    return _HTTPProxyDialer(proxy, to_proxy) if proxy.scheme == "http" else _SocksDialer(proxy, to_proxy)


class _ToProxy:
    """The first hop of a connection. python-socks calls ``connect`` by these names."""

    def __init__(self, direct: Dialer, phases: ConnectPhases) -> None:
        self._direct = direct
        self._phases = phases

    async def connect(self, dest_host: str, dest_port: int, timeout: float | None = None) -> socket.socket:
        try:
            sock = await self._direct.connect(dest_host, dest_port)
        except OSError as exc:
            address = build_host(dest_host, dest_port, False, always_include_port=True)
            raise ProxyError(
                f"no connection to the proxy: {connect_error(exc, self._phases.current, address)}"
            ) from exc
        self._phases.enter("proxy")
        return sock


class _HTTPProxyDialer:
    """Asks an HTTP proxy to CONNECT (RFC 9110 section 9.3.6), also for ``ws://`` (RFC 6455 section 4.1)."""

    def __init__(self, proxy: Proxy, to_proxy: _ToProxy) -> None:
        self._proxy = proxy
        self._to_proxy = to_proxy

    async def connect(self, host: str, port: int) -> socket.socket:
        proxy = self._proxy
        authority = build_host(host, port, False, always_include_port=True)
        headers = Headers(Host=authority)
        if proxy.user_info is not None:
            headers["Proxy-Authorization"] = build_authorization_basic(*proxy.user_info)
        loop = asyncio.get_running_loop()
        sock = await self._to_proxy.connect(proxy.host, proxy.port)
        try:
            await loop.sock_sendall(sock, f"CONNECT {authority} HTTP/1.1\r\n".encode() + headers.serialize())
            status, reason, rest = await _read_answer(loop, sock)
            if not 200 <= status < 300:
                raise ProxyError(f"the proxy answered CONNECT with HTTP {status} {reason}".rstrip())
            if rest:
                # The server behind the proxy cannot have spoken: in TLS as in HTTP the client speaks first.
                raise ProxyError("the proxy sent more than its answer to CONNECT")
        except BaseException:
            sock.close()
            raise
        return sock


async def _read_answer(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> tuple[int, str, bytes]:
    """The status, the reason, and what came behind the headers."""
    answer = Answer(has_body=False)
    complete = False
    while not complete:
        try:
            data = await loop.sock_recv(sock, 65536)
        except ConnectionError:
            data = b""
        if not data:
            break
        try:
            complete = answer.feed(data)
        except HandshakeError as exc:
            raise ProxyError(_TOO_LONG if exc.text == TOO_LONG else _NO_ANSWER) from exc
    response = answer.end()
    if response is None or (not complete and response.status_code < 300):
        raise ProxyError(_NO_ANSWER)
    return response.status_code, response.reason_phrase, answer.rest


class _SocksDialer:
    """Asks a SOCKS proxy, by the package python-socks, which gets its sockets from us."""

    def __init__(self, proxy: Proxy, to_proxy: _ToProxy) -> None:
        self._proxy = proxy
        self._to_proxy = to_proxy

    async def connect(self, host: str, port: int) -> socket.socket:
        import python_socks
        from python_socks.async_.asyncio import Proxy as SocksProxy

        proxy = self._proxy
        kind = python_socks.ProxyType.SOCKS5 if proxy.scheme.startswith("socks5") else python_socks.ProxyType.SOCKS4
        proxy_looks_names_up = proxy.scheme in ("socks5h", "socks4a")
        # python-socks connects to a proxy through the proxy before it, of which it calls `connect` alone.
        socks = SocksProxy(
            kind,
            proxy.host,
            proxy.port,
            proxy.username,
            proxy.password,
            proxy_looks_names_up,
            cast(Any, self._to_proxy),
        )
        try:
            return await socks.connect(host, port, timeout=math.inf)  # open_timeout is the limit
        except python_socks.ProxyError as exc:
            raise ProxyError(f"the SOCKS proxy did not connect: {exc}") from exc
        except ConnectionError as exc:
            if isinstance(exc, ConnectError):
                raise
            raise ProxyError("the SOCKS proxy closed the connection") from exc
