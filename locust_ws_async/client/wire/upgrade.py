"""The opening handshake on a transport, until it is the engine's: the same for every engine."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from time import perf_counter
from typing import cast

from ...exceptions import HandshakeError, HandshakeRejected
from ...hosting import no_inline_wait
from ...masking import MaskingLog
from .answer import Answer, agreed_subprotocol
from .interface import NO_ANSWER, NO_ANSWER_OVER_TLS, Wire
from .stamps import StampedSocket

__all__ = ["BareSocket", "Start", "Switch", "Upgrade"]

_logger = MaskingLog(logging.getLogger("locust_ws_async.handshake"))

_READ = 4096  # bytes of the answer at a time

_BODY_PATIENCE = 0.25
"""Seconds that the rest of an answer may take whose status is known to be none of a WebSocket."""

Start = Callable[[asyncio.Transport], str]
"""Sends the request; returns its ``Sec-WebSocket-Key``."""

Switch = Callable[[asyncio.Transport, Answer, "str | None", float], Wire]
"""Hands the transport over to the engine's protocol, with the answer, the subprotocol, and when the answer came."""


class Upgrade(asyncio.Protocol):
    """
    Sends the request, reads the answer, and hands the transport over to the engine's own protocol.

    Args:
        start: see :data:`Start`.
        switch: see :data:`Switch`.
        subprotocols: those that are offered.
        kernel: the socket, if it knows when what it read arrived.
    """

    __slots__ = (
        "_answer",
        "_done",
        "_kernel",
        "_key",
        "_over",
        "_patience",
        "_start",
        "_subprotocols",
        "_switch",
        "_transport",
    )

    def __init__(
        self, start: Start, switch: Switch, subprotocols: tuple[str, ...], kernel: StampedSocket | None = None
    ) -> None:
        self._start = start
        self._switch = switch
        self._subprotocols = subprotocols
        self._kernel = kernel
        self._answer = Answer()
        self._key = ""
        self._over = False
        self._done: asyncio.Future[Wire] = asyncio.get_running_loop().create_future()
        self._patience: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    async def wait(self, wait_for_io_inline: Callable[[], bool] = no_inline_wait) -> Wire:
        """
        Wait until the handshake is over. Cancelling cuts the connection, as an error does.

        Args:
            wait_for_io_inline: see :func:`.hosting.inline_wait_of`.

        Raises:
            HandshakeError: the answer was not that of a WebSocket server, or there was none.
            ssl.SSLError: the server ended TLS, because of our certificate for instance.
        """
        try:
            while not self._done.done() and wait_for_io_inline():
                pass
            return await self._done
        except BaseException:
            self._over = True
            self._transport.abort()
            raise
        finally:
            if self._patience is not None:
                self._patience.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._key = self._start(self._transport)

    def data_received(self, data: bytes) -> None:
        kernel = self._kernel
        # Another loop than asyncio's reads by itself, so that the socket does not know.
        arrived = perf_counter() if kernel is None or kernel.arrived < 0 else kernel.arrived
        if self._over:
            return
        answer = self._answer
        try:
            if answer.feed_known(data, self._key) or answer.feed(data):
                self._complete(arrived)
            elif self._patience is None and answer.refuses:
                self._patience = asyncio.get_running_loop().call_later(_BODY_PATIENCE, self._end)
        except Exception as exc:  # a HandshakeError, unless something of ours is broken: then it is told as well
            self._fail(exc)

    def _complete(self, arrived: float) -> None:
        response = self._answer.response
        assert response is not None
        if _logger.isEnabledFor(logging.DEBUG):
            headers = "".join(f"\n< {name}: {value}" for name, value in response.headers.raw_items())
            _logger.debug("< HTTP/1.1 %d %s%s", response.status_code, response.reason_phrase, headers)
        if self._answer.known:
            subprotocol = None
        else:
            if response.status_code != 101:
                raise HandshakeRejected(response.status_code, response)
            subprotocol = agreed_subprotocol(self._answer, self._key, self._subprotocols)
        wire = self._switch(self._transport, self._answer, subprotocol, arrived)
        self._over = True
        if not self._done.done():
            self._done.set_result(wire)

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, ssl.SSLError):
            self._fail(exc)
        else:
            self._end()

    def _end(self) -> None:
        """Make of the answer what can be made of it."""
        try:
            response = None if self._over else self._answer.end()
        except HandshakeError as exc:
            self._fail(exc)
        else:
            self._fail(self._no_answer() if response is None else HandshakeRejected(response.status_code, response))

    def _no_answer(self) -> HandshakeError:
        # With TLS 1.3 a server checks our certificate after the handshake. One in asyncio closes without saying why.
        over_tls = self._transport.get_extra_info("sslcontext") is not None
        return HandshakeError(NO_ANSWER_OVER_TLS if over_tls else NO_ANSWER)

    def _fail(self, exc: Exception) -> None:
        if not self._over:
            self._over = True
            if not self._done.done():
                self._done.set_exception(exc)
                self._done.exception()  # nobody waits for it when TLS itself was cancelled meanwhile


class BareSocket:
    """
    Stands for the transport of an :class:`Upgrade`, on a socket without TLS that has none yet.

    asyncio takes three callbacks and a future to begin with a transport. One that is made when the answer is there
    takes two callbacks.

    Args:
        loop: lets readers and writers be added.
        sock: connected.
        upgrade: the handshake.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, upgrade: Upgrade) -> None:
        self._loop = loop
        self._sock = sock
        self._upgrade = upgrade
        self._unsent = b""
        self._transport: asyncio.Transport | None = None

    def begin(self) -> None:
        """Send the request, and read the answer from now on."""
        self._loop.add_reader(self._sock, self._read)
        self._upgrade.connection_made(cast(asyncio.Transport, self))

    def write(self, data: bytes) -> None:
        """Send this, or as much as there is room for, and the rest when there is."""
        try:
            data = data[self._sock.send(data) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as exc:
            self._loop.remove_reader(self._sock)
            self._loop.call_soon(self._upgrade.connection_lost, exc)
            data = b""
        if self._unsent and not data:
            self._loop.remove_writer(self._sock)
        elif data and not self._unsent:
            self._loop.add_writer(self._sock, self._write_rest)
        self._unsent = data

    def _write_rest(self) -> None:
        self.write(self._unsent)

    def _read(self) -> None:
        if self._transport is not None:
            return
        try:
            data = self._sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._loop.remove_reader(self._sock)
            self._upgrade.connection_lost(exc)
            return
        if data:
            self._upgrade.data_received(data)
        else:
            self._loop.remove_reader(self._sock)
            self._upgrade.eof_received()

    def replace(self, make_transport: Callable[[socket.socket], asyncio.Transport]) -> asyncio.Transport:
        """Leave the socket to the transport that this makes. In the next pass of the loop its reader replaces ours."""
        if self._unsent:  # the server did not want to read all of the request
            self._loop.remove_writer(self._sock)
        self._transport = make_transport(self._sock)
        return self._transport

    def abort(self) -> None:
        """Cut the connection. Called by the upgrade when it has failed."""
        if self._transport is not None:
            self._transport.abort()
        else:
            self._loop.remove_reader(self._sock)
            if self._unsent:
                self._loop.remove_writer(self._sock)
            self._sock.close()

    def get_extra_info(self, name: str) -> None:
        """Say that there is nothing such as TLS. Called by the upgrade."""
