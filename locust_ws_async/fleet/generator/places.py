"""Which code it was: from a stack to "Echo.work (locustfile.py:12)"."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import NamedTuple

import gevent
import locust

__all__ = ["Place", "place_of"]


def _folder(module: ModuleType) -> str:
    return os.path.join(os.path.dirname(str(module.__file__)), "")


_OURS = os.path.join(Path(__file__).parents[2], "")
_DEMO = os.path.join(_OURS, "demo", "")  # which has a locustfile
_GEVENT = _folder(gevent)
_BELOW = (
    _GEVENT,
    _folder(locust),
    "<",  # what has no file: <frozen runpy>
)
_LIBRARIES = tuple(
    os.path.join(path, "")
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
    if (path := sysconfig.get_path(name))
)


class Place(NamedTuple):
    """Where a stack is."""

    text: str
    """The author's function that the stack came from, and his line that it is at."""
    function: FrameType
    """The call of this function."""


def place_of(frame: FrameType | None) -> Place | None:
    """
    Args:
        frame: the innermost frame of a stack.

    Returns:
        The place; in a stack without code of the author's, the innermost function. None for a hub that waits.
    """
    stack = list(_outward(frame))
    authors = [each for each in stack if _is_authors(each)]
    if not authors:
        if not stack or stack[0].f_code.co_filename.startswith(_GEVENT):
            return None
        authors = stack[:1]
    line, function = authors[0], authors[-1]
    text = f"{function.f_code.co_qualname} ({os.path.basename(line.f_code.co_filename)}:{line.f_lineno})"
    return Place(text, function)


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_authors(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    if file.startswith(_OURS):
        return file.startswith(_DEMO)
    return not file.startswith((*_BELOW, *_LIBRARIES))
