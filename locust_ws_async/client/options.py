"""The settings of a connection, checked when they are given and not when they are first used."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import os
import re
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, cast

from ..masking import MASK
from .messages.auto_replies import KeepaliveRule
from .opening.proxy import check_proxy
from .opening.source_addresses import SourceAddresses
from .opening.tls import tls_context
from .session.backoff import Backoff
from .wire.compression import Deflate

__all__ = ["USER_AGENT", "ConnectOptions", "ConnectSettings", "nearest_name", "result_of"]

USER_AGENT = "locust-ws-async"

_MANY_DERIVED = 256

T = TypeVar("T")

FilePath = str | os.PathLike[str]
Headers = Mapping[str, str] | Iterable[tuple[str, str]]
OrFunction: TypeAlias = T | Callable[[], T | Awaitable[T]]
"""A value, or a function without parameters that gives it, which may be ``async def``."""


class _Derived:
    """Keeps what is made of settings, and is the same for each connect."""

    __slots__ = ("_derived",)
    _derived: dict[Hashable, Any]

    def derived(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what ``make`` gives, which is made once for each key, as long as there are not too many."""
        try:
            return cast(T, self._derived[key])
        except KeyError:
            if len(self._derived) == _MANY_DERIVED:  # URLs with tokens in them, say
                self._derived.clear()
            made = self._derived[key] = make()
            return made


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectOptions(_Derived):
    """
    The settings of a connection. ``WebSocketClient.connect`` takes each of them as a keyword, and
    ``AsyncWebSocketUser`` has each of them as a class attribute.

    Each setting is documented below its name, and nowhere else in the code.

    Raises:
        TypeError, ValueError: a setting is wrong. The text names the setting and says what it must be.
        ImportError: the setting needs a package that is not installed.
    """

    headers: OrFunction[Headers] = ()
    """Extra headers of the opening handshake: a mapping, or pairs of name and value, or a function as for ``bearer``. A
    header given here replaces the one that another setting would send under the same name; only cookies are joined to
    those of ``cookies``."""

    cookies: OrFunction[Mapping[str, str]] = dataclasses.field(default_factory=dict)
    """Cookies to send in the opening handshake, by name; or a function as for ``bearer``."""

    auth: tuple[str, str] | None = None
    """The user name and the password for basic authentication. They replace those of the URL. None sends those of the
    URL, if it has any."""

    bearer: OrFunction[str | None] = None
    """A token to send as ``Authorization: Bearer``. It excludes ``auth``. Or a function that gives the token, which may
    be ``async def``: it is called before each attempt to connect, reconnects included, and its time counts into no row.
    On a user class it may be a method. None sends no token."""

    origin: str | None = None
    """The ``Origin`` header, as a browser sends it: ``https://shop.example``. None sends no such header."""

    user_agent: str | None = USER_AGENT
    """The ``User-Agent`` header. None sends no such header."""

    share_cookies: bool = False
    """Whether to send the cookies that the HTTP client of the same user (``HttpUser`` or ``FastHttpUser`` among the
    bases) has for this URL, and to store in that client the cookies that the handshake sets."""

    share_headers: tuple[str, ...] = ()
    """The names of headers to send with the values that the HTTP client of the same user sends:
    ``("Authorization",)`` for instance."""

    subprotocols: tuple[str, ...] = ()
    """The subprotocols to offer to the server, the preferred one first."""

    compression: Literal["deflate"] | Deflate | None = None
    """``"deflate"``, or a ``Deflate(...)`` with parameters, offers permessage-deflate (RFC 7692) to the server. None
    offers no compression: a small compressed message costs the load generator about twice the CPU time, and each
    connection takes more memory."""

    redirect_limit: int = 10
    """How many HTTP redirects of the opening handshake to follow; 0 follows none. A redirect from ``wss`` to ``ws`` is
    an error. A redirect to another host, port or scheme is followed without ``cookies``, ``auth``, ``bearer``,
    ``share_headers`` and ``server_hostname``, and without ``headers``, any of which may hold a secret. Only those that
    say nothing of the user (``Accept``, ``Accept-Language`` and the like) go along, and ``redirect_headers``."""

    redirect_headers: tuple[str, ...] = ()
    """The names of those ``headers`` that a redirect to another host, port or scheme is followed with:
    ``("X-Api-Key",)`` for instance. A ``Host`` among them stays the same."""

    ssl: ssl_module.SSLContext | None = None
    """A whole TLS context for ``wss``, for what ``verify`` and ``cert`` cannot express; it excludes both. None makes
    the context from ``verify`` and ``cert``."""

    verify: bool | FilePath = True
    """True accepts the certificates that the system's authorities have signed, and False accepts any certificate. A
    path names a PEM file with the authorities to accept, or a folder of such files that ``openssl rehash`` has
    prepared. All connections of a process that have the same settings share one TLS context."""

    cert: FilePath | tuple[FilePath, FilePath | None] | None = None
    """The client's certificate: the path of a PEM file that also holds the private key, or a pair of paths, of the
    certificate and of the key. None sends no certificate."""

    server_hostname: str | None = None
    """The host name to ask for in TLS, and to verify in the server's certificate. None takes that of the URL."""

    proxy: str | bool | None = None
    """The URL of a proxy: ``http://user:password@host:port``, which is asked to CONNECT, or ``socks5h://host:port``
    (also ``socks5``, ``socks4a``, ``socks4``; with ``socks5h`` and ``socks4a`` the proxy looks up the name of the
    server). True takes the system's proxy (``HTTPS_PROXY`` and its kin), if there is one. None connects directly. TLS
    to the proxy itself (``https://``) is refused."""

    unix_socket: FilePath | None = None
    """The path of a unix socket to connect to, instead of the host and port of the URL. None connects by TCP."""

    local_address: str | Sequence[str] | SourceAddresses | None = None
    """The address of this machine to connect from. Several addresses, or networks such as ``10.0.0.0/28``, take turns
    over all users of the process; a ``SourceAddresses`` is a rotation of its own. None leaves the address to the
    system."""

    lookups: int = 100
    """How many name lookups run at a time in a process, over all connections that have the same number here. Each
    keeps a thread busy. The others wait, and ``stats.connect.lookup_queue`` says how long. Literal addresses need no
    lookup."""

    fold_ids: bool = False
    """Whether numbers and UUIDs between slashes become ``{id}`` in the default name of the rows: ``/room/123`` becomes
    ``/room/{id}``."""

    max_size: int | None = 2**20
    """The most bytes that a received message may have. A longer message ends the connection with close code 1009. None
    sets no limit, so that only one that says that it is longer than the machine's memory is refused."""

    max_queue: int | None = 1024
    """How many messages may wait for ``recv``, and how many for an ``async def`` handler of ``on`` that is still busy;
    ``overflow`` says what happens at this limit. None sets no limit."""

    max_queue_bytes: int | None = 2**24
    """How many bytes the messages that wait for ``recv`` may take, or those that wait for a handler: their payloads,
    and about 200 bytes for each. One message may always wait, however long it is. ``overflow`` says what happens at
    this limit. None sets no limit."""

    overflow: Literal["pause", "drop", "fail"] = "pause"
    """What happens at ``max_queue`` or ``max_queue_bytes``. With ``"pause"`` nothing is read from the socket until half
    of the messages are taken, which also delays pings and pongs. With ``"drop"`` the oldest messages are dropped, and
    ``stats.messages_dropped`` counts them. With ``"fail"`` the connection ends with close code 1008."""

    read_rate: float | None = None
    """The most bytes a second to read, frames and all, as a client on a slow network reads: TCP then slows the server
    down. They come in steps of a tenth of a second, as far as the network and TLS deliver them so. What waits unread
    delays pings and pongs too. None reads at once what there is."""

    open_timeout: float | None = 10.0
    """Seconds that a connect may take: name lookup, TCP, proxy, TLS, opening handshake and redirects together. None
    sets no limit."""

    close_timeout: float = 2.0
    """Seconds that a close waits for the server, before it cuts the connection. When Locust stops the user, all closes
    wait no longer than what is left of ``cancel_timeout``."""

    on_connected_timeout: float | Literal["open_timeout"] | None = "open_timeout"
    """Seconds that ``on_connected`` may take; ``"open_timeout"`` allows as many as that setting. If it takes longer,
    the attempt to connect has failed, which is a failed row. None sets no limit."""

    ping_interval: float | None = None
    """Seconds from one ping that the client sends by itself to the next. None sends no such pings, as browsers do."""

    ping_timeout: float | None = 20.0
    """Seconds that the server has to answer a ping. If it does not answer one of ``ping_interval``, the session has
    failed; for ``ping()`` this is the default timeout. None sets no limit."""

    request_timeout: float | None = 30.0
    """Seconds that ``request`` and ``expect`` wait for their message, unless they are given a timeout of their own.
    None sets no limit."""

    recv_timeout: float | None = None
    """Seconds that ``recv`` and ``async for`` wait for the next message, unless ``recv`` is given a timeout of its own.
    None sets no limit: a server that has fallen silent fails nothing then."""

    arrival: Literal["kernel", "read"] = "kernel"
    """When a message has arrived. ``"kernel"``: when Linux says that its last bytes came, also if this process was busy
    then, so that the times are the server's. ``"read"``: when this process read them. The engine ``"picows"``, other
    systems, other event loops than asyncio's, and unix sockets know only the latter."""

    record_last: int | None = None
    """The flight recorder keeps this many of the last messages and control frames, and writes them to a file of JSON
    lines when a row of the connection fails. None keeps no recorder."""

    record_to: FilePath | None = None
    """The folder that ``record_last`` writes its files to. The files hold the beginning of each message, without
    what has the name or the form of a secret. Of headers, query strings and subprotocols they hold the values that are
    known to be harmless. None means ``websocket-recordings`` in the working directory."""

    record_unmasked: tuple[str, ...] = ()
    """The names of further headers and query parameters, and further subprotocols, that the files of ``record_last``
    may show: ``("X-Tenant", "room")`` for instance."""

    keepalive: KeepaliveRule | Sequence[KeepaliveRule] = ()
    """What the server wants to be answered, to be sent now and then, or what nobody needs to see: a rule that
    ``echo``, ``reply``, ``every`` or ``ignore`` has made, or several rules."""

    reconnect: Backoff | None = None
    """A ``Backoff(...)`` with the delays after which a lost connection is made again. A server that closes with code
    1000 ends the connection for good. None makes no lost connection again."""

    on_connected: Callable[[Any], Awaitable[object]] | None = None
    """An async function that is awaited with the ``WebSocketConnection`` after each connect and each reconnect: to log
    in, and to subscribe. Other tasks can use the connection when it is done. On a user class it may be a method:
    ``async def on_connected(self, connection)``. None awaits nothing."""

    def __repr__(self) -> str:
        """The settings that are not the default ones, without the values of those that may hold a secret."""
        changed = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(_NO_SETTINGS, field.name)
        }
        shown = (f"{name}={MASK if name in _SECRET else repr(value)}" for name, value in changed.items())
        return f"{type(self).__name__}({', '.join(shown)})"

    def __post_init__(self) -> None:
        object.__setattr__(self, "_derived", {})
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            checked = check(name, value)
            if checked is not value:
                object.__setattr__(self, name, checked)
        self._check_together()

    def _check_together(self) -> None:
        """Check what one setting by itself cannot show."""
        if self.auth is not None and self.bearer is not None:
            raise ValueError("auth and bearer exclude each other: there is one Authorization header")
        if self.verify is not True or self.cert is not None:
            if self.ssl is not None:
                raise ValueError("ssl is a whole TLS context: set verify and cert there, or leave ssl None")
            self.tls_context()  # reads the files, if these settings are new
        if self.unix_socket is not None:
            for name in ("proxy", "local_address"):
                if getattr(self, name) is not None:
                    raise ValueError(f"unix_socket and {name} exclude each other: set one of them to None")
        if self.record_to is not None and self.record_last is None:
            raise ValueError("record_to is where record_last writes: set record_last, to 50 for instance")

    # The settings as they are used: __post_init__ has made them so.

    @property
    def functions(self) -> dict[str, Callable[[], Any]]:
        """The settings that a function gives: each attempt to connect replaces them with what it gives then."""
        return self.derived(
            "functions", lambda: {name: value for name in _COMPUTED if callable(value := getattr(self, name))}
        )

    @property
    def header_pairs(self) -> tuple[tuple[str, str], ...]:
        """``headers`` as pairs of name and value."""
        return cast("tuple[tuple[str, str], ...]", self.headers)

    @property
    def cookie_values(self) -> Mapping[str, str]:
        """``cookies`` by name."""
        return cast("Mapping[str, str]", self.cookies)

    @property
    def keepalive_rules(self) -> tuple[KeepaliveRule, ...]:
        """All rules of ``keepalive``."""
        return (self.keepalive,) if isinstance(self.keepalive, KeepaliveRule) else tuple(self.keepalive)

    @property
    def source(self) -> SourceAddresses | None:
        """``local_address`` as a rotation."""
        return cast("SourceAddresses | None", self.local_address)

    @property
    def on_connected_limit(self) -> float | None:
        """``on_connected_timeout`` in seconds; None for no limit."""
        limit = self.on_connected_timeout
        return self.open_timeout if isinstance(limit, str) else limit

    def tls_context(self) -> ssl_module.SSLContext:
        """The TLS context of these settings."""
        return self.ssl or tls_context(
            cast("bool | str", self.verify), cast("tuple[str, str | None] | None", self.cert)
        )

    def replace(self, changes: Mapping[str, Any]) -> ConnectOptions:
        """
        These settings with some of them changed.

        Raises:
            TypeError: there is no setting of such a name. The rest is as for the class.
        """
        if not changes:
            return self
        known = {field.name for field in dataclasses.fields(self)}
        if unknown := sorted(changes.keys() - known):
            nearest = nearest_name(unknown[0], known)
            meant = "" if nearest is None else f" (is {nearest!r} meant?)"
            raise TypeError(f"unknown option {unknown[0]!r}{meant}; there are: {', '.join(sorted(known))}")
        return dataclasses.replace(self, **changes)


