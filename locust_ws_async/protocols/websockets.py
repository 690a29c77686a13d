"""For libraries that call ``websockets.connect`` themselves."""

from __future__ import annotations

from typing import Any

import websockets
import websockets.asyncio.client

from ..client.current import is_asked_for
from ..client.websockets_api import connect

__all__ = ["replace_connect"]


def replace_connect() -> None:
    """
    Put ours in the place of ``websockets.connect``. Call it at the top of the locustfile, before a library is imported.

    From then on a library that calls ``websockets.connect``, or that imports it and inherits from it, gets the
    connections of the user in whose task it runs, with their rows. Outside of the tasks of an ``AsyncWebSocketUser``
    the original does what it did.
    """
    is_asked_for()
    packages: tuple[Any, ...] = (websockets, websockets.asyncio.client)
    for package in packages:
        package.connect = connect
