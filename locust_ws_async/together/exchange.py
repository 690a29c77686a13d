"""Messages of ours between the master and its workers.

Locust lets a message type be registered once, so there are two in all, one for each direction, and each message says
which part of this room it is for. Where one process is master and worker (``LocalRunner``, or no runner at all), the
part at the other end is called at once.

Messages of an earlier run may arrive late; the id of the run tells them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import time
from typing import Any

import gevent
from locust.env import Environment
from locust.exception import RPCError
from locust.rpc import Message
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from ..pacing import clock

__all__ = ["Exchange", "at_master", "at_worker", "exchange", "fire", "open_exchange"]

_UP, _DOWN = "ws_together_up", "ws_together_down"
_LOCAL = "local"  # the worker's id where there is one process

_logger = logging.getLogger(__name__)

_at_master: dict[str, Callable[[str, Any], None]] = {}
_at_worker: dict[str, Callable[[Any], None]] = {}


def at_master(part: str, handler: Callable[[str, Any], None]) -> None:
    """Call *handler* on the master with the worker's id and the data of each message for this part."""
    _at_master[part] = handler


def at_worker(part: str, handler: Callable[[Any], None]) -> None:
    """Call *handler* on a worker with the data of each message for this part."""
    _at_worker[part] = handler


class Exchange:
    """This process's end."""

    def __init__(self, environment: Environment) -> None:
        self.environment: Any = environment
        self.runner: Any = self.environment.runner
        self.is_worker_only = isinstance(self.runner, WorkerRunner)
        self.is_local = not isinstance(self.runner, (MasterRunner, WorkerRunner))
        if isinstance(self.runner, (MasterRunner, WorkerRunner)) and _UP not in self.runner.custom_messages:
            self.runner.register_message(_UP, _on_up)
            self.runner.register_message(_DOWN, _on_down)

    def to_master(self, part: str, data: Any) -> bool:
        """Send to the master; return whether that was possible. What could not be sent is the caller's to send again.

        Called from greenlets of ours, never from that of a user.
        """
        if self.is_local:
            _at_master[part](_LOCAL, data)
            return True
        return self._send(_UP, part, data, None)

    def to_worker(self, part: str, data: Any, worker: str) -> bool:
        """Send to one worker."""
        if self.is_local:
            _at_worker[part](data)
            return True
        return self._send(_DOWN, part, data, worker)

    def spawn(self, function: Callable[..., None], *args: Any) -> Any:
        """Run it in a greenlet that ends with the runner."""
        return gevent.spawn(function, *args) if self.runner is None else self.runner.greenlet.spawn(function, *args)

    def workers(self) -> list[str]:
        """The ids of the workers that are there now. One that died without a word is, until its heartbeat is missed."""
        if self.is_local:
            return [_LOCAL]
        return [worker.id for worker in self.runner.clients.all if worker.state != STATE_MISSING]

    def _send(self, message_type: str, part: str, data: Any, worker: str | None) -> bool:
        message = {"run": clock.run_id(), "part": part, "data": data}
        try:
            self.runner.send_message(message_type, message, client_id=worker)
        except RPCError as exc:  # Locust connects again by itself
            _logger.debug("a message for %s could not be sent: %s", part, exc)
            return False
        return True


_exchange: Exchange | None = None


def open_exchange(environment: Environment) -> None:
    """Make this process's end. Called at Locust's ``init``."""
    global _exchange
    _exchange = Exchange(environment)


def exchange() -> Exchange:
    """
    This process's end.

    Raises:
        RuntimeError: Locust's ``init`` event was not fired, as it is not where Locust is used as a library.
    """
    if _exchange is None:
        raise RuntimeError(
            "what users do together needs Locust's init event: where Locust is used as a library, call "
            "environment.events.init.fire(environment=environment, runner=runner, web_ui=None) once"
        )
    return _exchange


def _on_up(environment: Environment, msg: Message, **_: Any) -> None:
    if msg.data["run"] == clock.run_id():
        _at_master[msg.data["part"]](msg.node_id, msg.data["data"])


def _on_down(environment: Environment, msg: Message, **_: Any) -> None:
    if msg.data["run"] == clock.run_id():
        _at_worker[msg.data["part"]](msg.data["data"])


def fire(request_type: str, name: str, milliseconds: float | None, error: BaseException | None) -> None:
    """Count one for this row, in this process."""
    exchange().environment.events.request.fire(
        request_type=request_type,
        name=name,
        response_time=milliseconds,
        response_length=0,
        exception=error,
        context={},
        start_time=time() - (milliseconds or 0.0) / 1000.0,
        url="",
        response=None,
    )
