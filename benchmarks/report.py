"""From measurements to a CSV with everything, and a Markdown page to read."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

from .measuring import Measurement
from .scenarios import FULL, IN_LOCUST, SHORT

REFERENCE = "blocking"
FLOOR = "uvloop_picows"
BOUND = "uvloop_picows_timed"
NOTHING = "bare_locust"
DEFAULT_ENGINE = "ours_websockets"
FAST_ENGINE = "ours_picows"
LIBRARY = "asyncio_websockets_timed"

BASELINE = Path(__file__).parent / "baseline.json"
"""Written by `benchmarks.instructions`."""

BUSY_SERVER = 0.9
CYCLES = 3  # so many a window must have for percentiles of them

Select = Callable[[Measurement], float]


@dataclasses.dataclass(frozen=True)
class Spread:
    """Of one figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        known = [value for value in values if value is not None]
        return cls(median(known), min(known), max(known)) if known else None

    def text(self, digits: int = 0) -> str:
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f}-{self.high:,.{digits}f})"


class Results:
    """All measurements that worked, looked up by scenario and competitor."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self.found = {(m.scenario, m.competitor, m.round): m for m in measurements if not m.failure}
        self.names = {m.competitor: m.name for m in sorted(self.found.values(), key=lambda m: m.competitor)}

    def of(self, scenario: str, competitor: str) -> list[Measurement]:
        return [m for (s, c, _), m in self.found.items() if (s, c) == (scenario, competitor)]

    def spread(self, scenario: str, competitor: str, select: Select) -> Spread | None:
        return Spread.of(select(m) for m in self.of(scenario, competitor))

    def rounds(self, scenario: str | None = None) -> str:
        """How many each competitor has: a number, or from the fewest to the most."""
        of_each = Counter((s, c) for s, c, _ in self.found if scenario in (None, s)).values()
        return f"{min(of_each)}" if len(set(of_each)) == 1 else f"{min(of_each)} to {max(of_each)}"

    def ratio(self, over: tuple[str, str], under: tuple[str, str], select: Select) -> Spread | None:
        """Of two (scenario, competitor), paired within each round: what blurs a round blurs both."""
        pairs = [(m, self.found.get((*under, m.round))) for m in self.of(*over)]
        return Spread.of(select(m) / select(other) for m, other in pairs if other and select(other))

    def per_user(self, competitor: str, select: Select, kind: str = "idle,") -> Spread | None:
        """What one more idle user adds: between the idle scenarios with the fewest and the most users."""
        idle = sorted({(m.users, s) for (s, c, _), m in self.found.items() if s.startswith(kind) and c == competitor})
        if len(idle) < 2:
            return None
        (few, small), (many, large) = idle[0], idle[-1]
        by_round = [(self.found.get((small, competitor, m.round)), m) for m in self.of(large, competitor)]
        return Spread.of((select(b) - select(a)) / (many - few) for a, b in by_round if a)

    def per_connection_kib(self, competitor: str) -> Spread | None:
        """RSS of an idle connected user beyond that of a Locust user without a connection."""
        whole, bare = (self.per_user(c, lambda m: m.rss_kib) for c in (competitor, NOTHING))
        if not whole or not bare:
            return None
        return Spread(whole.median - bare.median, whole.low - bare.median, whole.high - bare.median)


def write_csv(path: Path, measurements: list[Measurement]) -> None:
    places = {"cpu": 6, "cpu_system": 6}  # what an idle client needs is small
    with path.open("w", newline="") as file:
        rows = [dataclasses.asdict(m) | {"cpu_us": m.cpu_us, "cycle_ms": m.cycle_ms} for m in measurements]
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {key: round(v, places.get(key, 3)) if isinstance(v, float) else v for key, v in row.items()} for row in rows
        )


def read_csv(path: Path) -> list[Measurement]:
    """What `write_csv` wrote, rounded as it is there."""
    kinds: dict[str, Callable[[str], object]] = {
        "int": int,
        "float": float,
        "str": str,
        "float | None": lambda text: float(text) if text else None,
    }
    fields = {field.name: kinds[str(field.type)] for field in dataclasses.fields(Measurement)}
    with path.open(newline="") as file:
        rows = [
            {name: convert(row[name]) for name, convert in fields.items() if name in row}
            for row in csv.DictReader(file)
        ]
    return [Measurement(**row) for row in rows]  # type: ignore[arg-type]  # converted field by field


def markdown(measurements: list[Measurement], missing: dict[str, str], conditions: str) -> str:
    results = Results(measurements)
    where = sorted({f"{m.machine}; {m.python}" for m in measurements})
    parts = [
        "# Benchmark results\n",
        f"{' and '.join(where)}; {conditions}. Interleaved rounds: median (minimum-maximum); ratios are paired within "
        "a round. Echoes are the server's count.\n",
        aims(results),
    ]
    if len(commits := Counter((m.date, m.commit) for m in results.found.values())) > 1:
        of = ", ".join(
            f"{count} on {date or '?'} of {commit or '?'}" for (date, commit), count in sorted(commits.items())
        )
        parts.append(f"**Not all of the same code**: {of}.\n")
    if blurred := [m for m in results.found.values() if starved(m)]:
        parts.append(
            f"**Blurred**: in {len(blurred)} of {len(results.found)} measurements the client had under 95 % of its "
            "core though the server had time to spare: something else ran on the machine. Trust the CPU figures more "
            "than the rates, and measure again at a quiet time.\n"
        )
    if bound := sorted({f"{m.name} ({m.scenario})" for m in results.found.values() if m.server_cpu > BUSY_SERVER}):
        parts.append(
            f"**Bound by the server**, which was busy for over {BUSY_SERVER:.0%} of the time, so that these clients "
            f"could have done more: {', '.join(bound)}.\n"
        )
    for name in measured_scenarios(results):
        parts.append(f"## {name[0].upper()}{name[1:]} (rounds: {results.rounds(name)})\n")
        parts.append(table_of(name, results))
    parts.append("## User-mode instructions of an echo\n")
    parts.append(instructions_table(results))
    if memory := memory_table(results):
        parts.append("## Memory and descriptors of a connection\n")
        parts.append(memory)
    parts.append("## Versions\n")
    versions = {m.competitor: m.version for m in results.found.values()}
    parts.append(table(["competitor", "versions"], [[name, versions[key]] for key, name in results.names.items()]))
    failed = [f"- {m.competitor}, {m.scenario}, round {m.round}: {m.failure}" for m in measurements if m.failure]
    left_out = [f"- {key}: {reason}" for key, reason in missing.items()]
    if failed:
        parts += ["## Failed\n", "\n".join(failed) + "\n"]
    if left_out:
        parts += ["## Left out\n", "\n".join(left_out) + "\n"]
    return "\n".join(parts)


def measured_scenarios(results: Results) -> list[str]:
    """In the order of the parts."""
    names = {m.scenario for m in results.found.values()}
    known = [scenario.name for part in (*FULL.values(), *SHORT.values()) for scenario in part]
    return [name for name in dict.fromkeys(known) if name in names]


def windows() -> dict[str, float]:
    """The seconds of each scenario's window."""
    return {scenario.name: scenario.seconds for part in (*SHORT.values(), *FULL.values()) for scenario in part}


