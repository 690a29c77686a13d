"""``track``: whether the numbered messages of a stream all come, once and in order. It looks at them and takes none."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from time import perf_counter
from typing import Any, Protocol

from ...exceptions import SequenceError
from ..observing.events import STREAM, ReportOperation
from ..observing.log import warn_once
from ..observing.stats import Statistics, StreamCounts
from .matching import Match, checked_match, field, matches
from .numbering import Numbering

__all__ = ["FieldOf", "Tracker"]

FieldOf = str | int | tuple[str | int, ...] | Callable[[Any], Any]
"""Where a value of a message is: a JSON field (a name, an index, or a tuple of them), or a function of the message."""

# A number that was skipped so shortly before this side closes the connection may have been on its way.
_ON_ITS_WAY = 1.0

_NO_NUMBER = "a message without a sequence number"
_NO_INT = "a sequence number that is no int"
_NO_KEY = "a message without a key"
_NO_HASH = "a key that is not hashable"


class ConnectionForTracker(Protocol):
    """What :class:`Tracker` needs of its connection."""

    @property
    def report_in_background(self) -> ReportOperation: ...

    @property
    def stats(self) -> Statistics: ...


class Tracker:
    """What ``track`` returns. It follows the numbers until its connection is over, or :meth:`cancel`."""

    __slots__ = (
        "_connection",
        "_has_tracked",
        "_is_finished",
        "_is_unreadable",
        "_key",
        "_match",
        "_numberings",
        "_remove",
        "_resume",
        "_seq",
        "_window",
        "counts",
        "name",
    )

    def __init__(
        self,
        connection: ConnectionForTracker,
        remove: Callable[[Tracker], None],
        seq: FieldOf,
        key: FieldOf | None,
        match: Match | None,
        name: str,
        resume: bool,
        window: int,
    ) -> None:
        """The parameters are those of ``track``; ``remove`` is called once, when this ends."""
        if match is not None:
            checked_match(match, "track")
        self._connection = connection
        self._remove = remove
        self._seq = _checked_field("seq", seq)
        self._key = None if key is None else _checked_field("key", key)
        self._match = match
        self._resume = resume
        self._window = _checked_window(window)
        self._numberings: dict[Hashable, Numbering] = {}
        self._has_tracked = False
        self._is_finished = False
        self._is_unreadable = False  # whether the last message was
        self.name = name
        self.counts: StreamCounts = connection.stats.stream(name)
        """What was counted so far: ``messages``, ``gaps``, ``missing``, ``duplicates``, ``reordered``, ``restarts``,
        ``stale``, ``unreadable``; also by all other trackers of this name on the connection."""

    def cancel(self) -> None:
        """Track no more: settle what is open, and count this stream. To cancel twice does no harm."""
        self.finish(by_us=True)

    def observe(self, message: str | bytes, arrived: float) -> None:
        """Look at a message that has just arrived."""
        if self._match is not None and not matches(self._match, message):
            return
        try:
            number = self._seq(message)
        except Exception:
            if self._match is not None:  # else it is a message of another kind
                self._unreadable(_NO_NUMBER)
            return
        if not isinstance(number, int) or isinstance(number, bool):
            self._unreadable(_NO_INT)
            return
        key: Any = None
        if self._key is not None:
            try:
                key = self._key(message)
            except Exception:
                self._unreadable(_NO_KEY)
                return
        try:
            numbering = self._numberings.get(key)
        except TypeError:
            self._unreadable(_NO_HASH)
            return
        if numbering is None:
            numbering = self._numberings[key] = Numbering(self._window, self.counts, self._report_failure)
        self._has_tracked = True
        self._is_unreadable = False
        self.counts.messages += 1
        numbering.came(number, arrived)

    def session_ended(self, *, by_us: bool) -> None:
        """The connection is lost, or closed. Whether by this side: what was skipped just before does not count then."""
        if not self._resume:
            self._settle(by_us)

    def finish(self, *, by_us: bool) -> None:
        """Nothing more comes."""
        if self._is_finished:
            return
        self._is_finished = True
        self._settle(by_us)
        self._remove(self)
        if self._has_tracked:
            self._report(None)
        elif messages := self._connection.stats.messages_received:
            warn_once(
                self.name,
                "track",
                f"nothing was tracked: none of {messages} messages matched and had the field seq. So there is no row.",
            )

    def _settle(self, by_us: bool) -> None:
        undecided_since = perf_counter() - _ON_ITS_WAY if by_us else float("inf")
        for numbering in self._numberings.values():
            numbering.end(undecided_since)
        self._numberings.clear()

    def _unreadable(self, text: str) -> None:
        self.counts.unreadable += 1
        if not self._is_unreadable:  # else the incident goes on
            self._is_unreadable = True
            self._report_failure(text)

    def _report_failure(self, text: str) -> None:
        self._report(SequenceError(text))

    def _report(self, error: SequenceError | None) -> None:
        self._connection.report_in_background(STREAM, self.name, None, 0, error, perf_counter(), None)


def _checked_field(name: str, value: Any) -> Callable[[Any], Any]:
    if callable(value):
        function: Callable[[Any], Any] = value
        return function
    path = value if isinstance(value, tuple) else (value,)
    if not path or not all(isinstance(step, (str, int)) and not isinstance(step, bool) for step in path):
        raise TypeError(
            f"track: {name} must be a JSON field (a name, an index, or a tuple of them), or a function of the message, "
            f"not {value!r}"
        )
    return field(path)


def _checked_window(window: Any) -> int:
    if isinstance(window, bool) or not isinstance(window, int):
        raise TypeError(f"track: window must be a whole number of messages, not {window!r}")
    if window < 0:
        raise ValueError(f"track: window must be 0 or more, not {window!r}")
    return window
