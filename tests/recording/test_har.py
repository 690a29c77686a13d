"""What is no HAR, or has no messages, is told so; the command's exit code is 2 then."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from locust_ws_async.recording import HARError, parse
from tests.support import SCALE

from .helpers import entry, har, http_entry, message

COMMAND = [sys.executable, "-c", "import sys; from locust_ws_async.command import main; sys.exit(main())", "from-har"]


def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    result = subprocess.run([*COMMAND, *arguments], input=stdin, capture_output=True, timeout=60 * SCALE)
    return result.returncode, result.stdout.decode(), result.stderr.decode()


def test_a_file_and_the_standard_input_give_the_same(tmp_path: Path) -> None:
    text = har(entry([(0.1, "send", "hällo"), (0.1, "receive", "hällo")]))
    path = tmp_path / "session.har"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())  # as some tools on Windows write it
    code, output, errors = run(str(path))
    assert (code, errors) == (0, "")
    assert '.request("hällo")' in output and "THINK = 1 " in output
    assert run("-", stdin=text.encode()) == (0, output, "")


def test_think_scales_the_pauses(tmp_path: Path) -> None:
    text = har(entry([(0.5, "send", "hello")])).encode()
    assert "THINK = 0.25 " in run("--think", "0.25", "-", stdin=text)[1]
    for wrong in ("-1", "nan", "inf", "much"):
        code, _, errors = run("--think", wrong, "-", stdin=text)
        assert code == 2 and "--think" in errors


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.har")
    assert run(missing) == (2, "", f"locust-ws-async: cannot read {missing}: No such file or directory\n")
    code, output, errors = run(str(tmp_path))
    assert (code, output) == (2, "") and errors.startswith("locust-ws-async: cannot read")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "this is no HAR: it is not JSON (Expecting value: line 1 column 1 (char 0))"),
        ("GET / HTTP/1.1", "this is no HAR: it is not JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"\xff\xfe\xfa", "this is no HAR: it is not text in UTF-8"),
        ("[" * 100_000, "this is no HAR: its JSON is nested too deep"),
        ("[]", 'this is no HAR: it is JSON without a "log" object'),
        ('{"log": 1}', 'this is no HAR: it is JSON without a "log" object'),
        ('{"log": {}}', "log.entries is missing"),
        ('{"log": {"entries": {}}}', "log.entries must be an array"),
        ('{"log": {"entries": [1]}}', "log.entries[0] must be an object"),
        ('{"log": {"entries": [{}]}}', "log.entries[0].request is missing"),
    ],
    ids=str,
)
def test_what_is_no_har(text: str | bytes, error: str) -> None:
    with pytest.raises(HARError) as raised:
        parse(text)
    assert str(raised.value) == error


def test_no_messages() -> None:
    page = http_entry("http://shop.example/")
    firefox = entry([])
    del firefox["_webSocketMessages"], firefox["_resourceType"]
    for text, error in [
        (har(), "there is no WebSocket connection in this HAR: record from before the page connects (reload it)"),
        (har(page), "there is no WebSocket connection in this HAR: record from before the page connects (reload it)"),
        (
            har(page, firefox, creator="Firefox"),
            "Firefox does not write WebSocket messages into its HAR: record with Chrome, Edge, Playwright or mitmproxy",
        ),
        (
            har(page, entry([])),
            "no WebSocket connection in this HAR has messages (_webSocketMessages): "
            "record with Chrome, Edge, Playwright or mitmproxy, from before the page connects",
        ),
    ]:
        with pytest.raises(HARError) as raised:
            parse(text)
        assert str(raised.value) == error


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"type": "sent"}, '.type is "sent": it must be "send" or "receive"'),
        ({"type": None}, ".type must be a string"),
        ({"opcode": 7}, ".opcode is 7: it must be 1 (text) or 2 (binary)"),
        ({"opcode": "text"}, ".opcode must be a whole number"),
        ({"opcode": True}, ".opcode must be a whole number"),
        ({"opcode": 2}, ".data is not base64, as that of a binary message must be"),
        ({"data": None}, ".data must be a string"),
        ({"time": "now"}, ".time must be a number of seconds since the epoch"),
        ({"time": float("nan")}, ".time must be a number of seconds since the epoch"),
        ({"time": 1e300}, ".time must be a number of seconds since the epoch"),
    ],
    ids=str,
)
def test_messages_that_are_none(changes: dict[str, Any], error: str) -> None:
    wrong = entry([])
    wrong["_webSocketMessages"] = [message(1, "send", "a text!"), message(1, "send", "a text!") | changes]
    with pytest.raises(HARError) as raised:
        parse(har(wrong))
    assert str(raised.value) == "log.entries[0]._webSocketMessages[1]" + error


@pytest.mark.parametrize("url", ["", "/chat", "ftp://h/", "ws://", "ws://[::1", "ws://h:99999/", "ws://a b/"], ids=str)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(HARError, match=r"log.entries\[0\].request.url is not a URL of a WebSocket server"):
        parse(har(entry([(0, "send", "x")], url)))


def test_what_is_not_the_applications_is_left_out() -> None:
    with_control = entry([(0, "send", "x")])
    with_control["_webSocketMessages"] += [
        {"type": "error", "time": 1, "opcode": -1, "data": "net::ERR"},
        {"type": "receive", "time": 1, "opcode": 9, "data": ""},
        {"type": "send", "time": 1, "opcode": 8, "data": ""},
    ]
    rejected = entry([], "ws://shop.example/rejected")
    rejected["response"]["status"] = 403
    others = [http_entry("data:text/plain,x"), http_entry("blob:http://h/1"), http_entry("http://h/")]
    recording = parse(har(rejected, with_control, *others))
    assert [socket.url.geturl() for socket in recording.sockets] == ["ws://shop.example/chat"]
    assert [frame.data for frame in recording.sockets[0].frames] == ["x"]
    assert [request.url.geturl() for request in recording.requests] == ["http://h/"]


def test_milliseconds_and_mitmproxys_urls() -> None:
    milliseconds = entry([], "https://shop.example/chat#top")
    milliseconds["_webSocketMessages"] = [message(1_790_000_000_500, "send", b"\x00\xff")]
    (socket,) = parse(har(milliseconds)).sockets
    assert socket.url.geturl() == "wss://shop.example/chat"
    assert (socket.frames[0].time, socket.frames[0].data) == (1_790_000_000.5, b"\x00\xff")


def test_halves_of_characters() -> None:
    """JSON can have them, a WebSocket message cannot: browsers send U+FFFD."""
    text = har(entry([(0, "send", "x")])).replace('"x"', json.dumps("\ud83d and \ud83d\ude00"))
    assert parse(text).sockets[0].frames[0].data == "\ufffd and \U0001f600"
