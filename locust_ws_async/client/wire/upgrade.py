"""The opening handshake on a transport, until it is the engine's: the same for every engine."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from time import perf_counter
from typing import cast

from ...exceptions import HandshakeError, HandshakeRejected
from ...masking import MaskingLog
from .answer import Answer, agreed_subprotocol
from .interface import NO_ANSWER, NO_ANSWER_OVER_TLS, Wire
from .stamps import StampedSocket

__all__ = ["Start", "Switch", "Upgrade"]

_logger = MaskingLog(logging.getLogger("locust_ws_async.handshake"))

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

    async def wait(self) -> Wire:
        """
        Wait until the handshake is over. Cancelling cuts the connection, as an error does.

        Raises:
            HandshakeError: the answer was not that of a WebSocket server, or there was none.
            ssl.SSLError: the server ended TLS, because of our certificate for instance.
        """
        try:
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
            if answer.feed(data):
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
