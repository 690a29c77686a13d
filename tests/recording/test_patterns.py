"""What is recognised in a conversation, by what is written of it. Recordings made by hand, one pattern each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from .helpers import BEGAN, Exchanged, block, converted, entry, http_entry, iso, well_formed


def exchange(sent: Any, received: Any, pause: float = 1.0) -> list[Exchanged]:
    """A request and its reply."""
    return [(pause, "send", sent), (0.02, "receive", received)]


def written(*exchanged: Exchanged) -> str:
    """The block of a connection."""
    return block(converted(entry(exchanged)))


def class_of(*exchanged: Exchanged, **keywords: Any) -> str:
    """The locustfile of a connection."""
    return converted(entry(exchanged, **keywords))


# --------------------------------------------------------------------------------------- requests


def test_ids_that_count() -> None:
    calls = [step for id in (7, 8, 9) for step in exchange({"id": id, "do": "x"}, {"id": id, "ok": True})]
    assert written(*calls) == (
        "ids = count(7)\n"
        "for _ in range(3):\n"
        "    await asyncio.sleep(1 * THINK)\n"
        '    await chat.request({"id": next(ids), "do": "x"}, match=json_field("id"))'
    )


@pytest.mark.parametrize(
    ("ids", "expression"),
    [
        (("1", "2", "3"), "str(next(ids))"),
        (("req-1", "req-2", "req-3"), 'f"req-{next(ids)}"'),
        (tuple(str(UUID(int=2**127 + n)) for n in range(3)), "str(uuid4())"),
        (("a8f3", "77bc", "9e1d"), "uuid4().hex[:4]"),
    ],
)
def test_ids_of_other_forms(ids: tuple[str, ...], expression: str) -> None:
    calls = [step for id in ids for step in exchange({"id": id, "do": "x"}, {"id": id, "ok": True})]
    assert f'"id": {expression}' in written(*calls)


def test_ids_that_come_back_elsewhere() -> None:
    calls = [
        step
        for id in range(40, 43)
        for step in exchange({"meta": {"seq": id}, "do": "x"}, {"replyTo": id, "result": [id * 1000]})
    ]
    assert 'match=json_field("meta", "seq", reply="replyTo")' in written(*calls)


def test_an_id_that_is_sent_again() -> None:
    subscription = [
        (0.1, "send", {"id": "1", "type": "subscribe"}),
        (0.1, "receive", {"id": "1", "type": "next", "value": 1}),
        (0.1, "receive", {"id": "1", "type": "next", "value": 2}),
        (0.1, "send", {"id": "1", "type": "complete"}),
    ]
    text = written(*subscription)
    assert "subscribe_id = str(next(ids))" in text
    assert text.count('"id": subscribe_id') == 2
    assert 'chat.on(any_message, lambda message: None, name="next")' in text


def test_what_only_looks_like_an_id() -> None:
    """The same id each time is a user's, say."""
    calls = [step for do in ("x", "y") for step in exchange({"id": 5, "do": do}, {"id": 5, "did": do})]
    assert "ids" not in written(*calls)


def test_requests_in_flight() -> None:
    text = written(
        (0.1, "send", {"id": 1, "do": "slow"}),
        (0.0, "send", {"id": 2, "do": "quick"}),
        (0.1, "receive", {"id": 2, "ok": True}),
        (1.5, "send", {"id": 3, "do": "quick"}),
        (0.1, "receive", {"id": 3, "ok": True}),
        (0.1, "receive", {"id": 1, "ok": True}),
        (0.1, "send", {"id": 4, "do": "quick"}),
        (0.1, "receive", {"id": 4, "ok": True}),
    )
    inside, after = text.split("async with asyncio.TaskGroup() as in_flight:\n")[1].split("\nawait asyncio.sleep(0.1")
    assert inside.count("in_flight.create_task(") == 3 and "    await asyncio.sleep(1.5 * THINK)" in inside
    assert after.count("chat.request(") == 1


def test_replies_in_order() -> None:
    calls = [step for text in ("hello", "and now?") for step in exchange(text, "you said " + text)]
    assert written(*calls) == (
        "await asyncio.sleep(1 * THINK)\n"
        'await chat.request("hello")\n'
        "await asyncio.sleep(1 * THINK)\n"
        'await chat.request("and now?")'
    )


