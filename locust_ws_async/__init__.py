"""Async WebSocket users for Locust.

Each Locust user greenlet hosts a small asyncio event loop; ``async def`` tasks run in it, and an instrumented WebSocket
client reports what it does as Locust requests. The layers, of which each imports only from those below it::

    users            AsyncUser, AsyncWebSocketUser: what a locustfile inherits from
    tasksets         async def in Locust's task sets
    cancelled_waits  what waited when its user was stopped
    request_events   one operation -> one request event
    user_errors      what Locust is told of errors
    class_checks     wrong settings, before a run begins
    view             where people look: the tab of the web UI and the section of the report
    fleet            what master and workers know together of all connections
    shown_hosts      hosts in Locust's report and web UI, without passwords
    http_session     the cookies and headers of the user's HTTP client
    together         broadcasts, rendezvous, storms: what users do over all workers
    requirements     pass or fail: what the end of a run is judged by
    pacing           ticks at a rate, virtual users at a rate
    statistics       how Locust counts: buckets, percentiles, many requests at once
    command          locust-ws-async: what demo and recording, which stand apart, add to it
    ----------------------------------------------------------------------------------------
    client      a WebSocket client made for measuring      knows asyncio, not locust, not gevent
    bridge      an asyncio loop hosted by a greenlet       knows asyncio and gevent, not locust
    internals   the insides of CPython, gevent, Locust, websockets and picows that we touch
    fast_paths  the switch that turns all fast paths off
    hosting     what client and bridge have agreed on
    masking     URLs, headers and messages without secrets
    secrets     what a secret looks like
    tracebacks  what of a traceback concerns the author of a locustfile
    exceptions  what can go wrong, for all of them
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .users import AsyncUser, AsyncWebSocketUser, gauge, require, tag, task

__all__ = ["AsyncUser", "AsyncWebSocketUser", "gauge", "require", "tag", "task"]


def __getattr__(name: str) -> Any:
    # Only when asked for: importing Locust patches the process (gevent.monkey.patch_all), which the demo server
    # and programs that use the client under plain asyncio.run() have no part in.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import users

    return getattr(users, name)
