"""This package inside Locust, with its fast engine."""

from __future__ import annotations

from locust import task

from benchmarks.hosts import LocustHost, end_of_user, leave_out_what_seconds_cost, restart_statistics_on_signal
from benchmarks.workload import Workload, versions
from locust_ws_async import AsyncWebSocketUser

NAME = "locust_ws_async, picows engine"
VERSION = versions("locust-ws-async", "picows", "aiofastnet", "gevent", "locust")
HOST = LocustHost()

workload = Workload.of_this_process()
restart_statistics_on_signal()
leave_out_what_seconds_cost()


class EchoUser(AsyncWebSocketUser):
    engine = "picows"
    compression = None
    ssl = workload.ssl_context
    ping_interval = None

    @task
    async def live(self) -> None:
        await workload.live(lambda: self.ws.connect(workload.url))
        end_of_user(self)
