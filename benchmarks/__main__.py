"""``python -m benchmarks``: about two minutes. ``python -m benchmarks --full``: everything, for hours."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from .competitors import load_all
from .measuring import Cores, Measurement, Server, measure, raise_file_limit
from .plots import write_plots
from .report import markdown, write_csv
from .scenarios import FULL, SHORT


def parse_arguments() -> argparse.Namespace:
    def words(text: str) -> list[str]:
        return [word.replace("-", "_") for word in text.split(",") if word]

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--full", action="store_true", help="all scenarios, five rounds, instead of the short selection"
    )
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default: 2, with --full 5)")
    parser.add_argument("--only", type=words, default=[], metavar="A,B", help="competitors, by the name of their file")
    parser.add_argument(
        "--users", type=words, default=[], metavar="N,N", help="only scenarios with these numbers of users"
    )
    parser.add_argument("--scenario", default="", metavar="TEXT", help="only scenarios whose name contains this")
    parser.add_argument("--label", help="how the result files' names begin (default: short, or full)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", metavar="DIR")
    return parser.parse_args()


SHORT_COMPETITORS = ["bare_locust", "blocking", "ours_picows", "ours_websockets", "uvloop_picows"]


def main() -> None:
    arguments = parse_arguments()
    scenarios = [
        scenario
        for scenario in (FULL if arguments.full else SHORT)
        if arguments.scenario in scenario.name
        and (not arguments.users or str(scenario.workload.users) in arguments.users)
    ]
    rounds = arguments.rounds or (5 if arguments.full else 2)
    label = arguments.label or ("full" if arguments.full else "short")
    competitors, missing = load_all(arguments.only or ([] if arguments.full else SHORT_COMPETITORS))
    for key, reason in missing.items():
        print(f"left out: {key}: {reason}")

    raise_file_limit()
    cores = Cores()
    print(cores)
    measurements: list[Measurement] = []
    with tempfile.TemporaryDirectory() as scratch:
        server = Server(cores, Path(scratch))
        try:
            for round_number in range(1, rounds + 1):
                # Another one begins in each round, lest the same is always measured on a machine still busy.
                turn = round_number % len(competitors)
                for scenario in scenarios:
                    for competitor in competitors[turn:] + competitors[:turn]:
                        if competitor.takes_part(scenario):
                            measurements.append(measure(competitor, scenario, round_number, server, cores))
                            print(line(measurements[-1]), flush=True)
        except KeyboardInterrupt:
            print("stopped: the report covers what was measured")
        finally:
            server.close()
    if not measurements:
        raise SystemExit("nothing was measured: no scenario and competitor match the options")

    arguments.output.mkdir(parents=True, exist_ok=True)
    write_csv(arguments.output / f"{label}.csv", measurements, competitors)
    page = markdown(measurements, scenarios, competitors, missing, str(cores))
    (arguments.output / f"{label}.md").write_text(page)
    write_plots(arguments.output, label, measurements, scenarios, competitors)
    print(f"\n{page}\nwritten to {arguments.output}")


def line(m: Measurement) -> str:
    if m.failure:
        return f"{m.round}  {m.scenario:28} {m.competitor:28} failed: {m.failure}"
    return (
        f"{m.round}  {m.scenario:28} {m.competitor:28} {m.done:8,.0f}/s  {m.cpu_us:7.1f} us  "
        f"client {m.cpu:4.0%}  server {m.server_cpu:4.0%}  {m.rss_kib / 1024:6.1f} MiB"
    )


if __name__ == "__main__":
    main()
