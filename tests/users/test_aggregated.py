"""Which rows count into Locust's *Aggregated*: in one process and across workers, with and without other listeners."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support import eventually, unused_port

from .conftest import Server
from .running import LocustProcess, LocustRun

pytestmark = pytest.mark.once

Run = Callable[..., LocustRun]
Start = Callable[..., LocustProcess]

LISTENER = """
heard = []

@events.request.add_listener
def hear(request_type, name, response_time, exception, response, url, context, start_time, **_):
    heard.append((request_type, exception is None))

@events.quitting.add_listener
def tell(**_):
    note("heard", sorted(heard))
"""

# One connection that ends well, one that the server drops, one that is dropped and made again.
ENDS = """
from locust_ws_async.client import prefix, reply

class Ends(AsyncWebSocketUser):
    {settings}

    @task
    async def end(self):
        async with self.ws.connect("/echo", keepalive=reply(prefix("?"), "!", name="alive")) as connection:
            await connection.send("?")
            assert await connection.recv() == "!"  # what the server echoes of the reply
        dropped = await self.ws.connect("/drop", name="dropped")
        try:
            await dropped.recv()
        except ConnectionError:
            pass
        raise StopUser

quit_when_done()
"""


def check(result: LocustRun, *, apart: dict[str, int]) -> None:
    """Aggregated is the sum of all rows but those ``apart``, of which only failures count."""
    assert result.complaints == ""
    rows = {name: row for name, row in result.rows.items() if name != "Aggregated"}
    counted = sum(row.requests for name, row in rows.items() if name not in apart)
    total = result.rows["Aggregated"]
    assert {name: rows[name].requests for name in apart} == apart
    assert total.failures == sum(row.failures for row in rows.values()) > 0
    assert total.requests == counted + sum(rows[name].failures for name in apart)
    slowest = max(row.maximum for name, row in rows.items() if name not in apart)
    assert total.maximum == slowest


@pytest.mark.parametrize("listener", ["", LISTENER], ids=["counted at once", "with a listener"])
def test_lifetimes_do_not_count_and_their_failures_do(run: Run, listener: str) -> None:
    result = run(listener + ENDS.format(settings=""), "--users", "3")
    check(result, apart={"WS SESSION /echo": 3, "WS SESSION dropped": 3, "WS KEEPALIVE alive": 3})
    assert result.rows["WS SESSION dropped"].failures == 3
    assert "WS SESSION dropped" in result.failures
    for heard in result.noted("heard"):  # as ever
        assert heard.count(["WS SESSION", True]) == heard.count(["WS SESSION", False]) == 3
        assert heard.count(["WS KEEPALIVE", True]) == 3


def test_with_the_plain_twins(run: Run) -> None:
    result = run(ENDS.format(settings=""), "--users", "3", LOCUST_WS_PLAIN="1")
    check(result, apart={"WS SESSION /echo": 3, "WS SESSION dropped": 3, "WS KEEPALIVE alive": 3})


def test_each_class_says_what_counts(run: Run) -> None:
    settings = 'aggregated = {"WS RECV", "WS CONNECT", "WS SESSION"}'
    result = run(ENDS.format(settings=settings), "--users", "3")
    check(result, apart={"WS SEND /echo": 3, "WS KEEPALIVE alive": 3})


def test_a_user_with_a_context_of_its_own(run: Run) -> None:
    context = "def context(self):\n        return {'a': 1}"
    result = run(LISTENER + ENDS.format(settings=context), "--users", "3")
    check(result, apart={"WS SESSION /echo": 3, "WS SESSION dropped": 3, "WS KEEPALIVE alive": 3})


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ('{"WS NOTHING"}', "aggregated: unknown row type 'WS NOTHING'"),
        ('"WS SEND"', "aggregated must be a set of row types"),
    ],
)
def test_a_wrong_setting_is_refused_before_the_run(run: Run, value: str, complaint: str) -> None:
    result = run(ENDS.format(settings=f"aggregated = {value}"), "--users", "1")
    assert result.code != 0 and result.rows.keys() <= {"Aggregated"}
    assert complaint in result.stderr


def test_across_workers(start: Start, server: Server) -> None:
    port = str(unused_port())
    source = (
        "from locust import runners\nrunners.WORKER_REPORT_INTERVAL = 0.2\n"
        + ENDS.format(settings="").removesuffix("quit_when_done()\n")
        + """
def all_reported():
    entry = runners_stats().entries.get(("dropped", "WS SESSION"))
    return entry is not None and entry.num_requests == 4

@events.test_start.add_listener
def keep(environment, **_):
    global runners_stats
    runners_stats = lambda: environment.stats
    if isinstance(environment.runner, runners.MasterRunner):
        gevent.spawn(stop, environment.runner)

def stop(master):
    while not all_reported():
        gevent.sleep(0.05)
    note("stopped")
"""
    )
    ports = ("--master-bind-port", port, "--master-port", port)
    locust = start(source, "--processes", "2", "--headless", *ports, "--users", "4", "--spawn-rate", "4")
    eventually(lambda: ["stopped"] in locust.notes(), seconds=60)
    locust.process.terminate()
    check(locust.finish(), apart={"WS SESSION /echo": 4, "WS SESSION dropped": 4, "WS KEEPALIVE alive": 4})
