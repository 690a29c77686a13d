"""What is told of broadcasts, rendezvous and storms: a block at the end of a run, and the same as a dict."""

from __future__ import annotations

from typing import Any

from locust.env import Environment

from ..statistics.percentiles import percentile_of
from . import reach, rendezvous
from .storm import storms

__all__ = ["lines", "snapshot"]


def snapshot() -> dict[str, Any]:
    """
    What users have done together since the test started, or the statistics were reset; ask the master.

    Returns:
        ``{"broadcasts": {"<room>": {...}}, "rendezvous": {"<name>": {...}}, "storms": [{...}]}``.

        Of a room: ``members`` now; ``messages`` that were judged; the deliveries ``expected`` and ``received``, and
        ``reach``, the one over the other (None before the first); messages that ``failed``; deliveries that were
        ``duplicates`` or ``late``; messages ``unfinished`` when the test ended; messages ``without_id`` that members
        got; ``one_of``: of so many ids one is looked at; ``spread_ms``: a dict with "p50", "p99" and "max"; and
        ``clock_error_ms``, by which a time may be wrong.

        Of a rendezvous: ``releases``, ``users`` who went on in all of them, ``spread_ms`` from the first to the last
        of a release, at most, and ``clock_error_ms``.

        Of a storm: ``how``, ``connections`` there were, ``chosen`` and ``dropped``.
    """
    return {
        "broadcasts": {name: _room(*each) for name, each in reach.totals().items()},
        "rendezvous": {
            name: {
                "releases": each.releases,
                "users": each.users,
                "spread_ms": each.spread * 1000,
                "clock_error_ms": each.error * 1000,
            }
            for name, each in rendezvous.totals().items()
        },
        "storms": [dict(vars(each)) for each in storms()],
    }


def _room(totals: reach.Totals, counts: Any, members: int, one_of: int) -> dict[str, Any]:
    return {
        "members": members,
        "messages": totals.messages,
        "expected": totals.expected,
        "received": totals.received,
        "reach": totals.received / totals.expected if totals.expected else None,
        "failed": totals.failed,
        "duplicates": counts["duplicates"],
        "late": counts["late"],
        "unfinished": totals.unfinished,
        "without_id": counts["without_id"],
        "one_of": one_of,
        "spread_ms": {
            "p50": percentile_of(totals.spread, 0.5),
            "p99": percentile_of(totals.spread, 0.99),
            "max": totals.longest_spread if totals.spread else None,
        },
        "clock_error_ms": totals.error * 1000,
    }


def lines(environment: Environment) -> list[str]:
    """The blocks at the end of a run."""
    now = snapshot()
    blocks = [_broadcasts(now["broadcasts"]), _rendezvous(now["rendezvous"]), _storms(now["storms"])]
    return [line for block in blocks for line in ([*block, ""] if block else [])][:-1]


def _table(title: str, columns: list[str], rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    width = max(len(title), *(len(row[0]) for row in rows))
    line = f"{{:<{width}}}" + " {:>11}" * len(columns)
    head = line.format(title, *columns)
    return [head, "-" * len(head), *(line.format(*row) for row in rows)]


def _broadcasts(rooms: dict[str, dict[str, Any]]) -> list[str]:
    columns = ["messages", "expected", "received", "reach", "failed", "duplicates", "late", "unfinished"]
    rows = []
    notes = []
    for name, room in rooms.items():
        spread, error = room["spread_ms"], room["clock_error_ms"]
        reached = "-" if room["reach"] is None else f"{room['reach']:.6f}"
        counts = [str(room[key]) for key in ("messages", "expected", "received")]
        more = [str(room[key]) for key in ("failed", "duplicates", "late", "unfinished")]
        times = [_ms(spread[key], error) for key in ("p50", "p99", "max")]
        rows.append([name, *counts, reached, *more, *times])
        if room["one_of"] > 1:
            notes.append(f"{name}: there were very many ids; one of {room['one_of']} was looked at")
        if not room["messages"] and room["without_id"]:
            notes.append(f"{name}: {room['without_id']} messages came, and none had an id")
    if not rows:
        return []
    width = max(len(cell) for row in rows for cell in row[-3:])
    for row in rows:
        row[-3:] = [cell.rjust(width) for cell in row[-3:]]
    titles = [f"spread {key}".rjust(width) for key in ("p50", "p99", "max")]
    return [*_table("Broadcasts", [*columns, *titles], rows), *notes]


def _ms(value: float | None, error: float) -> str:
    return "-" if value is None else f"{value:.2f} ±{error:.2f} ms"


def _rendezvous(meetings: dict[str, dict[str, Any]]) -> list[str]:
    rows = [
        [name, str(each["releases"]), str(each["users"]), _ms(each["spread_ms"], each["clock_error_ms"])]
        for name, each in meetings.items()
    ]
    return _table("Rendezvous", ["releases", "users", "largest spread"], rows)


def _storms(storms: list[dict[str, Any]]) -> list[str]:
    rows = [[each["how"], str(each["connections"]), str(each["chosen"]), str(each["dropped"])] for each in storms]
    return _table("Storms", ["connections", "chosen", "dropped"], rows)