_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_NOT_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110 section 5.5

# Headers that only the client itself can set (RFC 6455 section 4.1), and what to do instead.
_HANDSHAKE_HEADERS = {
    "connection": "",
    "upgrade": "",
    "sec-websocket-extensions": 'set compression = "deflate" to offer it',
    "sec-websocket-protocol": "set subprotocols",
}


class ConnectSettings(TypedDict, total=False):
    """The fields of :class:`ConnectOptions`, as ``connect`` takes them: so that editors and type checkers know them."""

    headers: OrFunction[Headers]
    cookies: OrFunction[Mapping[str, str]]
    auth: tuple[str, str] | None
    bearer: OrFunction[str | None]
    origin: str | None
    user_agent: str | None
    share_cookies: bool
    share_headers: Sequence[str]
    subprotocols: Sequence[str]
    compression: Literal["deflate"] | Deflate | None
    redirect_limit: int
    redirect_headers: Sequence[str]
    ssl: ssl_module.SSLContext | None
    verify: bool | FilePath
    cert: FilePath | tuple[FilePath, FilePath | None] | None
    server_hostname: str | None
    proxy: str | bool | None
    unix_socket: FilePath | None
    local_address: str | Sequence[str] | SourceAddresses | None
    lookups: int
    fold_ids: bool
    max_size: int | None
    max_queue: int | None
    max_queue_bytes: int | None
    overflow: Literal["pause", "drop", "fail"]
    read_rate: float | None
    open_timeout: float | None
    close_timeout: float
    on_connected_timeout: float | Literal["open_timeout"] | None
    ping_interval: float | None
    ping_timeout: float | None
    request_timeout: float | None
    recv_timeout: float | None
    arrival: Literal["kernel", "read"]
    record_last: int | None
    record_to: FilePath | None
    record_unmasked: Sequence[str]
    keepalive: KeepaliveRule | Sequence[KeepaliveRule]
    reconnect: Backoff | None
    on_connected: Callable[[Any], Awaitable[object]] | None