def test_replies_among_pushes() -> None:
    text = written(
        *exchange({"type": "subscribe"}, {"type": "subscribed"}),
        *[(0.3, "receive", {"type": "price", "value": value}) for value in range(5)],
        *exchange({"type": "unsubscribe"}, {"type": "unsubscribed"}),
    )
    assert 'match=json_subset({"type": "subscribed"})' in text
    assert 'match=json_subset({"type": "unsubscribed"})' in text
    assert 'chat.on(json_subset({"type": "price"}), lambda message: None, name="price")' in text


def test_messages_that_nobody_answers() -> None:
    text = written((0.1, "send", {"type": "typing"}), (0.1, "send", b"\x01\x02"), (0.1, "send", "bye"))
    assert 'await chat.send_json({"type": "typing"})' in text
    assert r'await chat.send(b"\x01\x02")' in text and 'await chat.send("bye")' in text


def test_the_bytes_of_json_stay_the_same() -> None:
    """What Python's ``json.dumps`` or another program writes is not what ``send_json`` does."""
    for sent, expression in [
        ('{"a": 1}', """'{"a": 1}'"""),
        ('{"a":"ä"}', """'{"a":"ä"}'"""),
        ('{"a":1e400}', "'{\"a\":1e400}'"),
        ('{"a":1,"a":2}', """'{"a":1,"a":2}'"""),
        ('{"a":1}', '{"a": 1}'),
    ]:
        assert expression in written((0.1, "send", sent))
    calls = [
        step
        for id in (1, 2, 3)
        for step in exchange(json.dumps({"id": id, "do": "x"}), json.dumps({"id": id, "ok": True}))
    ]
    assert 'json.dumps({"id": next(ids), "do": "x"})' in written(*calls)


def test_a_slow_reply_has_time() -> None:
    assert "timeout=50" in written((0.1, "send", {"id": 1, "do": "x"}), (25, "receive", {"id": 1, "ok": True}))


# -------------------------------------------------------------------------------------- keepalive


def test_an_echo() -> None:
    beats = [step for _ in range(3) for step in [(5.0, "receive", {"ping": 1}), (0.03, "send", {"ping": 1})]]
    assert "keepalive = echo(any_message)" in class_of(*beats)


def test_a_reply() -> None:
    beats = [step for _ in range(3) for step in [(5.0, "receive", "2"), (0.01, "send", "3")]]
    source = class_of(*exchange("420", "430"), *beats)
    assert 'keepalive = reply(lambda message: message == "2", "3")' in source
    assert '.request("420"' in source


def test_a_reply_with_what_it_answers() -> None:
    beats = [
        step
        for time in (5000, 6000, 7000)
        for step in [(1.0, "receive", {"type": "ping", "at": time}), (0.01, "send", {"type": "pong", "at": time})]
    ]
    source = class_of(*beats)
    assert 'lambda message: json.dumps({"type": "pong", "at": json.loads(message)["at"]})' in " ".join(
        source.replace(",\n", ", ").split()
    ).replace("( ", "(").replace(", )", ")").replace("{ ", "{").replace(", }", "}")


def test_socket_io() -> None:
    """The type of a packet is in its first digits; the rest is the number of an acknowledgement."""
    source = class_of(
        (0.1, "receive", '0{"pingInterval":25000}'),
        (0.1, "send", "40"),
        (0.1, "receive", '40{"sid":"x"}'),
        *exchange('420["ask","why"]', '430[{"answer":"why"}]'),
        (0.1, "receive", '42["news",{"a":1}]'),
        *exchange('421["ask","how"]', '431[{"answer":"how"}]'),
        *[step for _ in range(2) for step in [(25.0, "receive", "2"), (0.002, "send", "3")]],
    )
    assert 'keepalive = reply(lambda message: message == "2", "3")' in source
    assert source.count('prefix("43")') == 2 and """'420["ask","why"]'""" in source
    assert source.count("chat.on(") == 2


def test_stomp() -> None:
    source = class_of(
        *exchange("CONNECT\naccept-version:1.2\n\n\0", "CONNECTED\nversion:1.2\n\n\0"),
        *[(1.0, "receive", f"MESSAGE\nsubscription:0\n\n{n}\0") for n in range(3)],
        *[step for _ in range(4) for step in [(9.9, "send", "\n"), (0.1, "receive", "\n")]],
    )
    assert r'keepalive = [every(10, "\n"), ignore(lambda message: message == "\n")]' in source
    assert 'chat.on(prefix("MESSAGE"), lambda message: None, name="MESSAGE")' in source


