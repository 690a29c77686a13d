"""The names of rows."""

from __future__ import annotations

import re
import sys
from functools import lru_cache

from ...secrets import FORMS

__all__ = ["row_name"]

_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_ID = re.compile(r"(?<![^/])(?:\d+|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})(?![^/])")  # whole segments


@lru_cache(maxsize=256)
def row_name(path_or_url: str, *, fold_ids: bool = False) -> str:
    """
    The default name of a connection's rows: the path without its query string, in which a token would make one row
    for each user. For the same reason a token in the path, one that has a known form, becomes ``{token}``.

    Args:
        path_or_url: what ``connect`` was given.
        fold_ids: whether numbers and UUIDs become ``{id}``: ``/room/123`` becomes ``/room/{id}``.
    """
    path = FORMS.sub("{token}", _path(path_or_url))
    # Interned, so that all connections share one str, which Locust's statistics then find by identity.
    return sys.intern(_ID.sub("{id}", path) if fold_ids else path)


def _path(path_or_url: str) -> str:
    # Not urlsplit(), for which `chat:lobby` has a scheme and `//ws/v2` a host. Here a URL has `://`, as in join_url().
    origin = _ORIGIN.match(path_or_url)
    path = path_or_url[origin.end() :] if origin else path_or_url
    return re.split("[?#]", path, maxsplit=1)[0] or "/"
