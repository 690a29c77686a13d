"""A server that broadcasts, and knows what it has withheld and delayed.

    python -m benchmarks.room_server

Whoever connects to ``/member?of=<group>`` is a member. Each message of a member is counted, so that it can say that it
is ready. At ``/control`` each message is an order in JSON, and is answered in JSON:

    {"do": "state"}                    how many members there are, and messages of members
    {"do": "publish", "id": ..., ...}  sends {"id": ...} to the members
    {"do": "flood", "count": ...}      sends so many messages, each with an id of its own

An order to publish may have ``withhold``, ``delay`` and ``twice``, each ``[of, rest]``: of the members, in the order in
which they came, those with ``(number + shift) % of in rest`` are left out, get it ``seconds`` later, or get it twice.
``skip`` is a group that is left out. It is answered when all is written, with how many members there were and were
left out, and with ``perf_counter`` of the first and the last write, which on Linux is one clock for all processes.

It runs until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

__all__: list[str] = []

members: dict[ServerConnection, str] = {}  # and the group of each
messages = 0
lost = 0


async def handle(connection: ServerConnection) -> None:
    assert connection.request is not None
    url = urlsplit(connection.request.path)
    if url.path == "/control":
        async for order in connection:
            await connection.send(json.dumps(await ORDERS[(fields := json.loads(order)).pop("do")](**fields)))
    else:
        await be_member(connection, parse_qs(url.query).get("of", [""])[0])


async def be_member(connection: ServerConnection, group: str) -> None:
    global messages, lost
    members[connection] = group
    with suppress(ConnectionClosed):
        async for _ in connection:
            messages += 1
    del members[connection]
    lost += connection.close_code != 1000


async def state() -> dict[str, Any]:
    return {"members": len(members), "messages": messages, "lost": lost}


async def publish(
    id: Any,
    text: Any = None,
    withhold: Any = None,
    delay: Any = None,
    twice: Any = None,
    seconds: float = 0.0,
    shift: int = 0,
    skip: str | None = None,
) -> dict[str, Any]:
    message = json.dumps({"id": id} if text is None else text)
    withheld, delayed, doubled = _chooses(withhold, shift), _chooses(delay, shift), _chooses(twice, shift)
    numbered = list(enumerate(members.items()))
    left_out = [each for number, (each, group) in numbered if withheld(number) or group == skip]
    there = [(number, each) for number, (each, _) in numbered if each not in set(left_out)]
    late = [each for number, each in there if delayed(number)]
    first = perf_counter()
    for number, each in there:
        if not delayed(number):
            await _send(each, message)
            if doubled(number):
                await _send(each, message)
    last = perf_counter()
    if late:
        await asyncio.sleep(first + seconds - perf_counter())
        for each in late:
            await _send(each, message)
        last = perf_counter()
    return {"members": len(numbered), "left_out": len(left_out), "first": first, "last": last}


def _chooses(rule: Any, shift: int) -> Callable[[int], bool]:
    if rule is None:
        return lambda number: False
    of, rest = rule
    return lambda number: (number + shift) % of in rest


async def _send(connection: ServerConnection, message: str) -> None:
    with suppress(ConnectionClosed):  # it is about to leave
        await connection.send(message)


async def flood(count: int) -> dict[str, Any]:
    for number in range(count):
        for each in list(members):
            await _send(each, json.dumps({"id": f"{number} of {'very' * 20} many"}))
    return {}


ORDERS: dict[str, Callable[..., Any]] = {"state": state, "publish": publish, "flood": flood}


async def main() -> None:
    options: Any = {"compression": None, "ping_interval": 2, "ping_timeout": 2} if "--pings" in sys.argv else {}
    async with serve(handle, "127.0.0.1", 0, **{"compression": None, "ping_interval": None, **options}) as server:
        host, port = next(iter(server.sockets)).getsockname()
        print(f"ws://{host}:{port}", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
