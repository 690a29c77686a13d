"""The settings of a connection, checked when they are given and not when they are first used."""

from __future__ import annotations

import dataclasses
import os
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from .messages.auto_replies import KeepaliveRule
from .opening.proxy import check_proxy
from .opening.source_addresses import SourceAddresses
from .opening.tls import tls_context
from .session.backoff import Backoff
from .wire.compression import Deflate

if TYPE_CHECKING:
    from .connection import WebSocketConnection

__all__ = ["USER_AGENT", "ConnectOptions"]

USER_AGENT = "locust-ws-async"

FilePath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectOptions:
    """
    The settings of a connection. ``WebSocketClient.connect`` takes each of them as a keyword.

    Args:
        headers: extra headers of the opening handshake, as a mapping or as (name, value) pairs.
        cookies: cookies to send, by name.
        auth: user name and password for basic authentication, in place of those of the URL.
        bearer: a token to send as ``Authorization: Bearer``.
        origin: the ``Origin`` header, as browsers send it: ``https://shop.example``.
        user_agent: the ``User-Agent`` header; None for none.
        share_cookies: send the cookies that the same user's HTTP session has for the URL, and store in it those that
            the handshake sets.
        share_headers: names of headers to send as the HTTP session would, ``("Authorization",)`` for instance.
        subprotocols: subprotocols to offer, the preferred one first.
        compression: "deflate", or a :class:`Deflate` with parameters, offers permessage-deflate (RFC 7692); None does
            not. Off by default: with it a small message costs the load generator about twice the CPU, and each
            connection takes more memory.
        redirect_limit: follow this many HTTP redirects. Not from ``wss`` to ``ws``; and to another host, port or scheme
            without cookies, authorization, ``share_headers`` and ``server_hostname`` of these settings. Other
            ``headers`` go along, as with requests and httpx: a secret in one (``X-Api-Key``) too, unless this
            is 0.
        ssl: a TLS context for ``wss``, for whatever ``verify`` and ``cert`` cannot say.
        verify: False accepts any certificate; a path is that of a PEM file with the authorities to accept, or of a
            folder of them that ``openssl rehash`` has prepared.
            Connections with the same settings share one TLS context in the process.
        cert: the client's certificate: a PEM file with its private key in it, or a pair of files with one each.
        server_hostname: the name to ask for and to verify in TLS, if not that of the URL.
        proxy: ``http://user:password@host:port`` for CONNECT, or ``socks5h://...`` (also ``socks5``, ``socks4a``,
            ``socks4``; with the ``h`` and ``a`` the proxy looks names up); True for the system's proxy
            (``HTTPS_PROXY``, ...) if there is one; None to connect directly. TLS to the proxy itself (``https://``) is
            refused.
        unix_socket: connect to this path instead of the URL's host and port.
        local_address: connect from this address of the machine, or from several in turn: addresses or networks
            (``10.0.0.0/28``), or a :class:`SourceAddresses`.
        fold_ids: in the default name of the rows, numbers and UUIDs between slashes become ``{id}``.
        max_size: a longer message (bytes) ends the connection with 1009; None for no limit.
        max_queue: this many messages may wait for ``recv``; None for no limit.
        overflow: what happens then. "pause": nothing is read from the socket until half of them are taken, which also
            delays pings and pongs. "drop": the oldest are dropped, and counted. "fail": the connection ends with 1008.
        open_timeout: seconds for name lookup, TCP, proxy, TLS, handshake and redirects together; None for no limit.
        close_timeout: seconds that ``close`` waits for the server before it cuts the connection.
        ping_interval: seconds between pings that the client sends by itself; None for none, as browsers do.
        ping_timeout: a peer that does not answer such a ping in these seconds has failed; None to wait forever.
        record_last: the flight recorder: keep this many of the last messages and control frames, and write them to a
            file when the session or a check of it fails. None for no recorder.
        record_to: the folder for these files, JSON lines; by default ``websocket-recordings``. They hold the beginnings
            of messages; secrets in headers and query strings are masked.
        request_timeout: seconds that ``request`` and ``expect`` wait, if they are not told otherwise; None for no
            limit.
        keepalive: what the server wants answered, or to see, or what is not to be seen: a rule made by ``echo``,
            ``reply``, ``every`` or ``ignore``, or several.
        reconnect: make a connection that was lost again, with these delays; None not to. A server that closes with
            1000 ends it for good.
        on_connected: called with the connection, and awaited, after each success: to log in and to subscribe. Other
            tasks can use the connection when it is done.
    """

    headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()
    cookies: Mapping[str, str] = dataclasses.field(default_factory=dict)
    auth: tuple[str, str] | None = None
    bearer: str | None = None
    origin: str | None = None
    user_agent: str | None = USER_AGENT
    share_cookies: bool = False
    share_headers: tuple[str, ...] = ()
    subprotocols: tuple[str, ...] = ()
    compression: Literal["deflate"] | Deflate | None = None
    redirect_limit: int = 10
    ssl: ssl_module.SSLContext | None = None
    verify: bool | FilePath = True
    cert: FilePath | tuple[FilePath, FilePath | None] | None = None
    server_hostname: str | None = None
    proxy: str | bool | None = None
    unix_socket: FilePath | None = None
    local_address: str | Sequence[str] | SourceAddresses | None = None
    fold_ids: bool = False
    max_size: int | None = 2**20
    max_queue: int | None = 1024
    overflow: Literal["pause", "drop", "fail"] = "pause"
    open_timeout: float | None = 10.0
    close_timeout: float = 2.0
    ping_interval: float | None = None
    ping_timeout: float | None = 20.0
    request_timeout: float | None = 30.0
    record_last: int | None = None
    record_to: FilePath | None = None
    keepalive: KeepaliveRule | Sequence[KeepaliveRule] = ()
    reconnect: Backoff | None = None
    on_connected: Callable[[WebSocketConnection], Awaitable[object]] | None = None

    def __post_init__(self) -> None:
        pairs = self.headers.items() if isinstance(self.headers, Mapping) else self.headers
        object.__setattr__(self, "headers", tuple(_header(pair) for pair in pairs))
        self._check_request()
        for name in ("subprotocols", "share_headers"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise TypeError(f"{name} must be a sequence of names: [{value!r}], not a string")
            object.__setattr__(self, name, tuple(value))
        if self.compression not in (None, "deflate") and not isinstance(self.compression, Deflate):
            raise ValueError(f'compression must be "deflate", Deflate(...) or None, not {self.compression!r}')
        if isinstance(self.redirect_limit, bool) or not isinstance(self.redirect_limit, int) or self.redirect_limit < 0:
            raise ValueError(f"redirect_limit must be 0 or more, not {self.redirect_limit!r}")
        self._check_tls()
        self._check_route()
        self._check_life()
        if self.record_to is not None:
            if not isinstance(self.record_to, (str, os.PathLike)):
                raise TypeError(f"record_to must be the path of a folder, or None, not {self.record_to!r}")
            if self.record_last is None:
                raise ValueError("record_to is where record_last writes: set record_last, to 50 for instance")
        for name in ("max_size", "max_queue", "record_last"):
            _positive(name, getattr(self, name), int)
        for name in ("open_timeout", "ping_interval", "ping_timeout", "request_timeout"):
            _positive(name, getattr(self, name), float)
        if self.close_timeout is None:
            raise TypeError("close_timeout must be a number of seconds: a close without a bound may never end")
        _positive("close_timeout", self.close_timeout, float)

    def _check_life(self) -> None:
        if self.overflow not in ("pause", "drop", "fail"):
            raise ValueError(f'overflow must be "pause", "drop" or "fail", not {self.overflow!r}')
        if not all(isinstance(rule, KeepaliveRule) for rule in self.keepalive_rules):
            raise TypeError(
                "keepalive must be a rule made by echo(), reply(), every() or ignore(), or a sequence of them"
            )
        if self.reconnect is not None and not isinstance(self.reconnect, Backoff):
            raise TypeError(f"reconnect must be a Backoff(...) or None, not {self.reconnect!r}")
        if self.on_connected is not None and not callable(self.on_connected):
            raise TypeError(f"on_connected must be an async function of the connection, not {self.on_connected!r}")

    @property
    def keepalive_rules(self) -> tuple[KeepaliveRule, ...]:
        """All rules of ``keepalive``."""
        return (self.keepalive,) if isinstance(self.keepalive, KeepaliveRule) else tuple(self.keepalive)

    def _check_request(self) -> None:
        if not isinstance(self.cookies, Mapping):
            raise TypeError(f"cookies must be a mapping of str to str, not {self.cookies!r}")
        for name, value in self.cookies.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise TypeError(f"cookies must be a mapping of str to str; found {name!r}: {value!r}")
            if any(character in name + value for character in ";\r\n"):
                raise ValueError(f"cookies: {name!r} contains a semicolon or a line break")
        if self.auth is not None:
            match self.auth:
                case (str() as user, str()):
                    if ":" in user:  # which ends the user name (RFC 7617 section 2)
                        raise ValueError(f"auth: a user name cannot contain a colon, as {user!r} does")
                case _:
                    raise TypeError("auth must be a pair of user name and password; for a token set bearer")
            if self.bearer is not None:
                raise ValueError("auth and bearer exclude each other: there is one Authorization header")
        object.__setattr__(self, "unix_socket", _path(self.unix_socket))
        for name in ("bearer", "origin", "user_agent", "server_hostname", "unix_socket"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name} must be a str or None, not {value!r}")
            if value is not None and ("\r" in value or "\n" in value):
                raise ValueError(f"{name} contains a line break")

    def _check_tls(self) -> None:
        if self.ssl is not None and not isinstance(self.ssl, ssl_module.SSLContext):
            raise TypeError(f"ssl must be an ssl.SSLContext or None, not {self.ssl!r}")
        object.__setattr__(self, "verify", _path(self.verify))
        if not isinstance(self.verify, (bool, str)):
            raise TypeError(f"verify must be True, False, or a path of authorities, not {self.verify!r}")
        if self.cert is not None:
            match [_path(file) for file in (self.cert if isinstance(self.cert, (tuple, list)) else (self.cert, None))]:
                case [str() as certificate, (str() | None) as key]:
                    object.__setattr__(self, "cert", (certificate, key))
                case _:
                    raise TypeError(f"cert must be a path or a pair of paths, not {self.cert!r}")
        if self.verify is not True or self.cert is not None:
            if self.ssl is not None:
                raise ValueError("ssl is a whole TLS context: set verify and cert there, or leave ssl None")
            self.tls_context()  # reads the files, if these settings are new

    def _check_route(self) -> None:
        source = self.local_address
        if source is not None and not isinstance(source, SourceAddresses):
            addresses = (source,) if isinstance(source, str) else tuple(source)
            if not all(isinstance(address, str) for address in addresses):
                raise TypeError(f"local_address must be an IP address or several of them, not {source!r}")
            object.__setattr__(self, "local_address", SourceAddresses.shared(addresses))
        if isinstance(self.proxy, str):
            check_proxy(self.proxy)
        elif self.proxy is not None and self.proxy is not True:
            raise TypeError(f"proxy must be a URL, True for the system's, or None, not {self.proxy!r}")
        if self.unix_socket is not None:
            if not hasattr(socket, "AF_UNIX"):
                raise ValueError("unix_socket: this platform has no unix sockets")
            for name in ("proxy", "local_address"):
                if getattr(self, name) is not None:
                    raise ValueError(f"unix_socket and {name} exclude each other: set one of them to None")

    @property
    def source(self) -> SourceAddresses | None:
        """``local_address``, as the rotation that it was made into."""
        source = self.local_address
        assert source is None or isinstance(source, SourceAddresses)
        return source

    def tls_context(self) -> ssl_module.SSLContext:
        """The TLS context of these settings."""
        return self.ssl or tls_context(
            cast("bool | str", self.verify), cast("tuple[str, str | None] | None", self.cert)
        )

    def replace(self, changes: Mapping[str, Any]) -> ConnectOptions:
        """These options with some of them changed."""
        if not changes:
            return self
        known = {field.name for field in dataclasses.fields(self)}
        if unknown := changes.keys() - known:
            raise TypeError(f"unknown option {sorted(unknown)[0]!r}; there are: {', '.join(sorted(known))}")
        return dataclasses.replace(self, **changes)


def _path(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _header(pair: object) -> tuple[str, str]:
    match pair:
        case (str() as name, str() as value):
            if any(character in name + value for character in "\r\n"):
                raise ValueError(f"headers: {name!r} contains a line break")
            return name, value
    raise TypeError(f"headers must be a mapping of str to str, or pairs of them; found {pair!r}")


def _positive(name: str, value: object, kind: type) -> None:
    if value is None:
        return
    numbers: tuple[type, ...] = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, numbers):
        unit = "an int" if kind is int else "a number of seconds"
        raise TypeError(f"{name} must be {unit} or None, not {value!r}")
    if value <= 0:  # type: ignore[operator]  # a number: checked above
        raise ValueError(f"{name} must be greater than 0, or None, not {value!r}")
