"""The user classes: Locust's side of the bridge and of the client, and only glue."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Generator
from time import perf_counter, time
from typing import Any, TypeVar

from locust import TaskSet, User
from locust.env import Environment
from locust.exception import InterruptTaskSet, RescheduleTask, RescheduleTaskImmediately, StopTest, StopUser

from .bridge import LoopHost
from .reporting import reporter
from .tasksets import adopt, call, refuse_generators, refuse_unawaited

__all__ = ["AsyncUser"]

T = TypeVar("T")

# What Locust's task sets understand, wherever in the user's loop it is raised (locust/event.py:45).
_CONTROL_FLOW = (StopUser, StopTest, RescheduleTask, RescheduleTaskImmediately, InterruptTaskSet)


class AsyncUser(User):
    """A Locust user whose tasks, ``on_start`` and ``on_stop`` may each be ``async def`` or plain ``def``.

    Every user has an asyncio event loop of its own, hosted by the user's greenlet, and any asyncio code works in it.
    The loop runs while a coroutine runs, and also during ``wait_time`` and while a plain ``def`` task blocks, so that
    background tasks and connections live on between tasks. Nested task sets are Locust's own (``TaskSet``,
    ``SequentialTaskSet``, ``MarkovTaskSet``), and their tasks may be ``async def`` too.

    Inside ``async def``, call what blocks (``requests``, ``time.sleep``) with ``await asyncio.to_thread(...)``.
    Without that it stalls this user's loop, though no other user.

    When Locust stops the user, the running coroutine is cancelled and gets `cancel_timeout` seconds for its
    ``finally`` blocks; then ``on_stop`` runs; then background tasks are cancelled in the same way.
    """

    abstract = True

    cancel_timeout: float = 5.0
    """Seconds that cancelled coroutines have to clean up before they are left behind."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_generators(cls)

    def __init__(self, environment: Environment) -> None:
        self._loop_host = LoopHost(cancel_timeout=self.cancel_timeout, carried=_CONTROL_FLOW)
        super().__init__(environment)
        self._report = reporter(self)

    def on_start(self) -> Any:
        """Called when the user starts running; ``async def`` or plain. An override may await ``super().on_start()``."""
        super().on_start()
        return _NOTHING

    def on_stop(self) -> Any:
        """Called when the user stops running; ``async def`` or plain. An override may await ``super().on_stop()``."""
        super().on_stop()  # type: ignore[no-untyped-call] # Locust's has no types
        return _NOTHING

    async def timed(self, name: str, awaitable: Awaitable[T], *, request_type: str = "ASYNC") -> T:
        """Await *awaitable*, of any asyncio library, and report it as one request.

        Its exception is reported as the failure and raised. Cancelling is not reported.
        """
        start_time, start = time(), perf_counter()
        try:
            result = await awaitable
        except Exception as exc:
            self._report(request_type, name, (perf_counter() - start) * 1000, 0, exc, start_time, "", None)
            raise
        self._report(request_type, name, (perf_counter() - start) * 1000, 0, None, start_time, "", result)
        return result

    def run(self) -> None:  # type: ignore[misc] # @final for type checkers only: Locust's PytestUser overrides it too
        """Run the user to its end, then close its loop."""
        hooked: Any = self
        hooked.on_start = functools.partial(call, self._loop_host, self.on_start)
        hooked.on_stop = functools.partial(call, self._loop_host, self.on_stop)
        try:
            super().run()  # type: ignore[no-untyped-call] # Locust's has no types
        finally:
            self._close()

    def _close(self) -> None:
        self._loop_host.close()

    @property
    def _taskset_instance(self) -> TaskSet | None:  # Locust's User.run assigns its root task set (users.py:157)
        return self._root_taskset

    @_taskset_instance.setter
    def _taskset_instance(self, taskset: TaskSet | None) -> None:
        self._root_taskset = None if taskset is None else adopt(taskset, self._loop_host)


class _Nothing:
    """What the hooks of ``AsyncUser`` return: may be awaited, and need not be."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


_NOTHING = _Nothing()


def _refuse_unawaited_tasks(cls: type[User], /, **kwargs: Any) -> None:
    super(User, cls).__init_subclass__(**kwargs)
    if not cls.abstract and not issubclass(cls, AsyncUser):
        refuse_unawaited(cls)


# Locust's own user classes never await a task. This is the only thing that importing the package changes in Locust.
User.__init_subclass__ = classmethod(_refuse_unawaited_tasks)  # type: ignore[assignment] # set from outside