_COMPUTED = ("bearer", "headers", "cookies")

# What other clients call these settings: websockets, websocket-client and aiohttp.
_ELSEWHERE = {
    "additional_headers": "headers",
    "ca_certs": "verify",
    "compress": "compression",
    "connect_timeout": "open_timeout",
    "extra_headers": "headers",
    "heartbeat": "ping_interval",
    "http_proxy": "proxy",
    "max_msg_size": "max_size",
    "protocols": "subprotocols",
    "source_address": "local_address",
    "ssl_context": "ssl",
    "sslopt": "ssl",
    "user_agent_header": "user_agent",
}


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Which of these names is meant by *name*, which is none of them; None if it looks like none."""
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.8)), None)


async def result_of(function: Callable[[], Any]) -> Any:
    """Call a function, ``async def`` or plain, to its end."""
    result = function()
    return await result if inspect.isawaitable(result) else result


# One check for each kind of setting. It takes the name and the value of a setting, raises if the value is wrong, and
# returns the value as the rest of the client uses it.


def _headers(name: str, value: Any) -> tuple[tuple[str, str], ...]:
    pairs = tuple(_header(name, pair) for pair in (value.items() if isinstance(value, Mapping) else value))
    if sum(header.lower() == "host" for header, _ in pairs) > 1:
        raise ValueError(f"{name}: 'Host' is given twice, and a request has one (RFC 9112 section 3.2)")
    return pairs


def _header(setting: str, pair: object) -> tuple[str, str]:
    match pair:
        case (str() as name, str() as value):
            _check_header_name(setting, name)
            if _NOT_IN_VALUE.search(value):
                raise ValueError(f"{setting}: {name!r} contains a line break or another control character")
            return name, value
    raise TypeError(f"{setting} must be a mapping of str to str, or pairs of them; found {_kinds(pair)}")


def _check_header_name(setting: str, name: str) -> None:
    if not _TOKEN.fullmatch(name):
        # What follows a colon may be a secret.
        raise ValueError(f"{setting}: {name.partition(':')[0]!r} is not the name of a header")
    lower = name.lower()
    if lower in _HANDSHAKE_HEADERS or lower.startswith("sec-websocket-"):
        instead = _HANDSHAKE_HEADERS.get(lower) or "leave it out"
        raise ValueError(f"{setting}: the opening handshake sends {name!r} by itself: {instead}")


def _cookies(name: str, value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping of str to str, not {_kinds(value)}")
    for cookie, content in value.items():
        if not isinstance(cookie, str) or not isinstance(content, str):
            raise TypeError(f"{name} must be a mapping of str to str; found {_kinds((cookie, content))}")
        if ";" in cookie + content or _NOT_IN_VALUE.search(cookie + content):
            raise ValueError(f"{name}: {cookie!r} contains a semicolon, a line break or another control character")
    return value


def _or_function(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: value if callable(value) else check(name, value)


def _auth(name: str, value: Any) -> Any:
    match value:
        case None | (str(), str()):
            if value is not None and ":" in value[0]:  # a colon ends the user name (RFC 7617 section 2)
                raise ValueError(f"{name}: a user name cannot contain a colon: give the pair (user, password)")
            return value
    raise TypeError(f"{name} must be a pair of user name and password; for a token set bearer")


def _text(name: str, value: Any) -> Any:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a str or None, not {_kinds(value)}")
    if value is not None and _NOT_IN_VALUE.search(value):
        raise ValueError(f"{name} contains a line break or another control character")
    return value


def _names(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise TypeError(f"{name} must be a sequence of names, not one string: put it in brackets")
    names = tuple(value)
    for each in names:
        if not isinstance(each, str):
            raise TypeError(f"{name} must be a sequence of names; found {_kinds(each)}")
    return names


def _header_names(name: str, value: Any) -> tuple[str, ...]:
    names = _names(name, value)
    for header in names:
        _check_header_name(name, header)
    return names


def _subprotocols(name: str, value: Any) -> tuple[str, ...]:
    names = _names(name, value)
    for number, subprotocol in enumerate(names, 1):
        if not _TOKEN.fullmatch(subprotocol):  # which may be a secret, in base64 say
            raise ValueError(
                f"{name}: number {number} has characters that the name of a subprotocol cannot have (RFC 6455 section "
                "4.1): letters, digits and !#$%&'*+-.^_`|~ are allowed"
            )
    if len(set(names)) < len(names):
        raise ValueError(f"{name} must be different from each other (RFC 6455 section 4.1)")
    return names


def _compression(name: str, value: Any) -> Any:
    if value not in (None, "deflate") and not isinstance(value, Deflate):
        raise ValueError(f'{name} must be "deflate", Deflate(...) or None, not {value!r}')
    return value


def _count(name: str, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} must be 0 or more, not {value!r}")
    return value


def _at_least_one(name: str, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be 1 or more, not {value!r}")
    return value


def _ssl(name: str, value: Any) -> Any:
    if value is not None and not isinstance(value, ssl_module.SSLContext):
        raise TypeError(f"{name} must be an ssl.SSLContext or None, not {value!r}")
    return value


def _verify(name: str, value: Any) -> Any:
    value = _path(value)
    if not isinstance(value, (bool, str)):
        raise TypeError(f"{name} must be True, False, or a path of authorities, not {value!r}")
    return value


def _cert(name: str, value: Any) -> Any:
    if value is None:
        return None
    match [_path(file) for file in (value if isinstance(value, (tuple, list)) else (value, None))]:
        case [str() as certificate, (str() | None) as key]:
            return certificate, key
    raise TypeError(f"{name} must be a path or a pair of paths, not {value!r}")


def _proxy(name: str, value: Any) -> Any:
    if isinstance(value, str):
        check_proxy(value)
    elif value is not None and value is not True:
        raise TypeError(f"{name} must be a URL, True for the system's, or None, not {_kinds(value)}")
    return value


def _unix_socket(name: str, value: Any) -> Any:
    value = _text(name, _path(value))
    if value is not None and not hasattr(socket, "AF_UNIX"):
        raise ValueError(f"{name}: this platform has no unix sockets")
    return value


def _local_address(name: str, value: Any) -> SourceAddresses | None:
    if value is None or isinstance(value, SourceAddresses):
        return value
    addresses = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(address, str) for address in addresses):
        raise TypeError(f"{name} must be an IP address or several of them, not {value!r}")
    return SourceAddresses.shared(addresses)


def _overflow(name: str, value: Any) -> Any:
    if value not in ("pause", "drop", "fail"):
        raise ValueError(f'{name} must be "pause", "drop" or "fail", not {value!r}')
    return value


def _arrival(name: str, value: Any) -> Any:
    if value not in ("kernel", "read"):
        raise ValueError(f'{name} must be "kernel" or "read", not {value!r}')
    return value


def _limit(name: str, value: Any) -> Any:
    return _positive(name, value, "an int", (int,))


def _seconds(name: str, value: Any) -> Any:
    return _positive(name, value, "a number of seconds", (int, float))


def _rate(name: str, value: Any) -> Any:
    value = _positive(name, value, "a number of bytes a second", (int, float))
    if value is not None and not isfinite(value):
        raise ValueError(f"{name} must be a finite number of bytes a second, or None, not {value!r}")
    return value


def _on_connected_timeout(name: str, value: Any) -> Any:
    if isinstance(value, str):
        if value != "open_timeout":
            raise ValueError(f'{name} must be a number of seconds, "open_timeout" or None, not {value!r}')
        return value
    return _seconds(name, value)


def _bounded_seconds(name: str, value: Any) -> Any:
    if value is None:
        raise TypeError(f"{name} must be a number of seconds: a close without a bound may never end")
    return _seconds(name, value)


def _positive(name: str, value: Any, kind: str, types: tuple[type[int | float], ...]) -> Any:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, types):
        raise TypeError(f"{name} must be {kind} or None, not {value!r}")
    if value <= 0:
        raise ValueError(f"{name} must be greater than 0, or None, not {value!r}")
    return value


def _folder(name: str, value: Any) -> Any:
    if value is not None and not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be the path of a folder, or None, not {value!r}")
    return value


def _keepalive(name: str, value: Any) -> Any:
    rules = (value,) if isinstance(value, KeepaliveRule) else tuple(value)
    if not all(isinstance(rule, KeepaliveRule) for rule in rules):
        raise TypeError(f"{name} must be a rule made by echo(), reply(), every() or ignore(), or a sequence of them")
    return value


def _reconnect(name: str, value: Any) -> Any:
    if value is not None and not isinstance(value, Backoff):
        raise TypeError(f"{name} must be a Backoff(...) or None, not {value!r}")
    return value


def _on_connected(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be an async function of the connection, not {value!r}")
    return value


def _kinds(value: object) -> str:
    """What a value is, and not which: it may be a secret."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_kinds, value))})"
    return repr(value) if value is None or isinstance(value, bool) else type(value).__name__


