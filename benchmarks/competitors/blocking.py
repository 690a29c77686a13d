"""The classic recipe: a Locust user whose client wraps `websocket-client` and fires the request event itself.

`websocket-client` as it installs by default (no `wsaccel`, which is unmaintained), but with `skip_utf8_validation`,
as its documentation advises: it validates text byte by byte in Python, and then decodes it, which validates as well.
"""

from __future__ import annotations

import time
from typing import Any

import websocket
from locust import User, task

from benchmarks.hosts import LocustHost, end_of_user, restart_statistics_on_signal
from benchmarks.workload import Workload, versions

NAME = "blocking recipe in Locust"
VERSION = versions("websocket-client", "gevent", "locust")
HOST = LocustHost()

workload = Workload.of_this_process()
SSL_OPTIONS = {"context": workload.ssl_context} if workload.ca_file else None
restart_statistics_on_signal()


class BlockingClient:
    def __init__(self, user: User) -> None:
        self.request = user.environment.events.request

    def connect(self) -> BlockingClient:
        start_time = time.time()
        start = time.perf_counter()
        try:
            self.socket = websocket.create_connection(workload.url, sslopt=SSL_OPTIONS, skip_utf8_validation=True)
        except Exception as error:
            self.fire("WS CONNECT", start_time, start, 0, error)
            raise
        self.fire("WS CONNECT", start_time, start, 0)
        return self

    def send(self, message: str) -> None:
        start_time = time.time()
        start = time.perf_counter()
        try:
            self.socket.send(message)
        except Exception as error:
            self.fire("WS SEND", start_time, start, len(message), error)
            raise
        self.fire("WS SEND", start_time, start, len(message))

    def recv(self) -> Any:
        start_time = time.time()
        start = time.perf_counter()
        try:
            message = self.socket.recv()
        except Exception as error:
            self.fire("WS RECV", start_time, start, 0, error)
            raise
        self.fire("WS RECV", start_time, start, len(message))
        return message

    def close(self) -> None:
        self.socket.close()

    def fire(
        self, request_type: str, start_time: float, start: float, length: int, error: Exception | None = None
    ) -> None:
        self.request.fire(
            request_type=request_type,
            name="/",
            response_time=(time.perf_counter() - start) * 1000,
            response_length=length,
            start_time=start_time,
            exception=error,
            context={},
        )


class EchoUser(User):
    @task
    def live(self) -> None:
        workload.live_blocking(BlockingClient(self).connect)
        end_of_user(self)
