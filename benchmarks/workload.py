"""What one user does. The same for every competitor: a competitor only says how to connect."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import ssl
from collections.abc import Awaitable, Callable, Iterable
from functools import cached_property
from importlib.metadata import version
from itertools import repeat
from typing import Any, Literal, Protocol

ENVIRONMENT_VARIABLE = "BENCHMARK_WORKLOAD"


class AsyncConnection(Protocol):
    async def send(self, message: str) -> None: ...
    async def recv(self) -> Any: ...
    async def close(self) -> None: ...


class BlockingConnection(Protocol):
    def send(self, message: str) -> Any: ...
    def recv(self) -> Any: ...
    def close(self) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Workload:
    """One workload, handed to a competitor's process in an environment variable.

    ``activity``: ``echo`` sends a message, awaits its echo, and again; ``idle`` connects and then awaits a
    message that never comes; ``connect`` connects and closes, and again.
    ``size`` is in bytes. ``echoes``: how many each user makes before it ends, 0 for no end.
    ``ca_file``: a PEM file with the authority that signed the server's certificate, for ``wss``.
    """

    url: str = "ws://127.0.0.1:9000/"
    activity: Literal["echo", "idle", "connect"] = "echo"
    users: int = 50
    users_per_second: int = 1000
    size: int = 64
    compressed: bool = False
    echoes: int = 0
    ca_file: str = ""

    @classmethod
    def of_this_process(cls) -> Workload:
        return cls(**json.loads(os.environ.get(ENVIRONMENT_VARIABLE, "{}")))

    def environment(self) -> dict[str, str]:
        return {ENVIRONMENT_VARIABLE: json.dumps(dataclasses.asdict(self))}

    @cached_property
    def message(self) -> str:
        """A JSON text of exactly ``size`` bytes that compresses about as well as real ones do."""
        chance = random.Random(self.size)
        items: list[dict[str, object]] = []
        text = longer = ""
        while len(longer) <= self.size:
            text = longer
            items.append({"item": chance.randrange(10**6), "price": chance.randrange(10**4) / 100})
            longer = json.dumps({"items": items, "pad": ""})
        return text.replace('"pad": "', '"pad": "' + "." * (self.size - len(text)))

    @cached_property
    def compression(self) -> str | None:
        return "deflate" if self.compressed else None

    @cached_property
    def ssl_context(self) -> ssl.SSLContext | None:
        """One for all users of the process, as it costs about a megabyte."""
        return ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None

    def turns(self) -> Iterable[None]:
        return repeat(None, self.echoes) if self.echoes else repeat(None)

    async def live(self, connect: Callable[[], Awaitable[AsyncConnection]]) -> None:
        """The whole life of a user that awaits."""
        while self.activity == "connect":
            await (await connect()).close()
        connection = await connect()
        if self.activity == "idle":
            await connection.recv()
        message = self.message
        for _ in self.turns():
            await connection.send(message)
            await connection.recv()
        await connection.close()

    def live_blocking(self, connect: Callable[[], BlockingConnection]) -> None:
        """The whole life of a user that blocks."""
        while self.activity == "connect":
            connect().close()
        connection = connect()
        if self.activity == "idle":
            connection.recv()
        message = self.message
        for _ in self.turns():
            connection.send(message)
            connection.recv()
        connection.close()


def versions(*packages: str) -> str:
    """``versions("locust", "picows")`` -> ``"locust 2.47.0, picows 2.3.1"``."""
    return ", ".join(f"{package} {version(package)}" for package in packages)
