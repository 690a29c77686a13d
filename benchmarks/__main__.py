"""``python -m benchmarks``: about two minutes. ``python -m benchmarks --full``: everything; it says how long it is."""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from pathlib import Path

from .competitors import Competitor, load_all
from .machine import Cores, raise_file_limit
from .measuring import Measurement, Server, measure
from .plots import write_plots
from .report import markdown, read_csv, write_csv
from .scenarios import FULL, SHORT, Scenario


def parse_arguments() -> argparse.Namespace:
    def words(text: str) -> list[str]:
        return [word.replace("-", "_") for word in text.split(",") if word]

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--full", action="store_true", help="all scenarios, five rounds, instead of the short selection"
    )
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default: 2, with --full 5)")
    parser.add_argument("--only", type=words, default=[], metavar="A,B", help="competitors, by the name of their file")
    parser.add_argument("--part", type=words, default=[], metavar="A,B", help=f"with --full, of {', '.join(FULL)}")
    parser.add_argument(
        "--users", type=words, default=[], metavar="N,N", help="only scenarios with these numbers of users"
    )
    parser.add_argument("--scenario", default="", metavar="TEXT", help="only scenarios whose name contains this")
    parser.add_argument("--resume", action="store_true", help="keep what the CSV of this label has, measure the rest")
    parser.add_argument("--plan", action="store_true", help="say what would be measured and how long it takes, and end")
    parser.add_argument(
        "--label", help="how the result files' names begin (default: short; full; part for some of --full)"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", metavar="DIR")
    arguments = parser.parse_args()
    if unknown := set(arguments.part) - set(FULL):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(FULL)}")
    return arguments


SHORT_COMPETITORS = ["blocking", "ours_picows", "ours_websockets", "uvloop_picows"]

Turn = tuple[str, int, Scenario, Competitor]
"""Part, round, and what is then measured."""


def turns(parts: dict[str, list[Scenario]], rounds: int, competitors: list[Competitor]) -> list[Turn]:
    """In order: interleaved rounds of the first part, then of the next."""
    return [
        (part, round_number, scenario, competitor)
        for part, scenarios in parts.items()
        for round_number in range(1, rounds + 1)
        for scenario in scenarios
        # Another one begins in each round, lest the same is always measured on a machine still busy.
        for competitor in rotated(competitors, round_number)
        if competitor.takes_part(scenario)
    ]


def rotated(competitors: list[Competitor], by: int) -> list[Competitor]:
    by %= len(competitors)
    return competitors[by:] + competitors[:by]


def plan(to_do: list[Turn]) -> str:
    minutes: dict[str, float] = {}
    for part, _, scenario, _ in to_do:
        minutes[part] = minutes.get(part, 0) + scenario.expected / 60
    parts = ", ".join(f"{part} {time:.0f}" for part, time in minutes.items())
    return f"{len(to_do)} measurements, about {sum(minutes.values()):.0f} minutes ({parts})"


def main() -> None:
    arguments = parse_arguments()
    parts = {
        part: [
            scenario
            for scenario in scenarios
            if arguments.scenario in scenario.name
            and (not arguments.users or str(scenario.workload.users) in arguments.users)
        ]
        for part, scenarios in (FULL if arguments.full else SHORT).items()
        if not arguments.part or part in arguments.part
    }
    some = arguments.part or arguments.users or arguments.scenario or arguments.only
    # A part of the full run does not take the place of its results, unless it is to complete them.
    whole = "full" if not some or arguments.resume else "part"
    label = arguments.label or (whole if arguments.full else "short")
    csv = arguments.output / f"{label}.csv"
    competitors, missing = load_all(arguments.only or ([] if arguments.full else SHORT_COMPETITORS))
    for key, reason in missing.items():
        print(f"left out: {key}: {reason}")

    measurements: list[Measurement] = []
    if arguments.resume and csv.exists():
        measurements = [m for m in read_csv(csv) if not m.failure]
    done = {(m.round, m.scenario, m.competitor) for m in measurements}
    to_do = [
        (part, round_number, scenario, competitor)
        for part, round_number, scenario, competitor in turns(
            parts, arguments.rounds or (5 if arguments.full else 2), competitors
        )
        if (round_number, scenario.name, competitor.key) not in done
    ]
    cores = Cores()
    print(f"{cores}; {plan(to_do)}", flush=True)
    if arguments.plan:
        return
    if not to_do:
        raise SystemExit("nothing to measure: no scenario and competitor match the options, or all is done")

    arguments.output.mkdir(parents=True, exist_ok=True)

    def write() -> str:
        write_csv(csv, measurements)
        page = markdown(measurements, missing, str(cores))
        csv.with_suffix(".md").write_text(page)
        write_plots(arguments.output, label, measurements)
        return page

    raise_file_limit()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was measured is kept
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        server = Server(cores, Path(scratch))
        try:
            for index, (part, round_number, scenario, competitor) in enumerate(to_do):
                measurements.append(measure(competitor, scenario, round_number, server, cores))
                print(line(measurements[-1]), flush=True)
                rest = to_do[index + 1 :]
                if rest and rest[0][:2] != (part, round_number):
                    write()
                    taken = (time.monotonic() - started) / 60
                    print(f"round {round_number} of {part} is written, after {taken:.0f} minutes; left: {plan(rest)}")
        except KeyboardInterrupt:
            print("stopped: the report covers what was measured")
        finally:
            server.close()

    print(f"\n{write()}\nwritten to {arguments.output}")


def line(m: Measurement) -> str:
    if m.failure:
        return f"{m.round}  {m.scenario:28} {m.competitor:28} failed: {m.failure}"
    return (
        f"{m.round}  {m.scenario:28} {m.competitor:28} {m.done:8,.0f}/s  {m.cpu_us:7.1f} us  "
        f"client {m.cpu:6.1%}  server {m.server_cpu:4.0%}  {m.rss_kib / 1024:6.1f} MiB"
    )


if __name__ == "__main__":
    main()
