"""One short file for each competitor. The contract:

    NAME       as it appears in the tables
    VERSION    of everything that matters to it
    HOST       how it is run (`benchmarks.hosts.Host`)
    COMPRESSES = True     if it can do permessage-deflate (left out: it can not)
    CONNECTS   = False    if its users hold no connection (left out: they do)
    ACTIVITIES = {...}    if it can not do all of `Workload.activity`

A competitor that cannot be imported, because something is not installed, is left out, and the report says why.
"""

from __future__ import annotations

import dataclasses
import os
from importlib import import_module
from pathlib import Path

from ..hosts import Host
from ..scenarios import Scenario

ALL_ACTIVITIES = frozenset({"echo", "idle", "connect"})


@dataclasses.dataclass(frozen=True)
class Competitor:
    key: str
    name: str
    version: str
    host: Host
    file: Path
    compresses: bool
    connects: bool
    activities: frozenset[str]

    def takes_part(self, scenario: Scenario) -> bool:
        workload = scenario.workload
        return (
            workload.activity in self.activities
            and (self.connects or workload.activity == "idle")
            and (self.compresses or not workload.compressed)
            and (not scenario.only or self.key in scenario.only)
        )


def load(key: str) -> Competitor:
    """Read one competitor's file, as the runner sees it: without locust patching this process for gevent."""
    os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
    try:
        module = import_module(f"{__name__}.{key}")
    finally:
        del os.environ["LOCUST_SKIP_MONKEY_PATCH"]
    return Competitor(
        key,
        module.NAME,
        module.VERSION,
        module.HOST,
        Path(str(module.__file__)),
        getattr(module, "COMPRESSES", False),
        getattr(module, "CONNECTS", True),
        frozenset(getattr(module, "ACTIVITIES", ALL_ACTIVITIES)),
    )


def load_all(keys: list[str]) -> tuple[list[Competitor], dict[str, str]]:
    """Those named, all if none is; and for those that cannot run here, the reason."""
    found: list[Competitor] = []
    missing: dict[str, str] = {}
    for key in keys or sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py")):
        try:
            found.append(load(key))
        except ImportError as reason:
            missing[key] = str(reason)
    return found, missing
