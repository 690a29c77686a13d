"""The libraries that can move a connection's frames: ``websockets`` (default) and ``picows`` (fast)."""

from __future__ import annotations

import importlib
from typing import cast

from .interface import Engine

__all__ = ["ENGINES", "Engine", "load_engine"]

ENGINES = ("websockets", "picows")


def load_engine(name: str) -> Engine:
    """
    The engine of this name; its library is imported now and not before.

    Raises:
        ValueError: there is no such engine.
        ImportError: its library is not installed.
    """
    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}; there are: {', '.join(ENGINES)}")
    try:
        module = importlib.import_module(f".{name}", __package__)
    except ModuleNotFoundError as exc:
        if exc.name != name:
            raise
        raise ImportError(f'engine = "{name}" needs the package {name}: pip install {name}', name=name) from exc
    return cast(Engine, module)  # a module with the functions of the protocol
