"""The pages of the fleet in Locust's web UI, behind its login and under its ``--web-base-path``."""

from __future__ import annotations

import json
from typing import Any

from flask import Blueprint, Response, request
from locust.env import Environment

from . import files, history, prometheus, transport

__all__ = ["on_init"]


def on_init(environment: Environment, **_: Any) -> None:
    web_ui = environment.web_ui
    if web_ui is None:
        return
    options = environment.parsed_options
    pages = Blueprint("locust_ws_async", __name__, url_prefix=getattr(options, "web_base_path", None) or None)

    def stats() -> Response:
        return _json(transport.as_json())

    def columns() -> Response:
        return _json(history.as_json(request.args.get("since", 0.0, type=float)))

    def download() -> Response:
        headers = {"Content-Disposition": "attachment;filename=locust_websocket_history.csv"}
        return Response(files.as_csv(), mimetype="text/csv", headers=headers)

    def metrics() -> Response:
        return prometheus.page(environment)

    views = {
        "/websocket/stats": stats,
        "/websocket/history": columns,
        "/websocket/history.csv": download,
        "/metrics": metrics,
    }
    for path, view in views.items():
        pages.add_url_rule(path, view_func=web_ui.auth_required_if_enabled(view))  # type: ignore[no-untyped-call]
    assert web_ui.app is not None
    web_ui.app.register_blueprint(pages)
    web_ui.template_args.setdefault("extended_csv_files", []).append(
        {"href": "./websocket/history.csv", "title": "Download WebSocket history CSV"}  # below Locust's own page
    )


def _json(value: Any) -> Response:
    # Not by jsonify(), which gives each number of a long history a line of its own: Locust's app is in debug mode.
    return Response(json.dumps(value, separators=(",", ":")), mimetype="application/json")
