"""
Servers that share no code with this package, each in a process of its own: aiohttp's, and uvicorn's with wsproto.

    routes.py        what both do
    with_aiohttp.py  a connection of aiohttp as a Session of the routes
    with_uvicorn.py  the same of uvicorn, of whose two implementations it takes the one that is not websockets
    __main__.py      the command: listens, and prints where
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support import SCALE

__all__ = ["LIBRARIES", "OtherServer", "other_server"]

LIBRARIES = ("aiohttp", "uvicorn")


class OtherServer:
    """A server that runs: where, and what it has counted."""

    def __init__(self, process: subprocess.Popen[str], url: str, tls_url: str | None) -> None:
        self.process = process
        self.url = url
        self.tls_url = tls_url

    def counts(self) -> Any:
        """Connections opened, messages received and sent, and the clients' close codes, since the last call."""
        url = self.url.replace("ws", "http", 1) + "/counts"
        with urllib.request.urlopen(url, timeout=10 * SCALE) as response:
            return json.load(response)


@contextlib.contextmanager
def other_server(library: str, *tls: str | Path, unix_socket: str | Path | None = None) -> Iterator[OtherServer]:
    """
    Run a server of this library for the block; it must not complain.

    ``tls``: the files of its certificate, its key and, if clients may show a certificate, of their authority.
    """
    command = [sys.executable, "-m", "tests.servers", library, *map(os.fspath, tls)]
    if unix_socket is not None:
        command += ["--unix-socket", os.fspath(unix_socket)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        urls = process.stdout.readline().split()
        assert urls, process.communicate()[1]
        yield OtherServer(process, urls[0], urls[1] if tls else None)
    finally:
        process.kill()
        _, errors = process.communicate()
    assert errors == ""
