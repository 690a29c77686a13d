"""
A user under attack and another user beside it, in a process of their own, hosted as Locust hosts them.

    python -m tests.adversary.victim ENGINE ATTACK URL          prints one line of JSON: see ``Outcome``
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import gevent

from locust_ws_async.bridge import LoopHost
from locust_ws_async.client import WebSocketClient, WebSocketConnection, echo, prefix


@dataclass
class Outcome:
    """What became of the two users."""

    error: str
    """What the attacked user got, or ""."""
    memory: int
    """By how many bytes the peak of the process's memory has grown."""
    frames: int
    """The most frames that were handled between two turns of the other user."""
    seconds: float
    """The most CPU seconds between two turns of the other user."""
    stats: dict[str, Any]
    """What the attacked connection has counted."""


def peak_memory() -> int:
    """Bytes, of the process; or of Python's allocations, where the platform does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        import tracemalloc

        if not tracemalloc.is_tracing():
            tracemalloc.start()
        return tracemalloc.get_traced_memory()[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


Attacked = Callable[[WebSocketConnection], Awaitable[object]]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def nothing_taken(connection: WebSocketConnection) -> None:
    await until(lambda: connection.reading_paused)


async def all_taken(connection: WebSocketConnection) -> None:
    for _ in range(200_000):
        await connection.recv()


async def read_to_the_end(connection: WebSocketConnection) -> None:
    while True:
        await connection.recv()


async def slow_handler(connection: WebSocketConnection) -> None:
    released = asyncio.Event()

    async def handler(message: object) -> None:
        await released.wait()

    connection.on(lambda message: True, handler)
    await until(lambda: connection.reading_paused)
    released.set()
    await until(lambda: not connection.reading_paused)


async def slow_plain_handler(connection: WebSocketConnection) -> None:
    handled = 0

    def handler(message: object) -> None:
        nonlocal handled
        handled += 1
        end = time.thread_time() + 0.001
        while time.thread_time() < end:
            pass

    connection.on(lambda message: True, handler)
    await until(lambda: handled >= 1000)


async def closed(connection: WebSocketConnection) -> None:
    await connection.close()


async def answered(connection: WebSocketConnection) -> None:
    await until(lambda: connection.stats.keepalives_skipped >= 10_000)


async def pinged(connection: WebSocketConnection) -> None:
    await until(lambda: connection.stats.pings_received >= 50_000)


async def ponged(connection: WebSocketConnection) -> None:
    await until(lambda: connection.stats.pongs_received >= 50_000)


async def one_expected(connection: WebSocketConnection) -> None:
    await connection.expect(lambda message: True, timeout=0.5)


async def not_reached(connection: WebSocketConnection) -> None:
    raise AssertionError("the connection is open")


KEEPALIVE = {"keepalive": echo(prefix("KA"))}
DEFLATE = {"compression": "deflate"}

# By name: the server's path, what the user does, and the settings.
ATTACKS: dict[str, tuple[str, Attacked, dict[str, Any]]] = {
    "small messages that nobody takes": ("small", nothing_taken, {}),
    "small messages without max_queue": ("small", nothing_taken, {"max_queue": None}),
    "empty messages without max_queue": ("empty", nothing_taken, {"max_queue": None}),
    "large messages that nobody takes": ("large", nothing_taken, {}),
    "large messages while closing": ("large", closed, {}),
    "small messages while closing": ("small", closed, {}),
    "small messages for a slow handler": ("small", slow_handler, {}),
    "large messages for a slow handler": ("large", slow_handler, {}),
    "small messages for a slow plain handler": ("small", slow_plain_handler, {}),
    "empty messages": ("empty", all_taken, {}),
    "empty messages behind a long one": ("long-then-empty", all_taken, {}),
    "keepalives without a reader": ("keepalives", answered, KEEPALIVE),
    "pings without a reader": ("pings", pinged, {}),
    "empty pings": ("empty-pings", pinged, {}),
    "pongs": ("pongs", ponged, {}),
    "close frames": ("closes", read_to_the_end, {}),
    "no end after the close frame": ("no-end-after-close", read_to_the_end, {}),
    "empty fragments": ("empty-fragments", read_to_the_end, {}),
    "small fragments": ("small-fragments", read_to_the_end, {}),
    "absurd length": ("absurd-length", read_to_the_end, {}),
    "absurd length without max_size": ("absurd-length", read_to_the_end, {"max_size": None}),
    "announced length without max_size": ("announced-length", one_expected, {"max_size": None}),
    "impossible length": ("impossible-length", read_to_the_end, {}),
    "large ping": ("large-ping", read_to_the_end, {}),
    "bombs within max_size": ("bombs", nothing_taken, DEFLATE),
    "bomb": ("bomb", read_to_the_end, DEFLATE),
    "slow message": ("slow-message", one_expected, {}),
    "huge header": ("huge-header", not_reached, {}),
    "endless header": ("endless-header", not_reached, {}),
    "endless headers": ("endless-headers", not_reached, {}),
    "endless status": ("endless-status", not_reached, {}),
    "endless body": ("endless-body", not_reached, {}),
    "slow header": ("slow-header", not_reached, {"open_timeout": 0.5}),
    "redirect loop": ("redirect-loop", not_reached, {}),
}


class Attack:
    """The user that is attacked."""

    def __init__(self, engine: str, name: str, base_url: str) -> None:
        self._engine = engine
        self._path, self._attacked, self._options = ATTACKS[name]
        self._base_url = base_url
        self._connections: list[WebSocketConnection] = []

    def run(self) -> str:
        host = LoopHost()
        try:
            return host.run(self._run())
        finally:
            host.close()

    async def _run(self) -> str:
        client = WebSocketClient(base_url=self._base_url, report=lambda *row: None, engine=self._engine)

        async def known(connection: WebSocketConnection) -> None:
            self._connections.append(connection)

        try:
            # The first messages come right behind the handshake.
            connection = await client.connect(
                "/" + self._path, **{"close_timeout": 0.5, "on_connected": known, **self._options}
            )
            await self._attacked(connection)
        except Exception as exc:
            return f"{type(exc).__name__}: {exc}"
        finally:
            client.abort()
            await asyncio.sleep(0)
        return ""

    @property
    def frames(self) -> int:
        """How many messages, pings and pongs were handled so far."""
        stats = [connection.stats for connection in self._connections]
        return sum(each.messages_received + each.pings_received + each.pongs_received for each in stats)

    @property
    def stats(self) -> dict[str, Any]:
        return self._connections[0].stats.as_dict() if self._connections else {}


def main(engine: str, name: str, base_url: str) -> Outcome:
    attack = Attack(engine, name, base_url)
    before = peak_memory()
    running = gevent.spawn(attack.run)
    frames = seconds = 0.0
    handled, now = attack.frames, time.thread_time()
    while not running.ready():
        gevent.sleep(0.0001)  # a turn of the hub, with a poll of its descriptors
        last_handled, last = handled, now
        handled, now = attack.frames, time.thread_time()
        frames, seconds = max(frames, handled - last_handled), max(seconds, now - last)
    error = running.get()
    return Outcome(error, peak_memory() - before, int(frames), seconds, attack.stats)


if __name__ == "__main__":
    print(json.dumps(asdict(main(*sys.argv[1:]))))
