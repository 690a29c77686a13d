"""What is measured: the workloads, how long each is watched, and who takes part."""

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

    @property
    def settle(self) -> float:
        """Seconds between the last user's connection and the window: some cycles, which grow with the users."""
        return 1.0 + self.workload.users / 2500

    @property
    def expected(self) -> float:
        """Seconds that one measurement takes, about: start, connect, settle, watch, end."""
        return 2.5 + self.workload.users / 500 + self.settle + self.seconds


IN_LOCUST = ("blocking", "ours_picows", "ours_websockets")
TOOLS = ("k6", "tsung", "artillery")
NEAR = (*IN_LOCUST, "asyncio_websockets", "uvloop_websockets", "uvloop_picows")
COMPRESSING = ("ours_websockets", "asyncio_websockets", "uvloop_websockets")


def echo(
    users: int, size: int = 64, seconds: float | None = None, only: tuple[str, ...] = (), compressed: bool = False
) -> Scenario:
    """Windows grow with the users, as their cycles do."""
    workload = Workload(users=users, size=size, compressed=compressed)
    return Scenario(workload, seconds=seconds or {50: 2.0, 1000: 3.0, 5000: 5.0}[users], only=only)


def idle(users: int, seconds: float = 1.0, only: tuple[str, ...] = (), secure: bool = False) -> Scenario:
    return Scenario(Workload(activity="idle", users=users), secure, seconds, only)


SHORT = {"short": [echo(50), echo(1000, seconds=2)]}

FULL = {
    # Everyone, and a little longer: the figures that the project is judged by.
    "small": [echo(50, seconds=3), echo(1000, seconds=4), echo(5000, seconds=6)],
    # Locust looks at its own CPU each five seconds, so the window is a multiple of that.
    "idle": [
        idle(users, seconds, only=("bare_locust", *IN_LOCUST, "uvloop_picows", *TOOLS))
        for users, seconds in ((50, 1), (5000, 15))
    ],
    "connect": [
        Scenario(Workload(activity="connect", users=50), secure, seconds=3, only=(*NEAR, "k6"))
        for secure in (False, True)
    ],
    "large": [
        *(echo(users, size, only=(*NEAR, *TOOLS)) for size in (1024, 65536) for users in (50, 1000)),
        *(echo(5000, size, only=(*IN_LOCUST, "uvloop_picows")) for size in (1024, 65536)),
    ],
    "tls": [
        *(dataclasses.replace(echo(users, only=NEAR), secure=True) for users in (50, 1000)),
        *(idle(users, only=(*IN_LOCUST, "asyncio_websockets"), secure=True) for users in (50, 1000)),
    ],
    "compressed": [
        *(echo(users, size, only=COMPRESSING, compressed=True) for size in (64, 1024, 65536) for users in (50, 1000)),
        *(echo(5000, size, only=COMPRESSING[:2], compressed=True) for size in (64, 1024, 65536)),
    ],
}
"""In parts, the most important first: all rounds of a part come before the next part, so that a run which is
interrupted has whole parts."""
