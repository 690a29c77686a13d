"""From a browser's recording to a locustfile. Of the package it needs what a secret looks like, and no more.

::

    command       from-har: reads the file, prints the locustfile
    writer        the locustfile: imports, secrets, classes
    user_class    a class for each host, a method for each connection
    handshake     the settings of a connection
    steps         one connection, from what was understood of it to statements
    loops         what is repeated becomes a loop
    login         the HTTP requests before the handshake
    urls          paths and queries as expressions
    masking       finds the secrets of a recording (what one looks like: locust_ws_async/secrets.py)
    payloads      messages as expressions
    origins       values that come from an earlier answer
    protocols     what is spoken on top of WebSocket: a table of recognisers
    patterns      what messages are to each other: heartbeats, answers, requests, pushes
    conversation  the messages of one connection, and of what kinds they are
    vault         what must not stand in the output, and what stands for it
    source        Python source, formatted
    har           a HAR file, read and checked
"""

from .har import HARError, parse
from .writer import locustfile

__all__ = ["HARError", "locustfile", "parse"]