def test_an_answer_that_comes_late_is_no_keepalive() -> None:
    beats = [step for n in (1, 3, 7) for step in [(n, "receive", {"q": 1}), (0.2, "send", {"a": 1})]]
    assert "keepalive" not in class_of(*beats)


def test_a_client_that_asks_the_same_at_once_is_no_keepalive() -> None:
    """It began: what looks like an answer to the reply is its next request."""
    source = class_of(*[step for _ in range(5) for step in exchange("get", "got", pause=0.01)])
    assert "keepalive" not in source
    assert 'for _ in range(5):\n                await chat.request("get")' in source


def test_a_heartbeat() -> None:
    beats: list[Exchanged] = [(30.0 + (-1) ** n * 0.1, "send", '{"type": "hb"}') for n in range(5)]
    assert """keepalive = every(30, '{"type": "hb"}')""" in class_of(*beats)


def test_a_heartbeat_that_is_answered() -> None:
    beats = [step for _ in range(4) for step in [(9.9, "send", "ping"), (0.1, "receive", "pong")]]
    source = class_of(*beats)
    assert 'keepalive = [every(10, "ping"), ignore(any_message)]' in source


def test_what_is_sent_at_any_time_is_no_heartbeat() -> None:
    beats: list[Exchanged] = [(pause, "send", "x") for pause in (1, 4, 2, 6, 1)]
    assert "every(" not in class_of(*beats)


# ----------------------------------------------------------------------------------------- pushes


@pytest.mark.parametrize(
    ("time", "expression"),
    [
        (lambda now: now, 'sent_at="at"'),
        (lambda now: int(now * 1000), 'sent_at="at"'),
        (iso, 'sent_at=lambda message: datetime.fromisoformat(json.loads(message)["at"]).timestamp()'),
    ],
    ids=["seconds", "milliseconds", "ISO 8601"],
)
def test_pushes_with_a_time(time: Any, expression: str) -> None:
    pushes: list[Exchanged] = [(1, "receive", {"n": n, "at": time(BEGAN + n + 0.9)}) for n in range(4)]
    assert expression in " ".join(written(*pushes).split())


def test_a_time_in_the_depth() -> None:
    pushes: list[Exchanged] = [(1, "receive", {"data": [{"at": BEGAN + n + 0.9}]}) for n in range(4)]
    assert 'measure_push(any_message, sent_at=("data", 0, "at"))' in written(*pushes)


def test_a_time_of_something_else() -> None:
    pushes: list[Exchanged] = [(1, "receive", {"born": BEGAN - 1e6 + n}) for n in range(4)]
    assert "chat.on(any_message, lambda message: None)" in written(*pushes)


# ----------------------------------------------------------------------------------------- values


def test_a_value_from_an_earlier_reply() -> None:
    text = written(
        *exchange({"type": "login"}, {"type": "welcome", "user": {"ids": ["u-10442"]}}),
        *exchange({"type": "join", "member": "u-10442"}, {"type": "joined"}),
    )
    assert "welcome = json.loads(await chat.request(" in text
    assert '"member": welcome["user"]["ids"][0]' in text


def test_a_value_from_a_push() -> None:
    text = written(
        (0.1, "receive", {"type": "hello", "connection": "c-7781"}),
        (0.5, "send", {"type": "join", "connection": "c-7781"}),
        (0.1, "receive", {"type": "tick"}),
        (0.1, "receive", {"type": "tick"}),
    )
    assert 'hello = json.loads(await chat.expect(json_subset({"type": "hello"})))' in text
    assert '"connection": hello["connection"]' in text
    assert 'chat.on(json_subset({"type": "tick"})' in text and 'chat.on(json_subset({"type": "hello"})' not in text


def test_values_from_one_push_after_the_other() -> None:
    offers = [
        step
        for number in range(4)
        for step in [
            (0.5, "receive", {"type": "offer", "offer": f"o-{number * 7919 + 10_000}"}),
            (0.4, "send", {"type": "accept", "offer": f"o-{number * 7919 + 10_000}"}),
        ]
    ]
    text = written(*offers)
    assert text.startswith("for _ in range(4):\n    offer = json.loads(await chat.expect(any_message))\n")
    assert '"offer": offer["offer"]' in text


def test_a_value_that_the_client_had_first() -> None:
    text = written(
        *exchange({"type": "join", "room": "room-4711"}, {"type": "joined", "room": "room-4711"}),
        *exchange({"type": "say", "room": "room-4711"}, {"type": "said"}),
    )
    assert text.count('"room": "room-4711"') == 2


