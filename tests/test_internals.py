"""Dependencies that are not what ``locust_ws_async/internals/`` was made for: refused with a sentence, or done without.

Each test changes a dependency as a newer version might, in a process of its own, and imports us after that.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import cast

import pytest

from locust_ws_async.internals import cpython

FREE_THREADED = "import sys; sys.version = sys.version.replace('(', 'free-threading build ('); "


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)


def refusal(program: str) -> str:
    """The text of the ``ImportError`` that ends the program."""
    ended = run(program)
    last = ended.stderr.strip().splitlines()[-1] if ended.stderr else ""
    assert ended.returncode == 1 and last.startswith("ImportError: "), ended.stderr
    return last.removeprefix("ImportError: ")


@pytest.mark.parametrize("module", ["locust_ws_async.bridge", "locust_ws_async.users"])
def test_a_free_threaded_python_is_refused(module: str) -> None:
    before = "import locust; " if module.endswith("users") else ""  # it cannot parse this stand-in for a version
    text = refusal(before + FREE_THREADED + f"import {module}")
    assert text.startswith("gevent's greenlets and free-threaded builds of Python do not go together (Python 3.")
    assert ", gevent 2" in text and text.endswith("install another version of gevent or locust-ws-async")


def test_a_free_threaded_python_may_run_the_client() -> None:
    assert run(FREE_THREADED + "import locust_ws_async.client").returncode == 0


@pytest.mark.parametrize(
    ("gone", "text"),
    [
        ("del asyncio.tasks._enter_task", "asyncio.tasks has no _enter_task any more"),
        ("del asyncio.BaseEventLoop._run_once", "an asyncio event loop has no _run_once any more"),
        (
            "f = asyncio.BaseEventLoop.__init__; f.__code__ = f.__code__.replace("
            "co_names=tuple(n.replace('_ready', '_queue') for n in f.__code__.co_names))",
            "an asyncio event loop has no _ready any more",
        ),
        pytest.param(
            "f = asyncio.SelectorEventLoop.__init__; f.__code__ = f.__code__.replace("
            "co_names=tuple(n.replace('_signal_handlers', '_on_signal') for n in f.__code__.co_names))",
            "an asyncio event loop for Unix has no _signal_handlers any more",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows has another loop"),
        ),
    ],
)
def test_a_private_name_of_asyncio_that_is_gone(gone: str, text: str) -> None:
    said = refusal(f"import asyncio; {gone}; import locust_ws_async.bridge")
    assert said.startswith(text + " (Python 3.") and said.endswith(
        "install another version of Python or locust-ws-async"
    )


@pytest.mark.parametrize("way", ["hub.Waiter.get", "event.Event.wait"])
def test_a_gevent_that_does_not_call_the_override_of_the_hubs_switch(way: str) -> None:
    module, kind, method = way.split(".")
    program = f"""
import gevent.event, gevent.hub
class Direct(gevent.{module}.{kind}):
    def {method}(self):
        gevent.spawn_later(0.005, gevent.getcurrent().switch)
        type(gevent.get_hub()).switch(gevent.get_hub())
gevent.{module}.{kind} = Direct
import locust_ws_async.bridge
"""
    text = refusal(program)
    assert text.startswith("gevent no longer calls a hub's own switch() where a greenlet blocks (Python 3.")


def test_a_gevent_whose_watchers_keep_their_first_callback() -> None:
    program = """
import gevent, gevent.hub
class Watcher:
    callback = None
    def __init__(self, watcher):
        self.start, self.stop, self.close = watcher.start, watcher.stop, watcher.close
class Loop(gevent.config.loop):
    def io(self, *arguments):
        return Watcher(super().io(*arguments))
gevent.config.loop = Loop
import locust_ws_async.bridge
"""
    text = refusal(program)
    assert text.startswith("gevent's watchers no longer take another callback while they are active (Python 3.")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("EventHook.__init__ = lambda self: None", "Locust's EventHook has no _handlers any more"),
        ("TaskSet.wait = lambda self: None", "Locust's TaskSet.wait() has no _sleep any more"),
    ],
)
def test_a_private_name_of_locust_that_is_gone(change: str, text: str) -> None:
    program = f"""
