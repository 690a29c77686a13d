"""Client libraries of other people, over the connections of a user: what they do is timed without a change to them.

websockets  whatever calls ``websockets.connect``: it gets the user's connections
gql         GraphQL, by a connection for ``gql``'s transports
socketio    Socket.IO, by the packets of ``python-socketio``

Each needs its library, which an extra of this package installs: ``pip install "locust-ws-async[gql]"``.
"""
