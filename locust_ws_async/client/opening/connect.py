"""From a URL and options to an open connection: proxies, redirects, cookies, and the time limit on all of it."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import sys

from ...exceptions import ConnectTimeout, HandshakeError, HandshakeRejected
from ..options import ConnectOptions
from ..wire.interface import Engine, EngineSettings, Sink, Target
from .cookies import HTTPSession, store_cookies
from .handshake import handshake_target, redirect, split_credentials
from .network import SocketFactory, connect_error, connect_socket, connect_unix_socket
from .proxy import connect_through, proxy_for
from .timing import ConnectPhases

__all__ = ["engine_settings", "open_wire"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def engine_settings(options: ConnectOptions) -> EngineSettings:
    """What an engine needs to know of these options."""
    return EngineSettings(
        compression=options.compression,
        subprotocols=options.subprotocols,
        max_size=sys.maxsize if options.max_size is None else options.max_size,
        close_timeout=options.close_timeout,
        unix_socket=options.unix_socket is not None,
    )


async def open_wire(
    engine: Engine,
    url: str,
    options: ConnectOptions,
    sink: Sink,
    phases: ConnectPhases,
    *,
    new_socket: SocketFactory,
    session: HTTPSession | None,
) -> None:
    """
    Connect to this URL. Returns after ``sink.opened``. Cancelling cuts the connection.

    Raises:
        ConnectError: there is no connection.
    """
    timeout = asyncio.timeout(options.open_timeout)
    try:
        async with timeout:
            await _follow(engine, url, options, sink, phases, new_socket, session)
    except OSError as exc:
        error = ConnectTimeout(phases.waiting_for) if timeout.expired() else connect_error(exc, phases.current)
        if error is exc:
            raise
        raise error from exc


async def _follow(
    engine: Engine,
    url: str,
    options: ConnectOptions,
    sink: Sink,
    phases: ConnectPhases,
    new_socket: SocketFactory,
    session: HTTPSession | None,
) -> None:
    jar = session.cookies if session is not None and options.share_cookies else None
    url, options = split_credentials(url, options)
    redirects = 0
    while True:
        target = handshake_target(url, options, session)
        sock = await _connect(target, options, phases, new_socket)
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


async def _connect(
    target: Target, options: ConnectOptions, phases: ConnectPhases, new_socket: SocketFactory
) -> socket.socket:
    if options.unix_socket is not None:
        return await connect_unix_socket(os.fspath(options.unix_socket), new_socket, phases)
    connect = functools.partial(connect_socket, new_socket=new_socket, source=options.source, phases=phases)
    proxy = proxy_for(options.proxy, target.uri)
    if proxy is None:
        return await connect(target.uri.host, target.uri.port)

    async def connect_to_proxy(host: str, port: int) -> socket.socket:
        sock = await connect(host, port)
        phases.enter("proxy")
        return sock

    return await connect_through(proxy, target.uri.host, target.uri.port, connect_to_proxy)
