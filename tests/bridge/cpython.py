"""Runs a module of CPython's own asyncio tests against ours: ``python -m tests.bridge.cpython test_events``.

The process is monkey-patched, as Locust's is. Every selector event loop that the tests make is ours.
"""

from gevent import monkey

monkey.patch_all()

import asyncio  # noqa: E402 # after the patch
import importlib  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import unittest  # noqa: E402
from asyncio import unix_events  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from typing import Any  # noqa: E402

from locust_ws_async.bridge import GreenletEventLoop  # noqa: E402

# gevent's waits for the hub's next turn to close, which never comes in a test where nothing else happens.
os.close = monkey.get_original("os", "close")

NO_SELF_PIPE = "a loop has no self-pipe and no descriptors: call_soon_threadsafe() wakes it through the hub"
LEAVES = "a BaseException of a task leaves the loop here, where asyncio keeps it in the task"
MULTIPROCESSING = "multiprocessing fails in a monkey-patched process, with asyncio's own loop as well"
MOCKED = "the test replaces signal.set_wakeup_fd() by a mock, and signals need none here"

THREADED_WATCHER = (
    "a thread of asyncio's is a greenlet in a monkey-patched process, and blocks it in os.waitid(), "
    "with asyncio's own loop as well"
)
IN_PYTHON = (
    "it replaces what asyncio has in C by Python, and since 3.14 C's tasks, which are ours, insist on C's running loop"
)

SKIPPED = {
    "SelectEventLoopTests.test_internal_fds": NO_SELF_PIPE,
    "TestFork.test_fork_asyncio_run": MULTIPROCESSING,
    "TestFork.test_fork_asyncio_subprocess": MULTIPROCESSING,
    "TestFork.test_fork_signal_handling": MULTIPROCESSING,
    "TestTaskGroup.test_taskgroup_21a": LEAVES,
    "TestTaskGroup.test_taskgroup_generator_exit_02": LEAVES,
    "TestTaskGroup.test_taskgroup_generator_exit_03": LEAVES,
    "TestEagerTaskTaskGroup.test_taskgroup_21a": LEAVES,
    "TestEagerTaskTaskGroup.test_taskgroup_generator_exit_02": LEAVES,
    "TestEagerTaskTaskGroup.test_taskgroup_generator_exit_03": LEAVES,
    "SelectorEventLoopSignalTests.test_add_signal_handler_install_error": MOCKED,
    "SelectorEventLoopSignalTests.test_add_signal_handler_install_error2": MOCKED,
    "SelectorEventLoopSignalTests.test_add_signal_handler_install_error3": MOCKED,
    "SelectorEventLoopSignalTests.test_add_signal_handler_setup_error": MOCKED,
}

if sys.version_info >= (3, 14):
    SKIPPED |= {
        "SubprocessThreadedWatcherTests": THREADED_WATCHER,
        "TestCGetEventLoop.test_get_event_loop_new_process": MULTIPROCESSING,
        "TestPyGetEventLoop": IN_PYTHON,
    }

OTHER_SELECTORS = {"EPollEventLoopTests", "KqueueEventLoopTests", "PollEventLoopTests"}
"""The same tests again with selectors that we put ours in place of."""


class Loop(GreenletEventLoop):
    """Takes the selector that a test passes, and does not need it."""

    def __init__(self, selector: Any = None) -> None:
        if selector is not None:
            selector.close()
        super().__init__()


def tests_of(suite: Any) -> Iterator[unittest.TestCase]:
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from tests_of(each)
        elif type(each).__name__ not in OTHER_SELECTORS:
            yield each


def main(name: str) -> int:
    for module in (asyncio, unix_events):
        setattr(module, "SelectorEventLoop", Loop)  # noqa: B010 # it is a type to mypy
        setattr(module, "EventLoop", Loop)  # noqa: B010 # since Python 3.13
    unix_events._UnixDefaultEventLoopPolicy._loop_factory = Loop  # type: ignore[attr-defined]
    suite = unittest.TestSuite()
    for test in tests_of(unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module(name))):
        kind, method = test.id().split(".")[-2:]
        reason = SKIPPED.get(kind) or SKIPPED.get(f"{kind}.{method}")
        if reason is not None:
            setattr(test, test._testMethodName, unittest.skip(reason)(getattr(test, test._testMethodName)))
        suite.addTest(test)
    return 0 if unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(f"test.test_asyncio.{sys.argv[1]}"))
