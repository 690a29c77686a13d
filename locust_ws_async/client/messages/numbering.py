"""
What is wrong with the numbers of a stream, without I/O.

A stream's messages carry numbers, of which each is one more than the one before. Over one TCP connection they arrive in
the order in which they were sent; but a server that has several producers, or that sends from a log and from live data,
may mix them up before. So a number that was skipped may still come. The *window* says until when: it is how far behind
the highest number so far a number may be.

jump       a number is higher than expected. Those between are awaited as long as they are in the window
gap        a jump of which at least one number has left the window without coming: that number is *missing*
reordered  a number that was awaited comes
duplicate  a number in the window comes again
stale      a number that is behind the window: a duplicate, or one that is missing and comes at last; nobody knows
restart    the numbering begins again: see below

A number that is not above the first one, or that is behind the window, may be the beginning of a new numbering. The
number after it decides: if that is nearer to it than to the old numbering, this was a restart.

Memory is bounded by the number of keys times the window, however far a number jumps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..observing.stats import StreamCounts

__all__ = ["DUPLICATE", "GAP", "REORDERED", "RESTART", "STALE", "Numbering"]

# The kinds of trouble, in the words of a failed row.
GAP: Final = "numbers are missing"
DUPLICATE: Final = "a number came again"
REORDERED: Final = "a number came after a later one"
STALE: Final = "a number came from before the window: again, or too late to count"
RESTART: Final = "the numbering began again"


class _Jump:
    """Numbers that were skipped at a time."""

    __slots__ = ("at", "is_gap")

    def __init__(self, at: float) -> None:
        self.at = at
        self.is_gap = False


class Numbering:
    """
    The numbers of one key.

    Troubles of one kind that follow each other, with nothing in order between them, are one incident.

    Args:
        window: how far behind the highest number so far a number may be.
        counts: where to count.
        incident: called with each incident, a text.
    """

    __slots__ = ("_awaited", "_candidate", "_counts", "_first", "_highest", "_incident", "_trouble", "_window")

    def __init__(self, window: int, counts: StreamCounts, incident: Callable[[str], None]) -> None:
        self._window = window
        self._counts = counts
        self._incident = incident
        self._first: int | None = None
        self._highest = 0
        self._awaited: dict[int, _Jump] = {}  # in ascending order
        self._candidate: int | None = None  # what may have begun a new numbering
        self._trouble: str | None = None  # the kind of the incident that still goes on

    def came(self, number: int, at: float) -> None:
        """
        Take the number of a message.

        Args:
            number: the number.
            at: when the message arrived, by :func:`time.perf_counter`.
        """
        if self._candidate is not None:
            self._decide(number)
        if number == self._highest + 1 and self._first is not None:
            self._highest = number
            self._trouble = None
            if self._awaited:
                self._age()
        elif self._first is None:
            self._first = self._highest = number
        elif number > self._highest:
            self._jump(number, at)
        elif number in self._awaited:
            del self._awaited[number]
            self._counts.reordered += 1
            self._note(REORDERED)
        elif number <= self._first or number < self._highest - self._window:
            self._candidate = number
        else:
            self._counts.duplicates += 1
            self._note(DUPLICATE)

    def end(self, undecided_since: float = float("inf")) -> None:
        """
        Settle what is open, as no number follows; then begin anew.

        Args:
            undecided_since: numbers that were skipped after this time do not count: they may have been on their way.
        """
        if self._candidate is not None:
            self._settle_candidate(self._candidate)
        self._lose([number for number, jump in self._awaited.items() if jump.at < undecided_since])
        self._awaited.clear()
        self._first = self._trouble = None

    def _jump(self, number: int, at: float) -> None:
        jump = _Jump(at)
        self._trouble = None
        lowest = number - self._window  # what can still come
        skipped, self._highest = self._highest + 1, number
        if self._awaited:
            self._age()
        if skipped < lowest:
            self._counts.missing += lowest - skipped
            self._count_gap(jump)
        for awaited in range(max(skipped, lowest), number):
            self._awaited[awaited] = jump

    def _age(self) -> None:
        lowest = self._highest - self._window
        lost = []
        for number in self._awaited:
            if number >= lowest:
                break
            lost.append(number)
        self._lose(lost)

    def _lose(self, numbers: list[int]) -> None:
        for number in numbers:
            self._counts.missing += 1
            self._count_gap(self._awaited.pop(number))

    def _count_gap(self, jump: _Jump) -> None:
        if not jump.is_gap:
            jump.is_gap = True
            self._counts.gaps += 1
            self._incident(GAP)

    def _decide(self, number: int) -> None:
        """Whether the candidate has begun a new numbering, now that this number follows it."""
        candidate, self._candidate = self._candidate, None
        assert candidate is not None
        if number != candidate and abs(number - candidate - 1) < abs(number - self._highest - 1):
            self._lose(list(self._awaited))  # of the old numbering nothing comes any more
            self._first = self._highest = candidate
            self._trouble = None
            self._counts.restarts += 1
            self._incident(RESTART)
        else:
            self._settle_candidate(candidate)

    def _settle_candidate(self, number: int) -> None:
        """It has begun nothing."""
        self._candidate = None
        assert self._first is not None
        if number < self._highest - self._window:
            self._counts.stale += 1
            self._note(STALE)
        elif number < self._first:  # sent before the first one that came
            self._counts.reordered += 1
            self._note(REORDERED)
        else:
            self._counts.duplicates += 1
            self._note(DUPLICATE)

    def _note(self, trouble: str) -> None:
        if trouble is not self._trouble:
            self._trouble = trouble
            self._incident(trouble)
