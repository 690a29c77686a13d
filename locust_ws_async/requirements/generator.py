"""Whether the load generator itself was the bottleneck: what watches it says so here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["Saturated", "judge_generator_by", "saturated"]

Saturated = Callable[[], Sequence[str]]
"""Gives a line for each time in which a process of the generator was saturated: which, when, and why."""

_watch: Saturated | None = None


def judge_generator_by(watch: Saturated) -> None:
    """Let ``require.generator(saturated=False)`` be judged by this."""
    global _watch
    _watch = watch


def saturated() -> Sequence[str] | None:
    """When it was; None where nothing has watched."""
    return None if _watch is None else _watch()
