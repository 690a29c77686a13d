"""
Application keepalive: answers and messages without which some servers end a connection.

::

    keepalive = echo(json_subset({"type": "keepalive"}))
    keepalive = [reply(prefix("PING"), "PONG"), every(30, '{"type": "heartbeat"}')]
    keepalive = [every(10, "\\n"), ignore(lambda message: message == "\\n")]
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Protocol

from ..observing.events import KEEPALIVE, ReportOperation
from ..observing.log import warn_once
from ..observing.stats import Statistics
from .matching import Match, checked_match, matches
from .message import encode

__all__ = ["AutoReplies", "AutoReply", "KeepaliveRule", "PeriodicSend", "echo", "every", "ignore", "reply"]

Payload = str | bytes


@dataclass(frozen=True, slots=True)
class AutoReply:
    """
    Answers each message that matches. Made by :func:`echo`, :func:`reply` and :func:`ignore`.

    Without a payload the message is consumed, and nothing is sent.
    """

    match: Match
    payload: Payload | Callable[[Payload], Payload] | None
    name: str | None


@dataclass(frozen=True, slots=True)
class PeriodicSend:
    """Sends a payload every so many seconds. Made by :func:`every`."""

    seconds: float
    payload: Payload | Callable[[], Payload]
    name: str | None


KeepaliveRule = AutoReply | PeriodicSend


def echo(match: Match, *, name: str | None = None) -> AutoReply:
    """
    A rule that sends each message that matches back as it is.

    Args:
        match: which messages; ``recv`` does not get them.
        name: the name of a ``WS KEEPALIVE`` row for each; None for no such rows, save those of failures.

    Raises:
        TypeError: the match is no predicate on the message.
    """
    return reply(match, lambda message: message, name=name)


def reply(match: Match, payload: Payload | Callable[[Payload], Payload], *, name: str | None = None) -> AutoReply:
    """
    A rule that answers each message that matches.

    Args:
        match: which messages; ``recv`` does not get them.
        payload: the answer, or a function from the message to the answer.
        name: the name of a ``WS KEEPALIVE`` row for each; None for no such rows, save those of failures.

    Raises:
        TypeError: the match is no predicate on the message.
    """
    return _auto_reply(match, payload, name)


def ignore(match: Match) -> AutoReply:
    """
    A rule that throws each message that matches away: it is counted, but makes no row and does not wait for ``recv``.

    Raises:
        TypeError: the match is no predicate on the message.
    """
    return _auto_reply(match, None, None)


def _auto_reply(match: Match, payload: Payload | Callable[[Payload], Payload] | None, name: str | None) -> AutoReply:
    checked_match(match, "keepalive")
    return AutoReply(match, payload, name)


def every(seconds: float, payload: Payload | Callable[[], Payload], *, name: str | None = None) -> PeriodicSend:
    """
    A rule that sends while the connection is open.

    Args:
        seconds: from one message to the next; the first is sent so many seconds after the connection has opened.
        payload: what to send, or a function without parameters that returns it.
        name: the name of a ``WS KEEPALIVE`` row for each; None for no such rows, save those of failures.

    Raises:
        ValueError: ``seconds`` is not greater than 0.
    """
    if seconds <= 0:
        raise ValueError(f"every: seconds must be greater than 0, not {seconds!r}")
    return PeriodicSend(seconds, payload, name)


class ConnectionForAutoReplies(Protocol):
    """What :class:`AutoReplies` needs of its connection."""

    @property
    def name(self) -> str: ...

    @property
    def report_in_background(self) -> ReportOperation: ...

    @property
    def stats(self) -> Statistics: ...

    @property
    def writing_paused(self) -> bool: ...

    def write(self, opcode: int, payload: bytes) -> None: ...


class AutoReplies:
    """The rules of one connection at work."""

    __slots__ = ("_connection", "_loop", "_periodic", "_replies", "_timers")

    def __init__(
        self, connection: ConnectionForAutoReplies, loop: asyncio.AbstractEventLoop, rules: tuple[KeepaliveRule, ...]
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._replies = [rule for rule in rules if isinstance(rule, AutoReply)]
        self._periodic = [rule for rule in rules if isinstance(rule, PeriodicSend)]
        self._timers: list[asyncio.TimerHandle] = []

    def try_consume(self, message: str | bytes, size: int, arrived: float) -> bool:
        """Answer the message if a rule matches it; return whether one did."""
        for rule in self._replies:
            if matches(rule.match, message):
                if rule.payload is not None:
                    payload = partial(rule.payload, message) if callable(rule.payload) else rule.payload
                    self._send(rule, payload, arrived)
                return True
        return False

    def start(self) -> None:
        """Begin with the periodic messages: the connection is open."""
        self._timers = [
            self._loop.call_later(rule.seconds, self._send_periodic, index, self._loop.time() + rule.seconds)
            for index, rule in enumerate(self._periodic)
        ]

    def stop(self) -> None:
        """Send no more periodic messages."""
        for timer in self._timers:
            timer.cancel()
        self._timers = []

    def _send_periodic(self, index: int, due: float) -> None:
        rule = self._periodic[index]
        # The next one counts from when this one was due, not from now: so delays do not add up.
        due = max(due + rule.seconds, self._loop.time())
        self._timers[index] = self._loop.call_at(due, self._send_periodic, index, due)
        self._send(rule, rule.payload, perf_counter())

    def _send(self, rule: KeepaliveRule, payload: Payload | Callable[[], Payload], started: float) -> None:
        connection = self._connection
        if connection.writing_paused:
            # The server reads nothing, and no task waits here that could be slowed down.
            connection.stats.keepalives_skipped += 1
            text = "The server reads too slowly for the keepalive: its messages are left out until it has caught up."
            warn_once(connection.name, "keepalive", text)
            return
        error: Exception | None = None
        size = 0
        try:
            opcode, data = encode(payload() if callable(payload) else payload)
            size = len(data)
            connection.write(opcode, data)
        except Exception as exc:
            error = exc
        if error is not None or rule.name is not None:
            connection.report_in_background(
                KEEPALIVE, rule.name or connection.name, (perf_counter() - started) * 1000.0, size, error, started, None
            )
