"""The one switch for all fast paths.

A fast path is code that does again, and quicker, what plainer code beside it does as well. Each has a name, the same at
the place and in the table of ``benchmarks/README.md`` that says what it buys, and a plain twin. With
``LOCUST_WS_PLAIN=1`` in the environment only the plain twins run: for whoever suspects a fast path, or wants to know
what it buys.
"""

from __future__ import annotations

import os

__all__ = ["PLAIN"]

PLAIN = os.environ.get("LOCUST_WS_PLAIN", "") not in ("", "0")
"""Whether only the plain twins run."""
