"""An asyncio event loop hosted by a greenlet. Knows gevent and asyncio, nothing of Locust or WebSocket.

::

    loop_host    LoopHost: run a coroutine from a greenlet; kill <-> cancel
      loop         GreenletEventLoop: asyncio's selector loop, and what differs from it
        inline_io    the fast paths from a socket that is ready to the task that waits for it
        propagation  exceptions that must leave the loop
        resolving    name lookups in a greenlet
        selector     HubSelector: descriptors and timeouts on the gevent hub
        isolation    asyncio's per-thread state, kept per greenlet
        executor     GreenletExecutor: blocking calls in greenlets beside the loop
"""

from .isolation import watch_blocking
from .loop import GreenletEventLoop
from .loop_host import LoopHost

__all__ = ["GreenletEventLoop", "LoopHost", "watch_blocking"]
