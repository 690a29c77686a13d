"""``storm(environment, fraction=0.3)``: many connections are lost at once, over all workers.

The master asks each worker how many connections it could drop, and tells each how many it must. So the sum is exact,
whatever the shares of the workers are.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from math import floor
from time import perf_counter
from typing import Any, Literal, cast, get_args

import gevent
from gevent.event import Event
from locust.env import Environment

from ..client import WebSocketClient, WebSocketConnection
from ..pacing.arrivals import virtual_users
from .exchange import Exchange, at_master, at_worker, exchange

__all__ = ["Storm", "end", "forget", "storm", "storms"]

How = Literal["abort", "close", "silence"]

_ANSWER = 5.0  # seconds within which a worker must have counted its connections

_logger = logging.getLogger(__name__)


@dataclass
class Storm:
    """
    What :func:`storm` has set off.

    Attributes:
        how: how the connections are lost.
        connections: how many there were to choose from: the open ones with ``reconnect``.
        chosen: how many of them are lost.
        dropped: how many have been, as far as workers have said so; a worker says it when it is done.
    """

    how: How
    connections: int
    chosen: int
    dropped: int = 0


class _Master:
    """The storms of one run."""

    def __init__(self) -> None:
        self.storms: list[Storm] = []
        self._counts: dict[str, tuple[int, int]] = {}
        self._asked = 0
        self._answered = Event()

    def census(self, known: Exchange) -> dict[str, tuple[int, int]]:
        """How many connections each worker has that could be dropped, and how many are open."""
        self._asked += 1
        self._counts = {}
        workers = known.workers()
        for worker_id in workers:
            known.to_worker("storm", ["count", self._asked], worker_id)
        deadline = perf_counter() + _ANSWER
        while missing := set(workers) & set(known.workers()) - self._counts.keys():
            self._answered.clear()
            if not self._answered.wait(min(0.2, max(0.0, deadline - perf_counter()))) and perf_counter() > deadline:
                _logger.warning("storm: %d workers did not answer, and take no part in it", len(missing))
                break
        return self._counts

    def on_message(self, worker_id: str, kind: str, number: int, *details: int) -> None:
        if kind == "counted":
            if number == self._asked:
                self._counts[worker_id] = details[0], details[1]
                self._answered.set()
        elif number < len(self.storms):
            self.storms[number].dropped += details[0]


_master = _Master()
_dropping: set[Any] = set()  # greenlets of this process


def storm(environment: Environment, fraction: float = 0.3, how: How = "abort", over: float = 0.0) -> Storm:
    """
    Drop a fraction of all open connections that have ``reconnect``, over all workers, chosen at random.

    Call it on the master, or where there is one process: from a load shape, a listener, a greenlet. It returns when
    the workers have their orders. ``WS RECOVERY`` tells how the connections came back.

    Args:
        environment: Locust's.
        fraction: 0 to 1; of 3,000 connections, 0.3 are 900.
        how: "abort" cuts TCP without a close frame. "close" sends a close frame with 1001, as who goes away does.
            "silence" leaves the old connection open but never reads or writes on it again, for a minute, as somebody
            whose network is gone; the server has to find out.
        over: seconds over which the losses are spread evenly; 0 for all at once.

    Raises:
        TypeError, ValueError: a wrong argument.
        RuntimeError: there is no connection that would come back; or this is a worker, or no test runs.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 <= fraction <= 1:
        raise ValueError(f"storm: fraction must be between 0 and 1, not {fraction!r}")
    if how not in get_args(How):
        raise ValueError(f'storm: how must be "abort", "close" or "silence", not {how!r}')
    if isinstance(over, bool) or not isinstance(over, (int, float)) or not 0 <= over < float("inf"):
        raise ValueError(f"storm: over must be a number of seconds, 0 or more, not {over!r}")
    if not isinstance(environment, Environment):
        raise TypeError(f"storm: environment must be Locust's Environment, not {environment!r}")
    known = exchange()
    if known.environment is not environment or known.runner is None:
        raise RuntimeError("storm: this environment has no runner, or is not that of this process's Locust")
    if known.is_worker_only:
        raise RuntimeError("storm: call it on the master, which knows all workers; this is a worker")
    counts = _master.census(known)
    droppable = sum(count for count, _ in counts.values())
    if not droppable:
        opened = sum(count for _, count in counts.values())
        if not opened:
            raise RuntimeError("storm: no connection is open")
        raise RuntimeError(
            f"storm: none of the {opened} open connections has `reconnect`, so that nobody would come back: set "
            "reconnect = Backoff() on the user class"
        )
    chosen = floor(fraction * droppable + 0.5 + 1e-9)
    shares = _shares(chosen, {worker_id: count for worker_id, (count, _) in counts.items()})
    result = Storm(how, droppable, chosen)
    _master.storms.append(result)
    _logger.info("storm: %d of %d connections are lost (%s)", chosen, droppable, how)
    for worker_id, share in shares.items():
        known.to_worker("storm", ["drop", len(_master.storms) - 1, share, how, over], worker_id)
    return result


