"""A hostile server costs its own user the connection at most: neither the process's memory nor other users' time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from locust_ws_async.bridge.selector import POLLS_PER_HUB_TURN
from locust_ws_async.client import ENGINES
from locust_ws_async.client.wire.base import TURN_FRAMES
from tests.support import SCALE

from .victim import ATTACKS, KEEPALIVE

ROOT = Path(__file__).parents[2]

MEMORY = 64 * 2**20
"""The default limits let 16 MiB wait, and a message of 1 MiB be under way; the rest is for copies, and for what C and
Python keep."""

FRAMES = POLLS_PER_HUB_TURN * TURN_FRAMES * 4
"""A loop that never waits lets the others run at each so many turns. picows may read four times in a turn."""

SECONDS = 2 * SCALE
"""Of CPU time, which a busy machine does not add to. What it takes is less than a tenth of it, save once: see below."""

# What the user gets, where it is not the same as for a user whose server is just fast.
ERRORS = {
    "close frames": "ConnectionClosedOK: connection closed by the server: 1000 OK",
    "no end after the close frame": "ConnectionClosedOK: connection closed by the server: 1000 OK",
    "empty fragments": "ConnectionClosedError: connection failed: the server sent a message of too many fragments",
    "small fragments": "ConnectionClosedError: connection failed: the server sent a message of too many fragments",
    "absurd length": "ConnectionClosedError: connection failed: the server sent a message over max_size",
    "absurd length without max_size": "ConnectionClosedError: connection failed: the server sent a message over",
    "announced length without max_size": "ConnectionClosedError: connection lost",
    "impossible length": "ConnectionClosedError",
    "large ping": "ConnectionClosedError: connection failed: the server sent a malformed frame",
    "bomb": "ConnectionClosedError: connection failed: the server sent a message over max_size",
    "slow message": "MessageTimeout",
    "huge header": "HandshakeError|HandshakeRejected",
    "endless header": "HandshakeError|HandshakeRejected",
    "endless headers": "HandshakeError|HandshakeRejected",
    "endless status": "HandshakeError",
    "endless body": "HandshakeError|HandshakeRejected",
    "slow header": "ConnectTimeout",
    "redirect loop": "HandshakeError: the server redirects the handshake more often than redirect_limit",
}


DURING_ON_CONNECTED = "LostInOnConnected: the connection ended before on_connected was done: "


@pytest.fixture(scope="module")
def hostile() -> Iterator[str]:
    """The URL of the hostile server, in a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "tests.adversary.server"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield f"ws://127.0.0.1:{process.stdout.readline().strip()}"
        _, errors = process.communicate("", timeout=20 * SCALE)
    assert errors == ""


def attack(engine: str, name: str, url: str) -> tuple[dict[str, Any], str]:
    """The outcome, and the log."""
    command = [sys.executable, "-W", "error", "-m", "tests.adversary.victim", engine, name, url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60 * SCALE)
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome, done.stderr


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_bounded(engine: str, name: str, hostile: str) -> None:
    _, _, options = ATTACKS[name]
    if engine == "picows" and "compression" in options:
        pytest.skip("picows has no compression")
    outcome, log = attack(engine, name, hostile)
    # The end may come before on_connected is done, which is told then.
    error, expected = outcome["error"], ERRORS.get(name, "$")
    if error.startswith(DURING_ON_CONNECTED):
        error, expected = error.removeprefix(DURING_ON_CONNECTED), expected.partition(": ")[2]
    assert re.match(expected, error)
    assert outcome["memory"] < MEMORY
    assert outcome["frames"] <= FRAMES
    if name != "small messages for a slow plain handler":  # the time is its own, and `on` handles at once what waits
        assert outcome["seconds"] < SECONDS
    # The log says at most one thing, once.
    assert len(log.splitlines()) <= 1
    if options is KEEPALIVE:
        assert "its messages are left out" in log
        assert outcome["stats"]["keepalives_skipped"] > outcome["stats"]["messages_sent"]
