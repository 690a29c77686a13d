"""One limit on a row: ``p95 <= 200 ms``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from math import isfinite

from locust.stats import StatsEntry

from ..statistics.percentiles import percentile

__all__ = ["Limit", "Value", "limit"]

_MEASURES = {"avg": "ms", "max": "ms", "fail_ratio": "", "count": "", "rps": "/s"}
"""What is known besides percentiles, with its unit."""

_AT_LEAST = frozenset({"count", "rps"})
_PERCENTILE = re.compile(r"p(\d{1,2}(?:[._]\d{1,4})?)")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Value:
    """What a row has of what is limited."""

    text: str
    number: float | None
    """None where there is no such number: too few samples, for instance. The text says why."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a measure of a row must be."""

    measure: str
    operator: str
    number: float

    def __str__(self) -> str:
        return f"{self.measure} {self.operator} {_with_unit(self.number, _unit(self.measure))}"

    def value_in(self, row: StatsEntry) -> Value:
        """What *row* has, which has occurred at least once."""
        match self.measure:
            case "count":
                return Value(str(row.num_requests), row.num_requests)
            case "rps":
                return _value(row.total_rps, "/s")
            case "fail_ratio":
                failed = f"{_digits(row.fail_ratio, 4)} ({row.num_failures} of {row.num_requests})"
                return Value(failed, row.fail_ratio)
        times = sum(row.response_times.values())
        needed = 1 if self.measure in _MEASURES else _times_needed(self.measure)
        if times < needed:
            return Value(f"too few samples: {times} times, and it needs {needed}", None)
        match self.measure:
            case "avg":
                return _value(row.avg_response_time, "ms")
            case "max":
                return _value(row.max_response_time, "ms")
        found = percentile(row, float(_percent(self.measure) / 100))
        assert found is not None
        return _value(found, "ms")

    def is_kept_by(self, value: Value) -> bool:
        """Whether a row with this value keeps the limit."""
        return value.number is not None and _OPERATORS[self.operator](value.number, self.number)

    def may_still_be_kept(self, value: Value) -> bool:
        """Whether a row that does not keep the limit only needs more requests, as they come while a run goes on."""
        return value.number is None or self.measure == "count"


def limit(measure: str, number: object, comparison: str | None = None) -> Limit:
    """
    Make a limit.

    Args:
        measure: ``p50``, ``p99_9`` (or ``p99.9``), ``avg``, ``max``: milliseconds; ``fail_ratio``, from 0 to 1;
            ``count``; ``rps``, requests a second.
        number: the limit.
        comparison: ``<``, ``<=``, ``>``, ``>=``; by default ``count`` and ``rps`` are at least the number, all others
            at most.

    Raises:
        ValueError: there is no such measure, or the number makes no sense for it.
        TypeError: the limit is no number.
    """
    measure = measure.replace("_", ".") if _PERCENTILE.fullmatch(measure) else measure
    if measure not in _MEASURES and not (_PERCENTILE.fullmatch(measure) and _percent(measure) > 0):
        known = ", ".join(["p50", "p95", "p99_9 (any percentile)", *_MEASURES])
        raise ValueError(f"{measure!r} cannot be required; there are: {known}")
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise TypeError(f"{measure} must be a number, not {number!r}")
    if not isfinite(number) or number < 0:
        raise ValueError(f"{measure} must be a number from 0 on, not {number!r}")
    if measure == "fail_ratio" and number > 1:
        raise ValueError(f"fail_ratio is a share of the requests, from 0 to 1 (0.01 is one in a hundred), not {number}")
    comparison = comparison or (">=" if measure in _AT_LEAST else "<=")
    if comparison not in _OPERATORS:
        raise ValueError(f"{measure}{comparison}{number}: compare by one of {', '.join(_OPERATORS)}")
    return Limit(measure, comparison, number)


def _percent(measure: str) -> Decimal:
    return Decimal(measure[1:])


def _times_needed(measure: str) -> int:
    """Of fewer times the percentile would be the largest one: a p99 needs 100, and a p99.9 1,000."""
    return int((100 / (100 - _percent(measure))).to_integral_value(ROUND_CEILING))


def _unit(measure: str) -> str:
    return _MEASURES.get(measure, "ms")


def _value(number: float, unit: str) -> Value:
    return Value(_with_unit(number, unit), number)


def _with_unit(number: float, unit: str) -> str:
    return f"{_digits(number, 3)} {unit}" if unit == "ms" else _digits(number, 4) + unit


def _digits(number: float, most: int) -> str:
    text = f"{number:.{most}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
