"""Locust's statistics for competitors that do not run inside Locust."""

from __future__ import annotations

import os
from typing import Any

os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
from locust.env import Environment

environment = Environment()
environment.create_local_runner()  # what connects the statistics to the events
request_event: Any = environment.events.request
