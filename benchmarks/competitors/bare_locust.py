"""Locust users without a connection: what is subtracted to find the cost of one. Takes part in `idle` alone."""

from __future__ import annotations

import gevent
from locust import User, task

from benchmarks.hosts import LocustHost, restart_statistics_on_signal
from benchmarks.workload import versions

NAME = "Locust users without a connection"
VERSION = versions("gevent", "locust")
HOST = LocustHost()
CONNECTS = False

restart_statistics_on_signal()


class BareUser(User):
    @task
    def live(self) -> None:
        gevent.sleep(1e6)
