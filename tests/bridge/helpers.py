"""Greenlets that fail loudly, and waiting for conditions by greenlets."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent import Greenlet
from gevent.monkey import get_original

from locust_ws_async.bridge import LoopHost

from ..support import SCALE


def together(*functions: Callable[[], Any], seconds: float = 20) -> list[Any]:
    """Call each function in a greenlet of its own; return what they return, or raise what the first one raised."""
    greenlets = [spawn(function) for function in functions]
    return [result(each, seconds=seconds) for each in greenlets]


def spawn(function: Callable[..., Any], *args: Any) -> Greenlet[..., Any]:
    """A greenlet whose outcome is for :func:`result`; gevent has nothing to print."""

    def outcome() -> tuple[Any, BaseException | None]:
        try:
            return function(*args), None
        except BaseException as exc:
            return None, exc

    return gevent.spawn(outcome)


def result(greenlet: Greenlet[..., Any], *, seconds: float = 20) -> Any:
    """What the function of :func:`spawn` returned or raised."""
    greenlet.join(seconds * SCALE)
    if not greenlet.dead:
        greenlet.kill(block=False)
        raise AssertionError(f"{greenlet!r} has not ended within {seconds * SCALE} s")
    value, exc = greenlet.value
    if exc is not None:
        raise exc
    return value


def until(condition: Callable[[], Any], *, seconds: float = 20) -> None:
    """Let other greenlets run until *condition* holds."""
    deadline = time.monotonic() + seconds * SCALE
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds * SCALE} s: {condition}"
        gevent.sleep(0.001)


@contextlib.contextmanager
def hosting(**settings: Any) -> Iterator[LoopHost]:
    """A host for the greenlet that enters."""
    host = LoopHost(**settings)
    try:
        yield host
    finally:
        host.close()


def native_thread(function: Callable[[], Any]) -> Callable[[], bool]:
    """Start a real thread, in a monkey-patched process too; returns what tells whether it has ended."""
    ended = []

    def run() -> None:
        try:
            function()
        finally:
            ended.append(True)

    get_original("_thread", "start_new_thread")(run, ())
    return lambda: bool(ended)


def watchers() -> int:
    """How many watchers of the hub are active."""
    loop = gevent.get_hub().loop
    if "libuv" in type(loop).__module__:  # which has no count
        return sum(handle.active and not handle.closing for handle in loop.debug())
    return int(loop.activecnt)
