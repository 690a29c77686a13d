"""No secret stands in a locustfile, wherever it was in the recording; what is none stays."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from .helpers import Exchanged, converted, entry, http_entry

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm5hIn0.c2lnbmVkLWJ5LW5vYm9keQ"
BY_FORM = [
    JWT,
    "sk-live-9a8B7c6D5e4F3g2H1i0J",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "AKIAIOSFODNN7EXAMPLE",
    "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOHcbrzqgy",
    "9f86d081884c7d659a2feaa0c55ad015",
    "q7Tz0PmX4vKc9RbL2nYw8EjH",
]


@pytest.mark.parametrize("secret", BY_FORM)
@pytest.mark.parametrize(
    "sent",
    [
        lambda secret: {"value": secret},
        lambda secret: [1, [secret]],
        lambda secret: {"text": f"see {secret}, please"},
        lambda secret: {secret: 1},
        lambda secret: f"LOGIN {secret}\n\n\0",
        lambda secret: f'{{"a": "{secret}"}}',
        lambda secret: b"\x00\x01" + secret.encode() + b"\xff",
    ],
    ids=["member", "array", "in a text", "name", "text", "JSON of another form", "binary"],
)
def test_what_looks_like_a_secret(sent: Any, secret: str) -> None:
    source = converted(entry([(0.1, "send", sent(secret)), (0.1, "receive", {"you said": secret})]))
    assert secret not in source and "os.environ[" in source


@pytest.mark.parametrize(
    "message",
    [
        {"password": "letmein"},
        {"user": {"passWord": "letmein"}},
        {"access_token": "letmein"},
        {"apiKey": "letmein"},
        {"X-Api-Key": "letmein"},
        {"credentials": ["letmein"]},
        {"session_id": "letmein"},
        {"pin": 4711},
        "CONNECT\nlogin:anna\npasscode:letmein\n\n\0",
        "auth token=letmein",
        '{"password": "letmein"}',
        '{"nested": {"token": "letmein", "deep": ' + "[" * 40 + "]" * 40 + "}}",
    ],
    ids=str,
)
def test_what_is_called_a_secret(message: Any) -> None:
    source = converted(entry([(0.1, "send", message)]))
    assert "letmein" not in source and "4711" not in source and "os.environ[" in source


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-01T00:00:00.000+00:00",
        "123e4567-e89b-12d3-a456-426614174000",
        "application/vnd.example.order-v2+json",
        "order-2026-000123",
        "https://shop.example/products/4711?page=2",
        "the quick brown fox jumps over 13 lazy dogs",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "urn:ietf:params:oauth:grant-type:device_code",
        "BTC-USD",
    ],
)
def test_what_is_no_secret(value: str) -> None:
    assert value in converted(entry([(0.1, "send", {"value": value, "type": "auth", "max_tokens": 4096})]))


def test_secrets_of_the_handshake() -> None:
    header = "Basic " + b64encode(b"anna:letmein-17").decode()
    for url, headers in [
        (f"wss://shop.example/feed?token={JWT}&page=2", []),
        ("wss://shop.example/feed?password=letmein-17%21", []),
        ("wss://anna:letmein-17@shop.example/feed", []),
        (f"wss://shop.example/feed/{BY_FORM[-1]}/live", []),
        ("wss://shop.example/feed", [("Authorization", f"Bearer {JWT}")]),
        ("wss://shop.example/feed", [("Authorization", header)]),
        ("wss://shop.example/feed", [("X-Api-Key", "letmein-17")]),
        ("wss://shop.example/feed", [("X-Custom", BY_FORM[-1])]),
        ("wss://shop.example/feed", [("Cookie", "sid=letmein-17; theme=dark")]),
        ("wss://shop.example/feed", [("Sec-WebSocket-Protocol", f"v1, bearer.{JWT}")]),
    ]:
        source = converted(entry([(0.1, "send", "x")], url, headers))
        for secret in (JWT, BY_FORM[-1], "letmein-17", header.split()[1]):
            assert secret not in source
        assert "os.environ[" in source


def test_a_secret_that_is_there_twice_is_one_variable() -> None:
    sent: list[Exchanged] = [(0.1, "send", {"token": JWT}), (0.3, "send", f"again {JWT}"), (0.1, "send", {"jwt": JWT})]
    source = converted(entry(sent, f"wss://h/?access={JWT}"))
    assert source.count("os.environ[") == 1 and "token_urlsafe" not in source


def test_a_user_name_beside_a_password() -> None:
    login: list[Exchanged] = [(0.1, "send", {"email": "anna@shop.example", "password": "letmein"})]
    source = converted(entry(login))
    assert "anna" not in source and '{"email": EMAIL, "password": PASSWORD}' in source


def test_random_values_without_end() -> None:
    """Nobody sets a hundred variables: from some number on, they are made up."""
    sent: list[Exchanged] = [
        (0.1, "send", {"nonce": f"{(n + 3) * 0x9E3779B97F4A7C15F39CC0605CEDC834:034x}"}) for n in range(100)
    ]
    source = converted(entry(sent))
    assert not any(message["nonce"] in source for _, _, message in sent)
    assert source.count("os.environ[") <= 20 and "token_urlsafe(" in source


def test_requests_that_are_not_needed_are_not_there() -> None:
    other = http_entry("https://shop.example/profile", headers=[("Authorization", f"Bearer {JWT}")], answer='{"a": 1}')
    source = converted(other, entry([(0.1, "send", "x")]))
    assert "profile" not in source and JWT not in source and "os.environ" not in source


def test_what_the_server_sent_is_no_match_if_it_is_a_secret() -> None:
    pushes: list[Exchanged] = [
        (0.1, "receive", {"type": BY_FORM[-1]}),
        (0.1, "receive", {"type": "price", "value": 1}),
        (0.1, "receive", {BY_FORM[-2]: 1}),
    ]
    source = converted(entry(pushes))
    assert not any(secret in source for secret in BY_FORM)


def test_the_name_of_the_row_has_no_secret() -> None:
    source = converted(entry([(0.1, "send", json.dumps({"x": 1}))], f"wss://h/room/{BY_FORM[-1]}"))
    assert 'name="/room/{token}"' in source and 'f"/room/{TOKEN}"' in source
