"""
A WebSocket client made for measuring. It knows asyncio; never Locust, never gevent.

    client.py       WebSocketClient: a user's client, makes connections
    connection.py   WebSocketConnection: what a task holds; sends, receives, measures
    link.py         what it lives through: opened, lost, made again, closed
    lifecycle.py    the life of a connection as one table: open, lost, made again, closed
    dispatch.py     who gets a message
    deferred.py     operations that begin when they are awaited
    exchanges.py    requests with their replies, and expectations
    matching.py     which messages are meant
    handlers.py     pushes: handlers, and the measuring of their age
    keepalive.py    keepalive by messages
    pings.py        pings and pongs
    heartbeat.py    keepalive by pings
    inbox.py        the messages that wait for recv
    options.py      the settings of a connection
    naming.py       URLs, and the names of rows
    backoff.py      delays between attempts
    encoding.py     from a message to a frame
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
    recorder.py     the flight recorder: the last frames of what failed
    phases.py       how long each phase of a connect took
    engines/        the libraries that move frames, behind one small interface

An engine calls its connection synchronously for each message; a connection calls its engine to write. No task is made,
except to reconnect and for an ``async def`` handler.
"""

from .addresses import SourceAddresses
from .backoff import Backoff
from .client import Connecting, WebSocketClient
from .compression import Deflate
from .connection import WebSocketConnection
from .cookies import HTTPSession
from .engines import ENGINES
from .exchanges import Exchange, Reply
from .handlers import Subscription
from .keepalive import KeepaliveRule, echo, every, ignore, reply
from .matching import any_message, json_field, json_subset, prefix, regex
from .options import ConnectOptions
from .phases import ConnectPhases
from .report import ALL_ROWS, CONNECT, KEEPALIVE, PING, PUSH, RECV, REQUEST, SEND, SESSION, Report
from .statistics import Session, Statistics

__all__ = [
    "ALL_ROWS",
    "CONNECT",
    "ENGINES",
    "KEEPALIVE",
    "PING",
    "PUSH",
    "RECV",
    "REQUEST",
    "SEND",
    "SESSION",
    "Backoff",
    "ConnectOptions",
    "ConnectPhases",
    "Connecting",
    "Deflate",
    "Exchange",
    "HTTPSession",
    "KeepaliveRule",
    "Reply",
    "Report",
    "Session",
    "SourceAddresses",
    "Statistics",
    "Subscription",
    "WebSocketClient",
    "WebSocketConnection",
    "any_message",
    "echo",
    "every",
    "ignore",
    "json_field",
    "json_subset",
    "prefix",
    "regex",
    "reply",
]
