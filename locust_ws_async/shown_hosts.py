"""Hosts as Locust's HTML report and its web UI show them: without user and password, and without secrets in the path.

What connects has them as they are: only what leaves for people is changed. The web UI sends the host back when a test
is started, so that what it was shown is changed back there.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from flask import Response, request
from jinja2.utils import htmlsafe_json_dumps
from locust import events
from locust.env import Environment
from werkzeug.datastructures import MultiDict

from .internals.locust import show_host_in_report
from .masking import masked_url

__all__ = ["register"]


def register() -> None:
    """Mask hosts from now on. Called when the user classes are imported."""
    show_host_in_report(masked_url)
    events.init.add_listener(_on_init)  # type: ignore[no-untyped-call] # Locust's has no types


def _on_init(environment: Environment, web_ui: Any = None, **_: Any) -> None:
    if web_ui is not None:
        web_ui.app.before_request(partial(_restore, environment))
        web_ui.app.after_request(partial(_mask, environment))


def _restore(environment: Environment) -> None:
    """Put into a request of the web UI the host that it was shown masked."""
    if request.method != "POST" or not _masked_hosts(environment):
        return
    changed: Any = request
    if "host" in request.form:  # a start
        form = changed.form = MultiDict(request.form)
        form["host"] = _host_shown_as(form["host"], environment.host, *(each.host for each in _classes(environment)))
    elif request.is_json:  # the settings of a class
        settings = request.get_json()
        if "host" in settings:
            of_class = (environment.available_user_classes or {}).get(settings.get("user_class_name"))
            settings["host"] = _host_shown_as(settings["host"], getattr(of_class, "host", None))
            changed.data = json.dumps(settings).encode()


def _host_shown_as(shown: str, *hosts: str | None) -> str:
    """The first of these hosts that is shown so; *shown* itself if none is: somebody has typed it."""
    return next((host for host in hosts if host and masked_url(host) == shown), shown)


def _mask(environment: Environment, response: Response) -> Response:
    """Take the hosts that have something to hide out of an answer of the web UI."""
    for host, shown in _masked_hosts(environment).items():
        for header, value in list(response.headers):
            if host in value:  # the name of a file
                response.headers[header] = value.replace(host, shown)
        if not response.direct_passthrough:
            text = response.get_data(as_text=True)
            for written in (host, json.dumps(host)[1:-1], htmlsafe_json_dumps(host)[1:-1]):
                text = text.replace(written, shown)
            response.set_data(text)
    return response


def _masked_hosts(environment: Environment) -> dict[str, str]:
    """The hosts of this environment that have something to hide, and how each is shown."""
    hosts = {host for host in (environment.host, *(each.host for each in _classes(environment))) if host}
    return {host: shown for host in hosts if (shown := masked_url(host)) != host}


def _classes(environment: Environment) -> list[Any]:
    return [*environment.user_classes, *(environment.available_user_classes or {}).values()]
