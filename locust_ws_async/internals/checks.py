"""How a module of this package says that a dependency is not what it was made for."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import FunctionType

__all__ = ["names_in", "require", "unsupported"]


def unsupported(problem: str, *distributions: str) -> ImportError:
    """Return the error for *problem*, a clause, which names the versions of Python and of the *distributions*."""
    from importlib.metadata import PackageNotFoundError, version  # it costs more than all imports of ours

    versions = [f"Python {sys.version.split()[0]}"]
    for distribution in ("locust-ws-async", *distributions):
        try:
            versions.append(f"{distribution} {version(distribution)}")
        except PackageNotFoundError:  # used from a source tree, or bundled
            versions.append(f"{distribution} of an unknown version")
    wanted = " or ".join([*distributions, "locust-ws-async"]) if distributions else "Python or locust-ws-async"
    return ImportError(f"{problem} ({', '.join(versions)}): install another version of {wanted}")


def require(holder: str, present: Iterable[str], names: Iterable[str], *distributions: str) -> None:
    """Raise ``ImportError`` for each of the *names* that *holder* does not have: only those *present*."""
    missing = sorted(set(names) - set(present))
    if missing:
        raise unsupported(f"{holder} has no {', '.join(missing)} any more", *distributions)


def names_in(function: object) -> set[str]:
    """Return the names that a Python *function* reads or sets on objects; none if it is not written in Python."""
    return set(function.__code__.co_names) if isinstance(function, FunctionType) else set()
