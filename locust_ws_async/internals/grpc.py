"""``grpc.aio`` beside gevent: the thread in which it waits has to be a thread.

``grpc.aio`` waits for the network in C, in a ``threading.Thread`` of its own. gevent makes a greenlet of that, and the
whole process would stand still in it: every user, the end of the run, and the signals. Tried with grpcio 1.85.
"""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from typing import Any

from gevent.monkey import get_original

__all__ = ["let_grpc_wait_in_a_thread"]

logger = logging.getLogger(__name__)

_CORE = "grpc._cython.cygrpc"
_WAITS = "_poll_wrapper"  # the method of PollerCompletionQueue that its thread runs


class _Thread:
    """The little of ``threading.Thread`` that ``PollerCompletionQueue`` uses, in a thread of the operating system."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def start(self) -> None:
        get_original("_thread", "start_new_thread")(self._target, ())

    def join(self, timeout: float | None = None) -> None:
        """Do not wait: its wait is over already, and gevent's threads could not be waited for from here."""


class _AtImport(MetaPathFinder):
    """Finds nothing. It is asked for ``grpc.aio`` when that is first imported, after the module beneath it."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None) -> None:
        if name == "grpc.aio":
            _change()


def let_grpc_wait_in_a_thread() -> None:
    """Let ``grpc.aio`` work in this process, whether it is imported already or later. Without it this does nothing."""
    if _CORE in sys.modules:
        _change()
    else:
        sys.meta_path.insert(0, _AtImport())


def _change() -> None:
    core: Any = sys.modules.get(_CORE)
    threading = getattr(core, "threading", None)
    if not isinstance(threading, types.ModuleType) or not hasattr(getattr(core, "PollerCompletionQueue", None), _WAITS):
        logger.warning(
            "This version of grpcio is an unknown one: do not use grpc.aio here, which may freeze the whole process. "
            "grpcio 1.85 works; and so does grpc's blocking half after grpc.experimental.gevent.init_gevent()"
        )
        return
    real_thread = threading.Thread

    def thread(*arguments: Any, target: Any = None, **named: Any) -> Any:
        if getattr(target, "__name__", None) == _WAITS:
            return _Thread(target)
        return real_thread(*arguments, target=target, **named)

    ours: Any = types.ModuleType("threading")
    vars(ours).update(vars(threading), Thread=thread)
    core.threading = ours
