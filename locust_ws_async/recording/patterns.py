"""What the messages of a connection are to each other: heartbeats, answers, requests and their replies, pushes.

Each message is claimed once, by the first of these that it fits:

1. a keepalive of the server that the client answers, always with the same or with itself, within 100 ms;
2. a message that the client sends again and again, with equal pauses until the end;
3. a request whose id comes back in its reply;
4. a request without an id, where replies of a kind come only to requests, and no more of them;
5. what is left: messages that are sent, and pushes.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import Any

from .conversation import Kind, Kinds, Message, Path, at

__all__ = ["Answer", "Ids", "Periodic", "Push", "Script", "Step", "read"]

_ANSWERED_WITHIN = 0.1  # seconds
_REPLY_WITHIN = 10  # seconds: what comes later without an id is no reply
_SHORTEST_PERIOD = 0.2  # seconds: what comes faster is an exchange
_CLOCKS_DIFFER = 300  # seconds: a time in a message that is further from its arrival is not when it was sent
_KEEPALIVE = re.compile(
    r"(?<![a-z])(?:ping|pong|keep.?alive|heart.?beat|hb)(?![a-z])|^[23]?\s*$",
    re.IGNORECASE,
)
_ID_NAME = re.compile(
    r"(?:^|_)(?:id|ids|ref|seq|rid|mid|cid|receipt|req|reqid|request|nonce|correlation|ack|tag|no|num)$|Id$|ID$|Ref$"
)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SEARCHED = 50  # messages in which an id is looked for, of those that contain it


@dataclass(eq=False, slots=True)
class Answer:
    """The client answers messages of a kind at once. ``message``: None where it sends each back as it is."""

    trigger: Kind
    message: Message | None
    copied: dict[Path, Path] = field(default_factory=dict)
    """What the answer has from the message it answers: where it has it, and where that was."""


@dataclass(eq=False, slots=True)
class Periodic:
    """The client sends a message by itself. ``answered``: the kind of what the server says to it, and nobody needs."""

    seconds: float
    message: Message
    answered: Kind | None


@dataclass(eq=False, slots=True)
class Push:
    """Messages that the server sends by itself. ``sent_at``: the member with the time, and its unit."""

    kind: Kind
    messages: Sequence[Message]
    sent_at: Path | None
    unit: str = ""


@dataclass(eq=False, slots=True)
class Ids:
    """Requests have their ids here, and replies there."""

    path: Path
    reply_path: Path
    values: list[Any]


@dataclass(eq=False, slots=True)
class Step:
    """A message that is sent, or is waited for, or both."""

    message: Message | None
    reply: Message | None = None
    ids: Ids | None = None
    """How the reply is known; without it, by its kind."""

    @property
    def begins(self) -> Message:
        """The message with which it begins."""
        message = self.message or self.reply
        assert message is not None
        return message

    @property
    def ends(self) -> Message:
        """The message with which it ends."""
        message = self.reply or self.message
        assert message is not None
        return message


@dataclass(eq=False, slots=True)
class Script:
    """A connection, understood."""

    messages: Sequence[Message]
    sent: Kinds
    received: Kinds
    answers: list[Answer] = field(default_factory=list)
    periodic: list[Periodic] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list)
    consumed: set[Message] = field(default_factory=set)
    """Received messages that rules of keepalive take, so that nobody else sees them."""
    in_order: bool = False
    """Whether each reply is simply the next message."""


def read(messages: Sequence[Message], opened: float, closed: float) -> Script:
    """Understand a connection. ``opened``, ``closed``: seconds since the epoch."""
    script = Script(
        messages,
        sent=Kinds([message for message in messages if message.sent]),
        received=Kinds([message for message in messages if not message.sent]),
    )
    left = dict.fromkeys(messages)
    _find_answers(script, left, closed)
    _find_periodic(script, left, closed)
    replies = _find_ids(left)
    for step in replies:
        left.pop(step.begins)
        left.pop(step.ends)
    ordered = _find_ordered_replies(script, left)
    # With nothing else going on, each reply is the next message, whatever it looks like.
    script.in_order = not replies and len(ordered) * 2 == len(left) and _one_at_a_time(ordered)
    if not script.in_order:
        ordered = [step for step in ordered if script.received.match(step.ends.kind) is not None]
    for step in ordered:
        left.pop(step.begins)
        left.pop(step.ends)
    sends = [Step(message) for message in left if message.sent]
    script.steps = sorted([*replies, *ordered, *sends], key=lambda step: step.begins.index)
    _find_pushes(script, [message for message in left if not message.sent])
    return script


def _one_at_a_time(steps: Iterable[Step]) -> bool:
    end = -1
    for step in sorted(steps, key=lambda step: step.begins.index):
        if step.begins.index < end:
            return False
        end = step.ends.index
    return True


# --------------------------------------------------------------------------------------- keepalive


def _find_answers(script: Script, left: dict[Message, None], closed: float) -> None:
    sent = [message for message in script.messages if message.sent]
    indexes = [message.index for message in sent]
    balance: Counter[str | bytes] = Counter()  # how often the client has sent a message that the server has not
    returned = set()  # kinds of what the server sent back: an answer, not a question
    for message in script.messages:
        if not message.sent and balance[message.data] > 0:
            returned.add(message.kind)
        balance[message.data] += 1 if message.sent else -1
    for kind in script.received:
        if kind in returned or script.received.match(kind) is None:
            continue
        triggers = script.received.of(kind)
        followers = [_answers_of(trigger, sent, indexes) for trigger in triggers]
        if not followers[-1] and closed - triggers[-1].time < _ANSWERED_WITHIN:
            followers.pop()  # the recording ended before its answer
        if not followers or not all(followers):
            continue
        answer = _common_answer(script, kind, triggers, followers)
        if answer is None:
            continue
        rule, answering = answer
        if len(answering) < 2 and not any(_is_keepalive(message) for message in (triggers[0], answering[0])):
            continue
        if not all(message in left for message in answering):
            continue
        script.answers.append(rule)
        script.consumed.update(triggers)
        for message in (*triggers, *answering):
            left.pop(message)


def _answers_of(trigger: Message, sent: Sequence[Message], indexes: Sequence[int]) -> list[Message]:
    """What the client sent within 100 ms after a message, of the first few."""
    start = bisect_right(indexes, trigger.index)
    return [message for message in sent[start : start + 3] if message.time - trigger.time <= _ANSWERED_WITHIN]


def _common_answer(
    script: Script, kind: Kind, triggers: Sequence[Message], followers: Sequence[list[Message]]
) -> tuple[Answer, list[Message]] | None:
    """The answer that all of them got, and that was sent for nothing else."""
    pairs = list(zip(triggers, followers, strict=False))
    echoes = [next((m for m in found if m.data == trigger.data), None) for trigger, found in pairs]
    if all(echoes):
        return Answer(kind, None), _distinct(echoes)
    for candidate in followers[0]:
        same = [next((m for m in found if m.data == candidate.data), None) for found in followers]
        everywhere = sum(message.data == candidate.data for message in script.sent.of(candidate.kind))
        if all(same) and everywhere == len(set(same)) == len(same):
            return Answer(kind, candidate), _distinct(same)
    for candidate in followers[0]:
        alike = [next((m for m in found if m.kind == candidate.kind), None) for found in followers]
        if all(alike) and len(script.sent.of(candidate.kind)) == len(set(alike)) == len(alike):
            answering = _distinct(alike)
            copied = _copied(triggers, answering)
            if copied is not None:
                return Answer(kind, answering[0], copied), answering
    return None


def _distinct(messages: Iterable[Message | None]) -> list[Message]:
    return [message for message in dict.fromkeys(messages) if message is not None]


def _copied(triggers: Sequence[Message], answers: Sequence[Message]) -> dict[Path, Path] | None:
    """Where the answers have what their triggers have, if that is all in which they differ."""
    if any(message.json is None for message in (*triggers, *answers)):
        return None
    copied: dict[Path, Path] = {}
    for path, value in answers[0].leaves:
        if all(_value(answer, path) == value for answer in answers):
            continue
        for origin, original in triggers[0].leaves:
            if original == value and all(
                _value(trigger, origin) == _value(answer, path)
                for trigger, answer in zip(triggers, answers, strict=False)
            ):
                copied[path] = origin
                break
        else:
            return None
    paths = [path for path, _ in answers[0].leaves]
    return copied if all([path for path, _ in answer.leaves] == paths for answer in answers) else None


def _value(message: Message, path: Path) -> Any:
    try:
        return at(message.json, path)
    except (LookupError, TypeError):
        return None


def _is_keepalive(message: Message) -> bool:
    return isinstance(message.data, str) and len(message.data) <= 200 and bool(_KEEPALIVE.search(message.data))


def _find_periodic(script: Script, left: dict[Message, None], closed: float) -> None:
    equal: dict[str | bytes, list[Message]] = defaultdict(list)
    for message in left:
        if message.sent:
            equal[message.data].append(message)
    for beats in equal.values():
        if len(beats) < 3:
            continue
        gaps = [b.time - a.time for a, b in pairwise(beats)]
        period = median(gaps)
        if period < _SHORTEST_PERIOD or closed - beats[-1].time > 1.5 * period:
            continue
        if any(abs(gap - period) > max(0.05, period / 10) for gap in gaps):
            continue
        answered = _answer_to_beats(script, left, beats, period)
        script.periodic.append(Periodic(period, beats[0], answered))
        for beat in beats:
            left.pop(beat)
        for message in script.received.of(answered) if answered else ():
            script.consumed.add(message)
            left.pop(message)


def _answer_to_beats(script: Script, left: dict[Message, None], beats: Sequence[Message], period: float) -> Kind | None:
    """The kind of which there is one message after each beat, always the same."""
    after = next((message for message in script.messages[beats[0].index + 1 :] if not message.sent), None)
    if after is None or after not in left or script.received.match(after.kind) is None:
        return None
    answers = script.received.of(after.kind)
    if not len(beats) - 1 <= len(answers) <= len(beats) or any(answer not in left for answer in answers):
        return None
    if any(answer.data != after.data for answer in answers) and not all(map(_is_keepalive, answers)):
        return None
    late = any(not 0 <= b.time - a.time < period for a, b in zip(beats, answers, strict=False))
    return None if late else after.kind


# -------------------------------------------------------------------------------- requests, replies


def _find_ids(left: Iterable[Message]) -> list[Step]:
    """Requests with a value that comes back, and that no other of them has."""
    where: dict[tuple[type, Any], list[tuple[Message, Path]]] = defaultdict(list)
    requests: dict[Path, list[tuple[Message, Any]]] = defaultdict(list)
    for message in left:
        for path, value in message.leaves:
            if not _may_be_id(value):
                continue
            if message.sent:
                requests[path].append((message, value))
            else:
                where[type(value), value].append((message, path))
    steps: list[Step] = []
    taken: set[Message] = set()
    for path in sorted(requests, key=lambda path: _rank(path, len(requests[path]))):
        found = [(message, value) for message, value in requests[path] if message not in taken]
        ids = _ids_at(path, found, where)
        if ids is None:
            continue
        for message, value in found:
            for reply, reply_path in _later(where[type(value), value], message):
                if reply_path == ids.reply_path and reply not in taken:
                    steps.append(Step(message, reply, ids))
                    taken.update((message, reply))
                    break
    return steps


def _may_be_id(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return False
    return 0 < len(value) <= 64 if isinstance(value, str) else True


def _rank(path: Path, count: int) -> tuple[bool, int, int]:
    return (not _has_id_name(path), len(path), -count)


def _has_id_name(path: Path) -> bool:
    return isinstance(path[-1], str) and bool(_ID_NAME.search(path[-1]))


def _later(places: Sequence[tuple[Message, Path]], message: Message) -> Sequence[tuple[Message, Path]]:
    """The first of these places behind a message."""
    start = bisect_right(places, message.index, key=lambda place: place[0].index)
    return places[start : start + _SEARCHED]


def _ids_at(
    path: Path,
    requests: Sequence[tuple[Message, Any]],
    where: dict[tuple[type, Any], list[tuple[Message, Path]]],
) -> Ids | None:
    """Whether what requests have here are ids, and where they come back."""
    reply_paths: Counter[Path] = Counter()
    answered: list[Any] = []
    for message, value in requests:
        paths = {reply_path for _, reply_path in _later(where.get((type(value), value), ()), message)}
        if paths:
            answered.append(value)
            reply_paths.update(paths)
    distinct = list(dict.fromkeys(answered))
    if not answered or len(distinct) < len(answered) or len(answered) * 2 < len({value for _, value in requests}):
        return None
    # Where there are several such places, the same one as in the request, else the shortest way.
    best = max(reply_paths, key=lambda candidate: (reply_paths[candidate], candidate == path, -len(candidate)))
    if reply_paths[best] * 2 < len(answered) or not (_has_id_name(path) or _made_up(distinct)):
        return None
    return Ids(path, best, distinct)


def _made_up(values: Sequence[Any]) -> bool:
    """Whether a program made these values: it counted, or took them at random."""
    if all(isinstance(value, str) and _UUID.fullmatch(value) for value in values):
        return True
    numbers = [int(value) for value in values if re.fullmatch(r"\d{1,18}", str(value))]
    return len(numbers) == len(values) >= 3 and all(b - a == 1 for a, b in pairwise(numbers))


def _find_ordered_replies(script: Script, left: dict[Message, None]) -> list[Step]:
    """Requests without ids: what is received of a kind comes only to what was sent before it."""
    kinds: dict[Kind, list[Message]] = defaultdict(list)
    for message in left:
        if not message.sent:
            kinds[message.kind].append(message)
    unclaimed = [message for message in left if message.sent]
    steps: list[Step] = []

    def unlikely(replies: Sequence[Message]) -> tuple[float, int, int]:
        """What comes right behind what was sent is more likely to be a reply to it."""
        direct = sum(script.messages[reply.index - 1].sent for reply in replies if reply.index)
        return (-direct / len(replies), len(replies), replies[0].index)

    for replies in sorted(kinds.values(), key=unlikely):
        found = _pairs(unclaimed, replies)
        if found is not None:
            steps += found
            claimed = {step.begins for step in found}
            unclaimed = [message for message in unclaimed if message not in claimed]
    return steps


def _pairs(sends: Sequence[Message], replies: Sequence[Message]) -> list[Step] | None:
    """
    Each reply with a message that was sent before it, if there is one for each.

    Between two runs of messages that are sent there are as many replies as were sent, or one: that is to the last one,
    since the others did not wait for it.
    """
    steps: list[Step] = []
    run: list[Message] = []
    answers: list[Message] = []
    for message in sorted((*sends, *replies), key=lambda message: message.index):
        if message.sent:
            if answers:
                run = []
                answers = []
            run.append(message)
        else:
            answers.append(message)
            if len(answers) > len(run) or message.time - run[-1].time > _REPLY_WITHIN:
                return None
            if len(answers) == 1:
                steps.append(Step(run[-1], message))
            elif len(answers) == 2:
                steps[-1] = Step(run[0], answers[0])
                steps.append(Step(run[1], message))
            else:
                steps.append(Step(run[len(answers) - 1], message))
    return steps


# ------------------------------------------------------------------------------------------ pushes


def _find_pushes(script: Script, left: Sequence[Message]) -> None:
    kinds: dict[Kind, list[Message]] = defaultdict(list)
    for message in left:
        kinds[message.kind].append(message)
    for kind, messages in kinds.items():
        path, unit = _time_in(messages)
        script.pushes.append(Push(kind, messages, path, unit))


def _time_in(messages: Sequence[Message]) -> tuple[Path | None, str]:
    """The member that says when each of these was sent, and its unit: seconds, milliseconds, or ISO 8601."""
    for path, value in messages[0].leaves:
        for unit in ("s", "ms", "iso"):
            if _is_time(value, unit, messages[0]) and all(_is_time(_value(m, path), unit, m) for m in messages):
                return path, unit
    return None, ""


def _is_time(value: object, unit: str, message: Message) -> bool:
    if unit == "iso":
        if not isinstance(value, str) or not 19 <= len(value) <= 40:
            return False
        try:
            moment = datetime.fromisoformat(value)
            seconds = moment.timestamp() if moment.tzinfo else float("inf")
        except (ValueError, OverflowError):
            return False
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    else:
        seconds = value / 1000 if unit == "ms" else value
    return abs(seconds - message.time) < _CLOCKS_DIFFER
