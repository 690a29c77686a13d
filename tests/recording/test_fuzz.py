"""Whatever the file: a locustfile that compiles, or an error that says what is wrong. Never anything else."""

from __future__ import annotations

import ast
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from locust_ws_async.recording import HARError, locustfile, parse
from locust_ws_async.recording.source import WIDTH, width

from .helpers import BEGAN, Exchanged, entry, har, http_entry, well_formed

EXAMPLES = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

words = st.sampled_from(
    [
        "id",
        "type",
        "ping",
        "pong",
        "token",
        "password",
        "price",
        "at",
        "a b",
        "ä",
        "漢",
        "'",
        '"',
        "\\",
        "{x}",
        "\n",
        "",
    ]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | words
    | st.text(max_size=200)
    | st.integers(0, 5)
    | st.sampled_from([BEGAN, int(BEGAN * 1000), "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln", "user-10442", 10442])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=5), inner, max_size=4)
)
objects = st.dictionaries(words, values, max_size=5)
payloads = objects | st.lists(values, max_size=5) | st.text(max_size=300) | words | st.binary(max_size=200)
pauses = st.sampled_from([0.0, 0.01, 0.3, 1.0, 5.0, 40.0])
exchanged = st.tuples(pauses, st.sampled_from(["send", "receive"]), payloads)
headers = st.lists(
    st.tuples(
        st.sampled_from(["Origin", "Cookie", "Authorization", "X-Y", "Sec-WebSocket-Protocol"]), st.text(max_size=60)
    ),
    max_size=4,
)
urls = st.builds(
    lambda host, path: f"wss://{host}/{path}",
    st.sampled_from(["h", "shop.example", "127.0.0.1:1", "u:p@h", "[::1]:80"]),
    st.text(max_size=40),
)


def compiles(text: str | bytes) -> str | None:
    """The locustfile, if there is one."""
    try:
        source = locustfile(parse(text))
    except HARError as error:
        assert str(error)
        return None
    compile(source, "locustfile.py", "exec")
    source.encode()
    return source


# Conversations: some messages, of which some come again and again, so that there are patterns to be found.
conversations = st.builds(
    lambda turn, times, more: [*turn * times, *more],
    st.lists(exchanged, min_size=1, max_size=5),
    st.integers(1, 4),
    st.lists(exchanged, max_size=8),
)


@EXAMPLES
@given(conversations, urls, headers)
def test_conversations(messages: list[Exchanged], url: str, sent: list[tuple[str, str]]) -> None:
    compiles(har(entry(messages, url, sent)))


@EXAMPLES
@given(st.data())
def test_sessions(data: st.DataObject) -> None:
    """Several connections, and HTTP requests before them."""
    requests = [
        http_entry(
            f"http://h/{data.draw(st.text(max_size=10))}",
            method=data.draw(st.sampled_from(["GET", "POST", "PURGE"])),
            body=data.draw(st.sampled_from(['{"password": "p"}', "a=b&password=c", "<x/>", "[1", ""])),
            content_type=data.draw(st.sampled_from(["application/x-www-form-urlencoded", "", "text/xml; x"])),
            answered=[("Set-Cookie", data.draw(st.sampled_from(["s=1", "s=2; Path=/", "", "x"])))],
            answer=json.dumps(data.draw(values)),
        )
        for _ in range(data.draw(st.integers(0, 3)))
    ]
    connections = [
        entry(
            data.draw(conversations),
            data.draw(urls),
            [("Cookie", data.draw(st.sampled_from(["s=1", "s=2; t=3", "", "a"])))],
            began=BEGAN + data.draw(st.integers(0, 30)),
        )
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    compiles(har(*requests, *connections))


@EXAMPLES
@given(values)
def test_json_that_is_no_har(value: Any) -> None:
    for text in (json.dumps(value), json.dumps({"log": value}), json.dumps({"log": {"entries": value}})):
        assert compiles(text) is None


@EXAMPLES
@given(st.data())
def test_hars_with_a_member_that_is_something_else(data: st.DataObject) -> None:
    good: dict[str, Any] = json.loads(
        har(
            http_entry("http://h/", body="a", answered=[("Set-Cookie", "a=b")]),
            entry([(1, "send", {"id": 1}), (1, "receive", {"id": 1})], headers=[("Cookie", "a=b")]),
        )
    )
    place: Any = good
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    if data.draw(st.booleans()):
        place[key] = data.draw(values)
    else:
        del place[key]
    compiles(json.dumps(good))


@EXAMPLES
@given(st.binary(max_size=300))
def test_any_bytes(text: bytes) -> None:
    assert compiles(text) is None


def test_what_is_written_is_as_ruff_writes_it(tmp_path: Path) -> None:
    """Some of what was drawn above, all in one run of ruff."""
    sources: dict[str, None] = {}

    @settings(EXAMPLES, database=None)
    @given(conversations, urls, headers)
    def collect(messages: list[Exchanged], url: str, sent: list[tuple[str, str]]) -> None:
        if source := compiles(har(entry(messages, url, sent))):
            sources[source] = None

    collect()
    for number, source in enumerate(sources):
        # Where a name is so long that what follows has no room, a formatter breaks what we leave whole.
        if max(map(width, source.splitlines())) <= WIDTH:
            (tmp_path / f"locustfile_{number}.py").write_text(source)
    assert len(list(tmp_path.iterdir())) > len(sources) / 2
    # E501, RUF001, RUF003: what is in a message is not ours to change.
    well_formed(tmp_path, "E501", "RUF001", "RUF003", "W605")


@pytest.mark.parametrize("kind", ["ids", "texts", "values", "pushes"])
def test_ten_thousand_messages(kind: str) -> None:
    """The time grows as the number does, eightfold; as its square it would be 64 times as much."""

    def conversation(count: int) -> str:
        each: dict[str, Any] = {
            "ids": lambda n: [(0.5, "send", {"id": n, "do": "x"}), (0.1, "receive", {"id": n, "ok": True})],
            "texts": lambda n: [(0.5, "send", f"hello {n}"), (0.1, "receive", f"hello {n}")],
            "values": lambda n: [
                (0.5, "receive", {"offer": f"o-{n:06}"}),
                (0.3, "send", {"take": f"o-{n:06}", "n": n % 7}),
            ],
            "pushes": lambda n: [(0.5, "receive", {"type": "price", "value": n}), (0.5, "send", "x" * (n % 7))],
        }
        return har(entry([step for n in range(1000, 1000 + count // 2) for step in each[kind](n)]))

    def seconds(count: int) -> float:
        text = conversation(count)
        began = time.process_time()
        ast.parse(locustfile(parse(text)))
        return time.process_time() - began

    seconds(100)
    few = min(seconds(1_250) for _ in range(3))
    assert min(seconds(10_000) for _ in range(2)) < 24 * few
