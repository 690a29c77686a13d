"""What each WebSocket path of the demo server does once the handshake is done. ``ROUTES`` is the table.

A route ends when ``recv()`` raises ``ConnectionClosed``, which the server expects; inside an ``asyncio.TaskGroup``
it also cancels what the route has in the background. So a route that pushes reads as well: one that only slept
would notice neither its client's end nor the server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from websockets.asyncio.server import Server
from websockets.exceptions import ConnectionClosed, ProtocolError
from websockets.frames import CloseCode

from .counting import CountedConnection

__all__ = ["ROUTES", "BadRequest", "Query", "Route"]


class BadRequest(ValueError):
    """The client asked for something that the route does not have; the text says what to ask instead."""


class Query:
    """The query string of a request, read by name."""

    def __init__(self, query: str) -> None:
        self._values = {name: values[-1] for name, values in parse_qs(query).items()}

    def text(self, name: str, default: str) -> str:
        return self._values.get(name, default)

    def number(self, name: str, default: float) -> float:
        value = self._values.get(name)
        try:
            return default if value is None else float(value)
        except ValueError:
            raise BadRequest(f"{name}={value}: must be a number") from None


_rooms: dict[tuple[Server, str], set[CountedConnection]] = {}

Route = Callable[[CountedConnection, Query, str], Awaitable[None]]
"""Called with the connection, the query and the last segment of the path."""


async def received(connection: CountedConnection) -> AsyncIterator[str | bytes]:
    """Yield the messages of a client. Unlike ``async for`` over the connection, this raises ``ConnectionClosed``."""
    while True:
        yield await connection.recv()


async def until_closed(connection: CountedConnection, *pushing: Coroutine[Any, Any, None]) -> None:
    """Run coroutines that push, as long as the client stays. What it sends meanwhile is counted and ignored."""
    async with asyncio.TaskGroup() as group:
        for coroutine in pushing:
            group.create_task(coroutine)
        async for _ in received(connection):
            pass


async def ticks(interval: float) -> AsyncIterator[int]:
    """Count up every ``interval`` seconds, on a schedule that sending does not delay."""
    loop = asyncio.get_running_loop()
    start, number = loop.time(), 0
    while True:
        yield number
        number += 1
        await asyncio.sleep(start + number * interval - loop.time())


def interval_of(query: Query, rate: float) -> float:
    """Return the seconds between two pushes, from the query's ``rate`` in pushes per second."""
    rate = query.number("rate", rate)
    if not 0 < rate <= 10_000:
        raise BadRequest(f"rate={rate}: must be above 0 and at most 10000 pushes per second")
    return 1 / rate


def numbering(query: Query) -> Callable[[int], list[int]]:
    """
    Return a function from the number of a push to the numbers to send in its place: itself, but for the query's faults.

    Of every N, ``?lose=N`` leaves the last one out, ``?repeat=N`` sends it twice, and ``?swap=N`` sends it after the
    next one. ``?restart=N`` begins at 0 again after N.
    """
    lose, repeat, swap, restart = (int(query.number(name, 0)) for name in ("lose", "repeat", "swap", "restart"))

    def number(push: int) -> int:
        return push % restart if restart else push

    def numbers(push: int) -> list[int]:
        if (lose and push % lose == lose - 1) or (swap and push % swap == swap - 1):
            return []
        again = [number(push)] if repeat and push % repeat == repeat - 1 else []
        swapped = [number(push - 1)] if swap and push and push % swap == 0 else []
        return [number(push), *again, *swapped]

    return numbers


def json_object(message: str | bytes) -> dict[str, Any]:
    """Parse a message that has to be a JSON object."""
    try:
        value = json.loads(message)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise BadRequest("expected a JSON object")
    return value


# ----------------------------------------------------------------------------------------- answers


async def echo(connection: CountedConnection, query: Query, _: str) -> None:
    """Echo each message, ``?delay=`` seconds after it came."""
    delay = query.number("delay", 0)
    async for message in connection:
        if delay:
            await asyncio.sleep(delay)
        await connection.send(message)


