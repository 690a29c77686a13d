"""The cookies and headers of a user's HTTP client, for ``share_cookies`` and ``share_headers``."""

from __future__ import annotations

from collections.abc import Mapping
from http.cookiejar import CookieJar
from typing import Any

import requests
from locust.contrib.fasthttp import FastHttpSession

from .client import HTTPSession

__all__: list[str] = []


def http_session(client: object) -> HTTPSession | None:
    """The session behind ``self.client`` of an ``HttpUser`` or ``FastHttpUser``; None for any other client."""
    if isinstance(client, requests.Session):
        return client
    return _FastSession(client) if isinstance(client, FastHttpSession) else None


class _FastSession:
    """A :class:`FastHttpSession`. Its jar and its headers are looked up each time, since they may be replaced."""

    def __init__(self, session: FastHttpSession) -> None:
        self._session = session

    @property
    def cookies(self) -> CookieJar:
        return self._session.cookiejar

    @property
    def headers(self) -> Mapping[str, Any]:
        headers: Mapping[str, Any] = self._session.client.default_headers
        return headers
