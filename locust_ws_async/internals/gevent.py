"""gevent's hub: what we replace in it, and what we ask of its event loop.

gevent documents neither that an attribute ``switch`` of a hub takes the place of the method, nor that the callback of a
watcher may be replaced while the watcher is active. The first one works because ``Hub.switch`` is a ``cpdef`` method of
Cython and a hub has a ``__dict__``: code in C looks there before it calls the method. With a gevent that calls the
method directly, the loops of greenlets that block would leak into each other without a word. With a watcher that kept
its first callback, they would be resumed in the wrong place. So importing this tries both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .checks import require, unsupported
from .cpython import refuse_free_threading

refuse_free_threading()  # before gevent is imported, which would only warn

import gevent  # noqa: E402 # see above
import gevent.event  # noqa: E402 # see above
from gevent.hub import Hub, Waiter, get_hub  # noqa: E402 # see above
from gevent.monkey import get_original  # noqa: E402 # see above
from gevent.threadpool import ThreadPool  # noqa: E402 # see above

__all__ = ["hub_switch_override", "override_hub_switch"]


def override_hub_switch(hub: Hub, switch: Callable[[], Any]) -> None:
    """Make everything in *hub*'s thread that blocks through gevent call *switch* instead of ``hub.switch()``."""
    vars(hub)["switch"] = switch


def hub_switch_override(hub: Hub) -> Callable[[], Any] | None:
    """Return what :func:`override_hub_switch` has set for *hub*, or None."""
    return vars(hub).get("switch")


class _SwitchCalled(BaseException):
    """Raised by the override that :func:`_check` tries, in place of switching to the hub."""


def _refuse_to_switch() -> None:
    raise _SwitchCalled


def _check_watchers(hub: Hub) -> None:
    """Raise ``ImportError`` unless a watcher takes another callback while it is active, and passes on what is ready.

    It is tried in a loop of its own, so that no greenlet runs meanwhile.
    """
    called: list[tuple[object, ...]] = []
    new_loop: Any = type(hub.loop)
    loop = new_loop(default=False)
    ours, theirs = get_original("socket", "socketpair")()
    try:
        theirs.send(b"x")
        watcher: Any = loop.io(ours.fileno(), 1)
        timer = loop.timer(0, priority=-2)
        try:
            watcher.start(called.append, pass_events=True)
            watcher.callback = lambda *arguments: called.append(arguments)
            loop.run(nowait=True)
        finally:
            for each in (watcher, timer):
                each.stop()
                each.close()
    finally:
        loop.destroy()
        ours.close()
        theirs.close()
    if called != [(1,)]:
        raise unsupported("gevent's watchers no longer take another callback while they are active", "gevent")


def _check(hub: Hub) -> None:
    """Raise ``ImportError`` unless both ways in which gevent blocks, written in C, call an override of *hub*.

    No greenlet runs meanwhile, since the override does not switch.
    """
    require("gevent's hub", dir(hub), ["loop", "switch"], "gevent")
    require(
        "the event loop of gevent's hub",
        dir(hub.loop),
        ["approx_timer_resolution", "async_", "io", "run_callback", "timer"],
        "gevent",
    )
    require("gevent's ThreadPool", dir(ThreadPool), ["maxsize"], "gevent")
    before = hub_switch_override(hub)
    ways: list[Callable[[], Any]] = [Waiter(hub).get, gevent.event.Event().wait]
    for way in ways:
        override_hub_switch(hub, _refuse_to_switch)
        called = False
        try:
            with gevent.Timeout(0.001):  # so that the method itself would come back as well
                way()
        except _SwitchCalled:
            called = True
        except gevent.Timeout:
            pass
        finally:
            if before is None:
                del vars(hub)["switch"]
            else:
                override_hub_switch(hub, before)
        if not called:
            raise unsupported("gevent no longer calls a hub's own switch() where a greenlet blocks", "gevent")


_check(get_hub())
_check_watchers(get_hub())