def test_values_from_the_login() -> None:
    login = http_entry(
        "http://shop.example/api/login",
        method="POST",
        body='{"user": "anna@shop.example", "password": "s3cret-pass"}',
        content_type="application/json",
        answer='{"auth": {"token": "abcdef0123456789"}}',
    )
    source = converted(
        login,
        entry(
            [(0.1, "send", {"type": "auth", "token": "abcdef0123456789"})],
            "ws://shop.example/chat?ticket=abcdef0123456789",
            [("Authorization", "Bearer abcdef0123456789")],
        ),
    )
    assert "class ShopExampleUser(AsyncWebSocketUser, HttpUser):" in source
    assert 'host = "http://shop.example"' in source
    assert "self.login_answer = self.client.post(" in source
    assert 'json={"user": USER, "password": PASSWORD}' in source
    assert 'ticket = self.login_answer["auth"]["token"]' in source and "?ticket={ticket}" in source
    assert 'bearer=self.login_answer["auth"]["token"]' in source
    assert '"token": self.login_answer["auth"]["token"]' in source
    for secret in ("anna@", "s3cret-pass", "abcdef0123456789"):
        assert secret not in source


def test_a_login_by_a_form_with_redirects() -> None:
    """Only what sets the cookie of the handshake, and what sets the cookies of that."""
    cookie = ("Cookie", "csrf=k1; lang=en")
    source = converted(
        http_entry("https://shop.example/", answered=[("Set-Cookie", "csrf=k1; Path=/")], began=BEGAN - 5),
        http_entry("https://shop.example/logo.png", began=BEGAN - 4),
        http_entry(
            "https://shop.example/login",
            method="POST",
            body="user=anna&password=s3cret+pass&csrf=k1",
            content_type="application/x-www-form-urlencoded",
            headers=[cookie, ("X-Requested-With", "fetch"), ("Accept", "*/*")],
            status=302,
            answered=[("set-cookie", "session=9f8e7d; HttpOnly")],
            began=BEGAN - 3,
        ),
        entry(
            [(0.1, "send", "hi")], "wss://shop.example/chat", [("Cookie", "csrf=k1; session=9f8e7d; lang=en; _ga=GA1")]
        ),
    )
    start = source.split("def on_start(self):\n")[1].split("    @task")[0]
    assert [line.split("(")[0].strip() for line in start.splitlines() if "self.client" in line] == [
        "self.client.get",
        "self.client.post",
    ]
    assert '"user": USER' in start and '"password": PASSWORD' in start and '"X-Requested-With": "fetch"' in start
    assert "share_cookies = True" in source and 'cookies = {"lang": "en"}' in source
    assert "9f8e7d" not in source and "s3cret" not in source and "_ga" not in source


# ------------------------------------------------------------------------ pauses, loops, handshake


def test_a_loop_over_values() -> None:
    calls = [
        step
        for item, count in [("book", 1), ("pen", 2), ("cup", 2)]
        for step in exchange({"item": item, "count": count}, {"ok": True})
    ]
    assert written(*calls).startswith('for item, count_2 in [("book", 1), ("pen", 2), ("cup", 2)]:\n') or (
        'in [("book", 1), ("pen", 2), ("cup", 2)]:' in written(*calls)
    )


def test_a_loop_of_several_steps() -> None:
    turn = [*exchange({"a": 1}, "A"), *exchange({"b": 1}, "B", 0.5)]
    assert written(*turn, *turn).splitlines()[0] == "for _ in range(2):"


def test_pauses() -> None:
    sent: list[Exchanged] = [(0.01, "send", {"a": 1}), (0.128, "send", {"b": 1}), (3.14159, "send", {"c": 1})]
    text = written(*sent, (61.2, "send", {"d": 1}), (11, "receive", "e"))
    assert [line for line in text.splitlines() if "sleep" in line] == [
        f"await asyncio.sleep({seconds} * THINK)" for seconds in ("0.13", "3.1", "61", "11")
    ]


def test_pauses_in_loops() -> None:
    """A few that differ are told; the mean of those of many."""
    uneven: list[Exchanged] = [(pause, "send", {"a": 1}) for pause in (0.1, 2, 5)]
    assert written(*uneven).splitlines()[:2] == [
        "for pause in [0.1, 2, 5]:",
        "    await asyncio.sleep(pause * THINK)",
    ]
    assert "await asyncio.sleep(2.4 * THINK)" in written(*uneven * 5)