def starved(m: Measurement) -> bool:
    return m.done > 0 and m.cpu < 0.95 and m.server_cpu < 0.75


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def table_of(name: str, results: Results) -> str:
    rows: list[list[str]] = []
    idle = name.startswith("idle")
    window = windows()[name]
    taking_part = [key for key in results.names if results.of(name, key)]
    taking_part.sort(key=lambda key: median(m.cpu if idle else -m.done for m in results.of(name, key)))
    for competitor in taking_part:

        def figure(select: Select, digits: int = 0, key: str = competitor) -> str:
            spread = results.spread(name, key, select)
            return spread.text(digits) if spread else ""

        if idle:
            rows.append(
                [
                    results.names[competitor],
                    figure(lambda m: m.cpu * 100, 2),
                    figure(lambda m: m.rss_kib / 1024, 1),
                    figure(lambda m: m.fds),
                ]
            )
            continue
        ratio = results.ratio((name, competitor), (name, REFERENCE), lambda m: m.done)
        cycle = results.spread(name, competitor, lambda m: m.cycle_ms)
        cycle50, cycle99, reported50, reported99 = (
            Spread.of(getattr(m, field) for m in results.of(name, competitor))
            for field in ("cycle_p50_ms", "cycle_p99_ms", "reported_p50_ms", "reported_p99_ms")
        )
        rows.append(
            [
                results.names[competitor],
                figure(lambda m: m.done),
                ratio.text(2) if ratio else "",
                figure(lambda m: m.cpu_us, 1),
                figure(lambda m: m.cpu_system / m.done * 1e6 if m.done else 0, 1),
                figure(lambda m: m.cpu * 100),
                figure(lambda m: m.server_cpu * 100),
                figure(lambda m: m.cycle_ms, 2),
                f"{cycle50.median:.1f} / {cycle99.median:.1f}"
                if cycle50 and cycle99 and cycle and cycle.median * CYCLES <= window * 1000
                else "",
                f"{reported50.median:.0f} / {reported99.median:.0f}" if reported50 and reported99 else "not reported",
            ]
        )
    what = "connection" if name.startswith("connect") else "echo"
    plural = "connections" if what == "connection" else "echoes"
    if idle:
        return table(["competitor", "CPU, % of a core", "RSS, MiB", "fds"], rows)
    header = [
        "competitor",
        f"{plural}/s",
        "times the blocking recipe",
        f"CPU us/{what}",
        "of it system",
        "client CPU %",
        "server CPU %",
        "cycle ms (users / rate)",
        "the server's p50 / p99 of it",
        "the tool's p50 / p99 ms",
    ]
    columns = len(header) if what == "echo" else len(header) - 2  # nobody's latency is asked for connections
    return table(header[:columns], [row[:columns] for row in rows])


