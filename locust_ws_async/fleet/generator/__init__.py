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
from .. import transport
from . import judge, limits, process
from .judge import as_json, saturated, spans
from .process import enter, leave, sample

__all__ = ["as_json", "enter", "judge", "leave", "register", "sample", "saturated", "spans"]

_KEY = "generator"  # of the JSON


def register() -> None:
    """Add the options, and what is told. Called when the user classes are imported."""
    hooks: Any = events  # which have no types
    hooks.init_command_line_parser.add_listener(_add_options)
    transport.contribute(_KEY, process.sample, _no_merge)
    transport.publish(_KEY, judge.as_json)
    transport.each_second(judge.settle)
    add_section(judge.lines)


def _add_options(parser: Any, **_: Any) -> None:
    limits.add_options(parser)


def _no_merge(worker_id: str, value: object) -> None:
    """Samples are shown as they are; what is judged comes as a message of its own, at once."""
