"""What a generator may show before its times are partly its own: options of the command line.

The master hands its options to its workers with each order to spawn users, so that all processes judge alike.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from ...client.observing.unread import connections

__all__ = ["FAIL_OPTION", "Limits", "add_options", "limits_of"]

FAIL_OPTION = "ws_fail_when_saturated"


LAG_STAMPED, LAG_READ = 10.0, 2.0  # milliseconds


@dataclass(frozen=True)
class Limits:
    """The limits of one process; ``inf`` is none."""

    hub_lag: float | None = None
    """Milliseconds that the hub may be late; None: `LAG_STAMPED` where all times of arrival are the kernel's, and else
    `LAG_READ`, since then what waits for the hub is in the times of messages."""
    cpu: float = 90.0
    """Percent of one core that the thread of the users may take."""
    throttled: float = 1.0
    """Percent of the time in which the container may stand still, because it has used up its share of CPU."""
    steal: float = 5.0
    """Percent of the time that the host may take from this machine."""
    unread: float = 10.0
    """Milliseconds that bytes may lie unread."""
    blocked: float = 200.0
    """Milliseconds that one piece of code may hold the hub, or a user's loop."""

    def hub_lag_now(self) -> float:
        """The limit of the hub's lag, as the connections of this process are now."""
        if self.hub_lag is not None:
            return self.hub_lag
        return LAG_STAMPED if connections.kernel and not connections.read else LAG_READ

    def as_json(self) -> dict[str, float | None]:
        """By the keys, and in the units, of a sample; None for a limit that is off."""
        values = {
            "hub_lag_p99_ms": LAG_STAMPED if self.hub_lag is None else self.hub_lag,
            "cpu": self.cpu / 100,
            "throttled": self.throttled / 100,
            "steal": self.steal / 100,
            "unread_p99_ms": self.unread,
            "blocked_ms": self.blocked,
        }
        return {name: value if isfinite(value) else None for name, value in values.items()}


_HELP = {
    "hub_lag": ("MS", "The generator counts as saturated when its hub is late by more milliseconds than this"),
    "cpu": ("PERCENT", "The generator counts as saturated when its users take more of one core than this"),
    "throttled": ("PERCENT", "The generator counts as saturated when its container is throttled for more of the time"),
    "steal": ("PERCENT", "The generator counts as saturated when the host takes more of the time from this machine"),
    "unread": ("MS", "The generator counts as saturated when bytes lie unread for more milliseconds than this"),
    "blocked": ("MS", "What holds the hub, or a user's loop, for more milliseconds than this is named in the log"),
}


def add_options(parser: LocustArgumentParser) -> None:
    """Add the options to Locust's command line."""
    for field in fields(Limits):
        metavar, text = _HELP[field.name]
        parser.add_argument(
            f"--ws-{field.name.replace('_', '-')}-limit",
            type=_limit,
            default=field.default,
            metavar=metavar,
            env_var=f"LOCUST_WS_{field.name.upper()}_LIMIT",
            include_in_web_ui=False,
            help=f"{text} (default: {_default(field.default)}; inf: no limit)",
        )
    parser.add_argument(
        f"--{FAIL_OPTION.replace('_', '-')}",
        action="store_true",
        env_var="LOCUST_WS_FAIL_WHEN_SATURATED",
        include_in_web_ui=False,
        help="Exit with code 3 when a generator was saturated",
    )


def _default(value: Any) -> str:
    return (
        f"{LAG_STAMPED:g}, or {LAG_READ:g} where times of arrival are not the kernel's"
        if value is None
        else f"{value:g}"
    )


def _limit(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise ArgumentTypeError(f"{text!r} is no limit: give a number above 0, or inf for none")
    return value


def limits_of(environment: Environment) -> Limits:
    """The limits that *environment* was started with; the defaults where Locust is used without a command line."""
    options: Any = environment.parsed_options
    names = [field.name for field in fields(Limits)]
    given = {name: getattr(options, f"ws_{name}_limit", None) for name in names}
    return Limits(**{name: value for name, value in given.items() if value is not None})
