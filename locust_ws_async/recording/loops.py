"""What is done several times in a row becomes a loop; what differs between the turns becomes its variable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from .source import Code, Expression, Group, Hole

__all__ = ["Line", "Loop", "Unit", "fold"]

_LONGEST_BODY = 16
_MOST_VARIABLES = 3
_FEWEST_ROWS = 3
_MANY_TURNS = 10  # of so many, pauses are not told one by one
_UNEVEN = 0.5  # seconds by which pauses differ, and twofold, that are not the same


@dataclass(frozen=True, slots=True)
class Line:
    """A statement: what stands before its expression, the expression, what stands behind it."""

    before: str
    value: Expression
    after: str = ""
    indent: int = 0


@dataclass(frozen=True, slots=True)
class Unit:
    """Statements that belong together, and the seconds to wait before them."""

    pause: float | Code
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """Statements that are repeated: ``count`` times, or once for each row of values of the variables."""

    body: tuple[Unit, ...]
    count: int
    variables: tuple[str, ...] = ()
    rows: tuple[tuple[Expression, ...], ...] = ()


def fold(units: Sequence[Unit], reserved: set[str]) -> list[Unit | Loop]:
    """Find the loops. ``reserved``: names that variables must not have; theirs are added."""
    parts: list[Unit | Loop] = [*units]
    # What is the same many times comes before what is alike: the latter needs a row for each turn.
    for same, fewest in ((True, _MANY_TURNS), (False, _FEWEST_ROWS), (True, 2)):
        parts = list(_between_loops(parts, partial(_find_loops, same=same, fewest=fewest, reserved=reserved)))
    return parts


def _between_loops(
    parts: Sequence[Unit | Loop], find: Callable[[Sequence[Unit]], list[Unit | Loop]]
) -> Iterator[Unit | Loop]:
    """Look for loops between those that were found."""
    between: list[Unit] = []
    for part in parts:
        if isinstance(part, Unit):
            between.append(part)
        else:
            yield from find(between)
            yield part
            between = []
    yield from find(between)


def _find_loops(units: Sequence[Unit], *, same: bool, fewest: int, reserved: set[str]) -> list[Unit | Loop]:
    """Loops of at least so many turns, over what is the same each time, or is so but for a few values."""
    numbers: dict[tuple[Line, ...], int] = {}
    keys: list[int] = []
    holes: list[list[Hole]] = []
    for unit in units:
        holes.append([])
        skeleton = tuple(_line(line, holes[-1].append) for line in unit.lines)
        keys.append(numbers.setdefault(unit.lines if same else skeleton, len(numbers)))
    folded: list[Unit | Loop] = []
    # A loop is not to be longer than what it stands for.
    for start, length, turns in _repetitions(
        keys, lambda length, turns: turns >= fewest and length * turns > length + 1
    ):
        end = start + length * turns
        loop = None
        if turns > 1:
            loop = _loop(units[start:end], holes[start:end], length, reserved)
        folded += units[start:end] if loop is None else [loop]
    return folded


def _loop(units: Sequence[Unit], holes: Sequence[Sequence[Hole]], length: int, reserved: set[str]) -> Loop | None:
    """The loop that these units are, so many in a turn; None if it would need too many variables."""
    turns = len(units) // length
    each_turn = [
        [hole for unit in holes[turn * length : (turn + 1) * length] for hole in unit] for turn in range(turns)
    ]
    columns = [tuple(column) for column in zip(*each_turn, strict=True)]
    pauses = [_pauses([unit.pause for unit in units[index::length]]) for index in range(length)]
    varying = {column for column in (*columns, *pauses) if isinstance(column, tuple) and len(set(column)) > 1}
    if len(varying) > _MOST_VARIABLES:
        return None
    names: dict[tuple[Hole, ...], Code] = {}
    for column in (*pauses, *columns):
        if column in varying and column not in names:
            assert isinstance(column, tuple)
            names[column] = Code(_new_name(column[0].name, reserved))
    fillings = iter([names.get(column, column[0]) for column in columns])
    body = tuple(
        Unit(
            names[pause] if isinstance(pause, tuple) else pause,
            tuple(_line(line, lambda hole: next(fillings)) for line in unit.lines),
        )
        for pause, unit in zip(pauses, units[:length], strict=True)
    )
    rows = tuple(tuple(column[turn].value for column in names) for turn in range(turns))
    return Loop(body, turns, tuple(code.text for code in names.values()), rows)


def _pauses(pauses: Sequence[float | Code]) -> float | tuple[Hole, ...]:
    """
    The pause that a loop makes. If there are few, and they are uneven, each is told; else it is their mean, so that the
    loop takes as long as what it stands for.
    """
    numbers = [pause for pause in pauses if isinstance(pause, float)]
    later = numbers[1:] if len(numbers) > 2 and numbers[0] < min(numbers[1:]) else numbers
    least, most = min(later), max(later)  # there may have been nothing to wait for before the first turn
    if len(numbers) > _MANY_TURNS or most - least < _UNEVEN or most < 2 * least:
        return sum(later) / len(later)
    return tuple(Hole(Code(f"{round(number, 2):g}"), "pause") for number in numbers)


def _new_name(name: str, reserved: set[str]) -> str:
    unique, number = name, 1
    while unique in reserved:
        number += 1
        unique = f"{name}_{number}"
    reserved.add(unique)
    return unique


def _repetitions(keys: Sequence[int], worthwhile: Callable[[int, int], bool]) -> Iterator[tuple[int, int, int]]:
    """Cut the sequence: (start, length of a turn, turns); what is not repeated has one turn of length 1."""
    start = 0
    while start < len(keys):
        best = (1, 1)
        for length in range(1, min(_LONGEST_BODY, (len(keys) - start) // 2) + 1):
            turn = keys[start : start + length]
            turns = 1
            while keys[start + turns * length : start + (turns + 1) * length] == turn:
                turns += 1
            if turns > 1 and worthwhile(length, turns) and length * turns > best[0] * best[1]:
                best = (length, turns)
        yield start, *best
        start += best[0] * best[1]


def _line(line: Line, fill: Callable[[Hole], Expression | None]) -> Line:
    return Line(line.before, _filled(line.value, fill), line.after, line.indent)


def _filled(value: Expression, fill: Callable[[Hole], Expression | None]) -> Expression:
    """The expression with each hole replaced by what ``fill`` gives for it; None leaves a mark of its name."""
    if isinstance(value, Hole):
        return fill(value) or Code(f"<{value.name}>")
    if isinstance(value, Group):
        return Group(
            value.opening, tuple((key, _filled(member, fill)) for key, member in value.elements), value.closing
        )
    return value
