"""From a URL and options to an open WebSocket: the way there, redirects, cookies, and one time limit for all of it."""

from __future__ import annotations

import asyncio
import os
import socket

from ...exceptions import ConnectTimeout, HandshakeError, HandshakeRejected
from ..observing.timing import ConnectPhases
from ..options import ConnectOptions
from ..wire.interface import Engine, EngineSettings, Sink, Target
from .cookies import HTTPSession, store_cookies
from .handshake import constant_address, handshake_target, redirect, split_credentials
from .lookups import Lookups
from .network import Dialer, DirectDialer, SocketFactory, UnixSocketDialer, connect_error
from .proxy import proxy_dialer, proxy_for

__all__ = ["connect_to_url", "engine_settings"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def _memory() -> int:
    """Bytes of memory of this machine; where Python does not tell them, of a very large one."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return 2**40


_MEMORY = _memory()


def engine_settings(options: ConnectOptions) -> EngineSettings:
    """What an engine needs to know of these options."""
    return options.derived(
        "engine_settings",
        lambda: EngineSettings(
            compression=options.compression,
            subprotocols=options.subprotocols,
            max_size=_MEMORY if options.max_size is None else options.max_size,
            close_timeout=options.close_timeout,
            unix_socket=options.unix_socket is not None,
            arrival=options.arrival,
        ),
    )


async def connect_to_url(
    engine: Engine,
    url: str,
    options: ConnectOptions,
    sink: Sink,
    phases: ConnectPhases,
    *,
    new_socket: SocketFactory,
    http_session: HTTPSession | None,
    base_url: str | None = None,
) -> None:
    """
    Open a WebSocket connection to this URL, through a proxy and after redirects where the options say so.

    This returns after the engine has called ``sink.opened``. Cancelling cuts the connection.

    Args:
        engine: performs the opening handshake.
        url: where to connect to, with ``ws://`` or ``wss://``.
        options: the settings of the connection.
        sink: is called by the engine from the opening handshake on.
        phases: is told when each phase of the connect begins.
        new_socket: makes the sockets.
        http_session: the HTTP client of the user, for ``share_cookies`` and ``share_headers``.
        base_url: the host that paths are joined to, whose address may stand in the texts of errors.

    Raises:
        ConnectError: there is no connection.
    """
    timeout = asyncio.timeout(options.open_timeout)
    try:
        async with timeout:
            await _follow_redirects(engine, url, options, sink, phases, new_socket, http_session, base_url)
    except OSError as exc:
        error = ConnectTimeout(phases.waiting_for) if timeout.expired() else connect_error(exc, phases.current)
        if error is exc:
            raise
        raise error from exc


async def _follow_redirects(
    engine: Engine,
    url: str,
    options: ConnectOptions,
    sink: Sink,
    phases: ConnectPhases,
    new_socket: SocketFactory,
    http_session: HTTPSession | None,
    base_url: str | None,
) -> None:
    jar = http_session.cookies if http_session is not None and options.share_cookies else None
    url, options = split_credentials(url, options)
    redirects = 0
    while True:
        target = handshake_target(url, options, http_session)
        dialer = _dialer(target, options, phases, new_socket)
        try:
            sock = await dialer.connect(target.uri.host, target.uri.port)
        except (ConnectionRefusedError, socket.gaierror) as exc:
            raise connect_error(exc, phases.current, constant_address(target.uri, base_url)) from exc
        phases.enter("tls" if target.ssl else "upgrade")
        try:
            wire = await engine.open_wire(target, sock, engine_settings(options), sink)
        except HandshakeRejected as exc:
            headers = exc.response.headers
            if jar is not None:
                store_cookies(jar, url, headers)
            location = headers.get("Location")
            if exc.status_code not in _REDIRECTS or location is None or not options.redirect_limit:
                raise
            if redirects == options.redirect_limit:
                raise HandshakeError("the server redirects the handshake more often than redirect_limit") from exc
            url, options = redirect(url, location, options)
            redirects += 1
        else:
            if jar is not None:
                store_cookies(jar, url, wire.response.headers)
            return


def _dialer(target: Target, options: ConnectOptions, phases: ConnectPhases, new_socket: SocketFactory) -> Dialer:
    """The way to this target."""
    if options.unix_socket is not None:
        return UnixSocketDialer(os.fspath(options.unix_socket), new_socket, phases)
    direct = DirectDialer(new_socket, options.source, Lookups.shared(options.lookups), phases)
    proxy = proxy_for(options.proxy, target.uri)
    return direct if proxy is None else proxy_dialer(proxy, direct, phases)
