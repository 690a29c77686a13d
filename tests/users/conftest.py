from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support import DemoServerProcess, demo_server_process, eventually

from .running import LocustProcess, LocustRun, locust, locustfile

ENGINES = ("websockets", "picows")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def demo() -> Iterator[DemoServerProcess]:
    """The demo server, in a process of its own."""
    with demo_server_process() as server:
        yield server


@dataclass(frozen=True)
class Authority:
    """A certificate authority that only those know who load its file, and a certificate for 127.0.0.1."""

    file: str
    certificate: str
    key: str


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority of our own."""
    folder = tmp_path_factory.mktemp("tls")
    files = Authority(str(folder / "ca.pem"), str(folder / "cert.pem"), str(folder / "key.pem"))
    ca = trustme.CA()
    ca.cert_pem.write_to_path(files.file)
    certificate = ca.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(files.key)
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(files.certificate, append=True)
    return files


@pytest.fixture(scope="session")
def tls_demo(authority: Authority) -> Iterator[DemoServerProcess]:
    """The demo server over TLS."""
    with demo_server_process("--cert", authority.certificate, "--key", authority.key) as server:
        yield server


class Server:
    """The demo server, with its counts since the test began."""

    def __init__(self, process: DemoServerProcess) -> None:
        self.url = process.url
        self.http_url = process.http_url
        self._process = process
        self._before = process.stats()["total"]

    def counts(self) -> dict[str, Any]:
        """What the server has counted during this test, now that it has seen the end of every connection."""
        eventually(lambda: self.open() == 0)
        return self.counts_so_far()

    def counts_so_far(self) -> dict[str, Any]:
        """What the server has counted during this test."""
        total = self._process.stats()["total"]
        counts = {
            name: value - self._before[name]
            for name, value in total.items()
            if isinstance(value, int) and name != "open"
        }
        closes = {code: number - self._before["closes"].get(code, 0) for code, number in total["closes"].items()}
        return counts | {"closes": {code: number for code, number in closes.items() if number}}

    def open(self) -> int:
        """How many connections are open now."""
        return int(self._process.stats()["total"]["open"])


@pytest.fixture
def server(demo: DemoServerProcess) -> Server:
    """The demo server and its counts of this test."""
    return Server(demo)


@pytest.fixture
def run(tmp_path: Path, server: Server) -> Callable[..., LocustRun]:
    """Runs a locustfile headless against the demo server."""

    def run(source: str, *arguments: str, **options: Any) -> LocustRun:
        return locust(tmp_path, source, "--host", server.url, *arguments, **options)

    return run


@pytest.fixture
def start(tmp_path: Path, server: Server) -> Iterator[Callable[..., LocustProcess]]:
    """Starts a Locust against the demo server, to be met while it runs."""
    started = []

    def start(source: str, *arguments: str, **options: Any) -> LocustProcess:
        process = LocustProcess(
            tmp_path, "-f", locustfile(tmp_path, source), "--host", server.url, *arguments, **options
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
