"""Master and workers: what the master sums up is what the server counted.

Locust's workers report at intervals, and once more when the master tells them to quit; the master waits 0.5 s for that
(locust/runners.py, MasterRunner.quit). Here it stops the users first, and quits when all is reported.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.support import eventually, unused_port

from .conftest import Server
from .running import LocustProcess, LocustRun

Start = Callable[..., LocustProcess]

SOURCE = """
from locust import runners

runners.WORKER_REPORT_INTERVAL = 0.2  # seconds; 3 as shipped

@events.test_start.add_listener
def started(environment, **_):
    if isinstance(environment.runner, runners.MasterRunner):
        gevent.spawn(stop_when_connected, environment.runner)

def stop_when_connected(master):
    def until_reported(row):
        while not (row in master.stats.entries and master.stats.entries[row].num_requests == 6):
            gevent.sleep(0.02)

    until_reported(("stays", "WS CONNECT"))
    master.stop()
    until_reported(("stays", "WS SESSION"))
    note("stopped")

class Echo(AsyncWebSocketUser):
    engine = {engine!r}
    wait_time = constant(1000)

    @task
    async def echo(self):
        async with self.ws.connect("/echo") as connection:
            for number in range(50):
                await connection.send("x" * number)
                await connection.recv()
        try:
            await self.ws.connect("/reject/503")
        except ConnectionError:
            pass
        self.stays = await self.ws.connect("/echo", name="stays")
        note("worker", os.getpid())
"""
USERS = ("--users", "6", "--spawn-rate", "6")


def check(result: LocustRun, server: Server) -> None:
    """What the master must have summed up of all workers."""
    assert result.complaints == ""
    assert result.code == 1  # for the rejected handshakes
    assert result.counts == {
        "WS CONNECT /echo": 6,
        "WS CONNECT /reject/503": 0,
        "WS CONNECT stays": 6,
        "WS SEND /echo": 300,
        "WS RECV /echo": 300,
        "WS SESSION /echo": 6,
        "WS SESSION stays": 6,
    }
    rejected = "HandshakeRejected('the server answered the handshake with HTTP 503 Service Unavailable')"
    assert result.failures == {"WS CONNECT /reject/503": {rejected: 6}}
    counts = server.counts()
    assert counts["opened"] == 12
    assert counts["messages_in"] == counts["messages_out"] == 300
    assert counts["bytes_in"] == 300 * result.rows["WS SEND /echo"].size
    assert counts["closes"] == {"1000": 12}


def test_a_master_and_two_workers(start: Start, server: Server) -> None:
    source, port = SOURCE.format(engine="picows"), str(unused_port())
    master = start(source, "--master", "--headless", "--expect-workers", "2", "--master-bind-port", port, *USERS)
    workers = [start(source, "--worker", "--master-port", port) for _ in range(2)]
    eventually(lambda: ["stopped"] in master.notes(), seconds=60)
    master.process.terminate()
    result = master.finish()
    for worker in workers:
        ended = worker.finish()
        assert ended.complaints == ""
    check(result, server)
    assert len(set(result.noted("worker"))) == 2


def test_processes(start: Start, server: Server) -> None:
    port = str(unused_port())
    ports = ("--master-bind-port", port, "--master-port", port)
    locust = start(SOURCE.format(engine="websockets"), "--processes", "2", "--headless", *ports, *USERS)
    eventually(lambda: ["stopped"] in locust.notes(), seconds=60)
    locust.process.terminate()
    result = locust.finish()
    check(result, server)
