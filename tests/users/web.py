"""Locust's web UI, as a test asks it."""

from __future__ import annotations

import json
import urllib.request
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode

from tests.support import SCALE, unused_port

__all__ = ["Web"]


class Web:
    """The web UI of a Locust that was started with ``arguments``."""

    def __init__(self, base_path: str = "") -> None:
        port = str(unused_port())
        self.url = f"http://127.0.0.1:{port}{base_path}"
        self.arguments = ["--web-host", "127.0.0.1", "--web-port", port]
        if base_path:
            self.arguments += ["--web-base-path", base_path]

    def page(self, path: str, **form: object) -> str:
        """What it answers; to a POST if there is a form."""
        data = urlencode(form).encode() if form else None
        request = urllib.request.Request(self.url + path, data=data)
        with urllib.request.urlopen(request, timeout=10 * SCALE) as response:
            return str(response.read().decode())

    def post(self, path: str) -> None:
        """POST nothing."""
        request = urllib.request.Request(self.url + path, data=b"")
        with urllib.request.urlopen(request, timeout=10 * SCALE) as response:
            response.read()

    def json(self, path: str) -> Any:
        """What it answers, as JSON; nothing while it is not up yet."""
        try:
            return json.loads(self.page(path))
        except HTTPError:
            raise
        except URLError:
            return {}

    def total(self) -> dict[str, Any]:
        """The total of ``/websocket/stats``; all counts are 0 while it is not up yet."""
        stats = self.json("/websocket/stats")
        return dict(stats["total"]) if stats else dict.fromkeys(("opened", "open", "ended", "messages_in"), 0)

    def workers(self) -> dict[str, dict[str, Any]]:
        """Those of ``/websocket/stats``."""
        return dict(self.json("/websocket/stats").get("workers", {}))
