"""The numbers of one process, or of all together, and how they are shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Numbers"]

_COUNTS = (
    *("opened", "ended", "recoveries", "messages_in", "messages_out", "bytes_in", "bytes_out"),
    *("late", "dropped", "cancelled_waits"),
)
_GAUGES = ("open", "connecting", "reconnecting", "paused")
_RATES = ("messages_in", "messages_out", "bytes_in", "bytes_out", "opened", "ended")
_CLOSED_BY = ("us", "peer", "lost")


@dataclass(slots=True)
class Numbers:
    """
    Args:
        users: how many run.
        counts: since the test began, or was reset. Of a table the keys are ``table/entry``.
        gauges: now; likewise.
        rates: of the counts, per second.
        longest_queue_wait: seconds, since the test began, or was reset.
    """

    users: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    gauges: Counter[str] = field(default_factory=Counter)
    rates: Counter[str] = field(default_factory=Counter)
    longest_queue_wait: float = 0.0

    def add(self, other: Numbers) -> None:
        """Add those of another process."""
        self.users += other.users
        self.counts.update(other.counts)
        self.gauges.update(other.gauges)
        self.rates.update(other.rates)
        self.longest_queue_wait = max(self.longest_queue_wait, other.longest_queue_wait)

    @property
    def seen_any(self) -> bool:
        """Whether there ever was a connection, or an attempt that still runs."""
        return any(self.counts.values()) or any(self.gauges[name] for name in _GAUGES)

    @property
    def mean_queue_wait(self) -> float | None:
        """Milliseconds; of the messages that had waited when ``recv`` took them."""
        return _mean_wait(self.counts)

    @property
    def recent_queue_wait(self) -> float | None:
        """The same of those that were taken between the last two reports."""
        return _mean_wait(self.rates)

    def as_json(self) -> dict[str, Any]:
        """The same as ``/websocket/stats`` has it."""
        waits = self.counts["queue_waits"]
        return {
            "users": self.users,
            **{name: self.gauges[name] for name in _GAUGES},
            **{name: self.counts[name] for name in _COUNTS},
            "closes": table(self.counts, "closes"),
            "closed_by": dict.fromkeys(_CLOSED_BY, 0) | table(self.counts, "closed_by"),
            "queue_wait": {
                "count": waits,
                "mean_ms": self.mean_queue_wait,
                "max_ms": self.longest_queue_wait * 1000 if waits else None,
            },
            "rates": {name: self.rates[name] for name in _RATES},
            "gauges": table(self.gauges, "gauges"),
        }


def table(numbers: Counter[str], name: str) -> dict[str, int]:
    """One of the tables among these numbers."""
    start = f"{name}/"
    return {key.removeprefix(start): numbers[key] for key in sorted(numbers) if key.startswith(start) and numbers[key]}


def _mean_wait(numbers: Counter[str]) -> float | None:
    waits = numbers["queue_waits"]
    return numbers["queue_wait"] / waits * 1000 if waits else None
