"""Who of a room got a broadcast, and when: what each worker sees of it. What becomes of that is in ``reach.py``.

A worker keeps one record for each id: when the message came first and last, to how many of those who were in the room
when it came first. It sends its records to the master once a second. A record is closed when all have the message, or
``timeout`` seconds after it came first.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Hashable
from itertools import islice
from time import perf_counter
from typing import Any

import gevent

from ..client import WebSocketConnection, any_message
from ..client.messages.matching import Match, checked_match, field, match_raised
from ..exceptions import UnusableId
from .clocks import clock
from .exchange import at_worker, exchange, fire
from .ids import Sampling, digest, is_sampled

__all__ = ["Fanout", "flush", "forget"]

Id = str | int | tuple[str | int, ...] | Callable[[Any], Hashable]

_EVERY = 1.0  # seconds between two reports
_REMEMBERED = 60.0  # seconds for which a late delivery is known as one
# Bytes of a report, which must stay below 20 KB: all that is in it; a record, a room, and a change of its size at most.
_BUDGET, _RECORD, _ROOM, _SIZE = 18_000, 40, 60, 15
_SIZES = 20  # so many changes of the number of members are told one by one

_logger = logging.getLogger(__name__)


class _Record:
    """One message in one room, in this process."""

    __slots__ = ("count", "digest", "expected", "first", "is_cut", "joined_by", "last", "open", "seen")

    def __init__(self, digested: bytes, first: float, joined_by: float, expected: int, numbers: int) -> None:
        self.digest = digested
        self.first = self.last = first
        self.joined_by = joined_by  # who joined later is not expected
        self.count = 0
        self.expected = expected
        self.seen: bytearray | None = bytearray(numbers)  # by the numbers of the members
        self.open = True
        self.is_cut = False
        """Whether it was closed by the end of the test, before its time was over."""


class _Member:
    """A connection in a room."""

    __slots__ = ("joined", "number", "subscription")

    def __init__(self, number: int) -> None:
        self.number = number
        self.joined = perf_counter()
        self.subscription: Any = None


class _Room:
    """One room in this process. All :class:`Fanout` of one name share it."""

    def __init__(self, name: str, share: float, timeout: float, settle: float) -> None:
        self.name, self.share, self.timeout, self.settle = name, share, timeout, settle
        self.members: dict[WebSocketConnection, _Member] = {}
        self.start()

    def start(self) -> None:
        """Begin anew, with nobody."""
        self.members.clear()
        self.records: dict[Hashable, _Record | None] = {}  # None for an id that is not looked at
        self.begun: deque[tuple[float, Hashable]] = deque()  # to forget the records in time
        self.open: dict[_Record, None] = {}  # in order
        self.closed: deque[_Record] = deque()  # and not reported
        self.published: deque[tuple[bytes, float]] = deque()
        self.duplicates = self.late = self.without_id = 0
        self.sizes: list[tuple[float, int]] = []  # how many members there were from when on, since the last report
        self._numbers = 0
        self._free: deque[tuple[float, int]] = deque()  # numbers, and since when

    def enter(self, connection: WebSocketConnection) -> _Member:
        now = perf_counter()
        # A number that is given again must not stand in a record that is kept.
        if self._free and self._free[0][0] < now - self.timeout - _REMEMBERED:
            number = self._free.popleft()[1]
        else:
            number = self._numbers
            self._numbers += 1
        member = self.members[connection] = _Member(number)
        self.sizes.append((member.joined, len(self.members)))
        return member

    def leave(self, connection: WebSocketConnection, *, excused: bool) -> None:
        """*excused*: what is on its way to it does not count as missing."""
        member = self.members.pop(connection, None)
        if member is None:
            return
        member.subscription.cancel()
        now = perf_counter()
        self.sizes.append((now, len(self.members)))
        self._free.append((now, member.number))
        if excused:
            for record in list(self.open):
                seen = record.seen
                assert seen is not None  # since it is open
                if member.joined <= record.joined_by and not seen[member.number]:
                    seen[member.number] = 1
                    record.expected -= 1
                    self._close_if_complete(record)

    def received(self, member: _Member, message_id: Hashable, arrived: float) -> None:
        """A member got a message. This runs for each delivery."""
        if arrived < member.joined:
            return
        try:
            record = self.records[message_id]
        except KeyError:
            record = self._begin(message_id, arrived)
        if record is None or member.joined > record.joined_by:
            return
        seen, number = record.seen, member.number
        if seen is None or seen[number]:
            self.duplicates += 1
            return
        seen[number] = 1
        if not record.open:
            self.late += 1
            return
        record.count += 1
        if arrived > record.last:
            record.last = arrived
        elif arrived < record.first:
            record.first = arrived
        if record.count == record.expected:
            self._close(record)

    def _begin(self, message_id: Hashable, arrived: float) -> _Record | None:
        digested = digest(self.name, message_id)
        record = None
        if _process.sampling.takes(digested):
            joined_by = arrived - self.settle
            too_new = 0
            for member in reversed(self.members.values()):  # in the order in which they joined
                if member.joined <= joined_by:
                    break
                too_new += 1
            record = _Record(digested, arrived, joined_by, len(self.members) - too_new, self._numbers)
            self.open[record] = None
            self._close_if_complete(record)  # where nobody is expected
        self.records[message_id] = record
        self.begun.append((arrived, message_id))
        return record

    def _close_if_complete(self, record: _Record) -> None:
        if record.open and record.count >= record.expected:
            self._close(record)

    def _close(self, record: _Record) -> None:
        record.open = False
        del self.open[record]
        self.closed.append(record)
        if record.count >= record.expected:
            record.seen = None  # whatever still comes is a duplicate

    def expire(self, now: float) -> None:
        """Close what is over, and forget what is long over."""
        for record in list(self.open):
            if record.first + self.timeout > now:
                break
            self._close(record)
        while self.begun and self.begun[0][0] + self.timeout + _REMEMBERED < now:
            del self.records[self.begun.popleft()[1]]

    def cut(self) -> None:
        """Close what is open: the test ends."""
        for record in list(self.open):
            record.is_cut = True
            self._close(record)

    def as_list(self, closed: int, published: int) -> list[Any]:
        """What the master is told: with so many of the closed records and of the published ids."""
        return [
            self.share,
            self.timeout,
            self.settle,
            [[clock.on_master(since), members] for since, members in _thinned(self.sizes)],
            [self.duplicates, self.late, self.without_id],
            [_row(record) for record in islice(self.closed, closed)],
            [[digested, clock.on_master(at)] for digested, at in islice(self.published, published)],
        ]

    def reported(self, closed: int, published: int) -> None:
        """The master knows that."""
        for _ in range(closed):
            self.closed.popleft()
        for _ in range(published):
            self.published.popleft()
        self.sizes.clear()


class _Process:
    """All rooms of this process, and its reports to the master."""

    def __init__(self) -> None:
        self.rooms: dict[str, _Room] = {}
        self.sampling = Sampling()
        self.ended = False
        self._reporting: Any = None
        self._sent = 0.0  # until when the master knows all

    def start(self) -> None:
        """A test starts."""
        self.stop()
        self.sampling = Sampling()
        self.ended = False
        for room in self.rooms.values():
            room.start()

    def stop(self) -> None:
        if self._reporting:
            self._reporting.kill(block=False)
        self._reporting = None

    def use(self) -> None:
        """Begin to report, unless that has begun."""
        if not self._reporting and not self.ended:
            clock.start()
            self._sent = perf_counter()
            self._reporting = exchange().spawn(self._report_on)

    def _report_on(self) -> None:
        while not exchange().to_master("fanout", None):  # there will be a report, which the master has to wait for
            gevent.sleep(_EVERY)
        while not clock.wait(1.0):
            pass
        while True:
            self.report()
            gevent.sleep(_EVERY)
            self.sampling.next_second()

    def report(self, *, final: bool = False) -> None:
        """Send what the master does not know yet. With very many rooms that takes several messages."""
        while self._report_once(final):
            pass

    def _report_once(self, final: bool) -> bool:
        """Send one message; return whether more is left."""
        now = perf_counter()
        left = _BUDGET
        parts: list[tuple[_Room, int, int]] = []
        complete = True
        for room in self.rooms.values():
            room.expire(now)
            if self.sampling.level:
                room.closed = deque(each for each in room.closed if is_sampled(each.digest, self.sampling.level))
            if not (room.sizes or room.closed or room.published):
                continue
            left -= _ROOM + len(room.name.encode()) + min(len(room.sizes), _SIZES) * _SIZE
            fitting = max(0, left // _RECORD)
            if parts and not fitting:
                complete = False
                break
            closed = min(fitting, len(room.closed))
            published = min(fitting - closed, len(room.published))
            left -= (closed + published) * _RECORD
            complete = complete and (closed, published) == (len(room.closed), len(room.published))
            parts.append((room, closed, published))
        upto = now if complete else self._sent
        first_open = (next(iter(room.open)).first for room in self.rooms.values() if room.open)
        message = {
            "upto": clock.on_master(upto),
            "horizon": clock.on_master(min([upto, *first_open])),
            "error": clock.error,
            "level": self.sampling.level,
            "final": final and complete,
            "rooms": {room.name: room.as_list(closed, published) for room, closed, published in parts},
        }
        if not exchange().to_master("fanout", message):
            return False
        for room, closed, published in parts:
            room.reported(closed, published)
        self._sent = upto
        return not complete

    def end(self) -> None:
        """The test stops: tell the master the rest, before users are stopped."""
        if not self._reporting or self.ended:
            return
        self.ended = True
        self.stop()
        for room in self.rooms.values():
            room.expire(perf_counter())
            room.cut()
        if clock.wait(1.0):
            self.report(final=True)
        else:
            _logger.warning("The master's clock is not known yet, so that broadcasts were not reported.")


def _thinned(sizes: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """No more than that, which never tell of more members than there were."""
    if len(sizes) <= _SIZES:
        return sizes
    step = -(-len(sizes) // (_SIZES // 2))
    groups = [sizes[start : start + step] for start in range(0, len(sizes), step)]
    return [each for group in groups for each in ((group[0][0], min(size for _, size in group)), group[-1])]


def _row(record: _Record) -> list[Any]:
    spread = round((record.last - record.first) * 1e6)
    return [record.digest, clock.on_master(record.first), spread, record.count, record.expected, record.is_cut]


_process = _Process()


def forget() -> None:
    """A test starts: begin anew."""
    _process.start()


def flush() -> None:
    """A test stops."""
    _process.end()


def _on_level(level: int) -> None:
    _process.sampling.level = max(_process.sampling.level, level)


at_worker("fanout", _on_level)


class Fanout:
    """
    A room whose members all get the same messages: did each get each of them, and how long after the first?

    ::

        room = Fanout("room 42", id="id")  # in the locustfile, so on every worker

        class Member(AsyncWebSocketUser):
            async def on_start(self):
                self.line = await self.ws.connect("/room/42")
                room.join(self.line)

    Rows, for each message, on the master over all workers: ``WS SPREAD room 42`` has the time from its first delivery
    to its last; ``WS REACH room 42`` fails if fewer than ``share`` of the members got it. Members are the connections
    that had joined ``settle`` seconds before the message first came to their process. One that this side closes or that
    leaves before the message is there is not missed; one that is lost, is.

    A message that comes to nobody is known only by :meth:`published`. With that, the time of ``WS REACH`` is from
    there to the last delivery.

    Args:
        name: the name of the rows. Two of one name are one room.
        id: what tells the messages of this room apart, and is the same for all members: a JSON field (a name, or a
            tuple of names and indexes), or a function from the message to a text, a number, bytes, a UUID or a tuple
            of these. A message without the field, or for which the function gives None, is none of this room.
        match: a predicate on the message; by default any message that has an id is one of this room.
        share: the share of the members that must get a message.
        timeout: seconds after the first delivery in a process within which the others must come. What comes later is
            late, and counts as missing.
        settle: seconds for which a connection that has joined is not expected to get anything: the server may have
            sent a message before it knew of that member, while the others read it only later.

    Raises:
        TypeError, ValueError: a wrong argument; or a room of this name has another share, timeout or settle.
    """

    def __init__(
        self,
        name: str,
        id: Id,
        *,
        match: Match = any_message,
        share: float = 1.0,
        timeout: float = 5.0,
        settle: float = 1.0,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"Fanout: the name must be a text, not {name!r}")
        if not (callable(id) or _is_path(id)):
            raise TypeError(
                f"Fanout: id must be a JSON field (a name, or a tuple of names and indexes) or a function of the "
                f"message, not {id!r}"
            )
        checked_match(match, "Fanout")
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise ValueError(f"Fanout: share must be above 0 and at most 1, not {share!r}")
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= 3600:
            raise ValueError(f"Fanout: timeout must be above 0 and at most 3600 seconds, not {timeout!r}")
        if isinstance(settle, bool) or not isinstance(settle, (int, float)) or not 0 <= settle <= 3600:
            raise ValueError(f"Fanout: settle must be between 0 and 3600 seconds, not {settle!r}")
        room = _process.rooms.setdefault(name, _Room(name, share, timeout, settle))
        if (room.share, room.timeout, room.settle) != (share, timeout, settle):
            raise ValueError(f"Fanout: there is a room {name!r} already, with another share, timeout or settle")
        self._room = room
        self._is_field = not callable(id)
        self._id: Callable[[Any], Any] = id if callable(id) else field(id)
        self._match = match

    def __repr__(self) -> str:
        return f"<Fanout {self._room.name!r}>"

    def join(self, connection: WebSocketConnection, *, take: bool = True) -> None:
        """
        Count the messages of the room that come on this connection from now on. A connection leaves when it is over;
        one that reconnects stays. To join twice does no harm.

        Args:
            connection: an open connection of ``self.ws``.
            take: False leaves the messages to handlers and ``recv`` as well.

        Raises:
            TypeError: this is no connection of ``self.ws``.
        """
        if not isinstance(connection, WebSocketConnection):
            raise TypeError(f"Fanout.join takes a connection of self.ws.connect(...), not {connection!r}")
        room = self._room
        if connection in room.members or _process.ended:
            return
        _process.use()
        member = room.enter(connection)
        id_of, is_field = self._id, self._is_field

        def observe(message: str | bytes, arrived: float) -> None:
            try:
                message_id = id_of(message)
            except Exception as exc:
                if not is_field:
                    match_raised(id_of, exc)
                message_id = None
            if message_id is None:
                room.without_id += 1
                return
            try:
                room.received(member, message_id, arrived)
            except TypeError as exc:
                error = UnusableId(type(message_id).__name__)
                error.__cause__ = exc
                fire("WS REACH", room.name, None, error)

        def left(excused: bool) -> None:
            room.leave(connection, excused=excused)

        member.subscription = connection.router.subscriptions.observe(self._match, observe, left, take)

    def leave(self, connection: WebSocketConnection) -> None:
        """Count no more messages of this connection. To leave twice, or without having joined, does no harm."""
        self._room.leave(connection, excused=True)

    def published(self, message_id: Hashable) -> None:
        """
        Say that a message goes out now. Call it just before it is sent, in whichever process; once for each id.

        Raises:
            TypeError: the id is none; see :class:`Fanout`.
        """
        now = perf_counter()
        digested = digest(self._room.name, message_id)
        if _process.ended:
            return
        _process.use()
        if is_sampled(digested, _process.sampling.level):
            self._room.published.append((digested, now))


def _is_path(id: object) -> bool:
    steps = id if isinstance(id, tuple) else (id,)
    return bool(steps) and all(isinstance(step, (str, int)) and not isinstance(step, bool) for step in steps)
