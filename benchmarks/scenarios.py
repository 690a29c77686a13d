"""What is measured: the workloads, and how long each is watched."""

from __future__ import annotations

import dataclasses

from .workload import Workload


@dataclasses.dataclass(frozen=True)
class Scenario:
    """``seconds``: the length of the steady window. ``only``: the competitors that take part, all if empty."""

    workload: Workload
    secure: bool = False
    seconds: float = 4.0
    only: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        w = self.workload
        if w.activity == "connect":
            return f"connect {'wss' if self.secure else 'ws'}, {w.users} users"
        if w.activity == "idle":
            return f"idle{' wss' * self.secure}, {w.users} users"
        size = f"{w.size} B" if w.size < 1024 else f"{w.size // 1024} KiB"
        return f"echo {size}, {w.users} users" + ", wss" * self.secure + ", compressed" * w.compressed


PYTHON = ("blocking", "ours_picows", "ours_websockets", "asyncio_websockets", "uvloop_websockets", "uvloop_picows")


def echo(users: int, size: int = 64, seconds: float = 4.0, secure: bool = False, compressed: bool = False) -> Scenario:
    """The plain small echo is for everybody; the rest only for those that are close enough to compare."""
    only = PYTHON if size != 64 or secure or compressed else ()
    return Scenario(Workload(users=users, size=size, compressed=compressed), secure, seconds, only)


SHORT = [
    echo(50, seconds=2),
    echo(1000, seconds=2),
    Scenario(Workload(activity="idle", users=50), seconds=1),
    Scenario(Workload(activity="idle", users=1000), seconds=2),
]

FULL = [
    echo(50),
    echo(1000, seconds=6),
    echo(5000, seconds=10),
    *(echo(users, size) for size in (1024, 65536) for users in (50, 1000)),
    *(echo(users, 1024, compressed=True) for users in (50, 1000)),
    echo(50, secure=True),
    echo(1000, secure=True),
    Scenario(Workload(activity="connect", users=50), only=PYTHON),
    Scenario(Workload(activity="connect", users=50), secure=True, only=PYTHON),
    Scenario(Workload(activity="idle", users=50), seconds=1),
    Scenario(Workload(activity="idle", users=5000), seconds=10),
    Scenario(Workload(activity="idle", users=50), secure=True, seconds=1, only=PYTHON),
    Scenario(Workload(activity="idle", users=1000), secure=True, seconds=1, only=PYTHON),
]
