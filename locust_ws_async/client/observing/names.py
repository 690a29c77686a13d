"""The names of rows."""

from __future__ import annotations

import re
import sys
from urllib.parse import urlsplit

from ...secrets import FORMS

__all__ = ["row_name"]

_ID = re.compile(r"(?<![^/])(?:\d+|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})(?![^/])")  # whole segments


def row_name(path_or_url: str, *, fold_ids: bool = False) -> str:
    """
    The default name of a connection's rows: the path without its query string, in which a token would make one row
    for each user. For the same reason a token in the path, one that has a known form, becomes ``{token}``.

    Args:
        path_or_url: what ``connect`` was given.
        fold_ids: whether numbers and UUIDs become ``{id}``: ``/room/123`` becomes ``/room/{id}``.
    """
    path = FORMS.sub("{token}", urlsplit(path_or_url).path or "/")
    # Interned, so that all connections share one str, which Locust's statistics then find by identity.
    return sys.intern(_ID.sub("{id}", path) if fold_ids else path)
