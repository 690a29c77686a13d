"""The section "WebSocket" in Locust's HTML report, with the whole run: in the web UI's, and in the file of ``--html``.

The report is one file, which may be read without a network: the section's script, style and numbers are in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flask import Response, request
from locust import events
from locust.env import Environment
from locust.util.date import format_utc_timestamp

from ..fleet import history, transport
from . import assets

__all__ = ["register"]


def register() -> None:
    """Add the section to each report. Called when the user classes are imported."""
    events.init.add_listener(_on_init)  # type: ignore[no-untyped-call] # Locust's has no types


def _on_init(environment: Environment, **_: Any) -> None:
    def on_quit(**_: Any) -> None:
        _complete_file(environment)  # not before: by now the master has the last reports of its workers

    environment.events.quit.add_listener(on_quit)  # type: ignore[no-untyped-call] # Locust's has no types
    web_ui = environment.web_ui
    if web_ui is None or web_ui.app is None:
        return

    @web_ui.app.after_request
    def add_section(response: Response) -> Response:
        if request.endpoint == "locust.stats_report" and response.status_code == 200:
            response.set_data(_with_section(response.get_data(as_text=True)))
        return response


def _complete_file(environment: Environment) -> None:
    """Add the section to the file that Locust has written of this run."""
    name = getattr(environment.parsed_options, "html_file", None)
    if not name or environment.runner is None or not (path := Path(name)).is_file():
        return
    page = path.read_text(encoding="utf-8")
    # On SIGTERM Locust writes none: what lies there may be of an earlier run.
    began: str = format_utc_timestamp(environment.runner.stats.start_time)  # type: ignore[no-untyped-call]
    if began in page:
        path.write_text(_with_section(page), encoding="utf-8")


def _with_section(page: str) -> str:
    lines = history.as_json()
    if not lines["time"]:
        return page
    data = json.dumps(_rounded({"stats": transport.as_json(), "history": lines}), separators=(",", ":"))
    data = data.replace("<", r"\u003c")  # the names of gauges are the author's
    addition = (
        f"<style>{assets.style()}</style>\n"
        f'<script type="application/json" id="websocket-data">{data}</script>\n'
        f'<script type="module">{assets.script("report")}</script>\n'
    )
    return assets.before_end_of_body(page, addition)


def _rounded(value: Any) -> Any:
    """The same with three decimals, which makes the file of a long run a third as long."""
    match value:
        case float():
            return round(value, 3)
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
        case list():
            return [_rounded(item) for item in value]
    return value
