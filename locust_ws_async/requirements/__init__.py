"""Pass or fail: what a run must have kept to, judged once at its end, on the master.

requirement  what is required of a row, and the list of all that is
limits       one limit: how it is written, and whether a row keeps it
window       the rows without what was before ``after``
generator    whether the load generator itself was the bottleneck
judging      judges: at the end, and on the way where a run is to end early
written      the verdict as a table, as Markdown and as JUnit XML
options      ``--ws-require`` and ``--ws-junit``

Judging needs no listener of requests: it reads Locust's entries.
"""

from ..statistics.end_of_run import add_section
from . import judging, options
from .generator import judge_generator_by
from .requirement import require

__all__ = ["judge_generator_by", "register", "require"]


def register() -> None:
    """Listen to Locust's events. Called when the user classes are imported, and before any runner listens."""
    options.register()
    judging.register()
    add_section(judging.lines)
