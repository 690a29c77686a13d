"""One connection, from what was understood of it to the statements of its block."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil

from .conversation import Kind, Message, Path
from .login import Login
from .loops import Line, Loop, Unit, fold
from .origins import Origin, find_origins
from .patterns import Answer, Ids, Periodic, Push, Script, Step
from .payloads import Payloads, identifier, subscripts
from .source import Code, Expression, Group, call, listing, statement, text

__all__ = ["Names", "StepWriter", "keepalive", "sleep", "together", "written"]

_SHORTEST_PAUSE = 0.05  # seconds: less is how long a program takes
_SLOW_REPLY = 15.0  # seconds: half of the default of request_timeout


class Names:
    """The names of a method: each given once, none of Python's own and none that the file imports."""

    def __init__(self, imported: Iterable[str]) -> None:
        self.taken = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), *imported, "self"}

    def new(self, name: str, otherwise: str = "") -> str:
        """This name, or the other one where it is taken, or that with a number behind it."""
        if otherwise and name in self.taken:
            name = otherwise
        unique, number = name, 1
        while unique in self.taken:
            number += 1
            unique = f"{name}_{number}"
        self.taken.add(unique)
        return unique


def sleep(seconds: float | Code) -> Line | None:
    """A pause; None for one that is too short to be meant."""
    if isinstance(seconds, Code):
        return Line("await asyncio.sleep(", Code(f"{seconds.text} * THINK"), ")")
    if seconds < _SHORTEST_PAUSE:
        return None
    digits = 0 if seconds >= 10 else 1 if seconds >= 1 else 2
    return Line("await asyncio.sleep(", Code(f"{round(seconds, digits):g} * THINK"), ")")


def together(spans: Sequence[tuple[float, float]]) -> Iterator[range]:
    """Which of these, sorted by their beginnings, overlap: ranges of their indexes."""
    start, end = 0, float("-inf")
    for index, (begins, ends) in enumerate(spans):
        if index > start and begins >= end:
            yield range(start, index)
            start = index
        end = max(end, ends) if index > start else ends
    if spans:
        yield range(start, len(spans))


def written(parts: Iterable[Unit | Loop], indent: int) -> Iterator[str]:
    """The source of these statements, with their pauses."""
    for part in parts:
        if isinstance(part, Loop):
            yield _loop_head(part, indent)
            yield from written(part.body, indent + 1)
            continue
        pause = sleep(part.pause)
        for line in (*((pause,) if pause else ()), *part.lines):
            yield statement(indent + line.indent, line.before, line.value, line.after)


def _loop_head(loop: Loop, indent: int) -> str:
    if not loop.variables:
        return statement(indent, "for _ in ", Code(f"range({loop.count})"), ":")
    if len(loop.variables) == 1:
        values = listing(row[0] for row in loop.rows)
    else:
        values = listing(Group("(", tuple(("", value) for value in row), ")") for row in loop.rows)
    return statement(indent, f"for {', '.join(loop.variables)} in ", values, ":")


def keepalive(script: Script, payloads: Payloads) -> Expression | None:
    """The setting ``keepalive`` of a connection; None for none."""
    rules = [_answer(script, rule, payloads) for rule in script.answers]
    for beat in script.periodic:
        rules.append(_periodic(beat, payloads))
        if beat.answered is not None:
            rules.append(call("ignore", _match(script, beat.answered)))
    if not rules:
        return None
    return rules[0] if len(rules) == 1 else listing(rules)


def _match(script: Script, kind: Kind) -> Expression:
    return script.received.match(kind) or Code("any_message")


def _answer(script: Script, rule: Answer, payloads: Payloads) -> Expression:
    match = _match(script, rule.trigger)
    if rule.message is None:
        return call("echo", match)
    if not rule.copied:
        return call("reply", match, _fixed(rule.message, payloads))
    replaced: dict[Path, Expression] = {
        path: Code(f"json.loads(message){subscripts(origin)}") for path, origin in rule.copied.items()
    }
    payload = payloads.payload(rule.message, replaced)
    made = payload.expression if not payload.is_json else call("json.dumps", payload.expression)
    assert isinstance(made, Group)
    return call("reply", match, Group("lambda message: " + made.opening, made.elements, made.closing))


def _periodic(beat: Periodic, payloads: Payloads) -> Expression:
    return call("every", Code(f"{_period(beat.seconds):g}"), _fixed(beat.message, payloads))


def _period(seconds: float) -> float:
    """Without what timers and networks add to it."""
    for digits in (0, 1):
        if (rounded := round(seconds, digits)) and abs(rounded - seconds) <= 0.02 * seconds:
            return rounded
    return round(seconds, 2)


