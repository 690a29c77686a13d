"""The closing handshake of RFC 6455, section 7, without I/O: what both engines share."""

from __future__ import annotations

from websockets.frames import Close

from .interface import CloseInfo

__all__ = ["ClosingHandshake", "code_in_frame"]

_NO_CODE = 1005


def code_in_frame(close: Close) -> int | None:
    """The code that the frame carries; None for 1005, which stands for a frame without one (section 7.1.5)."""
    return None if close.code == _NO_CODE else close.code


class ClosingHandshake:
    """
    Knows which close frames went either way, and decides what an event means for closing.

    Each method takes one event and returns whether a close frame goes out because of it. At most one ever does. The
    engine writes that frame, unless its library has written it already. No data may follow it (section 5.5.1). When the
    frame was not ordered by :meth:`start`, the engine also calls ``sink.closing``.
    """

    __slots__ = ("_rcvd_first", "discarding", "rcvd", "sent")

    def __init__(self) -> None:
        self.rcvd: Close | None = None
        self.sent: Close | None = None
        self.discarding = False
        """Whether all that still arrives is to be discarded: the peer has closed, or we have failed the connection."""
        self._rcvd_first = False

    def start(self, close: Close) -> bool:
        """This side closes the connection. What arrives meanwhile still counts."""
        if self.sent is not None:
            return False
        self.sent = close
        self._rcvd_first = self.rcvd is not None
        return True

    def fail(self, close: Close) -> bool:
        """The peer broke a rule, or does not answer. Whatever else arrives is discarded (section 7.1.7)."""
        self.discarding = True
        return self.start(close)

    def receive(self, close: Close, answer: Close | None = None) -> bool:
        """
        The peer's close frame came; it is answered with the same unless ``answer`` says otherwise (section 5.5.1).
        Whatever follows it is discarded (section 1.4).
        """
        self.rcvd = close
        return self.fail(answer or close)

    def info(self, error: BaseException | None = None) -> CloseInfo:
        """How the connection ended, now that it is lost."""
        both = self.rcvd is not None and self.sent is not None
        return CloseInfo(self.rcvd, self.sent, self._rcvd_first if both else None, error)
