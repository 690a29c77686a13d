"""Options, names, URLs, engines, backoff: what is checked before anything connects."""

from __future__ import annotations

import ast
import ssl
import subprocess
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import locust_ws_async
from locust_ws_async.client import Backoff, ConnectOptions, WebSocketClient
from locust_ws_async.client.observing.names import row_name
from locust_ws_async.client.opening.url import join_url

from .helpers import Bench

pytestmark = pytest.mark.once

PACKAGE = Path(locust_ws_async.__file__).parent


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"open_timeout": 0}, "open_timeout must be greater than 0"),
        ({"open_timeout": "3"}, "open_timeout must be a number of seconds or None, not '3'"),
        ({"close_timeout": None}, "close_timeout must be a number of seconds"),
        ({"close_timeout": -1}, "close_timeout must be greater than 0"),
        ({"ping_interval": True}, "ping_interval must be a number of seconds or None, not True"),
        ({"ping_timeout": 0}, "ping_timeout must be greater than 0"),
        ({"max_size": 1.5}, "max_size must be an int or None, not 1.5"),
        ({"max_queue": 0}, "max_queue must be greater than 0"),
        ({"compression": "gzip"}, r"compression must be \"deflate\", Deflate\(...\) or None, not 'gzip'"),
        ({"subprotocols": "chat"}, "subprotocols must be a sequence of names, not one string"),
        ({"headers": {"a": 1}}, "headers must be a mapping of str to str, or pairs of them"),
        ({"headers": ["ab"]}, "headers must be a mapping of str to str, or pairs of them"),
        ({"headers": {"a": "b\r\nc: d"}}, "headers: 'a' contains a line break"),
        ({"headers": {"a": "b\0"}}, "headers: 'a' contains a line break or another control character"),
        ({"headers": {"a b": "c"}}, "headers: 'a b' is not the name of a header"),
        ({"headers": {"\u00fc": "c"}}, "headers: '\u00fc' is not the name of a header"),
        ({"headers": {"": "c"}}, "headers: '' is not the name of a header"),
        ({"headers": [("Host", "a"), ("host", "a")]}, "headers: 'Host' is given twice"),
        (
            {"headers": {"Connection": "Upgrade"}},
            "headers: the opening handshake sends 'Connection' by itself: leave",
        ),
        (
            {"headers": {"upgrade": "websocket"}},
            "the opening handshake sends 'upgrade' by itself: leave it out",
        ),
        (
            {"headers": {"Sec-WebSocket-Key": "a"}},
            "opening handshake sends 'Sec-WebSocket-Key' by itself: leave it",
        ),
        (
            {"headers": {"Sec-WebSocket-Version": "13"}},
            "sends 'Sec-WebSocket-Version' by itself: leave it out",
        ),
        ({"headers": {"Sec-WebSocket-Protocol": "a"}}, "'Sec-WebSocket-Protocol' by itself: set subprotocols"),
        ({"headers": {"sec-websocket-extensions": "a"}}, 'by itself: set compression = "deflate" to offer it'),
        ({"share_headers": ["Connection"]}, "share_headers: the opening handshake sends 'Connection' by itself"),
        ({"redirect_headers": "X-Api-Key"}, "redirect_headers must be a sequence of names, not one string"),
        ({"redirect_headers": [1]}, "redirect_headers must be a sequence of names; found int"),
        (
            {"subprotocols": ["a, b"]},
            "subprotocols: number 1 has characters that the name of a subprotocol",
        ),
        ({"subprotocols": ["a", "a"]}, "subprotocols must be different from each other"),
        ({"lookups": 0}, "lookups must be 1 or more, not 0"),
        ({"lookups": None}, "lookups must be 1 or more, not None"),
        ({"cookies": "a=1"}, "cookies must be a mapping of str to str, not str"),
        ({"cookies": {"a": 1}}, r"cookies must be a mapping of str to str; found \(str, int\)"),
        ({"cookies": {"a": "1; b=2"}}, "cookies: 'a' contains a semicolon, a line break or"),
        ({"auth": "me:secret"}, "auth must be a pair of user name and password; for a token set bearer"),
        ({"auth": ("a:b", "c")}, "auth: a user name cannot contain a colon: give the pair"),
        ({"proxy": "http://a%3Ab:c@h:1"}, "proxy: a user name cannot contain a colon"),
        ({"verify": 1.5}, "verify must be True, False, or a path of authorities, not 1.5"),
        ({"cert": ("a", "b", "c")}, r"cert must be a path or a pair of paths, not \('a', 'b', 'c'\)"),
        ({"auth": ("a", "b"), "bearer": "c"}, "auth and bearer exclude each other"),
        ({"bearer": b"c"}, "bearer must be a str or None, not bytes"),
        ({"bearer": "a\r\nb: c"}, "bearer contains a line break"),
        ({"origin": 1}, "origin must be a str or None, not int"),
        ({"user_agent": "a\nb"}, "user_agent contains a line break"),
        ({"share_headers": "Authorization"}, "share_headers must be a sequence of names, not one string"),
        ({"redirect_limit": -1}, "redirect_limit must be 0 or more, not -1"),
        ({"redirect_limit": None}, "redirect_limit must be 0 or more, not None"),
        ({"ssl": True}, "ssl must be an ssl.SSLContext or None, not True"),
        (
            {"open_timout": 1},
            "unknown option 'open_timout' \\(is 'open_timeout' meant\\?\\); there are: arrival, auth, bearer, cert",
        ),
    ],
)
def test_a_wrong_option_is_named_at_once(bench: Bench, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        bench.client().connect("/echo", **options)


def test_what_the_fast_engine_cannot_do_is_refused() -> None:
    client = WebSocketClient(base_url="ws://h", report=lambda *row: None, engine="picows")
    with pytest.raises(ValueError, match='"picows" has no compression: set compression=None'):
        client.connect("/", compression="deflate")
    with pytest.raises(ValueError, match='"picows" has no unix sockets: set unix_socket=None'):
        client.connect("/", unix_socket="/tmp/socket")
    with pytest.raises(ValueError, match='"picows" has no compression'):
        WebSocketClient(
            base_url=None,
            report=lambda *row: None,
            engine="picows",
            options=ConnectOptions(compression="deflate"),
        )


def test_an_unknown_engine() -> None:
    with pytest.raises(ValueError, match="unknown engine 'fast'; there are: websockets, picows"):
        WebSocketClient(base_url=None, report=lambda *row: None, engine="fast")


def test_an_engine_whose_library_is_missing() -> None:
    program = (
        "import sys; sys.modules['picows'] = None\n"
        "from locust_ws_async.client import WebSocketClient\n"
        "WebSocketClient(base_url=None, report=print)\n"
        "WebSocketClient(base_url=None, report=print, engine='picows')\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "needs the package picows: pip install picows" in result.stderr.splitlines()[-1]


def test_the_default_engine_does_not_import_the_other() -> None:
    program = "import sys, locust_ws_async.client as c; c.WebSocketClient(base_url=None, report=print)\n"
    program += "assert not {'picows', 'gevent', 'locust'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)


def test_each_setting_is_documented_once() -> None:
    """Below its name in ConnectOptions, in whole sentences, and not again on the user class."""
    documented = attribute_docstrings(PACKAGE / "client" / "options.py", "ConnectOptions")
    assert list(documented) == [field.name for field in fields(ConnectOptions)]
    for field in fields(ConnectOptions):
        text = documented[field.name]
        assert text is not None and text.endswith("."), field.name
        assert "None" in text or "None" not in str(field.type), f"{field.name}: what does None mean?"
    on_users = attribute_docstrings(PACKAGE / "users.py", "AsyncWebSocketUser")
    assert {name: on_users[name] for name in documented} == dict.fromkeys(documented)


def attribute_docstrings(path: Path, class_name: str) -> dict[str, str | None]:
    """The annotated attributes of a class, each with the string that follows it."""
    (body,) = (
        node.body
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == class_name
    )
    found: dict[str, str | None] = {}
    for node, following in pairwise([*body, ast.Pass()]):
        if isinstance(node, ast.AnnAssign):
            match following:
                case ast.Expr(value=ast.Constant(value=str() as text)):
                    found[ast.unparse(node.target)] = text
                case _:
                    found[ast.unparse(node.target)] = None
    return found


def test_options_can_be_shared() -> None:
    options = ConnectOptions(headers={"a": "1"}, subprotocols=("x",), ssl=ssl.create_default_context())
    assert options.replace({}) is options
    changed = options.replace({"headers": [("a", "1"), ("a", "2")], "max_size": None})
    assert changed.headers == (("a", "1"), ("a", "2")) and changed.max_size is None
    assert changed.ssl is options.ssl and options.max_size == 2**20


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("ws://h:1", "/a?b=c", "ws://h:1/a?b=c"),
        ("http://h", "a", "ws://h/a"),
        ("https://h/", "/a", "wss://h/a"),
        ("wss://h/base/", "/a", "wss://h/base/a"),
        ("wss://h/base", "", "wss://h/base"),
        ("wss://h", "?q=1", "wss://h?q=1"),
        ("HTTP://h", "/", "ws://h/"),
        (None, "ws://h/a", "ws://h/a"),
        ("ws://other", "https://h/a", "wss://h/a"),
        ("ws://[::1]:80", "/a", "ws://[::1]:80/a"),
        ("ws://h", '/a b?q=c d&e="f"', "ws://h/a%20b?q=c%20d&e=%22f%22"),
        ("ws://h", "/é/%C3%A9?100%=%20%zz", "ws://h/%C3%A9/%C3%A9?100%25=%20%25zz"),
        ("ws://h", "/a;b=1,2/:@!$&'()*+~?/?:@!$'()*+,;~=", "ws://h/a;b=1,2/:@!$&'()*+~?/?:@!$'()*+,;~="),
        ("ws://h", "/?list[]={1|2}^`", "ws://h/?list%5B%5D=%7B1%7C2%7D%5E%60"),
        ("ws://ü:ö@bücher.example:80", "/", "ws://%C3%BC:%C3%B6@xn--bcher-kva.example:80/"),
        ("ws://straße.example", "/", "ws://xn--strae-oqa.example/"),  # not strasse.example, as IDNA 2003 has it
        ("ws://BÜCHER。example", "/", "ws://xn--bcher-kva.example/"),  # UTS 46: small letters, and other full stops
    ],
)
def test_urls(base: str | None, path: str, url: str) -> None:
    assert join_url(base, path) == url


