"""From measurements to a CSV with everything, and a Markdown page to read."""

from __future__ import annotations

import csv
import dataclasses
import os
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import psutil

from .competitors import Competitor
from .measuring import Measurement
from .scenarios import Scenario

REFERENCE = "blocking"
FLOOR = "uvloop_picows"
NOTHING = "bare_locust"
DEFAULT_ENGINE = "ours_websockets"
FAST_ENGINE = "ours_picows"

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

    def of(self, scenario: str, competitor: str) -> list[Measurement]:
        return [m for (s, c, _), m in self.found.items() if (s, c) == (scenario, competitor)]

    def spread(self, scenario: str, competitor: str, select: Select) -> Spread | None:
        return Spread.of(select(m) for m in self.of(scenario, competitor))

    def ratio(self, over: tuple[str, str], under: tuple[str, str], select: Select) -> Spread | None:
        """Of two (scenario, competitor), paired within each round: what blurs a round blurs both."""
        pairs = [(m, self.found.get((*under, m.round))) for m in self.of(*over)]
        return Spread.of(select(m) / select(other) for m, other in pairs if other and select(other))

    def per_user(self, competitor: str, select: Select) -> Spread | None:
        """What one more idle user adds: between the idle scenarios with the fewest and the most users."""
        idle = sorted(
            {(m.users, s) for (s, c, _), m in self.found.items() if s.startswith("idle,") and c == competitor}
        )
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


def machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} x {model}, {memory:.0f} GiB, {platform.system()} {platform.release()}"


def python() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"


def write_csv(path: Path, measurements: list[Measurement], competitors: list[Competitor]) -> None:
    version = {competitor.key: competitor.version for competitor in competitors}
    constant = {"python": python(), "machine": machine()}
    with path.open("w", newline="") as file:
        rows = [
            dataclasses.asdict(m)
            | {"cpu_us": m.cpu_us, "cycle_ms": m.cycle_ms, "version": version[m.competitor]}
            | constant
            for m in measurements
        ]
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()} for row in rows
        )


def markdown(
    measurements: list[Measurement],
    scenarios: list[Scenario],
    competitors: list[Competitor],
    missing: dict[str, str],
    conditions: str,
) -> str:
    results = Results(measurements)
    rounds = max(m.round for m in measurements)
    parts = [
        "# Benchmark results\n",
        f"{machine()}; {python()}; {conditions}. {rounds} interleaved rounds: median (minimum-maximum); "
        "ratios are paired within a round. Echoes are the server's count.\n",
        aims(results),
    ]
    if blurred := [m for m in results.found.values() if starved(m)]:
        parts.append(
            f"**Blurred**: in {len(blurred)} of {len(results.found)} measurements the client had under 95 % of its "
            "core though the server had time to spare: something else ran on the machine. Trust the CPU figures more "
            "than the rates, and measure again at a quiet time.\n"
        )
    for scenario in scenarios:
        parts.append(f"## {scenario.name[0].upper()}{scenario.name[1:]}\n")
        parts.append(table_of(scenario, results, competitors))
    if memory := memory_table(results, competitors):
        parts.append("## Memory and descriptors of a connection\n")
        parts.append(memory)
    parts.append("## Versions\n")
    parts.append(table(["competitor", "versions"], [[c.name, c.version] for c in competitors]))
    failed = [f"- {m.competitor}, {m.scenario}, round {m.round}: {m.failure}" for m in measurements if m.failure]
    left_out = [f"- {key}: {reason}" for key, reason in missing.items()]
    if failed:
        parts += ["## Failed\n", "\n".join(failed) + "\n"]
    if left_out:
        parts += ["## Left out\n", "\n".join(left_out) + "\n"]
    return "\n".join(parts)


