"""The tab "WebSocket" of Locust's web UI.

Locust has a hook for tabs with a table (``extended_tabs``), and none for charts. So the tab is Locust's, and stays
empty. A script that the page loads puts the section into it (``static/tab.js``), and asks ``/websocket/stats`` and
``/websocket/history`` while somebody looks.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request
from locust import events
from locust.env import Environment

from . import assets

__all__ = ["register"]

TAB = {"key": "websocket", "title": "WebSocket"}

# Relative, as Locust's own: it may stand behind --web-base-path, or a proxy.
HEAD = (
    '<link rel="stylesheet" href="./websocket/assets/section.css">\n'
    '<script type="module" src="./websocket/assets/tab.js"></script>\n'
)


def register() -> None:
    """Add the tab to each web UI. Called when the user classes are imported."""
    events.init.add_listener(_on_init)  # type: ignore[no-untyped-call] # Locust's has no types


def _on_init(environment: Environment, **_: Any) -> None:
    web_ui = environment.web_ui
    if web_ui is None or web_ui.app is None:
        return
    options = environment.parsed_options
    blueprint = Blueprint("websocket_view", __name__, url_prefix=getattr(options, "web_base_path", None))

    @blueprint.route("/websocket/assets/tab.js")
    def tab_js() -> Response:
        return _asset(assets.script("tab"), "text/javascript")

    @blueprint.route("/websocket/assets/section.css")
    def section_css() -> Response:
        return _asset(assets.style(), "text/css")

    web_ui.app.register_blueprint(blueprint)

    @web_ui.app.before_request
    def add_tab() -> None:
        # Not once for all: the locustfile, or a plugin, may set tabs of its own after this.
        if request.endpoint == "locust.index":
            others = [tab for tab in web_ui.template_args.get("extended_tabs", ()) if tab["key"] != TAB["key"]]
            web_ui.template_args["extended_tabs"] = [*others, TAB]

    @web_ui.app.after_request
    def add_script(response: Response) -> Response:
        if request.endpoint == "locust.index" and response.status_code == 200:
            response.set_data(assets.before_end_of_body(response.get_data(as_text=True), HEAD))
        return response


def _asset(text: str, mimetype: str) -> Response:
    response = Response(text, mimetype=mimetype)
    response.cache_control.no_cache = True  # a browser asks whether it has changed: after an update of the package
    response.add_etag()
    response.make_conditional(request)
    return response
