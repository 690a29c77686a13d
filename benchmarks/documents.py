"""Puts the measured figures into README.md and into docs/.

    python -m benchmarks.documents              from results/full.csv (and results/distributed.md, if there)
    python -m benchmarks.documents --label short

A document has a line ``<!-- measured: NAME -->`` where figures belong, and ``<!-- end -->`` behind them. This replaces
what is between the two. A figure that the run did not measure is a dash.
"""

from __future__ import annotations

import argparse
import json
import re
from math import ceil
from pathlib import Path

from .measuring import ROOT, Measurement
from .report import BASELINE, DEFAULT_ENGINE, FAST_ENGINE, REFERENCE, Results, Select, read_csv, table

RESULTS = Path(__file__).parent / "results"
DOCUMENTS = [ROOT / "docs" / "comparison.md", ROOT / "docs" / "scaling.md", ROOT / "docs" / "engines.md"]
CONNECTIONS_A_WORKER = 20_000


class Figures:
    """The blocks, one method each, named as in the documents."""

    def __init__(self, label: str) -> None:
        self.label = label
        measurements = read_csv(RESULTS / f"{label}.csv")
        self.results = Results(measurements)
        self.machine = measurements[0].machine

    def median(self, scenario: str, key: str, select: Select) -> float | None:
        spread = self.results.spread(scenario, key, select)
        return spread.median if spread else None

    def memory(self, key: str, kind: str = "idle,") -> float | None:
        """KiB of an idle connected user."""
        spread = self.results.per_user(key, lambda m: m.rss_kib, kind)
        return spread.median if spread else None

    def row(self, title: str, text: str, scenario: str, select: Select, keys: tuple[str, ...]) -> list[str]:
        return [title, *(written(text, self.median(scenario, key, select)) for key in keys)]

    def connects(self, keys: tuple[str, ...]) -> list[list[str]]:
        return [
            self.row(
                f"CPU to connect and close, `{scheme}`",
                "{:.1f} ms",
                f"connect {scheme}, 50 users",
                lambda m: m.cpu_us / 1000,
                keys,
            )
            for scheme in ("ws", "wss")
        ]

    def memories(self, keys: tuple[str, ...]) -> list[list[str]]:
        return [
            [
                f"memory of an idle connected user, `{scheme}`",
                *(written("{:.0f} KiB", self.memory(key, kind)) for key in keys),
            ]
            for scheme, kind in (("ws", "idle,"), ("wss", "idle wss,"))
        ]

    def compared(self) -> str:
        """Comparison: what an echo and a connection cost, beside the blocking recipe and k6."""
        keys = (DEFAULT_ENGINE, FAST_ENGINE, REFERENCE, "k6")
        instructions = json.loads(BASELINE.read_text())["instructions_per_echo"]
        users = {50: "50 users", 1000: "1,000 users", 5000: "5,000 users"}
        rows = [
            *(
                self.row(f"echoes per second, {text}", "{:,.0f}", f"echo 64 B, {n} users", lambda m: m.echoes, keys)
                for n, text in users.items()
            ),
            *(
                self.row(f"CPU of an echo, {text}", "{:.0f} us", f"echo 64 B, {n} users", lambda m: m.cpu_us, keys)
                for n, text in users.items()
            ),
            [
                "user-mode instructions of an echo",
                *(f"{instructions[key] / 1000:.0f} k" if key in instructions else "-" for key in keys),
            ],
            *self.connects(keys),
            ["memory of an idle connected user", *(written("{:.0f} KiB", self.memory(key)) for key in keys)],
        ]
        title = "echo of 64 bytes, each send and receive reported"
        header = [title, "default engine", "`picows`", "blocking recipe", "k6"]
        return (
            f"What each client costs on one core ([all figures](../benchmarks/results/{self.label}.md), "
            f"[how they are measured](../benchmarks/README.md)):\n\n"
            f"{table(header, rows)}\n"
            f"The machine is {self.machine}. Each figure but the instructions is the median of "
            f"{self.results.rounds()} interleaved rounds. "
            "k6 reports one time for each echo, not two. Its memory is that of a VU with one connection.\n\n"
            f"![CPU of an echo](../benchmarks/results/{self.label}-cpu.png)\n"
        )

    def engines(self) -> str:
        """Engines: where they differ."""
        keys = (DEFAULT_ENGINE, FAST_ENGINE, REFERENCE)
        sizes = {"64 B": "64 bytes", "1 KiB": "1 KiB", "64 KiB": "64 KiB"}
        rows = [
            *(
                self.row(f"echoes per second, {text}, 50 users", "{:,.0f}", f"echo {size}, 50 users", rate, keys)
                for size, text in sizes.items()
            ),
            *self.memories(keys),
        ]
        return table(["one core", "`websockets`", "`picows`", "blocking recipe"], rows)

    def worker(self) -> str:
        """Scaling: what one worker carries."""
        keys = (DEFAULT_ENGINE, FAST_ENGINE)
        rows = [
            *(
                self.row(
                    f"echoes per second, {n:,} users", "{:,.0f}", f"echo 64 B, {n} users", lambda m: m.echoes, keys
                )
                for n in (50, 1000, 5000)
            ),
            *self.connects(keys),
            *self.memories(keys),
            self.row(
                "CPU of 5,000 idle connected users",
                "{:.1f} % of a core",
                "idle, 5000 users",
                lambda m: m.cpu * 100,
                keys,
            ),
        ]
        return (
            table(["one worker, one core", "default engine", "`picows`"], rows)
            + f"\nThe machine is {self.machine}. Messages have 64 bytes, and every send and receive is reported. "
            f"There are [more figures](../benchmarks/results/{self.label}.md).\n"
        )

    def workers(self) -> str:
        """Scaling: how many workers, by half of what one can do with the most users, and an idle user's memory."""
        rate = self.median("echo 64 B, 5000 users", DEFAULT_ENGINE, lambda m: m.echoes)
        memory = self.memory(DEFAULT_ENGINE)
        rows = []
        for connections in (10_000, 100_000, 1_000_000):
            for every in (10, 1):
                messages = connections / every
                workers = max(ceil(messages / (rate / 2)), ceil(connections / CONNECTIONS_A_WORKER)) if rate else 0
                rows.append(
                    [
                        f"{connections:,}",
                        f"every {f'{every} s' if every > 1 else 'second'} ({messages:,.0f}/s)",
                        f"{workers:,}" if rate else "-",
                        f"{connections * memory / 2**20:.1f} GiB" if memory else "-",
                    ]
                )
        header = ["connections", "each user sends and receives one message", "workers", "memory of the connections"]
        return table(header, rows)

    def master(self) -> str:
        """Scaling: what `benchmarks.distributed` wrote."""
        return (RESULTS / "distributed.md").read_text()


def rate(m: Measurement) -> float:
    return m.echoes


def written(text: str, figure: float | None) -> str:
    return "-" if figure is None else text.format(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.documents",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--label", default="full", help="of the results (default: full)")
    figures = Figures(parser.parse_args().label)

    def block(found: re.Match[str]) -> str:
        name = found[1]
        if name == "master" and not (RESULTS / "distributed.md").exists():
            return found[0]
        return f"<!-- measured: {name} -->\n{getattr(figures, name)()}<!-- end -->"

    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        new, count = re.subn(r"<!-- measured: (\w+) -->\n.*?<!-- end -->", block, text, flags=re.DOTALL)
        document.write_text(new, encoding="utf-8")
        print(f"{document.relative_to(ROOT)}: {count} blocks")


if __name__ == "__main__":
    main()
