"""
A WebSocket client made for measuring. It knows asyncio; never Locust, never gevent.

    client.py       WebSocketClient: a user's client, makes connections
    connection.py   WebSocketConnection: what a task holds; queue, pings, closing, rows
    heartbeat.py    pings in the background
    options.py      the settings of a connection
    naming.py       URLs, and the names of rows
    backoff.py      delays between attempts
    report.py       what is told about each operation
    statistics.py   what a connection has counted
    opening.py      from a URL to an open connection: proxies, redirects, the time limit
    handshake.py    what the opening handshake asks for
    cookies.py      cookies and headers shared with the user's HTTP client
    tls.py          TLS contexts from simple settings
    compression.py  the parameters of permessage-deflate
    proxy.py        HTTP and SOCKS proxies
    network.py      name lookup and sockets
    addresses.py    the addresses that connections come from
    phases.py       how long each phase of a connect took
    engines/        the libraries that move frames, behind one small interface

An engine calls its connection synchronously for each message; a connection calls its engine to write. Nothing here
makes a task.
"""

from .addresses import SourceAddresses
from .backoff import Backoff
from .client import Connecting, WebSocketClient
from .compression import Deflate
from .connection import WebSocketConnection
from .engines import ENGINES
from .options import ConnectOptions
from .phases import ConnectPhases
from .report import ALL_ROWS, CONNECT, PING, RECV, REQUEST, SEND, SESSION, Report
from .statistics import Session, Statistics

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
    "ConnectPhases",
    "Connecting",
    "Deflate",
    "Report",
    "Session",
    "SourceAddresses",
    "Statistics",
    "WebSocketClient",
    "WebSocketConnection",
]