from locust import TaskSet
from locust.event import EventHook
{change}
import locust_ws_async.users
"""
    assert refusal(program).startswith(text + " (Python 3.")


def test_a_tls_buffer_of_another_name_costs_memory_and_is_told_once() -> None:
    program = """
import asyncio, sys
from asyncio import sslproto
make = sslproto.SSLProtocol.get_buffer
sslproto.SSLProtocol.get_buffer = lambda self, n: memoryview(bytearray(256 * 1024))
from locust_ws_async.internals.cpython import shrink_tls_buffer
import logging
logging.basicConfig(stream=sys.stdout)
for _ in range(2):
    shrink_tls_buffer(object())
"""
    ended = run(program)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("each wss connection costs 240 KiB more than it should") == 1


def test_statistics_of_locust_that_are_not_recognised() -> None:
    """Then each request event is fired by itself, with all its arguments; that is logged once, for who looks for it."""
    program = """
import logging, sys
import locust_ws_async.users
from locust import User
from locust.env import Environment
from locust.runners import LocalRunner, Runner
from locust_ws_async.internals import locust as internals
from locust_ws_async.request_events import reporter
on_request = Runner.__init__.__code__
Runner.__init__.__code__ = on_request.replace(co_consts=tuple(
    each.replace(co_varnames=("kind", *each.co_varnames[1:])) if getattr(each, "co_name", "") == "on_request" else each
    for each in on_request.co_consts
))
internals._ON_REQUEST = internals._on_request()
logging.basicConfig(stream=sys.stdout, level="DEBUG")
environment = Environment()
fired = []
fire = environment.events.request.fire
environment.events.request.fire = lambda **arguments: fired.append(arguments)
environment.create_local_runner()
report = reporter(User(environment))
reporter(User(environment))
report("WS RECV", "name", 1.0, 2, None, 0.0, "ws://url", None)
print(len(fired), "url" in fired[0])
environment.runner.quit()
"""
    ended = run(program)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("Locust's listener for its statistics is an unknown one") == 1
    assert "\n1 True\n" in ended.stdout


def test_statistics_of_locust_are_recognised() -> None:
    program = """
import locust_ws_async.users
from locust.env import Environment
from locust_ws_async.internals.locust import listeners_of, statistics_among
environment = Environment()
environment.create_local_runner()
request = environment.events.request
assert listeners_of(request) == list(statistics_among(request)) != []
environment.events.request.add_listener(print)
assert len(statistics_among(request)) == 1
environment.runner.quit()
"""
    ended = run(program)
    assert ended.returncode == 0, ended.stderr


def test_the_insides_of_cpython_need_nothing_else() -> None:
    """The client uses them too, where there is neither gevent nor Locust, and importing them is cheap."""
    program = """
import __future__, asyncio, gc, sys, typing  # typing: asyncio no longer imports it by itself since 3.15
sys.modules.update(dict.fromkeys(["locust", "gevent", "greenlet", "websockets", "picows"]))
before = set(sys.modules)
import locust_ws_async.internals.cpython
new = {each for each in set(sys.modules) - before if not each.startswith("locust_ws_async")}
assert not new, new
"""
    ended = run(program)
    assert ended.returncode == 0, ended.stderr


def test_the_stack_of_a_thread_that_runs_coroutines_is_whole() -> None:
    """Also while that thread enters and leaves them: to follow ``f_back`` in Python got lost once in 14,000 stacks."""
    done = threading.Event()

    async def step() -> int:
        await asyncio.sleep(0)
        return sum(range(20))

    async def steps() -> None:
        while not done.is_set():
            await asyncio.gather(*(step() for _ in range(5)))

    thread = threading.Thread(target=asyncio.run, args=(steps(),))
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        ends = {cpython.stack_of_thread(cast(int, thread.ident))[-1].f_code.co_name for _ in range(100_000)}
    finally:
        sys.setswitchinterval(interval)
        done.set()
        thread.join()
    assert ends == {"_bootstrap"}
    assert cpython.stack_of_thread(-1) == []
