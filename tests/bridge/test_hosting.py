"""What the client asks of the loop that hosts it: ``locust_ws_async/hosting.py``."""

from __future__ import annotations

import asyncio
from typing import Any

import gevent
import pytest
from gevent import GreenletExit

from locust_ws_async.bridge import GreenletEventLoop, LoopHost
from locust_ws_async.hosting import cancels_current_task, inline_wait_of, is_kill, no_inline_wait

from .helpers import hosting, result, spawn, until


def test_a_loop_of_ours_waits_inline_and_others_do_not(host: LoopHost) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, GreenletEventLoop)
        assert inline_wait_of(loop) == loop.wait_for_io_inline

    async def elsewhere() -> None:
        assert inline_wait_of(asyncio.get_running_loop()) is no_inline_wait
        assert not no_inline_wait()

    host.run(main())
    asyncio.run(elsewhere())


@pytest.mark.parametrize("awaits", ["in the task", "from another task", "in groups and timeouts"])
def test_a_kill_where_a_coroutine_blocks_is_told_from_a_cancellation(awaits: str) -> None:
    seen: list[tuple[bool, bool]] = []
    blocked: list[bool] = []

    async def block() -> None:
        blocked.append(True)
        gevent.sleep(1000)

    async def main() -> None:
        try:
            if awaits == "from another task":
                await asyncio.create_task(block())
            elif awaits == "in groups and timeouts":
                async with asyncio.timeout(1000), asyncio.TaskGroup():
                    await block()
            else:
                await block()
        except asyncio.CancelledError as exc:
            assert type(exc) is asyncio.CancelledError
            seen.append((is_kill(exc), cancels_current_task(exc)))
            raise

    def user() -> None:
        with hosting() as host, pytest.raises(GreenletExit):
            host.run(main())

    victim = spawn(user)
    until(lambda: blocked)
    victim.kill(block=False)
    result(victim)
    assert seen == [(True, True)]


def test_somebodys_cancellation_with_a_cause_is_no_kill(host: LoopHost) -> None:
    async def fail() -> None:
        try:
            raise LookupError
        except LookupError as exc:
            raise asyncio.CancelledError from exc

    async def main() -> Any:
        try:
            await fail()
        except asyncio.CancelledError as exc:
            assert exc.__cause__ is not None
            return is_kill(exc), cancels_current_task(exc)

    assert host.run(main()) == (False, False)


@pytest.mark.parametrize(
    ("exc", "kill"),
    [
        (GreenletExit(), True),
        (KeyboardInterrupt(), True),
        (gevent.Timeout(), True),
        (ValueError(), False),
        (asyncio.CancelledError(), False),
        (TimeoutError(), False),
    ],
)
def test_other_exceptions(exc: BaseException, kill: bool) -> None:
    assert is_kill(exc) is kill
