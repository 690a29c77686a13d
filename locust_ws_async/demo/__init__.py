"""The embedded server and the ``locust-ws-async`` command.

The server is an ordinary asyncio process: nothing here imports gevent, Locust or the rest of the package.

    server    DemoServer: listening, plain HTTP, and what happens before the handshake is done
    routes    what each WebSocket path does afterwards
    counting  what the server knows about its clients
    signals   how the server is asked to stop, on every system
    command   the command: locust-ws-async server, locust-ws-async demo
"""
