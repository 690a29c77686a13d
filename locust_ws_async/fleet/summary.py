"""What is told of all connections below Locust's tables, when a run is over."""

from __future__ import annotations

from collections import Counter

from locust.env import Environment

from ..client import RECOVERY
from ..statistics.percentiles import percentile_of
from . import history, transport
from .numbers import Numbers, table

__all__ = ["lines"]

_TITLE = "WebSocket connections"
_BY = {"us": "closed by this side", "peer": "closed by the server", "lost": "lost"}


def lines(environment: Environment) -> list[str]:
    """The block; empty where there was no connection."""
    numbers = transport.total()
    if not numbers.seen_any:
        return []
    counts = numbers.counts
    told = {
        "opened": f"{counts['opened']:,}, at most {history.peak_open():,} at a time",
        "ended": f"{counts['ended']:,}{_ends(numbers)}",
        "recoveries": f"{counts['recoveries']:,}{_outages(environment)}",
        "messages": f"{counts['messages_in']:,} in ({counts['bytes_in']:,} bytes), "
        f"{counts['messages_out']:,} out ({counts['bytes_out']:,} bytes)",
        "late replies": f"{counts['late']:,}",
        "dropped messages": f"{counts['dropped']:,}",
        "waits at the end": f"{counts['cancelled_waits']:,}",
    }
    width = max(map(len, told)) + 2
    return [_TITLE, "-" * 100, *(f"{name:<{width}}{text}" for name, text in told.items())]


def _ends(numbers: Numbers) -> str:
    closes, by = table(numbers.counts, "closes"), table(numbers.counts, "closed_by")
    if not closes:
        return ""
    codes = ", ".join(f"{count:,} with {code}" for code, count in closes.items())
    return f": {codes} ({', '.join(f'{by[who]:,} {text}' for who, text in _BY.items() if who in by)})"


def _outages(environment: Environment) -> str:
    rows = [row for row in environment.stats.entries.values() if row.method == RECOVERY and row.response_times]
    if not rows:
        return ""
    times: Counter[float] = Counter()
    for row in rows:
        times.update(row.response_times)
    median = percentile_of(times, 0.5)
    assert median is not None
    longest = max(row.max_response_time for row in rows)
    return f"; outages lasted {median / 1000:.2f} s (median), {longest / 1000:.2f} s (longest)"