def _path(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "headers": _or_function(_headers),
    "cookies": _or_function(_cookies),
    "auth": _auth,
    "bearer": _or_function(_text),
    "origin": _text,
    "user_agent": _text,
    "share_headers": _header_names,
    "subprotocols": _subprotocols,
    "compression": _compression,
    "redirect_limit": _count,
    "redirect_headers": _header_names,
    "ssl": _ssl,
    "verify": _verify,
    "cert": _cert,
    "server_hostname": _text,
    "proxy": _proxy,
    "unix_socket": _unix_socket,
    "local_address": _local_address,
    "lookups": _at_least_one,
    "max_size": _limit,
    "max_queue": _limit,
    "max_queue_bytes": _limit,
    "overflow": _overflow,
    "read_rate": _rate,
    "open_timeout": _seconds,
    "close_timeout": _bounded_seconds,
    "on_connected_timeout": _on_connected_timeout,
    "ping_interval": _seconds,
    "ping_timeout": _seconds,
    "request_timeout": _seconds,
    "recv_timeout": _seconds,
    "arrival": _arrival,
    "record_last": _limit,
    "record_to": _folder,
    "record_unmasked": _names,
    "keepalive": _keepalive,
    "reconnect": _reconnect,
    "on_connected": _on_connected,
}

_SECRET = frozenset({"auth", "bearer", "cookies", "headers", "keepalive", "origin", "proxy", "subprotocols"})
_NO_SETTINGS = ConnectOptions()
