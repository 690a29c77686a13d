"""What of a traceback concerns the author of a locustfile: not the frames of this package."""

from __future__ import annotations

import os
from types import TracebackType

__all__ = ["author_frames"]

_PACKAGE = os.path.dirname(__file__) + os.sep
_DEMO = os.path.join(_PACKAGE, "demo", "")  # which has a locustfile


def author_frames(tb: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of this package; None if it has no others."""
    kept = []
    while tb is not None:
        file = tb.tb_frame.f_code.co_filename
        if not file.startswith(_PACKAGE) or file.startswith(_DEMO):
            kept.append(tb)
        tb = tb.tb_next
    for each in reversed(kept):
        tb = TracebackType(tb, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return tb
