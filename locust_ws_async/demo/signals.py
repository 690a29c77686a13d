"""How a process is asked to stop, on every system."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

__all__ = ["handling_signals"]


@contextlib.contextmanager
def handling_signals(handle: Callable[[int], object]) -> Iterator[None]:
    """Call ``handle(number)`` in the running loop on SIGINT, SIGTERM and, on Windows, Ctrl-Break."""
    loop = asyncio.get_running_loop()
    names = [name for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
    previous = {
        # Not loop.add_signal_handler, which Windows does not have.
        number: signal.signal(number, lambda number, _: loop.call_soon_threadsafe(handle, number))
        for number in (getattr(signal, name) for name in names)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
