"""What we use of ``websockets.asyncio.client`` beside its documented API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import websockets.asyncio.client

__all__ = ["process_exception"]

# Documented by what it does; it has moved from one module to another, and both know its name.
_module: Any = websockets.asyncio.client
process_exception: Callable[[Exception], Exception | None] = _module.process_exception
