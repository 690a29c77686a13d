"""The HTTP client of a user, as the WebSocket client shares it: ``share_cookies``, ``share_headers``."""

from __future__ import annotations

from collections.abc import Mapping
from http.cookiejar import CookieJar
from typing import Any

import requests
from locust.contrib.fasthttp import FastHttpSession

from .client import HTTPSession

__all__: list[str] = []


def http_session(client: object) -> HTTPSession | None:
    """What there is to share of ``self.client``: that of ``HttpUser``, of ``FastHttpUser``, or another."""
    if isinstance(client, requests.Session):
        return client
    return _FastSession(client) if isinstance(client, FastHttpSession) else None


class _FastSession:
    """Looks at the session each time: its jar and its headers may be replaced while it lives."""

    def __init__(self, session: FastHttpSession) -> None:
        self._session = session

    @property
    def cookies(self) -> CookieJar:
        return self._session.cookiejar

    @property
    def headers(self) -> Mapping[str, Any]:
        headers: Mapping[str, Any] = self._session.client.default_headers
        return headers
