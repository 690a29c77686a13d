"""For all tests."""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    """Leave what is there before the first test out of the collections of garbage that the tests ask for."""
    gc.collect()
    gc.freeze()
