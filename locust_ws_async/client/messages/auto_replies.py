"""
Application keepalive: messages that a server wants answered, or wants to see, for the connection to live on.

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
from typing import TYPE_CHECKING

from ..observing.events import KEEPALIVE
from .matching import Correlation, Match, matches
from .message import encode

if TYPE_CHECKING:
    from ..connection import WebSocketConnection

__all__ = ["AutoReplies", "AutoReply", "KeepaliveRule", "PeriodicSend", "echo", "every", "ignore", "reply"]

Payload = str | bytes


@dataclass(frozen=True, slots=True)
class AutoReply:
    """Answers each message that matches; None: with nothing. Made by :func:`echo`, :func:`reply`, :func:`ignore`."""

    match: Match
    payload: Payload | Callable[[Payload], Payload] | None
    name: str | None


@dataclass(frozen=True, slots=True)
class PeriodicSend:
    """Sends by itself. Made by :func:`every`."""

    seconds: float
    payload: Payload | Callable[[], Payload]
    name: str | None


KeepaliveRule = AutoReply | PeriodicSend


def echo(match: Match, *, name: str | None = None) -> AutoReply:
    """Send each message that matches back as it is. With a name, each is a ``WS KEEPALIVE`` row."""
    return reply(match, lambda message: message, name=name)


def reply(match: Match, payload: Payload | Callable[[Payload], Payload], *, name: str | None = None) -> AutoReply:
    """Answer each message that matches with this payload, or with what it makes of the message."""
    return _answer(match, payload, name)


def ignore(match: Match) -> AutoReply:
    """Throw each message that matches away: it is counted, but is no row and does not wait for ``recv``."""
    return _answer(match, None, None)


def _answer(match: Match, payload: Payload | Callable[[Payload], Payload] | None, name: str | None) -> AutoReply:
    if isinstance(match, Correlation) or not callable(match):
        raise TypeError("keepalive: the match must be a predicate on the message, as json_subset({...}) makes it")
    return AutoReply(match, payload, name)


def every(seconds: float, payload: Payload | Callable[[], Payload], *, name: str | None = None) -> PeriodicSend:
    """Send this payload, or what it returns, every so many seconds while the connection is open."""
    if seconds <= 0:
        raise ValueError(f"every: seconds must be greater than 0, not {seconds!r}")
    return PeriodicSend(seconds, payload, name)


class AutoReplies:
    """The rules at work on one connection."""

    __slots__ = ("_answers", "_connection", "_loop", "_timers", "_timetable")

    def __init__(
        self, connection: WebSocketConnection, loop: asyncio.AbstractEventLoop, rules: tuple[KeepaliveRule, ...]
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._answers = [rule for rule in rules if isinstance(rule, AutoReply)]
        self._timetable = [rule for rule in rules if isinstance(rule, PeriodicSend)]
        self._timers: list[asyncio.TimerHandle] = []

    def try_consume(self, message: str | bytes, size: int, arrived: float) -> bool:
        """Answer the message; whether a rule matched it."""
        for rule in self._answers:
            if matches(rule.match, message):
                if rule.payload is not None:
                    payload = partial(rule.payload, message) if callable(rule.payload) else rule.payload
                    self._send(rule, payload, arrived)
                return True
        return False

    def start(self) -> None:
        """The connection is open: begin to send."""
        self._timers = [
            self._loop.call_later(rule.seconds, self._beat, index, self._loop.time() + rule.seconds)
            for index, rule in enumerate(self._timetable)
        ]

    def stop(self) -> None:
        """Send no more."""
        for timer in self._timers:
            timer.cancel()
        self._timers = []

    def _beat(self, index: int, due: float) -> None:
        rule = self._timetable[index]
        # From the time that it was due: the beat does not drift.
        due = max(due + rule.seconds, self._loop.time())
        self._timers[index] = self._loop.call_at(due, self._beat, index, due)
        self._send(rule, rule.payload, perf_counter())

    def _send(self, rule: KeepaliveRule, payload: Payload | Callable[[], Payload], began: float) -> None:
        connection = self._connection
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
                KEEPALIVE, rule.name or connection.name, (perf_counter() - began) * 1000.0, size, error, began, None
            )