def memory_table(results: Results) -> str:
    rows = []
    for key, name in results.names.items():
        rss = results.per_user(key, lambda m: m.rss_kib)
        fds = results.per_user(key, lambda m: m.fds)
        if rss and fds:
            beyond = results.per_connection_kib(key) if key in (NOTHING, *IN_LOCUST) else None
            rows.append([name, rss.text(1), beyond.text(1) if beyond else "", f"{fds.median:.2f}"])
    header = ["competitor", "RSS KiB per idle user", "beyond a Locust user without a connection", "fds per user"]
    return table(header, rows) if rows else ""


def instructions_table(results: Results) -> str:
    """The baseline, cheapest first."""
    baseline = json.loads(BASELINE.read_text())
    counted: list[tuple[str, int]] = sorted(baseline["instructions_per_echo"].items(), key=lambda item: item[1])
    rows = [[results.names.get(key, key), f"{count:,}"] for key, count in counted]
    return table([f"64 B, 10 users, {baseline['python']}", "instructions"], rows)


def aims(results: Results) -> str:
    """The figures that the project set itself, and where it stands. Without a limit: for comparison."""
    rows: list[list[str]] = []

    def row(
        figure: str,
        spread: Spread | None,
        least: float = 0,
        most: float = math.inf,
        aim: float | None = None,
        digits: int = 2,
    ) -> None:
        must = f"at least {least}" if least else f"at most {most}" if most < math.inf else ""
        measured = spread.text(digits) if spread else "not measured"
        reached = "" if not (must and spread) else "yes" if least <= round(spread.median, digits) <= most else "**no**"
        rows.append([figure, must, "" if aim is None else f"{aim:g}", measured, reached])

    engines = ((FAST_ENGINE, "fast engine"), (DEFAULT_ENGINE, "default engine"))
    for users in (50, 1000):
        echo = f"echo 64 B, {users} users"
        for (key, engine), (least, aim) in zip(engines, ((2.0, 3.0), (1.1, 1.4)), strict=True):
            rate = results.ratio((echo, key), (echo, REFERENCE), lambda m: m.echoes)
            row(f"echoes/s, {users:,} users, {engine} : blocking recipe", rate, least=least, aim=aim)
            cpu = results.ratio((echo, REFERENCE), (echo, key), lambda m: m.cpu_us)
            row(f"the same by CPU an echo, which a shared machine blurs less ({users:,} users, {engine})", cpu)
        bound = results.ratio((echo, BOUND), (echo, REFERENCE), lambda m: m.echoes)
        row(
            f"what is possible: picows on uvloop with two events, without greenlets and checks ({users:,} users)", bound
        )
        floor = results.ratio((echo, FAST_ENGINE), (echo, FLOOR), lambda m: m.cpu_us)
        row(f"CPU an echo, {users:,} users, fast engine : picows on uvloop without Locust", floor, most=3, aim=2)
    instructions = json.loads(BASELINE.read_text())["instructions_per_echo"]
    if {DEFAULT_ENGINE, LIBRARY} <= instructions.keys():
        row(
            "instructions an echo, default engine : websockets on asyncio, fixed buffer, two events",
            Spread.of([instructions[DEFAULT_ENGINE] / instructions[LIBRARY]]),
            most=1.0,
        )
    for (key, engine), most in zip(engines, (28.0, 24.0), strict=True):
        kib = results.per_connection_kib(key)
        row(f"RSS KiB of an idle connection, {engine}", kib, most=most, aim=16, digits=1)
    row("RSS KiB of an idle connection, blocking recipe", results.per_connection_kib(REFERENCE), digits=1)
    for key, engine in engines:
        row(f"fds per user, {engine}", results.per_user(key, lambda m: m.fds), most=1)
    idle = "idle, 5000 users"
    for (key, who), most in zip(
        (*engines, (REFERENCE, "blocking recipe"), (NOTHING, "Locust's own, without connections")),
        (2.0, 2.0, math.inf, math.inf),
        strict=True,
    ):
        row(f"CPU of 5,000 idle users, % of a core, {who}", results.spread(idle, key, lambda m: m.cpu * 100), most=most)
    many, few = "echo 64 B, 5000 users", "echo 64 B, 50 users"
    for (key, who), most in zip(
        (
            *engines,
            (REFERENCE, "blocking recipe"),
            (FLOOR, "picows on uvloop without Locust"),
            (BOUND, "picows on uvloop with two events"),
            ("k6", "k6"),
        ),
        (1.3, 1.3, math.inf, math.inf, math.inf, math.inf),
        strict=True,
    ):
        growth = results.ratio((many, key), (few, key), lambda m: m.cpu_us)
        row(f"growth of CPU an echo from 50 to 5,000 users, {who}", growth, most=most)
    header = ["figure", "must", "aim for", "measured", "reached"]
    return "## What it must reach\n\n" + table(header, rows) + INSTRUCTIONS_NOTE


INSTRUCTIONS_NOTE = """
Instructions are counted apart from this run (`python -m benchmarks.instructions`, `baseline.json`). What is measured
is the median (minimum-maximum) over the rounds; whether it reached what it must is judged by the median. Where no limit
stands, the figure is there for comparison.
"""