def _fixed(message: Message, payloads: Payloads) -> Expression:
    """A message that is always the same, as the text or the bytes that it is."""
    return payloads.text(message.data) if isinstance(message.data, str) else payloads.payload(message, {}).expression


class StepWriter:
    """Writes what is done on one connection. ``name``: the variable with the connection."""

    def __init__(self, script: Script, payloads: Payloads, names: Names, name: str, login: Login) -> None:
        self._script = script
        self._login = login
        self._payloads = payloads
        self._names = names
        self._name = name
        self._counters: dict[Path, str] = {}
        self._id_forms: dict[Path, tuple[str, str]] = {}
        self._variables: dict[Message, str] = {}
        self._id_variables: dict[Message, str] = {}
        self._in_flight: dict[Message, str] = {}
        self._references = self._find_references()
        self._origins = self._find_origins()
        self._steps = self._with_expectations()
        self._expected = self._last_expected()
        self._pushes = self._unexpected()

    def lines(self, opened: float, closed: float) -> Iterator[str]:
        """The source of the block."""
        units = list(self._units(opened))
        parts = fold(units, self._names.taken)
        head = [*self._counter_lines(), *self._push_lines(None)]
        yield from written([Unit(0.0, tuple(head))], 3)
        yield from written(parts, 3)
        ended = max((step.ends.time for step in self._steps), default=opened)
        if (pause := sleep(closed - ended)) is not None:
            yield from written([Unit(0.0, (pause,))], 3)

    @property
    def uses_connection(self) -> bool:
        """Whether anything is done with the connection but to hold it."""
        return bool(self._steps or self._script.pushes)

    # Before anything is written

    def _find_origins(self) -> dict[tuple[Message, Path], Origin]:
        """The values from earlier answers, without those that are ids, or in messages that look like others."""
        script = self._script
        made = {(step.begins, step.ids.path) for step in script.steps if step.ids is not None} | set(self._references)
        sent = {step.begins for step in script.steps}
        replies = {step.ends for step in script.steps}
        return {
            place: origin
            for place, origin in find_origins(script).items()
            if place not in made
            and place[0] in sent
            and (origin.message in replies or script.received.match(origin.message.kind) is not None)
        }

    def _with_expectations(self) -> list[Step]:
        """The steps, and the messages that have to be waited for because of a value in them."""
        replies = {step.ends for step in self._script.steps if step.reply is not None}
        expected = {origin.message for origin in self._origins.values()} - replies
        steps = [*self._script.steps, *(Step(None, message) for message in expected)]
        return sorted(steps, key=lambda step: step.begins.index)

    def _last_expected(self) -> dict[Kind, Message]:
        """The kinds of messages that are waited for, with the last of each: what comes later is a push again."""
        expected = [step.reply for step in self._steps if step.message is None and step.reply is not None]
        return {message.kind: message for message in expected}

    def _unexpected(self) -> list[Push]:
        """The kinds of pushes of which there are messages that no step waits for."""
        expected = {step.reply for step in self._steps if step.message is None}
        return [push for push in self._script.pushes if any(message not in expected for message in push.messages)]

    def _find_references(self) -> dict[tuple[Message, Path], Step]:
        """Where an id is sent again that an earlier request had."""
        owners: dict[tuple[type, object], Step] = {}
        found: dict[tuple[Message, Path], Step] = {}
        id_paths = {step.ids.path for step in self._script.steps if step.ids is not None}
        for step in self._script.steps:
            message = step.message
            if message is None:
                continue
            own = step.ids.path if step.ids is not None else None
            for path, value in message.leaves:
                if path == own:
                    owners[type(value), value] = step
                elif path in id_paths and (owner := owners.get((type(value), value))) is not None:
                    found[message, path] = owner
        return found

    # Statements

    def _units(self, opened: float) -> Iterator[Unit]:
        self._name_variables()
        events = sorted(
            {message for step in self._steps for message in (step.message, step.reply) if message is not None},
            key=lambda message: message.index,
        )
        before: dict[Message, float] = {}
        last = opened
        for message in events:
            before[message] = last
            last = message.time
        spans = [(step.begins.index, step.ends.index + 0.5) for step in self._steps]
        for indexes in together(spans):
            steps = [self._steps[index] for index in indexes]
            pauses = [step.begins.time - before[step.begins] if step.message else 0.0 for step in steps]
            lines = self._step(steps[0]) if len(steps) == 1 else list(self._flight(steps, pauses))
            found = {step.reply for step in steps if step.message is None}
            yield Unit(float(pauses[0]), (*lines, *self._push_lines(found)))

    def _name_variables(self) -> None:
        """Give answers that are needed later a variable; one of a kind takes over from the one before if it may."""
        last_use: dict[Message, int] = {}
        for (message, _), origin in self._origins.items():
            last_use[origin.message] = max(message.index, last_use.get(origin.message, 0))
        holders: dict[Kind, list[tuple[str, int]]] = {}
        for step in self._steps:
            needed = step.reply
            if needed is None or needed not in last_use:
                continue
            candidates = holders.setdefault(needed.kind, [])
            for index, (name, until) in enumerate(candidates):
                if until <= needed.index:
                    candidates[index] = (name, last_use[needed])
                    break
            else:
                label = self._script.received.label(needed.kind)
                name = self._names.new(identifier(label, "answer"))
                candidates.append((name, last_use[needed]))
            self._variables[needed] = name
        owners = {owner.begins: owner for owner in self._references.values()}
        for step in self._steps:
            if step.message in owners:
                assert step.message is not None
                label = self._script.sent.label(step.message.kind)
                self._id_variables[step.message] = self._names.new(identifier(f"{label}_id", "request_id"))

    def _flight(self, steps: Sequence[Step], pauses: Sequence[float]) -> Iterator[Line]:
        """Steps of which one begins before another has ended."""
        yield Line("async with asyncio.TaskGroup() as in_flight:", Code(""))
        for number, (step, pause) in enumerate(zip(steps, pauses, strict=True)):
            if number and (wait := sleep(pause)) is not None:
                yield Line(wait.before, wait.value, wait.after, 1)
            *before, line = self._step(step)
            for other in before:
                yield Line(other.before, other.value, other.after, other.indent + 1)
            operation = line.value
            if line.before.startswith("await "):
                yield Line("", call("in_flight.create_task", operation), "", 1)
                continue
            assert step.reply is not None
            task = self._names.new(f"{self._variables[step.reply]}_task")
            self._in_flight[step.reply] = task
            yield Line(f"{task} = ", call("in_flight.create_task", _awaited(operation)), "", 1)
        for reply, task in list(self._in_flight.items()):
            yield Line(f"{self._variables[reply]} = ", Code(f"json.loads({task}.result())"))
        self._in_flight.clear()

    def _step(self, step: Step) -> list[Line]:
        """The statements of a step; the last one is the operation."""
        lines: list[Line] = []
        if step.message is None:
            assert step.reply is not None
            match = self._script.received.match(step.reply.kind)
            assert match is not None
            return [self._assigned(step.reply, Group(f"await {self._name}.expect(", (("", match),), ")"))]
        replaced = self._replaced(step, lines)
        payload = self._payloads.payload(step.message, replaced)
        if step.reply is None:
            method = "send_json" if payload.is_json else "send"
            lines.append(Line("await ", call(f"{self._name}.{method}", payload.expression)))
            return lines
        keywords: dict[str, Expression] = {}
        if step.ids is not None:
            keywords["match"] = _json_field(step.ids)
        elif not self._script.in_order:
            match = self._script.received.match(step.reply.kind)
            assert match is not None
            if match != Code("any_message"):
                keywords["match"] = match
        if step.reply.time - step.message.time > _SLOW_REPLY:
            keywords["timeout"] = Code(str(ceil(2 * (step.reply.time - step.message.time))))
        if label := self._label(step.message):
            keywords["name"] = self._payloads.text(label)
        if step.reply in self._variables:
            operation = call(f"await {self._name}.request", payload.expression, **keywords)
            lines.append(self._assigned(step.reply, operation))
        else:
            lines.append(Line("await ", call(f"{self._name}.request", payload.expression, **keywords)))
        return lines

    def _label(self, message: Message) -> str:
        """What to call a request: not by a word of it where there is no protocol to be seen."""
        if self._script.in_order and message.json is None:
            return ""
        return self._script.sent.label(message.kind)

    def _assigned(self, reply: Message, operation: Group) -> Line:
        return Line(f"{self._variables[reply]} = ", call("json.loads", operation))

    def _replaced(self, step: Step, lines: list[Line]) -> Mapping[Path, Expression]:
        """The places in a message whose values are made, or known from an answer. Adds what has to come before."""
        message = step.message
        assert message is not None
        replaced: dict[Path, Expression] = {}
        for path, value in message.leaves:
            if (message, path) in self._references:
                replaced[path] = Code(self._id_variables[self._references[message, path].begins])
            elif (origin := self._origins.get((message, path))) is not None:
                if (task := self._in_flight.pop(origin.message, None)) is not None:
                    variable = self._variables[origin.message]
                    lines.append(Line(f"{variable} = ", Code(f"json.loads(await {task})")))
                replaced[path] = Code(self._variables[origin.message] + subscripts(origin.path))
            elif (told := self._login.value(value)) is not None:
                replaced[path] = told
        if step.ids is not None:
            made = self._new_id(step.ids)
            if message in self._id_variables:
                lines.append(Line(f"{self._id_variables[message]} = ", made))
                made = Code(self._id_variables[message])
            replaced[step.ids.path] = made
        return replaced

    # Ids

    def _new_id(self, ids: Ids) -> Code:
        if ids.path not in self._id_forms:
            self._id_forms[ids.path] = _id_form(ids)
        kind, start = self._id_forms[ids.path]
        if kind == "random":
            return Code(start)
        if ids.path not in self._counters:
            self._counters[ids.path] = self._names.new("ids")
        following = f"next({self._counters[ids.path]})"
        if kind == "number":
            return Code(following)
        return Code(f"str({following})" if not start else f'f"{start}{{{following}}}"')

    def _counter_lines(self) -> Iterator[Line]:
        for step in self._steps:
            if step.ids is not None and step.ids.path in self._counters:
                name = self._counters.pop(step.ids.path)
                yield Line(f"{name} = ", Code(f"count({_first_number(step.ids)})"))

    # Pushes

    def _push_lines(self, found: set[Message | None] | None) -> Iterator[Line]:
        """
        Subscriptions to what the server sends by itself: at the beginning (None), or where the last message of their
        kind is found that a step waits for: an earlier subscription would take it from the step.
        """
        if found is not None and found.isdisjoint(self._expected.values()):
            return
        last = max((message.index for message in self._expected.values()), default=None)
        undistinguished = False
        for push in self._pushes:
            match = self._script.received.match(push.kind)
            if match is None:
                undistinguished = True
            elif _is_due(self._expected.get(push.kind), found):
                yield self._push(push, match)
        if undistinguished and _is_due(None if last is None else self._script.messages[last], found):
            yield Line("", call(f"{self._name}.on", Code("any_message"), Code("lambda message: None")))

    def _push(self, push: Push, match: Expression) -> Line:
        keywords: dict[str, Expression] = {}
        method, positional = "measure_push", [match]
        if push.sent_at is None:
            method = "on"
            positional.append(Code("lambda message: None"))
        elif push.unit == "iso":
            value = f"json.loads(message){subscripts(push.sent_at)}"
            keywords["sent_at"] = Code(f"lambda message: datetime.fromisoformat({value}).timestamp()")
        else:
            steps = [text(step) if isinstance(step, str) else Code(str(step)) for step in push.sent_at]
            keywords["sent_at"] = steps[0] if len(steps) == 1 else Group("(", tuple(("", s) for s in steps), ")")
        if label := self._script.received.label(push.kind):
            keywords["name"] = self._payloads.text(label)
        return Line("", call(f"{self._name}.{method}", *positional, **keywords))


