"""How long to wait before the next attempt, and when to give up."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Backoff", "Retry"]

# Not random.random(): a test that seeds it for its data keeps its sequence, and those of Locust's forks differ.
_random = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Backoff:
    """
    Exponential delays with jitter, so that many users who lost the same server do not come back in one wave
    (RFC 6455 section 7.2.3).

    Args:
        initial: seconds before the first new attempt.
        maximum: no delay is longer than these seconds.
        factor: each delay is this many times the one before.
        jitter: the share of a delay that is random, 0 to 1: a delay d becomes d * (1 - jitter) to d.
        attempts: how many attempts in a row may fail before giving up; None for no limit.
    """

    initial: float = 1.0
    maximum: float = 30.0
    factor: float = 2.0
    jitter: float = 0.5
    attempts: int | None = None

    def __post_init__(self) -> None:
        if self.initial < 0:
            raise ValueError(f"Backoff: initial must be 0 seconds or more, not {self.initial!r}")
        if self.maximum < self.initial:
            raise ValueError(f"Backoff: maximum must be at least initial ({self.initial} s), not {self.maximum!r}")
        if self.factor < 1:
            raise ValueError(f"Backoff: factor must be 1 or more, not {self.factor!r}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"Backoff: jitter must be between 0 and 1, not {self.jitter!r}")
        if self.attempts is not None and self.attempts < 1:
            raise ValueError(f"Backoff: attempts must be 1 or more, or None for no limit, not {self.attempts!r}")

    def delay(self, failures: int) -> float:
        """The seconds to wait after this many failures in a row (1 or more)."""
        try:
            delay = min(self.initial * self.factor ** (failures - 1), self.maximum)
        except OverflowError:
            delay = self.maximum
        return delay * (1 - self.jitter * _random.random())

    def exhausted(self, failures: int) -> bool:
        """Whether this many failures in a row are enough to give up."""
        return self.attempts is not None and failures >= self.attempts


class Retry:
    """
    The attempts in a row of one who follows a :class:`Backoff`: a client that connects, a connection that reconnects, a
    user whose ``on_start`` is called again. It only counts; whoever asks does the waiting.
    """

    __slots__ = ("_backoff", "_delays", "_failures")

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failures = 0
        self._delays = 0

    def failed(self) -> None:
        """An attempt failed."""
        self._failures += 1

    def succeeded(self) -> None:
        """An attempt succeeded: failures and delays begin anew."""
        self._failures = self._delays = 0

    def next_delay(self) -> float:
        """The seconds to wait before the next attempt; each time longer, up to the maximum, until one succeeds."""
        self._delays += 1
        return self._backoff.delay(self._delays)

    @property
    def exhausted(self) -> bool:
        """Whether so many attempts failed that there should be no more."""
        return self._backoff.exhausted(self._failures)
