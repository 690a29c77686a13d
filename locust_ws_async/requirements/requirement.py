"""What is required: ``require(...)`` in a locustfile, or a text of the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from .limits import Limit, limit

__all__ = ["GENERATOR", "Requirement", "Requirements", "parsed", "require"]

GENERATOR = "the load generator"
"""Stands for a row where the generator itself is judged."""

_LIMIT = r"\s+([A-Za-z]\w*(?:\.\d+)?)\s*([<>=!]+)\s*([^\s<>=!]+)"
_TEXT = re.compile(rf"(?P<row>\S.*?)(?P<limits>(?:{_LIMIT})+)\s*", re.DOTALL)
_HOW = 'write it like "WS REQUEST balance p95<200 fail_ratio<=0.01 count>=100": a type, a name, limits'


@dataclass(frozen=True, slots=True)
class Requirement:
    """What is required of one row."""

    row: str
    """Type and name, as Locust's tables show them; or :data:`GENERATOR`."""
    limits: tuple[Limit, ...]
    after: float = 0.0
    """Seconds from the start of the test that are left out."""
    abort_after: float | None = None
    """Seconds from the start of the test from when on the run ends as soon as this fails."""


class Requirements:
    """All requirements of this process; called to add one."""

    def __init__(self) -> None:
        self.all: list[Requirement] = []
        self.closed = False
        """Whether a test has begun: what is added later would hold on one process only."""

    def __call__(
        self, name: str, request_type: str, *, after: float = 0.0, abort_after: float | None = None, **limits: float
    ) -> None:
        """
        Require something of a row. Call it at the top of the locustfile.

        ::

            require("balance", "WS REQUEST", p95=200, p99_9=800, fail_ratio=0.01, count=100)

        At the end of the run Locust exits with 3 if a limit is not kept, and with 0 if all of them are, whatever else
        has failed. A row that never occurred fails, and so does a percentile of so few times that it would be the
        largest of them.

        Args:
            name: the name of the row; ``require("Aggregated", "", ...)`` means Locust's sum of all rows.
            request_type: its type.
            after: seconds from the start of the test that are left out: the ramp. On a master it may be up to one
                report of the workers more (3 s).
            abort_after: seconds from the start of the test from when on the run is ended as soon as a limit is not
                kept; by default it goes on. That there are too few requests yet ends nothing.
            limits: ``p50``, ``p95``, ``p99_9`` or any other percentile, ``avg`` and ``max``: milliseconds, at most.
                ``fail_ratio``: a share from 0 to 1, at most. ``count`` and ``rps`` (a second): at least. Without any
                limit, the row must occur.

        Raises:
            TypeError, ValueError: there is no such limit, or a number makes no sense.
            RuntimeError: a test has begun already.
        """
        for argument, value in (("name", name), ("request_type", request_type)):
            if not isinstance(value, str):
                raise TypeError(f"require: {argument} must be a text, not {value!r}")
        if not name:
            raise ValueError("require: the row needs a name")
        wanted = [limit(measure, number) for measure, number in (limits or {"count": 1}).items()]
        self._add(Requirement(f"{request_type} {name}".strip(), tuple(wanted), *_times(after, abort_after)))

    def generator(self, *, saturated: Literal[False] = False) -> None:
        """
        Require that the load generator was not the bottleneck: then the times are those of the server.

        Args:
            saturated: False.

        Raises:
            ValueError: anything else.
            RuntimeError: a test has begun already.
        """
        if saturated is not False:
            raise ValueError("require.generator: only saturated=False can be required")
        self._add(Requirement(GENERATOR, ()))

    def _add(self, requirement: Requirement) -> None:
        if self.closed:
            raise RuntimeError(
                "require() was called after the test had begun, when not all processes would know of it: call it at "
                "the top of the locustfile"
            )
        self.all.append(requirement)


require = Requirements()


def parsed(text: str) -> Requirement:
    """
    Read a requirement as it stands on the command line: ``WS REQUEST balance p95<200 after=30``.

    Raises:
        ValueError: it cannot be read; the text says what to write.
    """
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} has no limit: {_HOW}")
    times: dict[str, float] = {}
    limits = []
    for measure, comparison, value in re.findall(_LIMIT, found["limits"]):
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"{measure}{comparison}{value}: {value!r} is no number: {_HOW}") from None
        if measure in ("after", "abort_after"):
            if comparison != "=":
                raise ValueError(f"{measure} takes a =, as in {measure}=30 (seconds)")
            times[measure] = number
        else:
            limits.append(limit(measure, number, comparison))
    after, abort_after = _times(times.get("after", 0.0), times.get("abort_after"))
    return Requirement(found["row"], tuple(limits) or (limit("count", 1),), after, abort_after)


def _times(after: float, abort_after: float | None) -> tuple[float, float | None]:
    for argument, seconds in (("after", after), ("abort_after", abort_after)):
        if seconds is None and argument == "abort_after":
            continue
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TypeError(f"{argument} must be a number of seconds, not {seconds!r}")
        if not isfinite(seconds) or seconds < 0:
            raise ValueError(f"{argument} must be a number of seconds from 0 on, not {seconds!r}")
    if abort_after is not None and abort_after <= after:
        raise ValueError(f"abort_after={abort_after} must be more than after={after}: there is nothing to judge before")
    return after, abort_after
