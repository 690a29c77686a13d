"""What the tests share: time on slow machines, waiting for conditions, and the demo server as a process."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from locust_ws_async.exceptions import ConnectError, UnknownHost

SCALE = float(os.environ.get("LOCUST_WS_TEST_SCALE", "1"))
"""Multiplies every patience below; set it above 1 on a slow machine."""


def eventually(condition: Callable[[], Any], *, seconds: float = 10) -> Any:
    """Call ``condition`` until it is true, and return what it returned."""
    deadline = time.monotonic() + seconds * SCALE
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds * SCALE} s: {condition}"
        time.sleep(0.02)
    return result


def unknown_host() -> tuple[type[ConnectError], str]:
    """The error and its text for a name that does not exist, which a machine without a resolver cannot know."""
    try:
        socket.getaddrinfo("no-such-host.invalid", 80)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            return ConnectError, "the resolver gave no answer"
    return UnknownHost, "unknown host"


def unused_port() -> int:
    """A port of 127.0.0.1 at which nobody listens, and which no system gives away by itself meanwhile."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)  # Linux gives from 32,768, others from 49,152
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def run_until(condition: Callable[[], Any], command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command, and ask it to end (SIGTERM) as soon as the condition holds."""
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            eventually(lambda: process.poll() is not None or condition(), seconds=30)
            process.terminate()
            stdout, stderr = process.communicate(timeout=60 * SCALE)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


class DemoServerProcess:
    """``locust-ws-async server`` on a free port, in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "locust_ws_async.demo.server", "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, errors = self.process.communicate()
            raise RuntimeError(f"the demo server did not start:\n{errors}")
        self.url = line.split()[-1]
        self.http_url = self.url.replace("ws", "http", 1)

    def stats(self) -> Any:
        """What the server has counted so far (``/stats``)."""
        anyone = ssl._create_unverified_context()  # the tests' certificates have authorities of their own
        with urllib.request.urlopen(self.http_url + "/stats", timeout=10 * SCALE, context=anyone) as response:
            return json.load(response)

    def is_busy(self, *, connections: int, messages: int) -> bool:
        """Whether so many connections are open, and it has received at least so many messages."""
        total = self.stats()["total"]
        return bool(total["open"] == connections and total["messages_in"] >= messages)

    def stop(self) -> str:
        """End the server; returns what it wrote to its standard error."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=20 * SCALE)
        return errors


@contextlib.contextmanager
def demo_server_process(*arguments: str) -> Iterator[DemoServerProcess]:
    """A demo server for the block; it must end without having complained."""
    server = DemoServerProcess(*arguments)
    try:
        yield server
    finally:
        errors = server.stop()
    assert errors == ""
