"""
The life of a connection, as one table.

    CONNECTING ── connected ──> RESTORING ── restored ──> OPEN ── close ──> CLOSING ── ended ──> CLOSED
        │                        │     ^                   │
      failed                    lost   │                 ending, then lost
        v                        v   connected             v
      CLOSED                    WAITING ── retry ──> RECONNECTING ── failed ──> WAITING ...

A connection that does not reconnect gets ``ended`` where the other gets ``lost``; one that has no attempt left gets
``exhausted`` where the other gets ``retry``; both lead to CLOSED. While it is RESTORING, ``on_connected`` logs in
and subscribes; other tasks wait. Without an ``on_connected`` that takes no time at all.
"""

from __future__ import annotations

from enum import Enum, auto

from websockets.protocol import State

__all__ = ["STATES", "TRANSITIONS", "Event", "Phase", "next_phase"]


class Phase(Enum):
    """Where a connection is in its life."""

    CONNECTING = auto()
    """The first attempt."""
    RESTORING = auto()
    """Connected; ``on_connected`` runs."""
    OPEN = auto()
    ENDING = auto()
    """A close frame came, or went out for an error; the end of TCP is awaited."""
    CLOSING = auto()
    """This side closes; the server's answer is awaited."""
    WAITING = auto()
    """Lost; the next attempt is to come."""
    RECONNECTING = auto()
    """A later attempt."""
    CLOSED = auto()


class Event(Enum):
    """What moves it on."""

    CONNECTED = auto()
    """The handshake is complete."""
    RESTORED = auto()
    """``on_connected`` is done."""
    ENDING = auto()
    """The engine sent a close frame that nobody here ordered, or ``on_connected`` failed."""
    LOST = auto()
    """The connection ended, and will be made again."""
    ENDED = auto()
    """The connection ended for good."""
    RETRY = auto()
    """The delay is over."""
    FAILED = auto()
    """An attempt failed; another will follow, unless it was the first."""
    EXHAUSTED = auto()
    """The attempt that failed was the last."""
    CLOSE = auto()
    """``close()`` was called."""


TRANSITIONS: dict[tuple[Phase, Event], Phase] = {
    (Phase.CONNECTING, Event.CONNECTED): Phase.RESTORING,
    (Phase.CONNECTING, Event.FAILED): Phase.CLOSED,
    (Phase.RESTORING, Event.RESTORED): Phase.OPEN,
    (Phase.RESTORING, Event.ENDING): Phase.ENDING,
    (Phase.RESTORING, Event.LOST): Phase.WAITING,
    (Phase.RESTORING, Event.ENDED): Phase.CLOSED,
    (Phase.RESTORING, Event.CLOSE): Phase.CLOSING,
    (Phase.OPEN, Event.ENDING): Phase.ENDING,
    (Phase.OPEN, Event.LOST): Phase.WAITING,
    (Phase.OPEN, Event.ENDED): Phase.CLOSED,
    (Phase.OPEN, Event.CLOSE): Phase.CLOSING,
    (Phase.ENDING, Event.LOST): Phase.WAITING,
    (Phase.ENDING, Event.ENDED): Phase.CLOSED,
    (Phase.ENDING, Event.CLOSE): Phase.CLOSING,
    (Phase.CLOSING, Event.ENDED): Phase.CLOSED,
    (Phase.WAITING, Event.RETRY): Phase.RECONNECTING,
    (Phase.WAITING, Event.EXHAUSTED): Phase.CLOSED,
    (Phase.WAITING, Event.CLOSE): Phase.CLOSED,
    (Phase.RECONNECTING, Event.CONNECTED): Phase.RESTORING,
    (Phase.RECONNECTING, Event.FAILED): Phase.WAITING,
    (Phase.RECONNECTING, Event.CLOSE): Phase.CLOSED,
}

STATES: dict[Phase, State] = {
    Phase.CONNECTING: State.CONNECTING,
    Phase.RESTORING: State.OPEN,
    Phase.OPEN: State.OPEN,
    Phase.ENDING: State.CLOSING,
    Phase.CLOSING: State.CLOSING,
    Phase.WAITING: State.CONNECTING,
    Phase.RECONNECTING: State.CONNECTING,
    Phase.CLOSED: State.CLOSED,
}
"""What each phase is in the terms of RFC 6455."""


def next_phase(phase: Phase, event: Event) -> Phase:
    """
    Look the transition up.

    Raises:
        RuntimeError: there is none, which is a mistake in this package.
    """
    try:
        return TRANSITIONS[phase, event]
    except KeyError:
        raise RuntimeError(f"a connection that is {phase.name} cannot get {event.name}") from None
