"""The script and the style of the section "WebSocket", which the browser loads from Locust, or from the report's file.

The files are in ``static/``. uPlot, which draws the charts, is there as released, with its licence.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

__all__ = ["before_end_of_body", "script", "style"]


@cache
def script(place: Literal["tab", "report"]) -> str:
    """The JavaScript module for this place: all files in one, so that the report needs no other."""
    return f"/*\n{_read('uplot/LICENSE')}\n*/\n" + "\n".join(
        _read(name) for name in ("uplot/uPlot.iife.min.js", "section.js", f"{place}.js")
    )


@cache
def style() -> str:
    """The style sheet of the section."""
    return _read("uplot/uPlot.min.css") + "\n" + _read("section.css")


def before_end_of_body(page: str, addition: str) -> str:
    """The HTML page with something more at its end."""
    head, end, tail = page.rpartition("</body>")
    return head + addition + end + tail if end else page + addition


def _read(name: str) -> str:
    return (files(__package__) / "static" / name).read_text(encoding="utf-8")
