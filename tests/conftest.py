"""For all tests."""

from __future__ import annotations

import gc
import os


def pytest_collection_finish() -> None:
    """Leave what is there before the first test out of the collections of garbage that the tests ask for."""
    gc.collect()
    gc.freeze()


# The tests of the generator's verdict set limits of their own. For all others a busy machine is no finding.
for _limit in ("HUB_LAG", "UNREAD", "CPU", "THROTTLED", "STEAL", "BLOCKED"):
    os.environ[f"LOCUST_WS_{_limit}_LIMIT"] = "inf"
