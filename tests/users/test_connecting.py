"""What Locust shows of the way to a server: names of rows, name lookups, open files, several addresses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import SCALE, unused_port

from .conftest import Server
from .running import LocustRun, locust

pytestmark = pytest.mark.once

Run = Callable[..., LocustRun]


def test_names_of_rows(run: Run) -> None:
    """Each by its path, also where urllib would see a scheme or a host in it."""
    result = run("""
        quit_when_done()

        class CartUser(AsyncWebSocketUser):
            connect_backoff = None

            @task
            async def connect(self):
                for path in ("chat:lobby", "room:7", "//ws/v2", "/echo?token=secret", "a/b;c=d?e#"[:-1]):
                    try:
                        await self.ws.connect(path)
                    except Exception:
                        pass
                raise StopUser
    """)
    connects = {name for name in result.rows if name.startswith("WS CONNECT")}
    paths = ("chat:lobby", "room:7", "//ws/v2", "/echo", "a/b;c=d")
    assert connects == {f"WS CONNECT {path}" for path in paths}


@pytest.mark.parametrize("module", ["socket", "gevent.socket"])
def test_a_name_that_the_author_has_pinned(run: Run, server: Server, module: str, engine: str) -> None:
    port = server.url.rpartition(":")[2]
    result = run(f"""
        import gevent.socket, socket
        quit_when_done()
        real = {module}.getaddrinfo

        def pinned(host, *arguments, **hints):
            return real("127.0.0.1" if host == "shop.example" else host, *arguments, **hints)

        {module}.getaddrinfo = pinned

        class CartUser(AsyncWebSocketUser):
            engine = {engine!r}

            @task
            async def connect(self):
                async with self.ws.connect("ws://shop.example:{port}/echo") as connection:
                    note(connection.stats.connect.dns is not None, connection.stats.connect.lookup_queue is not None)
                raise StopUser
    """)
    assert result.code == 0, result.stdout
    assert result.notes == [[True, True]]


@pytest.mark.parametrize(("lookups", "waits"), [(5, True), (100, False)])
def test_how_many_lookups_run_at_a_time(run: Run, server: Server, lookups: int, waits: bool) -> None:
    """20 users, lookups of 300 ms in gevent's threads, of which there are 10 unless more are asked for."""
    port = server.url.rpartition(":")[2]
    result = run(
        f"""
        import gevent, socket, threading
        from gevent.monkey import get_original
        sleep = get_original("time", "sleep")
        lock = get_original("threading", "Lock")()
        running = most = 0

        def slow():
            global running, most
            with lock:
                running += 1
                most = max(most, running)
            sleep(0.3)
            with lock:
                running -= 1

        def getaddrinfo(host, port, *arguments, **hints):
            gevent.get_hub().threadpool.apply(slow)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        real, socket.getaddrinfo = socket.getaddrinfo, getaddrinfo
        quit_when_done()

        class CartUser(AsyncWebSocketUser):
            lookups = {lookups}

            @task
            async def connect(self):
                async with self.ws.connect("ws://shop.example:{port}/echo") as connection:
                    phases = connection.stats.connect
                    note(phases.lookup_queue, phases.dns, most)
                raise StopUser
        """,
        "-u",
        "20",
    )
    assert result.code == 0, result.stdout
    assert len(result.notes) == 20
    most = max(note[2] for note in result.notes)
    queued = sum(note[0] >= 250 for note in result.notes)
    if waits:
        assert most == 5 and queued >= 15 - 5
    else:
        assert most > 10


@pytest.mark.skipif(sys.platform != "linux", reason="how a resolver fails without files is told for Linux")
def test_too_many_open_files_with_a_host_name(tmp_path: Path, server: Server, engine: str) -> None:
    """The resolver meets the limit first, says something else, and gevent would print a traceback for each."""
    url = server.url.replace("127.0.0.1", "localhost")
    source = f"""
        import resource
        from locust import events
        before = resource.getrlimit(resource.RLIMIT_NOFILE)

        @events.test_start.add_listener
        def limit(environment, **_):
            resource.setrlimit(resource.RLIMIT_NOFILE, (60, before[1]))

        @events.test_stop.add_listener
        def unlimit(environment, **_):
            resource.setrlimit(resource.RLIMIT_NOFILE, before)  # Locust's reports are files too

        class CartUser(AsyncWebSocketUser):
            engine = {engine!r}
            host = {url!r}
            connect_backoff = None
            wait_time = constant(0.1)

            async def on_start(self):
                self.connection = await self.ws.connect("/echo")

            @task
            async def nothing(self):
                pass
    """
    result = locust(tmp_path, source, "-u", "60", "--run-time", f"{4 * SCALE:.0f}s", python=())
    assert set(result.failures) == {"WS CONNECT /echo"}
    assert set(result.failures["WS CONNECT /echo"]) == {
        "ConnectError('Too many open files: raise the limit, by ulimit -n for instance')"
    }
    assert "Device or resource busy" not in result.stderr


def test_the_users_host_stands_in_the_failures(run: Run) -> None:
    port = unused_port()
    result = run(
        """
        quit_when_done()

        class CartUser(AsyncWebSocketUser):
            @task
            async def connect(self):
                try:
                    await self.ws.connect("/cart")
                finally:
                    raise StopUser
        """,
        "--host",
        f"http://127.0.0.1:{port}",
    )
    assert result.failures == {"WS CONNECT /cart": {f"ConnectionRefused('connection refused by 127.0.0.1:{port}')": 1}}
