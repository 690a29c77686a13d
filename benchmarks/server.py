"""The echo server: a process of its own, meant to be faster than every client, and the one that counts.

``python -m benchmarks.server`` prints one line of JSON with its ports, and stops when its standard input closes.

It is `picows` on uvloop (plain asyncio where there is no uvloop). permessage-deflate costs it nothing: a message goes
back as it came, still compressed. Both directions have the same window size and pass through the same messages in
the same order, so the client's own compressed stream is a valid one to decompress.

The control port speaks lines:

    snapshot    is answered with a `Snapshot`
    hold N      keeps the echoes back until N users are connected: users that already echo would starve those that are
                still connecting
    watch       begins to take down every cycle: the time between two messages of the same connection, which is what a
                user of a closed loop really waits
    mute        echoes no more, until the next ``hold``: lets the client end without a crowd of its own
    cycles      is answered with the percentiles of the cycles between ``watch`` and ``mute``, in milliseconds
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import logging
import os
import ssl
import sys
import time
from array import array

from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

try:
    from uvloop import run
except ImportError:  # Windows
    from asyncio import run

BACKLOG = 4096
"""As Linux allows at most by default (net.core.somaxconn); dropped handshakes would be retried after seconds."""


@dataclasses.dataclass
class Snapshot:
    """What the server knows at one moment. ``time`` and ``cpu`` (user and system) in seconds."""

    time: float
    cpu: float
    open: int
    connects: int
    echoes: int


class Counters:
    def __init__(self) -> None:
        self.open = 0
        self.connects = 0
        self.echoes = 0
        self.hold_until = 0
        self.held: list[tuple[WSTransport, WSMsgType, bytes, bool, bool]] = []
        self.watching = False
        self.muted = False
        self.cycles = array("f")

    def snapshot(self) -> Snapshot:
        cpu = os.times()
        return Snapshot(time.monotonic(), cpu.user + cpu.system, self.open, self.connects, self.echoes)

    def watch(self) -> None:
        self.cycles = array("f")
        self.watching = True

    def mute(self) -> None:
        self.watching = False
        self.muted = True

    def percentiles(self) -> dict[str, float]:
        """Of the cycles, in milliseconds; sorting a million takes a while, so ask when the client is gone."""
        cycles = sorted(self.cycles)
        return {f"p{p}": cycles[len(cycles) * p // 100] * 1000 for p in (50, 95, 99)} if cycles else {}

    def hold(self, users: int) -> None:
        self.muted = False
        self.held.clear()  # of clients that are gone
        self.hold_until = users
        self.release_if_complete()

    def release_if_complete(self) -> None:
        if self.open >= self.hold_until:
            self.hold_until = 0
            held, self.held = self.held, []
            for transport, kind, payload, fin, compressed in held:
                transport.send(kind, payload, fin, compressed)


class EchoListener(WSListener):
    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.arrived = 0.0

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.counters.open += 1
        self.counters.connects += 1
        if self.counters.hold_until:
            self.counters.release_if_complete()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.counters.open -= 1

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif kind is WSMsgType.TEXT or kind is WSMsgType.BINARY or kind is WSMsgType.CONTINUATION:
            counters = self.counters
            if frame.fin:
                now = time.perf_counter()
                if counters.watching and self.arrived:
                    counters.cycles.append(now - self.arrived)
                self.arrived = now
                counters.echoes += 1
            if counters.muted:
                return
            if counters.hold_until:
                counters.held.append((transport, kind, frame.get_payload_as_bytes(), frame.fin, frame.rsv1))
            else:
                transport.send(kind, frame.get_payload_as_memoryview(), frame.fin, frame.rsv1)


def accept(request: WSUpgradeRequest, counters: Counters) -> WSListener | WSUpgradeResponseWithListener:
    listener = EchoListener(counters)
    offer = request.headers.get("Sec-WebSocket-Extensions", "")
    if "permessage-deflate" not in offer:
        return listener
    # RFC 7692, 7.1.2: both windows as large as the client offers to use for its own.
    agreed = "permessage-deflate"
    if "server_max_window_bits=" in offer:
        bits = offer.split("server_max_window_bits=")[1].split(";")[0].split(",")[0]
        agreed += f"; server_max_window_bits={bits}"
        if "client_max_window_bits" in offer:
            agreed += f"; client_max_window_bits={bits}"
    response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Extensions": agreed})
    return WSUpgradeResponseWithListener(response, listener)


async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counters: Counters) -> None:
    while line := await reader.readline():
        match line.split():
            case [b"snapshot"]:
                answer = json.dumps(dataclasses.asdict(counters.snapshot()))
            case [b"hold", users]:
                counters.hold(int(users))
                answer = "ok"
            case [b"watch"]:
                counters.watch()
                answer = "ok"
            case [b"mute"]:
                counters.mute()
                answer = "ok"
            case [b"cycles"]:
                answer = json.dumps(counters.percentiles())
            case _:
                answer = "the control port knows: snapshot, hold N, watch, mute, cycles"
        writer.write(answer.encode() + b"\n")
    writer.close()


async def serve(certificate: str | None) -> None:
    logging.disable()  # a client that is cut off at the end of its measurement is no news
    counters = Counters()

    async def listen(context: ssl.SSLContext | None) -> int:
        server = await ws_create_server(
            lambda request: accept(request, counters), "127.0.0.1", 0, ssl=context, backlog=BACKLOG
        )
        return port_of(server)

    ports = {"ws": await listen(None)}
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        ports["wss"] = await listen(context)
    ports["control"] = port_of(await asyncio.start_server(lambda r, w: control(r, w, counters), "127.0.0.1", 0))
    print(json.dumps(ports), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def port_of(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--certificate", help="PEM file with key and chain; without it there is no wss")
    run(serve(parser.parse_args().certificate))
