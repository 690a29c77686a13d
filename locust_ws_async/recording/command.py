"""``locust-ws-async from-har``: a HAR in, a locustfile out."""

from __future__ import annotations

import argparse
import sys
from math import isfinite
from pathlib import Path
from typing import Any

from .har import HARError, parse
from .writer import locustfile

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add ``from-har`` to the subcommands."""
    parser = commands.add_parser(
        "from-har",
        help="print a locustfile that does what a browser did",
        description="Print a locustfile that does what was recorded: from-har session.har > locustfile.py",
    )
    parser.add_argument("file", help="the HAR of Chrome, Edge, Playwright or mitmproxy; - for the standard input")
    parser.add_argument(
        "--think",
        type=_factor,
        default=1.0,
        help="scales the pauses of the recording: 0.5 for half of each, 0 for none (default: %(default)g)",
    )
    parser.set_defaults(run=run)


def _factor(value: str) -> float:
    number = float(value)
    if not isfinite(number) or number < 0:
        raise ValueError
    return number


def run(arguments: argparse.Namespace) -> int:
    """Print the locustfile; returns 0, or 2 where there is none."""
    try:
        text = sys.stdin.buffer.read() if arguments.file == "-" else Path(arguments.file).read_bytes()
        source = locustfile(parse(text.removeprefix(b"\xef\xbb\xbf")), think=arguments.think)
    except OSError as exc:
        print(f"locust-ws-async: cannot read {arguments.file}: {exc.strerror}", file=sys.stderr)
        return 2
    except HARError as exc:
        print(f"locust-ws-async: {exc}", file=sys.stderr)
        return 2
    sys.stdout.buffer.write(source.encode())
    sys.stdout.buffer.flush()
    return 0
