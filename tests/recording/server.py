"""The demo server, which also writes down what it receives: a JSON line for each message, in the file of argument 1."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from websockets.asyncio.server import ServerConnection

from locust_ws_async.demo.server import DemoServer


class WritingServer(DemoServer):
    """Writes the number of the connection, its path, its request's headers, and each message."""

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self._file = file
        self._numbers = count()

    def _write(self, **line: Any) -> None:
        print(json.dumps(line), file=self._file, flush=True)

    async def _handle(self, connection: ServerConnection) -> None:
        number, receive = next(self._numbers), connection.recv
        assert connection.request is not None
        headers = {name.lower(): value for name, value in connection.request.headers.raw_items()}
        self._write(connection=number, path=connection.request.path, headers=headers)

        async def recv(*arguments: Any, **keywords: Any) -> Any:
            message = await receive(*arguments, **keywords)
            text = message if isinstance(message, str) else "base64:" + base64.b64encode(message).decode()
            self._write(connection=number, message=text)
            return message

        connection.recv = recv  # type: ignore[method-assign]
        try:
            await super()._handle(connection)
        finally:
            self._write(connection=number, closed=connection.close_code)


async def main(path: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with Path(path).open("w") as file:
        async with WritingServer(file) as server:
            print(server.url, flush=True)
            await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
