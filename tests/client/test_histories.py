"""Random histories of a connection, without a socket: hypothesis drives the object that decides."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close

from locust_ws_async.client import Backoff
from locust_ws_async.client.session.backoff import Retry
from locust_ws_async.client.session.state import (
    ConnectionState,
    Decisions,
    Do,
    ReportRecovery,
    SendClose,
    ShortenCloseTimer,
    StartCloseTimer,
    State,
)
from locust_ws_async.client.wire.interface import CloseInfo

pytestmark = pytest.mark.once

CLOSE_TIMEOUT = 10.0

Step = Callable[[], None]


class ConnectingTask:
    """The task that connects for the first time, or the one that reconnects: where it is in its work."""

    def __init__(self, at: str, reconnects: bool) -> None:
        self.at: str | None = at
        self.reconnects = reconnects


class World:
    """
    Stands for the engine, the server, the timers, the tasks and the user of one connection.

    It does what the connection decides, allows only what can happen next, and complains of a decision that is wrong.
    """

    def __init__(self, has_on_connected: bool, reconnects: bool, attempts: int | None) -> None:
        self.attempts = attempts
        self.reconnects = reconnects
        self.has_on_connected = has_on_connected
        retry = Retry(Backoff(0, 0, attempts=attempts)) if reconnects else None
        self.life = ConnectionState(close_timeout=CLOSE_TIMEOUT, has_on_connected=has_on_connected, retry=retry)
        self.first = ConnectingTask("attempt", reconnects=False)
        self.reconnecting: ConnectingTask | None = None
        self.cancelled = False  # the task that reconnects, which does not know it yet
        self.in_session = self.close_frame_out = self.aborted = self.timer_runs = False
        self.connects = self.sessions = 0  # the rows
        self.attempts_in_a_row = 0
        self.finished = False
        self.losses = self.recoveries = 0
        self.noted = False  # when the connection was lost

    # What happens

    def steps(self) -> list[Step]:
        """What may happen next of itself."""
        steps: list[Step] = []
        if self.in_session:
            if not self.close_frame_out:
                steps.append(self.engine_sends_close_frame)
            steps += [partial(self.connection_ends, code) for code in (None, 1000, 1012)]
        if self.timer_runs:
            steps.append(self.timer_fires)
        for task in self.tasks:
            if task is not None and task.at is not None:
                steps += self.steps_of(task)
        return steps

    def interventions(self) -> list[Step]:
        """What the user, or whoever cancels tasks, may do."""
        steps: list[Step] = [
            partial(self.is_cancelled, task) for task in self.tasks if task is not None and task.at is not None
        ]
        if self.life.state is not State.CONNECTING:  # before that nobody has the connection
            for by_on_connected in (False, True):
                steps += [
                    partial(self.close, CLOSE_TIMEOUT, by_on_connected),
                    partial(self.close, 1.0, by_on_connected),
                    partial(self.happens, partial(self.life.abort, by_on_connected=by_on_connected)),
                ]
        return steps

    def close(self, timeout: float, by_on_connected: bool) -> None:
        self.happens(partial(self.life.close, Close(1000, ""), timeout, by_on_connected=by_on_connected))

    def steps_of(self, task: ConnectingTask) -> list[Step]:
        if task is self.reconnecting and self.cancelled:
            return [partial(self.is_cancelled, task)]
        match task.at:
            # The first connect is done a few turns of the loop after the handshake, which is sooner than any reconnect.
            case "sleep" if self.first.at is None:
                return [partial(self.delay_ends, task)]
            case "attempt":
                return [partial(self.handshake, task), partial(self.fails, task)]
            case "answered":  # and its time limit may expire in the same turn of the loop
                return [partial(self.connect_is_reported, task), partial(self.fails, task)]
            case "on_connected":
                return [partial(self.on_connected_returns, task), partial(self.fails, task)]
            case "lost" if self.life.state not in (State.WAITING_FOR_EOF, State.CLOSING):
                return [partial(self.fails, task)]
        return []

    def happens(self, event: Callable[[], Decisions]) -> None:
        before = self.life.state
        decisions = event()
        after = self.life.state
        if before is State.CLOSED:
            assert after is State.CLOSED
            assert set(decisions) <= {Do.ABORT_TRANSPORT, Do.REPORT_SESSION}
        if after is not before:
            assert Do.WAKE_STATE_WAITERS in decisions
        if after is State.OPEN:
            self.attempts_in_a_row = 0
        for decision in decisions:
            match decision:
                case Do.START_SESSION:
                    assert self.in_session
                case SendClose():
                    assert self.in_session and not self.close_frame_out
                    self.close_frame_out = True
                case StartCloseTimer(seconds):
                    assert self.in_session and not self.timer_runs and seconds <= CLOSE_TIMEOUT
                    self.timer_runs = True
                case ShortenCloseTimer(seconds):
                    assert seconds <= CLOSE_TIMEOUT
                case Do.CANCEL_CLOSE_TIMER:
                    self.timer_runs = False
                case Do.ABORT_TRANSPORT:
                    assert self.in_session
                    self.aborted = True
                case Do.RECONNECT:
                    assert after is State.BACKING_OFF
                    if self.reconnecting is None or self.reconnecting.at is None:
                        self.reconnecting = ConnectingTask("sleep", reconnects=True)
                        self.cancelled = False
                case Do.CANCEL_RECONNECT:
                    self.cancelled = True
                case Do.FINISH:
                    assert not self.finished and after is State.CLOSED
                    self.finished = True
                case Do.NOTE_LOSS:
                    assert before is State.OPEN and not self.noted
                    self.noted = True
                case ReportRecovery(failure):
                    assert decision is decisions[-1] or decisions[-1] is Do.REPORT_SESSION
                    assert self.noted
                    assert (failure is None) == (after is State.OPEN)
                    self.recoveries += 1
                case Do.REPORT_SESSION:
                    assert not self.in_session
                    self.sessions += 1
        if after is State.BACKING_OFF and before not in (State.BACKING_OFF, State.RECONNECTING):
            # A session that was never open adds nothing to the outage in which it was made.
            self.losses += self.recoveries == self.losses
        assert self.losses - self.recoveries in (0, 1)
        if after in (State.BACKING_OFF, State.RECONNECTING):
            assert self.losses - self.recoveries == 1
        if after in (State.OPEN, State.CLOSING, State.CLOSED):
            self.losses *= self.connects > 0  # of a connect that was cancelled before it was reported nothing is
            assert self.losses == self.recoveries
        if after is State.OPEN:
            self.noted = False
        assert self.finished == (after is State.CLOSED)
        # One SESSION for each CONNECT: while the session lasts it is still to come.
        assert self.connects - self.sessions in ((0, 1) if self.in_session else (0,))

    @property
    def tasks(self) -> tuple[ConnectingTask | None, ...]:
        return self.first, self.reconnecting

    def delay_ends(self, task: ConnectingTask) -> None:
        task.at = "attempt"
        self.attempts_in_a_row += 1
        assert self.attempts is None or self.attempts_in_a_row <= self.attempts
        self.happens(self.life.delay_over)

    def handshake(self, task: ConnectingTask) -> None:
        task.at = "answered"
        self.in_session = True
        self.close_frame_out = self.aborted = self.timer_runs = False
        self.happens(self.life.handshake_done)

    def connect_is_reported(self, task: ConnectingTask) -> None:
        self.connects += 1
        task.at = "on_connected" if self.life.state is State.INITIALIZING else "reported"
        self.happens(self.life.connect_reported)
        if task.at == "reported":
            self.on_connected_returns(task)

    def on_connected_returns(self, task: ConnectingTask) -> None:
        if self.has_on_connected:
            self.happens(self.life.on_connected_done)
            if self.life.state is not State.OPEN and not self.life.closed_by_us:
                task.at = "lost"
                return
        task.at = "sleep" if task.reconnects and self.life.state is State.BACKING_OFF else None

    def fails(self, task: ConnectingTask) -> None:
        if task.reconnects:
            gives_up = self.life.state is State.RECONNECTING and self.attempts_in_a_row == self.attempts
            ends = self.life.state is State.CLOSED or gives_up
            self.happens(self.life.attempt_failed)
            assert (self.life.state is State.CLOSED) == ends
            if self.life.state is State.WAITING_FOR_EOF:
                task.at = "lost"
            else:
                task.at = "sleep" if self.life.state is State.BACKING_OFF else None
        else:
            self.is_cancelled(task)

    def is_cancelled(self, task: ConnectingTask) -> None:
        task.at = None
        self.happens(self.life.give_up)

    def engine_sends_close_frame(self) -> None:
        self.close_frame_out = True
        self.happens(self.life.closing)

    def timer_fires(self) -> None:
        self.timer_runs = False
        self.happens(self.life.close_timed_out)

    def connection_ends(self, code: int | None) -> None:
        self.in_session = False
        rcvd = None if code is None or self.aborted else Close(code, "")
        sent = Close(1000, "") if self.close_frame_out else None
        before = self.life.state
        woken: list[Decisions] = []

        def closed() -> Decisions:
            woken.append(self.life.closed(CloseInfo(rcvd, sent, None)))
            return woken[0]

        self.happens(closed)
        assert not self.timer_runs
        assert before is State.CLOSED or Do.FAIL_WAITS in woken[0]
        if before is State.OPEN:
            comes_back = self.reconnects and (rcvd is None or rcvd.code != 1000)
            assert self.life.state is (State.BACKING_OFF if comes_back else State.CLOSED)

    def end(self) -> None:
        """The user closes the connection, everything that is under way comes to its end."""
        for task in self.tasks:
            if task is not None and task.at is not None:
                self.is_cancelled(task)
        if self.life.state is not State.CONNECTING:
            self.close(CLOSE_TIMEOUT, by_on_connected=False)
        if self.in_session:
            assert self.life.state is State.CLOSED or self.timer_runs or self.aborted
            self.connection_ends(1000)
        assert self.life.state is State.CLOSED
        assert self.sessions == self.connects
        assert self.recoveries == self.losses


@settings(max_examples=1500)
@given(
    has_on_connected=st.booleans(),
    attempts=st.sampled_from([None, 1, 3]),
    reconnects=st.sampled_from([True, True, False]),
    choices=st.lists(st.integers(0, 2**12), min_size=30, max_size=60),
)
def test_a_history(has_on_connected: bool, attempts: int | None, reconnects: bool, choices: list[int]) -> None:
    world = World(has_on_connected, reconnects, attempts)
    for choice in choices:
        steps = world.steps()
        if choice % 16 == 15 or not steps:
            steps = world.interventions()
        if not steps:
            break
        steps[choice // 16 % len(steps)]()
    world.end()


def test_failures_are_counted_in_a_row() -> None:
    """What succeeds begins anew, also where the connection is lost at once."""
    retry = Retry(Backoff(0, 0, attempts=2))
    life = ConnectionState(close_timeout=CLOSE_TIMEOUT, has_on_connected=False, retry=retry)
    cut = CloseInfo(None, None, None)
    life.handshake_done()
    for _ in range(3):
        life.closed(cut)
        life.delay_over()
        assert Do.RECONNECT in life.attempt_failed()
        life.delay_over()
        assert Do.COUNT_RECONNECT in life.handshake_done()
    life.closed(cut)
    life.delay_over()
    assert Do.RECONNECT in life.attempt_failed()
    life.delay_over()
    assert Do.FINISH in life.attempt_failed()


def test_delays_grow_until_a_success() -> None:
    retry = Retry(Backoff(1.0, 100.0, factor=2.0, jitter=0))
    life = ConnectionState(close_timeout=CLOSE_TIMEOUT, has_on_connected=True, retry=retry)
    cut = CloseInfo(None, None, None)
    life.handshake_done()
    life.on_connected_done()
    for _ in range(2):
        life.closed(cut)
        assert life.delay == 1.0
        life.delay_over()
        life.attempt_failed()
        assert life.delay == 2.0
        life.delay_over()
        life.handshake_done()
        life.closed(cut)  # during on_connected
        assert life.delay == 4.0
        life.delay_over()
        life.handshake_done()
        life.on_connected_done()


def test_a_loss_during_on_connected_is_a_failed_attempt() -> None:
    life = ConnectionState(close_timeout=CLOSE_TIMEOUT, has_on_connected=True, retry=Retry(Backoff(0, 0, attempts=1)))
    cut = CloseInfo(None, None, None)
    life.handshake_done()
    life.on_connected_done()
    assert Do.RECONNECT in life.closed(cut)
    life.delay_over()
    life.handshake_done()
    assert Do.FINISH in life.closed(cut)
