"""Recorded in a real browser, converted, and run by a real Locust: the server sees the same again."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from locust_ws_async.recording import locustfile, parse
from tests.support import SCALE

from .chromium import CHROMIUM, record
from .helpers import Seen, WritingServer, check, run_once, well_formed, without

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
    pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without telling it"),
]

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm5hIn0.c2lnbmVkLWJ5LW5vYm9keQ"
PASSWORD = "correct-horse-17"
KEY = "sk-live-9a8B7c6D5e4F3g2H1i0J"

# What a page would do. Waits for answers, not for a time, except where it stands for a person who thinks.
HELPERS = """
const sleep = seconds => new Promise(resolve => setTimeout(resolve, seconds * 1000));
const open = (path, protocols) => new Promise(resolve => {
    const socket = new WebSocket('WS_URL' + path, protocols || []);
    const received = [], waiting = [];
    socket.next = () => new Promise(resolve => received.length ? resolve(received.shift()) : waiting.push(resolve));
    socket.onmessage = event => waiting.length ? waiting.shift()(event.data) : received.push(event.data);
    socket.finish = () => new Promise(resolve => { socket.onclose = resolve; socket.close(1000); });
    socket.onopen = () => resolve(socket);
});
const ask = (socket, message) => {
    socket.send(typeof message === 'string' ? message : JSON.stringify(message));
    return socket.next();
};
"""


def recorded(server: WritingServer, folder: Path, script: str) -> tuple[dict[str, Any], str, list[Seen]]:
    """The HAR, the locustfile, and what the server saw of the browser."""
    helpers = HELPERS.replace("WS_URL", server.url)
    har = record(server.http_url + "/", helpers + script, folder, seconds=60 * SCALE)
    seen = server.seen()
    server.forget()
    source = locustfile(parse(json.dumps(har)))
    (folder / "out").mkdir()
    (folder / "out" / "locustfile.py").write_text(source)
    well_formed(folder / "out")
    return har, source, seen


def assert_same(again: list[Seen], first: list[Seen], *apart: str) -> None:
    """The same paths and the same messages in their order, but for these members of JSON messages."""
    comparable = without(*apart)
    assert [connection.path for connection in again] == [connection.path for connection in first]
    for one, other in zip(again, first, strict=True):
        assert list(map(comparable, one.messages)) == list(map(comparable, other.messages))


def test_requests_with_ids_and_without(server: WritingServer, folder: Path) -> None:
    script = """
    const rpc = await open('/rpc');
    for (let id = 100; id < 104; id++) await ask(rpc, {id, params: ['balance']});
    const slow = {id: 104, params: ['history'], delay: 0.3}, quick = {id: 105, params: ['balance']};
    rpc.send(JSON.stringify(slow));
    await ask(rpc, quick);  // overtakes
    await rpc.next();
    await rpc.finish();
    const echo = await open('/echo');
    for (const text of ['hello', 'how are you?', "it's \\u00e4 \\"day\\""]) {
        await sleep(0.2);
        await ask(echo, text);
    }
    echo.binaryType = 'arraybuffer';
    echo.send(new Uint8Array([0, 1, 2, 255]));
    await echo.next();
    await echo.finish();
    """
    _, source, first = recorded(server, folder, script)
    run = run_once(source, server, folder, len(first))
    assert_same(run.seen, first, "id")
    assert [json.loads(message)["id"] for message in run.seen[0].messages] == [100, 101, 102, 103, 104, 105]
    run.assert_no_failures()
    assert 'match=json_field("id")' in source and "for _ in range(4):" in source and "count(100)" in source
    assert "asyncio.TaskGroup()" in source
    assert run.rows["WS REQUEST /rpc"][0] >= 6


def test_keepalive_and_pushes(server: WritingServer, folder: Path) -> None:
    script = """
    const chat = await open('/cart/chat?keepalive=0.4&patience=3');
    const taken = chat.onmessage;
    chat.onmessage = event => { if (event.data.includes('keepalive')) chat.send(event.data); else taken(event); };
    await sleep(0.3);
    await ask(chat, {type: 'data', item: 'book', quantity: 1});
    await sleep(1.2);
    await chat.finish();
    const prices = await open('/subscribe?rate=10');
    await ask(prices, {subscribe: 'prices'});
    await sleep(0.5);
    prices.send(JSON.stringify({unsubscribe: 'prices'}));
    while (!(await prices.next()).includes('unsubscribed')) {}
    await prices.finish();
    const sink = await open('/sink');
    for (let beat = 0; beat < 4; beat++) { await sleep(0.5); sink.send('{"type": "heartbeat"}'); }
    await sink.finish();
    """
    _, source, first = recorded(server, folder, script)
    assert 'echo(json_subset({"type": "keepalive"}))' in source
    assert """every(0.5, '{"type": "heartbeat"}')""" in source
    assert "measure_push(" in source and 'sent_at="sent_at"' in source
    run = run_once(source, server, folder, len(first))
    run.assert_no_failures()
    # How many keepalives there are is the server's business, and a matter of time.
    for connection in (*first, *run.seen):
        connection.messages = list(dict.fromkeys(connection.messages))
    assert_same(run.seen, first)
    assert run.rows["WS PUSH prices"][0] >= 4


def test_a_login_and_secrets(server: WritingServer, folder: Path) -> None:
    script = f"""
    await fetch('/login?user=anna', {{headers: {{'X-Tenant': '7'}}}});
    const who = await open('/whoami', ['chat.v2', 'bearer.{JWT}']);
    await who.next();
    await sleep(0.1);
    await ask(who, {{type: 'auth', password: '{PASSWORD}', room: 'lobby'}});
    await ask(who, 'authorize {JWT} please');
    await ask(who, {{type: 'say', text: 'the key is {KEY}'}});
    await who.finish();
    const echo = await open('/echo?token={JWT}&room=lobby');
    await ask(echo, 'hello');
    await echo.finish();
    """
    har, source, first = recorded(server, folder, script)
    for secret in (JWT, PASSWORD, KEY, first[0].headers["cookie"].partition("=")[2]):
        assert secret in json.dumps(har) and secret not in source
    assert "share_cookies = True" in source and 'self.client.get("/login?user=anna"' in source
    run = run_once(source, server, folder, len(first), **environment(source))
    run.assert_no_failures()
    assert_same(run.seen, first)
    assert "session=" in run.seen[0].headers["cookie"]
    for header in ("origin", "sec-websocket-protocol"):
        assert run.seen[0].headers[header] == first[0].headers[header]
    check(folder / "out", "mypy", "--config-file=", "--disable-error-code=type-var", "locustfile.py")


def environment(source: str) -> dict[str, str]:
    """The variables that the locustfile needs, with what the recording had for them."""
    values = {"TOKEN": JWT, "PASSWORD": PASSWORD, "API_KEY": KEY}
    return {f"RECORDED_{name}": values[name] for name in re.findall(r"^(\w+) = os.environ", source, re.MULTILINE)}


def test_two_connections_at_a_time(server: WritingServer, folder: Path) -> None:
    script = """
    const [orders, prices] = [await open('/echo?orders'), await open('/ticker?rate=10')];
    await sleep(0.3);
    await ask(orders, {order: 'book', quantity: 1});
    await sleep(0.3);
    await ask(orders, {order: 'pen', quantity: 3});
    await orders.finish();
    await prices.finish();
    """
    _, source, first = recorded(server, folder, script)
    run = run_once(source, server, folder, len(first))
    run.assert_no_failures()
    assert_same(sorted(run.seen, key=lambda seen: seen.path), sorted(first, key=lambda seen: seen.path))
    assert run.rows["WS PUSH /ticker"][0] > 1