async def fragments(connection: CountedConnection, query: Query, _: str) -> None:
    """Echo each message in ``?parts=`` frames with a ping between them (RFC 6455 section 5.4)."""
    parts = int(query.number("parts", 3))
    if parts < 1:
        raise BadRequest(f"parts={parts}: must be at least 1")

    async def cut(message: str | bytes) -> AsyncIterator[str | bytes]:
        size = -(-len(message) // parts) or 1
        for start in range(0, len(message) or 1, size):
            if start:
                await connection.ping()
            yield message[start : start + size]

    async for message in connection:
        await connection.send(cut(message))


async def headers(connection: CountedConnection, _query: Query, _: str) -> None:
    """Send the handshake's request headers as one JSON object, names in lower case; then echo."""
    assert connection.request is not None
    sent = {name.lower(): value for name, value in connection.request.headers.raw_items()}
    await connection.send(json.dumps(sent))
    async for message in connection:
        await connection.send(message)


async def rpc(connection: CountedConnection, _query: Query, _: str) -> None:
    """Answer ``{"id": .., "params": ..}`` with ``{"id": .., "result": params}``. Options in the request:

    ``delay``: seconds before the answer, others overtake it; ``copies``: how many answers, 0 for none;
    ``hold``: keep the answer until a request without ``hold`` is answered, then send the newest first.
    """
    held: list[str] = []

    async def answer(request: dict[str, Any]) -> None:
        reply = json.dumps({"id": request.get("id"), "result": request.get("params")})
        if request.get("hold"):
            held.append(reply)
            return
        if request.get("delay"):
            await asyncio.sleep(float(request["delay"]))
        for _ in range(int(request.get("copies", 1))):
            await connection.send(reply)
        while held:
            await connection.send(held.pop())

    async with asyncio.TaskGroup() as answers:
        async for message in received(connection):
            request = json_object(message)
            if request.get("delay"):
                answers.create_task(answer(request))
            else:
                await answer(request)


async def ocpp(connection: CountedConnection, _query: Query, _: str) -> None:
    """Be a central system that accepts the calls of charge points: OCPP-J's ``[2, id, action, payload]``."""
    async for message in received(connection):
        match json.loads(message):
            case [2, str(identity), str(action), dict()]:
                now = datetime.now(UTC).isoformat()
                answers: dict[str, Any] = {
                    "BootNotification": {"currentTime": now, "interval": 10, "status": "Accepted"},
                    "Heartbeat": {"currentTime": now},
                }
                await connection.send(json.dumps([3, identity, answers.get(action, {})]))
            case _:
                raise BadRequest("expected a call: [2, id, action, payload]")


# ------------------------------------------------------------------------------------------ pushes


async def ticker(connection: CountedConnection, query: Query, _: str) -> None:
    """Push ``{"seq": n, "sent_at": epoch seconds}`` ``?rate=`` times per second, ``?count=`` times in all, then close.

    ``?skew=`` seconds are added to ``sent_at``, as by a server whose clock is wrong. For faults of ``seq`` see
    ``numbering``.
    """
    interval, count, skew = interval_of(query, 1), query.number("count", float("inf")), query.number("skew", 0)
    numbers = numbering(query)

    async def push() -> None:
        async for tick in ticks(interval):
            if tick >= count:
                break
            for number in numbers(tick):
                await connection.send(json.dumps({"seq": number, "sent_at": time.time() + skew}))
        await connection.close()

    await until_closed(connection, push())


async def subscribe(connection: CountedConnection, query: Query, _: str) -> None:
    """Confirm ``{"subscribe": topic}``, then push ``?rate=`` times per second until ``{"unsubscribe": topic}`` comes.

    A push is ``{"topic": topic, "seq": n, "sent_at": epoch seconds + skew}``. For faults of ``seq`` see ``numbering``.
    """
    interval, skew = interval_of(query, 10), query.number("skew", 0)
    numbers = numbering(query)
    topics: dict[str, asyncio.Task[None]] = {}

    async def push(topic: str) -> None:
        async for tick in ticks(interval):
            for number in numbers(tick):
                await connection.send(json.dumps({"topic": topic, "seq": number, "sent_at": time.time() + skew}))

    async with asyncio.TaskGroup() as group:
        async for message in received(connection):
            match json_object(message):
                case {"subscribe": str(topic)}:
                    await connection.send(json.dumps({"subscribed": topic}))
                    if topic not in topics:
                        topics[topic] = group.create_task(push(topic))
                case {"unsubscribe": str(topic)}:
                    if topic in topics:
                        topics.pop(topic).cancel()
                    await connection.send(json.dumps({"unsubscribed": topic}))
                case _:
                    raise BadRequest('expected {"subscribe": topic} or {"unsubscribe": topic}')


async def pings(connection: CountedConnection, query: Query, _: str) -> None:
    """Ping every ``?interval=`` seconds and cut off a client whose pong does not come within that time."""
    interval = query.number("interval", 0.2)
    if interval <= 0:
        raise BadRequest(f"interval={interval}: must be above 0 seconds")

    async def ping() -> None:
        async for _ in ticks(interval):
            pong = await connection.ping()
            try:
                async with asyncio.timeout(interval):
                    await pong
            except TimeoutError:
                connection.counts.pongs_missed += 1
                connection.transport.abort()
                return

    await until_closed(connection, ping())


async def room(connection: CountedConnection, _query: Query, name: str) -> None:
    """Send each message to everybody who is in the room of this name, its sender included."""
    members = _rooms.setdefault((connection.server, name), set())
    members.add(connection)
    try:
        async for message in received(connection):
            for member in list(members):
                with contextlib.suppress(ConnectionClosed):  # it is about to leave
                    await member.send(message)
    finally:
        members.discard(connection)
        if not members:
            del _rooms[connection.server, name]


async def cart_chat(connection: CountedConnection, query: Query, _: str) -> None:
    """Be the chat of a shop: send ``{"type": "keepalive"}`` every second, and data now and then; answer data.

    A client must send each keepalive back. One that does not do so within 5 s is closed with 1008 (policy violation).
    ``?keepalive=``, ``?patience=`` and ``?think=`` (the mean time before data is answered) are in seconds.
    """
    interval, patience = query.number("keepalive", 1), query.number("patience", 5)
    think = query.number("think", 0.2)
    loop = asyncio.get_running_loop()
    echoed = asyncio.Event()
    last_data = loop.time()

    async def keep_alive() -> None:
        async for _ in ticks(interval):
            echoed.clear()
            await connection.send('{"type": "keepalive"}')
            try:
                async with asyncio.timeout(patience):
                    await echoed.wait()
            except TimeoutError:
                await connection.close(CloseCode.POLICY_VIOLATION, "keepalive not echoed")
                return

    async def send_data(delay: float) -> None:
        nonlocal last_data
        if delay:
            await asyncio.sleep(delay)
        last_data = loop.time()
        await connection.send(json.dumps({"type": "data", "id": str(uuid.uuid4()), "sent_at": time.time()}))

    async def speak_first() -> None:
        # Only into a silence: a client that answers data with data would else carry on one more exchange each time.
        while True:
            silence = random.uniform(1, 3)
            await asyncio.sleep(silence)
            if loop.time() - last_data >= silence:
                await send_data(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(keep_alive())
        group.create_task(speak_first())
        async for message in received(connection):
            if json_object(message).get("type") == "keepalive":
                echoed.set()
            else:
                last_data = loop.time()
                group.create_task(send_data(random.uniform(0.5, 1.5) * think))


FRAME_SECONDS = 0.02
AUDIO_FRAME = bytes(640)  # 20 ms of silence: 16 kHz, 16 bit, mono


async def realtime(connection: CountedConnection, query: Query, _: str) -> None:
    """Be a voice service: take audio as binary messages, and answer ``{"type": "respond", "response_id": ..}``.

    The answer begins after ``?first=`` seconds: ``?frames=`` binary frames of 20 ms of audio, one every 20 ms, each
    fifth with a ``{"type": "delta", "response_id": .., "text": ..}`` before it; then ``{"type": "done", ..}``.
    Every other frame is ``?jitter=`` seconds late. ``?audio=0`` leaves the audio out.
    ``{"type": "cancel", "response_id": ..}`` ends an answer before its next frame; its ``done`` has the status
    "cancelled".
    """
    first, jitter = query.number("first", 0.2), query.number("jitter", 0)
    frames, has_audio = query.number("frames", 50), query.number("audio", 1)
    if not 0 <= jitter < FRAME_SECONDS:
        raise BadRequest(f"jitter={jitter}: must be at least 0 and below {FRAME_SECONDS} seconds")
    loop = asyncio.get_running_loop()
    cancelled: set[Any] = set()

    async def answer(response_id: Any, began: float) -> None:
        for number in range(int(frames)):
            await asyncio.sleep(began + first + number * FRAME_SECONDS + (number % 2) * jitter - loop.time())
            if response_id in cancelled:
                break
            if number % 5 == 0:
                delta = {"type": "delta", "response_id": response_id, "text": f"word {number // 5} "}
                await connection.send(json.dumps(delta))
            if has_audio:
                await connection.send(AUDIO_FRAME)
        status = "cancelled" if response_id in cancelled else "completed"
        await connection.send(json.dumps({"type": "done", "response_id": response_id, "status": status}))

    async with asyncio.TaskGroup() as group:
        async for message in received(connection):
            if isinstance(message, bytes):
                continue
            request = json_object(message)
            if request.get("type") == "respond":
                cancelled.discard(request.get("response_id"))
                group.create_task(answer(request.get("response_id"), loop.time()))
            elif request.get("type") == "cancel":
                cancelled.add(request.get("response_id"))


# ------------------------------------------------------------------------------------------ faults


async def sink(connection: CountedConnection, _query: Query, _: str) -> None:
    """Read everything and answer no message. Pings and the closing handshake work."""
    await until_closed(connection)


async def silent(connection: CountedConnection, _query: Query, _: str) -> None:
    """Never answer anything, not even a ping or a close frame, as a peer whose process hangs."""
    connection.play_dead()
    await connection.wait_closed()


async def stalled(connection: CountedConnection, query: Query, _: str) -> None:
    """Read nothing for ``?seconds=``, so that the client's writes fill every buffer and block. Then read on."""
    connection.transport.pause_reading()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(query.number("seconds", 10)):
            await connection.wait_closed()
    connection.transport.resume_reading()
    await until_closed(connection)


async def close(connection: CountedConnection, query: Query, code: str) -> None:
    """Close at once with this code and ``?reason=``."""
    try:
        await connection.close(int(code), query.text("reason", ""))
    except (ValueError, ProtocolError):
        raise BadRequest(f"code={code}: must be a close code that may be sent (RFC 6455 section 7.4)") from None


async def drop(connection: CountedConnection, query: Query, _: str) -> None:
    """Cut the TCP connection without a close frame, after ``?after=`` messages."""
    after = int(query.number("after", 0))
    while after:
        await connection.send(await connection.recv())
        after -= 1
    connection.transport.abort()


async def half_close(connection: CountedConnection, _query: Query, _: str) -> None:
    """End the sending side of the TCP connection without a close frame, and go on reading."""
    connection.play_dead()
    with contextlib.suppress(NotImplementedError):  # TLS has no half-close
        connection.transport.write_eof()
    await connection.wait_closed()


GARBAGE = {
    "opcode": b"\x83\x00",  # a reserved opcode
    "rsv": b"\xf1\x02hi",  # reserved bits without an extension
    "masked": b"\x81\x82\x00\x00\x00\x00hi",  # a server must not mask (RFC 6455 section 5.1)
    "utf8": b"\x81\x02\xc3\x28",  # text that is not UTF-8 (section 8.1)
    "ping": b"\x89\x7e\x00\x7e" + bytes(126),  # a control frame over 125 bytes (section 5.5)
    "continuation": b"\x80\x02hi",  # nothing to continue (section 5.4)
    "close": b"\x88\x01\x03",  # half a close code (section 5.5.1)
}


async def garbage(connection: CountedConnection, query: Query, _: str) -> None:
    """Send a frame that is malformed in the way that ``?kind=`` names: a key of ``GARBAGE``."""
    kind = query.text("kind", "opcode")
    if kind not in GARBAGE:
        raise BadRequest(f"kind={kind}: must be one of {', '.join(GARBAGE)}")
    connection.transport.write(GARBAGE[kind])
    await until_closed(connection)


ROUTES: dict[str, Route] = {
    "/echo": echo,
    "/fragments": fragments,
    "/headers": headers,
    "/whoami": headers,  # for those who have logged in: see server.py
    "/slow-handshake": echo,  # slow before this: see server.py
    "/rpc": rpc,
    "/ocpp/<charge-point>": ocpp,
    "/ticker": ticker,
    "/subscribe": subscribe,
    "/room/<name>": room,
    "/pings": pings,
    "/cart/chat": cart_chat,
    "/realtime": realtime,
    "/sink": sink,
    "/silent": silent,
    "/stalled": stalled,
    "/close/<code>": close,
    "/drop": drop,
    "/half-close": half_close,
    "/garbage": garbage,
}
