"""
A WebSocket client made for measuring. It knows asyncio; never Locust, never gevent.

    client.py       WebSocketClient: a user's client, makes connections
    connection.py   WebSocketConnection: what a task holds; queue, pings, closing, rows
    heartbeat.py    pings in the background
    options.py      the settings of a connection
    naming.py       URLs, and the names of rows
    backoff.py      delays between attempts
    report.py       what is told about each operation
    handshake.py    what the opening handshake asks for
    network.py      name lookup and sockets
    engines/        the libraries that move frames, behind one small interface

An engine calls its connection synchronously for each message; a connection calls its engine to write. Nothing here
makes a task.
"""

from .backoff import Backoff
from .client import Connecting, WebSocketClient
from .connection import WebSocketConnection
from .engines import ENGINES
from .options import ConnectOptions
from .report import ALL_ROWS, CONNECT, PING, RECV, REQUEST, SEND, SESSION, Report

__all__ = [
    "ALL_ROWS",
    "CONNECT",
    "ENGINES",
    "PING",
    "RECV",
    "REQUEST",
    "SEND",
    "SESSION",
    "Backoff",
    "ConnectOptions",
    "Connecting",
    "Report",
    "WebSocketClient",
    "WebSocketConnection",
]
