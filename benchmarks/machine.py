"""The machine that measures: what it is, its cores, its limits."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import psutil


def machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} x {model}, {memory:.0f} GiB, {platform.system()} {platform.release()}"


def python() -> str:
    """With the one thing about its build that speed depends on."""
    optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "--enable-optimizations")
    built = "" if optimized else ", built without --enable-optimizations"
    return f"{platform.python_implementation()} {platform.python_version()}{built}"


@functools.cache
def commit(folder: Path) -> str:
    """What is measured, if it is a checkout."""
    git = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


class Cores:
    """One core for the clients, another for the server, where the system can pin and has two."""

    def __init__(self) -> None:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
        self.pinned = len(cores) > 1
        self.server: int | None = cores[0] if self.pinned else None
        self.client: int | None = cores[-1] if self.pinned else None

    @contextlib.contextmanager
    def only(self, core: int | None) -> Iterator[None]:
        """What is started inside runs on that core alone: children inherit it, whatever language they are in."""
        if core is None:
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)

    def __str__(self) -> str:
        return (
            f"client on core {self.client}, server on core {self.server}"
            if self.pinned
            else "client and server not pinned to cores (not possible here)"
        )


def raise_file_limit() -> None:
    """As many open files as the system lets us have; children inherit it."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS names no limit, and accepts none above this one.
    soft = 10_240 if sys.platform == "darwin" and hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
