"""Properties: what the predicates mean, and who gets which message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from locust_ws_async.client import (
    WebSocketClient,
    WebSocketConnection,
    any_message,
    json_field,
    json_subset,
    prefix,
    regex,
)
from locust_ws_async.client.messages import matching
from locust_ws_async.client.messages.matching import matches, parse_json
from locust_ws_async.exceptions import MessageTimeout
from tests.support import SCALE

from .helpers import Bench, run

pytestmark = pytest.mark.once

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=3)
)


def grow(value: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    """The same value with more members in its objects."""
    if isinstance(value, dict):
        extra = draw(st.dictionaries(st.text("cd", min_size=1, max_size=1), JSON, max_size=2))
        return extra | {key: grow(member, draw) for key, member in value.items()}
    if isinstance(value, list):
        return [grow(member, draw) for member in value]
    return value


@given(JSON, st.data())
def test_what_contains_more_matches_the_subset(value: Any, data: st.DataObject) -> None:
    assert matches(json_subset(value), json.dumps(grow(value, data.draw)))
    assert matches(json_subset(value), json.dumps(value).encode())


@given(JSON, JSON)
@example(True, 1)
@example({"a": 1}, {"a": True})
@example([1, 2], [1])
def test_what_does_not_contain_it_does_not_match(value: Any, other: Any) -> None:
    def contains(larger: Any, smaller: Any) -> bool:
        if isinstance(smaller, dict) and isinstance(larger, dict):
            return all(key in larger and contains(larger[key], smaller[key]) for key in smaller)
        if isinstance(smaller, list) and isinstance(larger, list):
            return len(larger) == len(smaller) and all(map(contains, larger, smaller))
        return json.dumps(larger) == json.dumps(smaller)

    assert matches(json_subset(value), json.dumps(other)) == contains(other, value)


@given(st.text() | st.binary())
def test_no_predicate_raises_for_any_message(message: str | bytes) -> None:
    for match in (json_subset({"a": 1}), regex("a"), regex(b"a"), prefix("a"), prefix(b"a"), any_message):
        assert matches(match, message) in (True, False)
    json_field("id").key_of_reply(message)
    assert not matches(lambda message: bool(1 / 0), message)


def test_kinds_do_not_mix() -> None:
    assert prefix("a")("ab") and not prefix("a")(b"ab") and prefix(b"a")(b"ab") and not prefix(b"a")("ab")
    assert regex("b$")("ab") and not regex("b")(b"ab") and regex(rb"\x00")(b"\x00")


@given(JSON, JSON)
def test_json_field_pairs_equal_values_and_no_others(value: Any, other: Any) -> None:
    by_id = json_field("id")
    key = by_id.key_of_request(json.dumps({"id": value}))
    assert by_id.key_of_reply(json.dumps({"id": value, "more": 1})) == key
    same = json.dumps(value, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (by_id.key_of_reply(json.dumps({"id": other})) == key) == same


def test_json_field_needs_a_path() -> None:
    for arguments in ((), (1.5,), ("a", None)):
        with pytest.raises(TypeError, match="json_field takes names and indexes"):
            json_field(*arguments)


def test_a_message_is_parsed_once() -> None:
    message = '{"a": [1]}'
    assert parse_json(message) is parse_json(message)
    assert parse_json('{"a": [2]}') == {"a": [2]}


# Who gets which message: against the plainest model.

MATCHES = {"any": any_message, "a": regex("a"), "b": regex("b"), "ab": regex("a|b")}
STEPS = st.lists(
    st.tuples(st.just("wait"), st.sampled_from(sorted(MATCHES)))
    | st.tuples(st.just("request"), st.integers(0, 3))
    | st.tuples(st.just("call"), st.integers(0, 3))
    | st.tuples(st.just("give up"), st.integers(0, 10))
    | st.tuples(st.just("message"), st.sampled_from(["a", "b", "c", "ab"]))
    | st.tuples(st.just("reply"), st.integers(0, 3)),
    max_size=30,
)


@given(STEPS)
@example([("request", 0), ("wait", "any"), ("reply", 0)])
@example([("wait", "any"), ("request", 0), ("reply", 0)])
@example([("request", 0), ("call", 0), ("reply", 0)])
@example([("call", 0), ("request", 0), ("reply", 0)])
@example([("request", 1), ("call", 0), ("request", 0), ("reply", 0)])
@example([("request", 0), ("call", 0), ("give up", 0), ("reply", 0), ("reply", 0)])
def test_the_oldest_that_matches_gets_it(steps: list[tuple[str, Any]]) -> None:
    async def main() -> None:
        rows: list[Any] = []
        client = WebSocketClient(base_url="ws://h", report=lambda *row: rows.append(row))
        connection = WebSocketConnection(client, "ws://h/", "/", client.options)
        pending = connection.router.pending
        # Replies are found by either of two fields, which have the same value.
        correlations = {"request": json_field("id"), "call": json_field("id", reply="re")}

        model: list[tuple[int, Callable[[str], bool], bool]] = []  # (number, predicate, still waits)
        waiters: list[Any] = []
        got: dict[int, str] = {}

        for step, argument in steps:
            number = len(waiters)
            if step == "wait":
                match = MATCHES[argument]
                waiters.append(pending.add(match, None, str(number), 0.0, None, True))
                model.append((number, match, True))
            elif step in correlations:
                correlation = correlations[step]
                key = correlation.key_of_request(json.dumps({"id": argument}))
                waiters.append(pending.add(correlation, key, str(number), 0.0, None, True))
                reply = json.dumps({"id": argument, "re": argument})
                model.append((number, lambda message, reply=reply: message == reply, True))
            elif step == "give up":
                if argument < number and any(argument == entry[0] and entry[2] for entry in model):
                    pending.abandon(waiters[argument])
                    model = [(n, m, waits and n != argument) for n, m, waits in model]
            else:
                message = argument if step == "message" else json.dumps({"id": argument, "re": argument})
                expected = next((entry for entry in model if entry[1](message)), None)
                late = len(rows)
                assert pending.try_consume(message, len(message), 1.0) == (expected is not None)
                if expected is None:
                    continue
                model.remove(expected)
                if expected[2]:
                    got[expected[0]] = message
                    assert len(rows) == late
                else:
                    assert rows[-1][:2] == ("WS REQUEST", f"{expected[0]} (late)")

        received = {
            number: waiter.future.result().message
            for number, waiter in enumerate(waiters)
            if waiter.future is not None and waiter.future.done()
        }
        assert received == got

    asyncio.run(main())


# What is told of a match that finds nothing


def test_a_match_that_raises_is_told_once(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(matching, "_told_of", set())

    def lacks_it(message: Any) -> bool:
        return bool(json.loads(message)["id"] == 7)

    def misspelt(message: Any) -> bool:
        return bool(message.startwith("x"))

    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            for match in (lacks_it, misspelt):
                for _ in range(2):
                    with pytest.raises(MessageTimeout) as caught:
                        await connection.request('{"other": 1}', match=match, timeout=0.1 * SCALE)
                    assert caught.value.__cause__ is not None

    run(main())
    told = [(record.levelname, record.getMessage()) for record in caplog.records if "raised" in record.getMessage()]
    assert [level for level, _ in told] == ["INFO", "WARNING"]
    assert "lacks_it raised KeyError('id')" in told[0][1] and "misspelt raised AttributeError(" in told[1][1]


def test_a_timeout_tells_once_what_came_instead(bench: Bench, engine: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            for name in (f"told {engine}", f"told {engine}", "nothing came"):
                if name != "nothing came":
                    await connection.send('{"kind": "' + "x" * 300 + '"}')
                with pytest.raises(MessageTimeout):
                    await connection.expect(json_subset({"kind": "y"}), timeout=0.1 * SCALE, name=name)
                if name != "nothing came":
                    await connection.recv()

    run(main())
    told = [record.getMessage() for record in caplog.records if "no message matched" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith(
        f"told {engine}: no message matched within the timeout. The last one that did not begins with"
    )
    assert '{"kind": "xxx' in told[0] and "x" * 200 not in told[0]


def test_a_message_is_parsed_as_json_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[object] = []
    loads = matching._loads

    def counted(text: Any, **options: Any) -> Any:
        parsed.append(text)
        return loads(text, **options)

    async def main() -> None:
        async with bench.client().connect("/echo") as connection:
            connection.on(json_subset({"a": 1}), print)
            connection.on(json_subset({"a": 2}), print)
            monkeypatch.setattr(matching, "_loads", counted)
            async with connection.request('{"b": 3}', match=json_subset({"b": 3}), catch_response=True) as reply:
                reply.json()["b"] = 4  # it is the author's own
                assert reply.json() == {"b": 3}
            assert parsed == ['{"b": 3}'] * 2
            await connection.send("no JSON")
            await connection.recv()
            assert parsed == ['{"b": 3}'] * 2 + ["no JSON"]

    run(main())
