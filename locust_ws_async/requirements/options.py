"""The options of Locust's command line: ``--ws-require`` and ``--ws-junit``."""

from __future__ import annotations

import argparse
from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from .requirement import Requirement, parsed

__all__ = ["junit_file", "register", "required"]


def register() -> None:
    """Add the options. Called when the user classes are imported."""
    events.init_command_line_parser.add_listener(_add)  # type: ignore[no-untyped-call] # Locust's has no types


def _add(parser: LocustArgumentParser, **_: Any) -> None:
    group: Any = parser.add_argument_group("Requirements (locust_ws_async)")
    group.add_argument(
        "--ws-require",
        action="append",
        default=[],
        type=_checked,
        metavar='"WS REQUEST balance p95<200"',
        help="Require something of a row: a type, a name, limits. Limits are p50, p99.9 and the like, avg, max (ms), "
        "fail_ratio (0 to 1), count, rps; also after=SECONDS and abort_after=SECONDS. May be given several times. "
        "Exit with 3 if one is not kept, else with 0.",
    ).include_in_web_ui = False
    group.add_argument(
        "--ws-junit",
        default=None,
        metavar="FILE",
        help="Write the verdict on all requirements to this file, as JUnit XML.",
    ).include_in_web_ui = False


def _checked(text: str) -> str:
    # The master sends its options to the workers: they stay texts.
    try:
        parsed(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return text


def required(environment: Environment) -> list[Requirement]:
    """What the command line requires."""
    return [parsed(text) for text in getattr(environment.parsed_options, "ws_require", None) or []]


def junit_file(environment: Environment) -> str | None:
    """Where the JUnit XML goes."""
    file: str | None = getattr(environment.parsed_options, "ws_junit", None)
    return file