def starved(m: Measurement) -> bool:
    return m.echoes > 0 and m.cpu < 0.95 and m.server_cpu < 0.75


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def table_of(scenario: Scenario, results: Results, competitors: list[Competitor]) -> str:
    rows: list[list[str]] = []
    name = scenario.name
    idle = scenario.workload.activity == "idle"
    taking_part = [c for c in competitors if results.of(name, c.key)]
    taking_part.sort(key=lambda c: median(m.cpu if idle else -m.done for m in results.of(name, c.key)))
    for competitor in taking_part:

        def figure(select: Select, digits: int = 0, key: str = competitor.key) -> str:
            spread = results.spread(name, key, select)
            return spread.text(digits) if spread else ""

        if idle:
            rows.append(
                [
                    competitor.name,
                    figure(lambda m: m.cpu * 100, 2),
                    figure(lambda m: m.rss_kib / 1024, 1),
                    figure(lambda m: m.fds),
                ]
            )
            continue
        ratio = results.ratio((name, competitor.key), (name, REFERENCE), lambda m: m.done)
        p50, p99 = (
            Spread.of(times)
            for times in zip(*((m.p50_ms, m.p99_ms) for m in results.of(name, competitor.key)), strict=True)
        )
        rows.append(
            [
                competitor.name,
                figure(lambda m: m.done),
                ratio.text(2) if ratio else "",
                figure(lambda m: m.cpu_us, 1),
                figure(lambda m: m.cpu_system / m.done * 1e6 if m.done else 0, 1),
                figure(lambda m: m.cpu * 100),
                figure(lambda m: m.server_cpu * 100),
                figure(lambda m: m.cycle_ms, 2),
                f"{p50.median:.0f} / {p99.median:.0f}" if p50 and p99 else "not reported",
            ]
        )
    what = "connection" if scenario.workload.activity == "connect" else "echo"
    plural = "connections" if what == "connection" else "echoes"
    if idle:
        return table(["competitor", "CPU, % of a core", "RSS, MiB", "fds"], rows)
    return table(
        [
            "competitor",
            f"{plural}/s",
            "times the blocking recipe",
            f"CPU us/{what}",
            "of it system",
            "client CPU %",
            "server CPU %",
            "cycle ms (users / rate)",
            "reported p50 / p99 ms",
        ],
        rows,
    )


def memory_table(results: Results, competitors: list[Competitor]) -> str:
    rows = []
    for competitor in competitors:
        rss = results.per_user(competitor.key, lambda m: m.rss_kib)
        fds = results.per_user(competitor.key, lambda m: m.fds)
        if rss and fds:
            beyond = results.per_connection_kib(competitor.key)
            rows.append([competitor.name, rss.text(1), beyond.text(1) if beyond else "", f"{fds.median:.2f}"])
    header = ["competitor", "RSS KiB per idle user", "beyond a Locust user without a connection", "fds per user"]
    return table(header, rows) if rows else ""


def aims(results: Results) -> str:
    """The figures that the project set itself, and where it stands."""
    names = {m.scenario for m in results.found.values()}
    rows: list[list[str]] = []

    def row(figure: str, aim: str, spread: Spread | None, digits: int = 2) -> None:
        if spread:
            rows.append([figure, aim, spread.text(digits)])

    for users in (50, 1000):
        echo = f"echo 64 B, {users} users"
        for key, engine, must in ((FAST_ENGINE, "fast", "at least 2.0"), (DEFAULT_ENGINE, "default", "at least 1.1")):
            row(
                f"echoes/s, {users} users, {engine} engine : blocking recipe",
                must,
                results.ratio((echo, key), (echo, REFERENCE), lambda m: m.echoes),
            )
            row(
                f"CPU an echo, {users} users, blocking recipe : {engine} engine",
                "the same, less blurred",
                results.ratio((echo, REFERENCE), (echo, key), lambda m: m.cpu_us),
            )
        row(
            f"CPU an echo, {users} users, fast engine : picows on uvloop without Locust",
            "at most 3",
            results.ratio((echo, FAST_ENGINE), (echo, FLOOR), lambda m: m.cpu_us),
        )
    for key, engine, must in ((FAST_ENGINE, "fast", "28"), (DEFAULT_ENGINE, "default", "24")):
        row(f"RSS KiB of a connection, {engine} engine", f"at most {must}", results.per_connection_kib(key), 1)
        row(f"fds per user, {engine} engine", "1", results.per_user(key, lambda m: m.fds))
        if "idle, 5000 users" in names:
            row(
                f"CPU of 5,000 idle users, {engine} engine, % of a core",
                "under 2",
                results.spread("idle, 5000 users", key, lambda m: m.cpu * 100),
            )
        row(
            f"growth of CPU an echo, 50 to 5,000 users, {engine} engine",
            "at most 1.3",
            results.ratio(("echo 64 B, 5000 users", key), ("echo 64 B, 50 users", key), lambda m: m.cpu_us),
        )
    return "## What it must reach\n\n" + table(["figure", "must", "measured"], rows) if rows else ""
