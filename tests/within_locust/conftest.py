"""Importing Locust patches the process, so these tests have one of their own: see ``tests/test_within_locust.py``."""

from __future__ import annotations

import sys

collect_ignore_glob = [] if "locust" in sys.modules else ["test_*.py"]
