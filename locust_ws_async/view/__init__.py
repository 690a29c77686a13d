"""Where people look: the state of all connections, in Locust's web UI and in its report.

assets   the script and the style of the section that both show
tab      the tab "WebSocket" of the web UI
report   the same section in the HTML report, with the whole run
"""

from . import report, tab

__all__ = ["register"]


def register() -> None:
    """Add the tab and the section of the report to each Locust. Called when the user classes are imported."""
    tab.register()
    report.register()
