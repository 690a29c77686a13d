"""How long each phase of a connect took."""

from __future__ import annotations

from time import perf_counter

__all__ = ["ConnectPhases"]


_WAITING_FOR = {
    "lookup_queue": "a place among the name lookups (the setting lookups)",
    "dns": "name lookup",
    "tcp": "the TCP connection",
    "proxy": "the proxy",
    "tls": "the TLS handshake",
    "upgrade": "the answer to the opening handshake",
}


class ConnectPhases:
    """
    The milliseconds of each phase of the last connect, summed over redirects; None for a phase that did not occur.

    Attributes:
        lookup_queue: the wait for other name lookups of this process, of which no more than ``lookups`` run at a time;
            None for a literal address.
        dns: the lookup of the host's name; None for a literal address.
        tcp: making the TCP connection, or the connection to a unix socket; with all addresses of the host that were
            tried.
        proxy: waiting for the proxy's answer; ``dns`` and ``tcp`` are then those of the way to the proxy.
        tls: the TLS handshake.
        upgrade: from sending the request of the opening handshake to the arrival of its answer.
    """

    __slots__ = ("_current", "_since", "dns", "lookup_queue", "proxy", "tcp", "tls", "upgrade")

    def __init__(self) -> None:
        self.lookup_queue: float | None = None
        self.dns: float | None = None
        self.tcp: float | None = None
        self.proxy: float | None = None
        self.tls: float | None = None
        self.upgrade: float | None = None
        self._current: str | None = None
        self._since = 0.0

    def enter(self, phase: str | None, at: float | None = None) -> None:
        """End the present phase and begin this one; None: the connect is done. ``at``: when, by perf_counter."""
        now = perf_counter() if at is None else at
        if self._current is not None:
            before = getattr(self, self._current) or 0.0
            setattr(self, self._current, before + (now - self._since) * 1000.0)
        self._current = phase
        self._since = now

    @property
    def current(self) -> str | None:
        """The name of the phase that the connect is in; None when it is done."""
        return self._current

    @property
    def waiting_for(self) -> str:
        """What the connect is waiting for now, for a timeout's text."""
        return _WAITING_FOR.get(self._current or "", "the connection")

    def as_dict(self) -> dict[str, float | None]:
        """All phases by name."""
        return {name: getattr(self, name) for name in _WAITING_FOR}

    def __repr__(self) -> str:
        phases = " ".join(f"{name}={ms:.3f}" for name, ms in self.as_dict().items() if ms is not None)
        return f"<ConnectPhases {phases}>"
