"""The verdict in writing: a table for the console, Markdown, JUnit XML."""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree

__all__ = ["Result", "Verdict", "as_junit", "as_markdown", "as_table"]

_MOST_ROWS = 30  # that are listed where one is missing
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one limit."""

    row: str
    limit: str
    value: str
    ok: bool
    hopeless: bool = False
    """Whether it does not only fail because there are too few requests yet."""

    @property
    def verdict(self) -> str:
        return "ok" if self.ok else "FAILED"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of all."""

    results: list[Result]
    seconds: float
    """How long the test took."""
    notes: list[str]
    """What else is to be known: which rows there were, that the run was ended early."""

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if not result.ok]

    @property
    def summary(self) -> str:
        if failed := len(self.failed):
            return f"{failed} of {len(self.results)} requirements failed"
        return f"all {len(self.results)} requirements are met"


def rows_there_were(rows: list[str]) -> str:
    """A line for one who has required a row that there is not."""
    if not rows:
        return "No row occurred at all."
    more = f", and {len(rows) - _MOST_ROWS} more" if len(rows) > _MOST_ROWS else ""
    return f"The rows that occurred: {', '.join(rows[:_MOST_ROWS])}{more}"


def as_table(verdict: Verdict) -> list[str]:
    """The lines of the table below Locust's."""
    lines = [(result.row, result.limit, result.value, result.verdict) for result in verdict.results]
    head = ("Requirements", "limit", "value", "")
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(3)]
    texts = [" | ".join(f"{text:<{width}}" for text, width in zip(line, [*widths, 6], strict=True)) for line in lines]
    first = "   ".join(f"{text:<{width}}" for text, width in zip(head, [*widths, 6], strict=True)).rstrip()
    return [first, "-" * (sum(widths) + 15), *(text.rstrip() for text in texts), *verdict.notes]


def as_markdown(verdict: Verdict) -> str:
    """A section for the summary of a job of GitHub Actions."""

    def cell(text: str) -> str:
        return re.sub(r"([\\`*_{}\[\]<>|])", r"\\\1", " ".join(text.split()))

    rows = [
        f"| {cell(result.row)} | {cell(result.limit)} | {cell(result.value)} | {'ok' if result.ok else '**FAILED**'} |"
        for result in verdict.results
    ]
    notes = [cell(note) for note in verdict.notes]
    head = ["| Row | Limit | Value | |", "| --- | --- | --- | --- |"]
    return "\n".join([f"### Load test: {verdict.summary}", "", *head, *rows, "", *notes, ""])


def as_junit(verdict: Verdict) -> bytes:
    """A ``testsuite`` with a ``testcase`` for each limit."""

    def text(value: str) -> str:
        return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", value)

    counts = {"tests": str(len(verdict.results)), "failures": str(len(verdict.failed)), "errors": "0", "skipped": "0"}
    seconds = f"{verdict.seconds:.3f}"
    suites = ElementTree.Element("testsuites", counts | {"time": seconds})
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "requirements"} | counts | {"time": seconds})
    for result in verdict.results:
        attributes = {"classname": text(result.row), "name": text(result.limit), "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", attributes)
        if not result.ok:
            failure = ElementTree.SubElement(case, "failure", {"message": text(result.value), "type": "requirement"})
            failure.text = text(f"{result.row}: {result.limit} is required, and it is: {result.value}")
    if verdict.notes:
        ElementTree.SubElement(suite, "system-out").text = text("\n".join(verdict.notes))
    ElementTree.indent(suites)
    written: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return written + b"\n"