def _shares(chosen: int, counts: dict[str, int]) -> dict[str, int]:
    """Each worker's part of *chosen*, in proportion to its count; the largest remainders make the sum exact."""
    whole = sum(counts.values())
    shares = {worker_id: chosen * count // whole for worker_id, count in counts.items()}
    by_remainder = sorted(counts, key=lambda worker_id: -(chosen * counts[worker_id] % whole))
    for worker_id in by_remainder[: chosen - sum(shares.values())]:
        shares[worker_id] += 1
    return shares


def _connections() -> Iterator[WebSocketConnection]:
    """All that are open in this process, of Locust's users and of virtual ones."""
    users = [greenlet.args[0] for greenlet in exchange().runner.user_greenlets if greenlet.args]
    for user in [*users, *virtual_users()]:
        client = getattr(user, "ws", None)
        if isinstance(client, WebSocketClient):
            yield from list(client.connections)


def _on_order(kind: str, number: int, *details: Any) -> None:
    if kind == "count":
        connections = list(_connections())
        droppable = sum(each.is_droppable for each in connections)
        exchange().to_master("storm", ["counted", number, droppable, sum(each.connected for each in connections)])
        return
    share, how, over = details
    greenlet = exchange().spawn(_drop, number, share, how, over)
    _dropping.add(greenlet)
    greenlet.link(_dropping.discard)


def _drop(number: int, share: int, how: How, over: float) -> None:
    began = perf_counter()
    candidates = [each for each in _connections() if each.is_droppable]
    random.SystemRandom().shuffle(candidates)
    dropped = 0
    try:
        while candidates and dropped < share:
            if over:
                while (delay := began + dropped * over / share - perf_counter()) > 0:
                    gevent.sleep(delay)
            connection = candidates.pop()
            if connection.is_droppable:  # it may have been lost or closed meanwhile: then another is
                connection.drop_soon(how)
                dropped += 1
    finally:
        exchange().to_master("storm", ["dropped", number, dropped])


def end() -> None:
    """The test stops: nothing more is dropped."""
    for greenlet in list(_dropping):
        greenlet.kill(block=False)


def forget() -> None:
    """A test starts."""
    global _master
    _master = _Master()


def storms() -> list[Storm]:
    """The storms of this run, on the master."""
    return _master.storms


at_master("storm", lambda worker_id, message: _master.on_message(worker_id, *message))
at_worker("storm", lambda message: _on_order(*message))


def add_route(environment: Environment, web_ui: Any) -> None:
    """Let Locust's web UI take ``POST /websocket/storm``."""
    from flask import jsonify, request

    options = environment.parsed_options
    base = (getattr(options, "web_base_path", None) or "").rstrip("/")

    @web_ui.auth_required_if_enabled  # type: ignore[untyped-decorator] # Locust's has no types
    def order() -> Any:
        given = request.get_json(silent=True) if request.is_json else request.form
        try:
            values = _values(given)
            result = storm(environment, **values)
        except (TypeError, ValueError) as exc:
            return jsonify({"success": False, "message": str(exc)}), 400
        except RuntimeError as exc:
            return jsonify({"success": False, "message": str(exc)}), 409
        return jsonify({"success": True, "connections": result.connections, "chosen": result.chosen})

    web_ui.app.add_url_rule(f"{base}/websocket/storm", "websocket.storm", order, methods=["POST"])


def _values(given: Any) -> dict[str, Any]:
    if given is None or not hasattr(given, "items"):
        raise ValueError("storm: send a form or a JSON object with fraction, how, over; each may be left out")
    values: dict[str, Any] = dict(given.items())
    if unknown := values.keys() - {"fraction", "how", "over"}:
        raise ValueError(f"storm: there is no {sorted(map(str, unknown))[0]!r}, only fraction, how and over")
    for name in ("fraction", "over"):
        if isinstance(values.get(name), str):
            try:
                values[name] = float(cast(str, values[name]))
            except ValueError:
                raise ValueError(f"storm: {name} must be a number, not {values[name]!r}") from None
    return values
