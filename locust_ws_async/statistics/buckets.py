"""How finely Locust's histograms tell times apart.

Locust counts the response times of a row in a dict, by the rounded time: whole milliseconds below 100 ms and two digits
above, so that 0.1 and 0.4 ms are both 0, and 1,040 ms are 1,000. The function that rounds may be replaced
(``locust.stats.bucket_response_time``; Locust's documentation, "customizing response time bucketing"). Ours keeps three
significant digits, and ten microseconds below 1 ms.

A worker sends its dicts to the master, which adds them up by their keys. Each key is a whole number, or a whole number
divided by 10 or 100: the same double on every machine, so that the keys of all workers meet.

The price is memory. Locust copies the dict of each row once a second and keeps twenty copies, from which it tells
percentiles of the last ten seconds, and with these buckets a dict has up to 900 keys for each power of ten. Such
percentiles are shown for the total, and for each row only with ``--csv-full-history``. So without that option the rows
keep no copies.
"""

from __future__ import annotations

from typing import Any

import locust.stats
from locust import events
from locust.env import Environment

__all__ = ["bucket", "install", "use_locust_buckets"]

_replaced = locust.stats.bucket_response_time  # Locust's own, as a rule


def bucket(response_time: float) -> float:
    """The time in milliseconds, to three significant digits, and to 0.01 ms below 1 ms. Negative ones likewise."""
    # Above 2**52 a double has no digits behind its point, so that adding 1.5 * 2**52 rounds to a whole number. This
    # runs for each request, and `round`, which has to be called, takes longer.
    if response_time < 10.0:
        if response_time < 0.0:  # the age of a push, when clocks differ
            return -bucket(-response_time)
        return (response_time * 100.0 + 6755399441055744.0 - 6755399441055744.0) / 100.0
    if response_time < 100.0:
        return (response_time * 10.0 + 6755399441055744.0 - 6755399441055744.0) / 10.0
    step = 1
    while response_time >= 1000 * step:
        step *= 10
    return int(response_time / step + 0.5) * step


def install() -> None:
    """Have Locust round by :func:`bucket`, unless the author has replaced its function already."""
    if _replaced.__module__ == "locust.stats":
        locust.stats.bucket_response_time = bucket  # type: ignore[assignment] # annotated as giving an int
    events.usage_monitor.add_listener(_keep_no_copies)  # type: ignore[no-untyped-call] # Locust's has no types


def use_locust_buckets() -> None:
    """Leave the rounding to Locust after all. Call it in the locustfile, behind the import of the user class."""
    locust.stats.bucket_response_time = _replaced


def _keep_no_copies(environment: Environment, **_: Any) -> None:  # every ten seconds
    options = environment.parsed_options
    if locust.stats.bucket_response_time is not bucket or getattr(options, "stats_history_enabled", False):
        return
    for entry in environment.stats.entries.values():
        entry.use_response_times_cache = False
        entry.response_times_cache = None
