"""What the system tells of the time that it takes from this process, where it does.

=============  ===========================================  ==============================
What           From where                                   Elsewhere than on Linux
=============  ===========================================  ==============================
CPU            ``time.thread_time()``                       the same
throttling     ``cpu.stat`` of the control groups (v2)      not told
steal          ``/proc/stat``, by ``psutil``                not told
=============  ===========================================  ==============================
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter, thread_time

import psutil

__all__ = ["SystemClocks", "throttled_files"]

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def throttled_files(root: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> list[Path]:
    """The files that tell of throttling: of this process's control group, and of those around it.

    A limit of a Kubernetes pod, say, is set on the group around that of the container.

    Args:
        root: where control groups of version 2 are mounted.
        own: the file that names the group of this process, in a line ``0::/path``.

    Returns:
        Files that have a line ``throttled_usec``; none with control groups of version 1, and on other systems.
    """
    try:
        names = [line[3:] for line in own.read_text().splitlines() if line.startswith("0::")]
    except OSError:
        return []
    if not names:
        return []
    parts = [part for part in names[0].split("/") if part not in ("", "..")]
    files = [root.joinpath(*parts[:depth], "cpu.stat") for depth in range(len(parts), -1, -1)]
    return [file for file in files if _throttled(file) is not None]


def _throttled(file: Path) -> float | None:
    """Seconds so far."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1e6 for line in lines if line.startswith("throttled_usec ")), None)


class SystemClocks:
    """How the last seconds went, by the clocks of the system. Used in one thread, the one that it tells of."""

    def __init__(self, files: list[Path] | None = None) -> None:
        self._files = throttled_files() if files is None else files
        self._wall, self._cpu = perf_counter(), thread_time()
        self._throttled = self._read_throttled()
        self._steal = self._read_steal()

    def shares(self) -> dict[str, float]:
        """Shares of the time since the last call, from 0 to 1: ``cpu``, and ``throttled`` and ``steal`` if known.

        ``cpu`` is what this thread took of one core. ``throttled`` is that of the group that was throttled longest; the
        kernel adds up what each core of the group stood still. ``steal`` is that of the whole machine.
        """
        wall, cpu = perf_counter(), thread_time()
        throttled, steal = self._read_throttled(), self._read_steal()
        seconds = max(wall - self._wall, 1e-9)
        shares = {"cpu": min(1.0, (cpu - self._cpu) / seconds)}
        stood_still = [throttled[file] - before for file, before in self._throttled.items() if file in throttled]
        if stood_still:
            shares["throttled"] = min(1.0, max(0.0, *stood_still) / seconds)
        if steal is not None and self._steal is not None and steal[1] > self._steal[1]:
            shares["steal"] = max(0.0, (steal[0] - self._steal[0]) / (steal[1] - self._steal[1]))
        self._wall, self._cpu, self._throttled, self._steal = wall, cpu, throttled, steal
        return shares

    def _read_throttled(self) -> dict[Path, float]:
        return {file: seconds for file in self._files if (seconds := _throttled(file)) is not None}

    def _read_steal(self) -> tuple[float, float] | None:
        """What was stolen so far, and the time of all cores."""
        try:
            times = psutil.cpu_times()
        except OSError:  # a system that does not let us see
            return None
        steal = getattr(times, "steal", None)
        guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # which user and nice contain
        return None if steal is None else (steal, sum(times) - guest)