@pytest.mark.parametrize(
    ("base", "path", "message"),
    [
        (None, "/a", r"connect\('/a'\) needs a host: set `host = "),
        ("", "/a", "needs a host"),
        ("example.com", "/a", "the host 'example.com' needs a scheme"),
        ("ftp://h", "/a", "cannot connect to ftp://: use ws://"),
        (None, "ws://a%3Ab:c@h/", "the user name in the URL has a colon"),
        ("ws://h", "/a#b", "has a fragment"),
        ("ws://", "/a", "no host name in"),
        ("ws://h:99999", "/", "[Pp]ort"),
        ("ws://h", "/a\r\nX-Injected: 1", "has control characters"),
        ("ws://h", "/a\tb", "has control characters"),
        ("ws://a b", "/", "'a b' is not a host name"),
        ("ws://" + "ü" * 99, "/", "is not a host name"),
        ("ws://ü..example", "/", "is not a host name"),
    ],
)
def test_urls_that_cannot_be(bench: Bench, base: str | None, path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bench.client(base_url=base).connect(path)


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/b?token=1", "/a/b"), ("ws://h/a?x", "/a"), ("ws://h", "/"), ("", "/"), ("?q", "/"), ("a/b", "a/b")],
)
def test_default_names(path: str, name: str) -> None:
    assert row_name(path) == name


@given(st.floats(0, 10), st.floats(10, 100), st.floats(1, 5), st.floats(0, 1), st.integers(1, 10_000))
def test_delays_stay_within_their_bounds(
    initial: float, maximum: float, factor: float, jitter: float, failures: int
) -> None:
    delay = Backoff(initial, maximum, factor, jitter).delay(failures)
    assert initial * (1 - jitter) <= delay <= maximum


def test_delays_grow() -> None:
    backoff = Backoff(initial=1, maximum=30, factor=2, jitter=0)
    assert [backoff.delay(failures) for failures in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert not backoff.exhausted(10**6)
    assert [Backoff(attempts=2).exhausted(failures) for failures in (1, 2, 3)] == [False, True, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initial": -1}, "initial must be 0 seconds or more"),
        ({"initial": 2, "maximum": 1}, r"maximum must be at least initial \(2 s\)"),
        ({"factor": 0.5}, "factor must be 1 or more"),
        ({"jitter": 2}, "jitter must be between 0 and 1"),
        ({"attempts": 0}, "attempts must be 1 or more"),
    ],
)
def test_a_wrong_backoff(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Backoff(**arguments)
