"""Async WebSocket users for Locust.

Each Locust user greenlet hosts a small asyncio event loop; ``async def`` tasks run in it, and an instrumented WebSocket
client reports what it does as Locust requests. The layers, of which each imports only from those below it::

    users       AsyncUser, AsyncWebSocketUser: what a locustfile inherits from
    tasksets    async def in Locust's task sets
    reporting   one operation -> one request event
    ----------------------------------------------------------------------------------------
    client      a WebSocket client made for measuring      knows asyncio, not locust, not gevent
    bridge      an asyncio loop hosted by a greenlet       knows asyncio and gevent, not locust
    exceptions  what can go wrong, for all of them
"""

from .users import AsyncUser

__all__ = ["AsyncUser"]
