"""What is done several times in a row becomes a loop; what differs between the turns becomes its variable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .source import Code, Expression, Group, Hole

__all__ = ["Line", "Loop", "Unit", "fold"]

_LONGEST_BODY = 16
_MOST_VARIABLES = 3
_FEWEST_TURNS = 3  # of a loop with a variable
_MANY_TURNS = 10


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

    pause: float
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
    for find in (
        lambda between: _fold_equal(between, _MANY_TURNS),
        lambda between: _fold_alike(between, reserved),
        lambda between: _fold_equal(between, 2),
    ):
        parts = list(_between_loops(parts, find))
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


def _fold_equal(units: Sequence[Unit], fewest: int) -> list[Unit | Loop]:
    """Loops over what is the same each time, at least so often and not longer than what they stand for."""
    numbers: dict[tuple[Line, ...], int] = {}
    keys = [numbers.setdefault(unit.lines, len(numbers)) for unit in units]
    folded: list[Unit | Loop] = []
    for start, length, turns in _repetitions(
        keys, lambda length, turns: turns >= fewest and length * turns > length + 1
    ):
        folded.append(units[start] if turns == 1 else Loop(_mean(units, start, length, turns), turns))
    return folded


def _fold_alike(units: Sequence[Unit], reserved: set[str]) -> list[Unit | Loop]:
    """Loops over what is the same but for a few values."""
    numbers: dict[tuple[Line, ...], int] = {}
    skeletons: list[tuple[Line, ...]] = []
    values: list[list[Hole]] = []
    for unit in units:
        holes: list[Hole] = []
        skeletons.append(tuple(_line(line, _collector(holes)) for line in unit.lines))
        values.append(holes)
    keys = [numbers.setdefault(skeleton, len(numbers)) for skeleton in skeletons]
    folded: list[Unit | Loop] = []
    for start, length, turns in _repetitions(keys, lambda length, turns: turns >= _FEWEST_TURNS):
        loop = None
        if turns > 1:
            loop = _loop_over(units, values, start, length, turns, reserved)
        if loop is not None:
            folded.append(loop)
        else:
            folded += units[start : start + length * turns]
    return folded


def _collector(holes: list[Hole]) -> Callable[[Hole], None]:
    """Keeps the holes that it is shown, and fills none."""
    return holes.append


def _loop_over(
    units: Sequence[Unit],
    values: Sequence[Sequence[Hole]],
    start: int,
    length: int,
    turns: int,
    reserved: set[str],
) -> Loop | None:
    turn_values = [
        [hole for unit in values[start + turn * length : start + (turn + 1) * length] for hole in unit]
        for turn in range(turns)
    ]
    columns = [tuple(column) for column in zip(*turn_values, strict=True)]
    varying = list(dict.fromkeys(column for column in columns if len(set(column)) > 1))
    if len(varying) > _MOST_VARIABLES:
        return None
    names = {}
    for column in varying:
        name = column[0].name
        number = 1
        while name in reserved:
            number += 1
            name = f"{column[0].name}_{number}"
        reserved.add(name)
        names[column] = name
    fillings = iter([Code(names[column]) if column in names else column[0] for column in columns])
    body = tuple(
        Unit(unit.pause, tuple(_line(line, lambda hole: next(fillings)) for line in unit.lines))
        for unit in _mean(units, start, length, turns)
    )
    rows = tuple(tuple(column[turn].value for column in varying) for turn in range(turns))
    return Loop(body, turns, tuple(names.values()), rows)


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


def _mean(units: Sequence[Unit], start: int, length: int, turns: int) -> tuple[Unit, ...]:
    """The units of one turn, with the mean of the pauses of all: the loop takes as long as what it stands for."""
    return tuple(
        Unit(
            sum(units[start + turn * length + index].pause for turn in range(turns)) / turns,
            units[start + index].lines,
        )
        for index in range(length)
    )


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