def test_settings_of_the_handshake() -> None:
    source = class_of(
        (0.1, "send", "x"),
        (0.1, "receive", "y" * 2**21),
        headers=[
            ("Host", "shop.example"),
            ("User-Agent", "Mozilla/5.0"),
            ("Origin", "https://shop.example"),
            ("Sec-WebSocket-Protocol", "chat.v2, chat.v1"),
            ("Sec-WebSocket-Key", "x"),
            ("X-Tenant", "7"),
            (":authority", "shop.example"),
            ("Cookie", "theme=dark"),
        ],
        answered=[("Sec-WebSocket-Extensions", "permessage-deflate")],
    )
    settings = [
        line.strip() for line in source.split("wait_time")[1].split("@task")[0].splitlines()[1:] if line.strip()
    ]
    assert settings == [
        'origin = "https://shop.example"',
        'subprotocols = ["chat.v2", "chat.v1"]',
        'headers = {"X-Tenant": "7"}',
        'cookies = {"theme": "dark"}',
        'compression = "deflate"',
        "max_size = 2**22",
    ]


def test_headers_and_fields_that_are_there_twice() -> None:
    login = http_entry(
        "http://shop.example/login",
        method="POST",
        body="scope=a&scope=b",
        content_type="application/x-www-form-urlencoded",
        answered=[("Set-Cookie", "s=1")],
    )
    twice = [("X-Role", "a"), ("X-Role", "b"), ("Cookie", "s=1")]
    source = converted(login, entry([(0.1, "send", "x")], headers=twice))
    assert 'headers = [("X-Role", "a"), ("X-Role", "b")]' in source
    assert 'data=[("scope", "a"), ("scope", "b")]' in source


def test_a_class_for_each_host() -> None:
    source = converted(
        entry([(0.1, "send", "x")], "wss://www.shop.example/chat"),
        entry([(0.1, "send", "x")], "ws://feed.example:8080/"),
        entry([(0.1, "send", "y")], "wss://www.shop.example/orders", began=BEGAN + 10),
    )
    assert "class ShopExampleUser(AsyncWebSocketUser):" in source
    assert "class FeedExampleUser(AsyncWebSocketUser):" in source and 'host = "ws://feed.example:8080"' in source
    assert (
        "await self.chat_socket()\n        await asyncio.sleep(9.9 * THINK)\n        await self.orders_socket()"
        in source
    )


def test_connections_again_and_again() -> None:
    source = converted(*[entry(exchange("hi", "ho"), began=BEGAN + 10 * n) for n in range(4)])
    assert source.count("async with self.ws.connect(") == 1
    assert "for _ in range(4):" in source and "await self.chat_socket()" in source


@pytest.mark.parametrize(
    ("url", "protocol", "name"),
    [
        ("ws://h/graphql", "graphql-transport-ws", "GraphQL"),
        ("ws://h/socket.io/?EIO=4&transport=websocket", "", "Socket.IO"),
        ("ws://h/ws", "v12.stomp", "STOMP"),
        ("ws://h/cp", "ocpp1.6, ocpp2.0.1", "OCPP"),
        ("ws://h/mqtt", "mqtt", "MQTT"),
        ("ws://h/socket/websocket?vsn=2.0.0", "", "Phoenix channels"),
    ],
)
def test_protocols_that_are_known(url: str, protocol: str, name: str) -> None:
    source = converted(entry([(0.1, "send", "x")], url, [("Sec-WebSocket-Protocol", protocol)]))
    assert f"# This speaks {name}: " in source


def test_no_name_of_a_method_is_one_of_locusts(tmp_path: Path) -> None:
    from locust_ws_async.client import ConnectOptions
    from locust_ws_async.recording.payloads import identifier

    words = [
        "ws",
        "client",
        "headers",
        "cookies",
        "on_start",
        "environment",
        "session",
        "unix",
        "task",
        "self",
        "class",
    ]
    source = converted(
        *[entry([(0.1, "send", word)], f"ws://h/{word}", began=BEGAN + n) for n, word in enumerate(words)]
    )
    methods = {line.split("(")[0].split()[-1] for line in source.splitlines() if "    async def " in line}
    assert identifier("ws", "") + "_socket" in methods
    assert not methods & set(ConnectOptions.__dataclass_fields__)
    (tmp_path / "locustfile.py").write_text(source)
    well_formed(tmp_path)
