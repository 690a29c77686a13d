"""Secrets are planted in every place that can hold one, and looked for in everything that is written."""

from __future__ import annotations

import base64
import contextlib
import itertools
import logging
import re
import traceback
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

from locust_ws_async.client import Backoff, ConnectOptions
from locust_ws_async.client.observing.names import row_name
from locust_ws_async.exceptions import ConnectionClosedError, WebSocketError
from locust_ws_async.masking import masked_headers, masked_text, masked_url, quoted_url

from .helpers import Bench, eventually, run

_numbers = itertools.count(100)


def plant() -> str:
    """A secret that is recognised by its place alone, each another."""
    return f"S3C{next(_numbers)}X"


def jwt() -> str:
    """One that is recognised anywhere."""
    return "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx" + plant()


def found_in(text: str) -> set[str]:
    """The planted secrets in a text, also those in base64 and in hexadecimal numbers."""
    decoded = [text]
    for word in re.findall(r"[A-Za-z0-9+/_=-]{12,}", text):
        with contextlib.suppress(ValueError):
            decoded.append(base64.urlsafe_b64decode(word + "=" * (-len(word) % 4)).decode("latin-1"))
        with contextlib.suppress(ValueError):
            decoded.append(bytes.fromhex(word).decode("latin-1"))
    return set(re.findall(r"S3C\d+X", " ".join(decoded)))


