"""All users bid at the same instant; then half of the connections are lost at once, and come back.

    locust-ws-async server
    locust -f examples/storm.py --headless -u 4 -r 4 --run-time 10s

WS RENDEZVOUS has how long each user waited for the others, WS RECOVERY how long each lost connection was gone.
"""

from typing import Any

import gevent
from locust import constant, events
from locust.runners import WorkerRunner

from locust_ws_async import AsyncWebSocketUser, task
from locust_ws_async.client import Backoff
from locust_ws_async.together import storm


class Bidder(AsyncWebSocketUser):
    host = "ws://127.0.0.1:8765"
    wait_time = constant(0.5)
    reported = {"WS CONNECT", "WS RECONNECT", "WS RECOVERY", "WS SEND"}
    reconnect = Backoff(initial=0.1, maximum=5)

    async def on_start(self) -> None:
        self.auction = await self.ws.connect("/sink")

    @task
    async def bid(self) -> None:
        await self.rendezvous("all in", users=4)
        await self.auction.send("a bid")


@events.test_start.add_listener  # type: ignore[untyped-decorator] # Locust's has no types
def at_start(environment: Any, **_: Any) -> None:
    if not isinstance(environment.runner, WorkerRunner):  # the master knows all workers
        gevent.spawn_later(3, storm, environment, fraction=0.5)
