"""The generator judges itself: is what it reports still the server's, or this machine's?

limits      what it may show: options of the command line
system      CPU, throttling and steal, where the system tells
meter       how late the hub is, second by second
verdict     from seconds to spans of time in which it is saturated
places      which code it was: task and line
watchdog    the stack of a hub that does not turn
judge       what all processes have found, on the master: log, JSON, end of the run, exit code
process     this process: puts the above together while users run
"""

from typing import Any

from locust import events

from ...statistics.end_of_run import add_section
from . import judge, limits
from .judge import as_json, spans
from .process import enter, leave, sample

__all__ = ["as_json", "enter", "leave", "register", "sample", "spans"]


def register() -> None:
    """Listen to Locust's events. Called when the user classes are imported."""
    hooks: Any = events  # which have no types
    for name, listener in vars(judge).items():
        if name.startswith("on_"):
            getattr(hooks, name.removeprefix("on_")).add_listener(listener)

    def on_init_command_line_parser(parser: Any, **_: Any) -> None:
        limits.add_options(parser)

    hooks.init_command_line_parser.add_listener(on_init_command_line_parser)
    add_section(judge.lines)
