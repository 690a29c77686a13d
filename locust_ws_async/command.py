"""The ``locust-ws-async`` command. Each room that has subcommands adds its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .demo import command as demo
from .recording import command as recording

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="locust-ws-async", description="Async WebSocket users for Locust.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    demo.add_commands(commands)
    recording.add_command(commands)
    arguments = parser.parse_args(argv)
    code: int = arguments.run(arguments)
    return code