def _is_due(last: Message | None, found: set[Message | None] | None) -> bool:
    return last is None if found is None else last is not None and last in found


def _awaited(operation: Expression) -> Expression:
    """``json.loads(await x)``, of which a task is to do the ``x``."""
    assert isinstance(operation, Group)
    inner = operation.elements[0][1]
    assert isinstance(inner, Group)
    return Group(inner.opening.removeprefix("await "), inner.elements, inner.closing)


def _json_field(ids: Ids) -> Expression:
    steps = [text(step) if isinstance(step, str) else Code(str(step)) for step in ids.path]
    if ids.reply_path == ids.path:
        return call("json_field", *steps)
    there = [text(step) if isinstance(step, str) else Code(str(step)) for step in ids.reply_path]
    reply = there[0] if len(there) == 1 else Group("(", tuple(("", step) for step in there), ")")
    return call("json_field", *steps, reply=reply)


def _id_form(ids: Ids) -> tuple[str, str]:
    """How ids like these are made: ("number", ""), ("text", what is before the number), ("random", the expression)."""
    if all(isinstance(value, int) for value in ids.values):
        return "number", ""
    values = [str(value) for value in ids.values]
    if all(re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value) for value in values):
        return "random", "str(uuid4())"
    found = [re.fullmatch(r"([\w.:-]*?)(\d{1,12})", value, re.ASCII) for value in values]
    starts = {match[1] for match in found if match}
    if all(found) and len(starts) == 1:
        return "text", starts.pop()
    return "random", f"uuid4().hex[:{len(values[0])}]" if len(values[0]) < 32 else "uuid4().hex"


def _first_number(ids: Ids) -> int:
    if isinstance(ids.values[0], int):
        return ids.values[0]
    found = re.search(r"\d{1,12}$", ids.values[0])
    return int(found[0]) if found else 1