def test_no_secret_is_in_recordings_logs_rows_and_errors(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCUST_WS_TRACE", "1")
    caplog.set_level(1)  # picows logs the handshake below DEBUG
    login = (
        f'{{"type": "login", "password": "{plant()}, \\"{plant()}", "pin": 1, "token":"{plant()}"}}',
        f"CONNECT\nlogin:me\npasscode:{plant()}\n\n\0",
        f'{{"x": "{jwt()}"}}',
        f'{{"token": "{plant()}"}}'.encode(),
    )
    texts: list[str] = []

    async def main() -> None:
        async def talk(connection: ServerConnection) -> None:
            async for message in connection:
                await connection.send(message)
                if message == "bye":
                    await connection.close(4000, f"token={plant()}")

        def headers(connection: object, request: object, response: object) -> None:
            response.headers["Set-Cookie"] = f"session={plant()}"  # type: ignore[attr-defined]
            response.headers["X-New-Token"] = plant()  # type: ignore[attr-defined]

        async with serve(talk, "127.0.0.1", 0, process_response=headers) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            client = bench.client(
                base_url=f"ws://me{plant()}:{plant()}@127.0.0.1:{port}",
                options=ConnectOptions(
                    record_last=50,
                    record_to=tmp_path,
                    cookies={"a": plant()},
                    origin=f"http://{plant()}@shop.example/?t={plant()}",
                    headers={
                        name: plant()
                        for name in (
                            *("X-Api-Key", "Ocp-Apim-Subscription-Key", "X-Session-Id", "X-Amz-Signature", "X-JWT"),
                            *("X-Access-Key", "X-Passwd", "X-Whatever", "Cookie"),
                        )
                    }
                    | {"User-Agent": jwt()},
                    subprotocols=["graphql-ws", "bearer", plant(), f"base64url.bearer.authorization.k8s.io.{plant()}"],
                ),
            )
            texts.append(repr(client.options))
            connection = await client.connect(f"/hub/{jwt()}/x?token={plant()}&X={plant()}&{plant()}&{plant()}==")
            texts.extend(map(repr, (connection, connection.stats, client)))
            for message in login:
                await connection.send(message)
                await connection.recv()
            await connection.send("bye")
            await connection.recv()
            with pytest.raises(ConnectionClosedError) as raised:
                await connection.recv()
            texts.extend(traceback.format_exception(raised.value))

            with pytest.raises(WebSocketError) as failed:  # a row, and what Locust makes of it
                await client.connect(f"ws://me:{plant()}@127.0.0.1:{port}/?{plant()}", subprotocols=(), bearer=plant())
                await client.connect(f"ws://me:{plant()}@127.0.0.1:1/?{plant()}", bearer=plant())
            texts.extend(traceback.format_exception(failed.value))

    run(main())
    for row in bench.rows:
        texts.extend((row.name, repr(row.error), str(row.error), row.url.partition("/hub")[0].partition("?")[0]))
    for path in tmp_path.iterdir():
        texts.extend((path.name, path.read_text("utf-8")))
    assert "graphql-ws, bearer, ***, ***" in "".join(texts)
    ours = [record for record in caplog.records if record.name != "websockets.server"]
    logged = "\n".join(map(logging.Formatter("%(name)s: %(message)s").format, ours))
    assert "User-Agent: ***" in logged and "GET /hub/***/x?token=***" in logged and "locust_ws_async.trace" in logged
    caplog.clear()
    assert {row.name for row in bench.rows} >= {"/hub/{token}/x"}
    assert found_in(logged) == set()
    assert found_in("\n".join(texts)) == set()


@pytest.mark.parametrize(
    "url",
    [
        "ws://me:{}@h/chat?token={}#top",
        "ws://me:{}@/chat",
        "ws://me:{}@h:port/{}",
        "ws://me:{}@h:0/",
        "ws://me:{}@h:99999/",
        "ws://me:{}#{}@h/",
        "ws://me:{}?{}@h/",
        "ws://me:{}/{}@h/",
        "ws://me:{}@[h/",
        "ws://me:{}@h\u2100/",
        "ws://{}:{}@h\n/",
        "ws://me:{}@h h/",
        "ftp://me:{}@h/?{}",
        "h/{}?{}",
        "/chat?token={}",
    ],
)
def test_no_error_about_a_url_quotes_a_secret(bench: Bench, url: str) -> None:
    planted = re.sub(r"\{\}", lambda found: plant(), url)
    in_path = found_in(planted.rpartition("@")[2].partition("?")[0])  # which rows show as well
    for base_url, path in ((None, planted), (planted, "/#")):
        with pytest.raises(ValueError) as raised:
            bench.client(base_url=base_url).connect(path)
        assert found_in("".join(traceback.format_exception_only(raised.value))) <= in_path
        assert raised.value.__cause__ is None and (raised.value.__suppress_context__ or not raised.value.__context__)


@pytest.mark.parametrize(
    "proxy", ["ftp://me:{}@h:1", "http://me:{}@h:port", "http://me:{}@h:1/path", "https://me:{}@h", "http://a%3A{}:b@h"]
)
def test_no_error_about_a_proxy_quotes_a_password(proxy: str) -> None:
    with pytest.raises(ValueError) as raised:
        ConnectOptions(proxy=proxy.format(plant()))
    assert found_in("".join(traceback.format_exception_only(raised.value))) == set()


@pytest.mark.parametrize(
    "settings",
    [
        {"headers": {"Authorization": b"S3C1X"}},
        {"headers": ["Authorization: S3C1X"]},
        {"headers": {"Authorization: S3C1X\r\n": ""}},
        {"cookies": "S3C1X"},
        {"cookies": {"a": b"S3C1X"}},
        {"cookies": {"a": "S3C1X;"}},
        {"auth": "me:S3C1X"},
        {"auth": ("me:S3C1X", "")},
        {"bearer": b"S3C1X"},
        {"bearer": "S3C1X\n"},
        {"proxy": b"http://me:S3C1X@h"},
        {"subprotocols": "S3C1X"},
    ],
)
def test_no_error_about_a_setting_quotes_a_secret(settings: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        ConnectOptions(**settings)  # type: ignore[arg-type]
    assert found_in("".join(traceback.format_exception_only(raised.value))) == set()


def test_the_url_of_events_has_no_user_information(bench: Bench) -> None:
    async def main() -> None:
        url = bench.base_url or ""
        async with bench.client().connect(url.replace("://", "://me:secret@") + "/echo?room=1") as connection:
            assert connection.url == url + "/echo?room=1"
            request = connection.handshake_request
            assert request.headers["Authorization"] == "Basic " + base64.b64encode(b"me:secret").decode()
            await connection.request("x")

    run(main())
    assert {row.url for row in bench.rows} == {f"{bench.base_url}/echo?room=1"}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("/chat?EIO=4&transport=websocket", "/chat?EIO=4&transport=websocket"),
        ("/chat?transport=AbCdEf0123456789AbCdEf", "/chat?transport=***"),
        ("/v1/rooms/12345/summer-of-2024", "/v1/rooms/12345/summer-of-2024"),
        ("/x/6fa459ea-ee8a-3ca4-894e-db77e160355e", "/x/6fa459ea-ee8a-3ca4-894e-db77e160355e"),
        ("/x/sk-proj-0123456789abcdefghij", "/x/***"),
        ("ws://me@h/?a=b#c", "ws://***@h/?a=***#***"),
        ("//[", "***"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert masked_url(url) == shown


@pytest.mark.parametrize(
    ("url", "quoted"),
    [
        ("ws://h/a@b?c=d", "'ws://b'"),  # rather too little: the "@" may end a password
        ("ws://h/?c=d@e", "'ws://h/?c=***'"),
        ("ws://h:x/", "'ws://h:x/'"),
    ],
)
def test_what_an_error_quotes_of_a_url(url: str, quoted: str) -> None:
    assert quoted_url(url).replace("***@", "") == quoted


def test_what_is_shown_of_headers_and_messages() -> None:
    headers = [("Upgrade", "websocket"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("X-A", "1"), ("X-B", "2")]
    assert masked_headers(headers, {"x-b"}) == [*map(list, headers[:2]), ["X-A", "***"], ["X-B", "2"]]
    plain = '{"type": "offer", "max_tokens": 7, "id": "6fa459ea", "text": "the token is lost"}'
    assert masked_text(plain) == plain
    assert masked_text('{"pin": 1234, "n": 1234}') == '{"pin": ***, "n": 1234}'
    assert masked_text('{"accessToken": "a b') == '{"accessToken": "***'  # the rest was cut off
    assert row_name("/a/b-12345/c") == "/a/b-12345/c"


def test_a_function_that_gives_the_url_may_give_another_password_each_time(bench: Bench) -> None:
    async def main() -> None:
        url = bench.base_url or ""
        numbers = itertools.count(1)
        names: list[str] = []

        def next_url() -> str:
            return url.replace("://", f"://me:secret{next(numbers)}@") + "/echo"

        def name(url: str) -> str:
            names.append(url)
            return "echo"

        def no_token() -> None:
            return None

        backoff = Backoff(0.01, 0.01)
        async with bench.client().connect(next_url, name=name, reconnect=backoff, bearer=no_token) as connection:
            for number in (1, 2):
                assert connection.url == url + "/echo"
                sent = connection.handshake_request.headers["Authorization"]
                assert sent == "Basic " + base64.b64encode(f"me:secret{number}".encode()).decode()
                if number == 1:
                    connection.wire.transport.abort()
                    await eventually(lambda: connection.stats.reconnects)
        assert names == [url + "/echo"]

    run(main())
    assert {row.url for row in bench.rows} == {f"{bench.base_url}/echo"}
