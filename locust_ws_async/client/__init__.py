"""A WebSocket client made for measuring. It knows asyncio; never Locust, never gevent.

::

    client      WebSocketClient makes connections, one client for each user
    connection  WebSocketConnection is what a task holds: it sends, receives, measures
    session/    staying connected: the life of a connection, reconnects, pings
    messages/   who gets which message: requests, streams, subscriptions, automatic replies, the queue of recv
    opening/    from a URL to an open connection: name lookup, proxies, TLS, the opening handshake
    wire/       from bytes to frames and back: the two engines behind one interface
    observing/  what is told: events, names of rows, counts, recordings

An engine calls its connection synchronously for each message, and a connection calls its engine to write. No task is
made for a message, except for an ``async def`` handler.
"""

from .client import ConnectContext, WebSocketClient
from .connection import WebSocketConnection
from .messages.auto_replies import KeepaliveRule, echo, every, ignore, reply
from .messages.matching import any_message, json_field, json_subset, prefix, regex
from .messages.requests import MessageWait, Reply
from .messages.streams import MessageStream, StreamContext
from .messages.subscriptions import Subscription
from .messages.tracking import Tracker
from .observing.events import (
    ALL_ROWS,
    CONNECT,
    FIRST,
    GAP,
    KEEPALIVE,
    PING,
    PUSH,
    RECONNECT,
    RECOVERY,
    RECV,
    REQUEST,
    SEND,
    SESSION,
    STREAM,
    Report,
)
from .observing.stats import Session, Statistics, StreamCounts
from .observing.timing import ConnectPhases
from .opening.cookies import HTTPSession
from .opening.source_addresses import SourceAddresses
from .options import ConnectOptions
from .session.backoff import Backoff
from .wire import ENGINES
from .wire.compression import Deflate

# The names that these two had before.
Connecting = ConnectContext
Exchange = MessageWait

__all__ = [
    "ALL_ROWS",
    "CONNECT",
    "ENGINES",
    "FIRST",
    "GAP",
    "KEEPALIVE",
    "PING",
    "PUSH",
    "RECONNECT",
    "RECOVERY",
    "RECV",
    "REQUEST",
    "SEND",
    "SESSION",
    "STREAM",
    "Backoff",
    "ConnectContext",
    "ConnectOptions",
    "ConnectPhases",
    "Connecting",
    "Deflate",
    "Exchange",
    "HTTPSession",
    "KeepaliveRule",
    "MessageStream",
    "MessageWait",
    "Reply",
    "Report",
    "Session",
    "SourceAddresses",
    "Statistics",
    "StreamContext",
    "StreamCounts",
    "Subscription",
    "Tracker",
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
