"""Staying connected: the life of a connection, reconnects, pings."""
