"""The scenario of ``examples/keepalive.py`` with the recipe that people use now: ``websocket-client`` under gevent.

    locust-ws-async server
    locust -f benchmarks/blocking_client.py --headless -u 10 -r 3 --run-time 10s

It works, and it is the yardstick. What it cannot do is the reason for this package: between ``recv`` calls nobody
reads the socket, so that a push waits unseen, a ping is not answered, and a time is taken only once the user looks;
one user waits for one thing at a time; and no asyncio library runs in it.
"""

import json
from time import perf_counter, time

import websocket
from locust import User, between, task


class BlockingWebSocketClient:
    """``websocket-client``'s connection, each operation reported to Locust as one request."""

    def __init__(self, user, name):
        self.user = user
        self.name = name
        self.connection = websocket.WebSocket()

    def connect(self, path):
        url = self.user.host + path
        self._timed("WS CONNECT", lambda: self.connection.connect(url, timeout=60), lambda _: 0)

    def send(self, message):
        self._timed("WS SEND", lambda: self.connection.send(message), lambda _: len(message.encode()))

    def recv(self):
        return self._timed("WS RECV", self.connection.recv, lambda message: len(message.encode()))

    def close(self):
        self.connection.close(timeout=1)

    def _timed(self, request_type, operation, length):
        # Not events.request.measure(): it swallows the exception, and reports a killed wait as a success.
        event = {
            "request_type": request_type,
            "name": self.name,
            "response_length": 0,
            "exception": None,
            "context": self.user.context(),
            "start_time": time(),
        }
        start = perf_counter()
        result = None
        try:
            result = operation()
            event["response_length"] = length(result)
        except Exception as error:
            event["exception"] = error
        event["response_time"] = (perf_counter() - start) * 1000
        self.user.environment.events.request.fire(**event)
        if event["exception"] is not None:
            raise event["exception"]
        return result


class CartUser(User):
    host = "ws://127.0.0.1:8765"
    wait_time = between(5, 9)
    data = json.dumps({"type": "data", "item": "book", "quantity": 1})

    @task
    def chat(self):
        cart = BlockingWebSocketClient(self, "cart")
        try:
            cart.connect("/cart/chat?sid=11303")
            while True:
                message = cart.recv()
                if json.loads(message)["type"] == "keepalive":
                    cart.send(message)
                else:
                    cart.send(self.data)
        finally:
            cart.close()
