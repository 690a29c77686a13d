"""Instructions per echo, which a busy machine cannot blur, and the guard against making them more.

    python -m benchmarks.instructions                    measure and print
    python -m benchmarks.instructions --check            and fail where a figure is over the baseline by 10 %; on
                                                         another build of Python than the baseline's the last line
                                                         says that nothing was checked
    python -m benchmarks.instructions --write-baseline   and keep the figures in benchmarks/baseline.json
    python -m benchmarks.instructions --size 65536 --echoes 50 --compressed      for other messages, printed only

Each competitor runs under valgrind's cachegrind (its cache model off: it then only counts, at twice the speed of
callgrind and with the same total) with N echoes for each user and again with 2 N. The difference is the cost of the
echoes alone: start-up, connecting and the end fall out. User-mode instructions only; the kernel's are not seen.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .competitors import Competitor, load_all
from .machine import Cores, python
from .measuring import ROOT, Server
from .report import BASELINE, table
from .workload import Workload

TOLERANCE = 0.10
USERS = 10
COMPETITORS = [
    "ours_websockets",
    "ours_picows",
    "asyncio_websockets",
    "asyncio_websockets_timed",
    "blocking",
    "uvloop_picows",
    "uvloop_picows_timed",
    "uvloop_websockets",
]


def instructions(competitor: Competitor, workload: Workload, valgrind: list[str]) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        command = competitor.host.command(competitor.file, workload, Path(scratch))
        # The hash seed decides how dictionaries collide.
        environment = (
            os.environ | workload.environment() | {"PYTHONHASHSEED": "0", "BENCHMARK_COUNTS_INSTRUCTIONS": "1"}
        )
        process = subprocess.run([*valgrind, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    counted = re.search(r"I\s+refs:\s+([\d,]+)", process.stderr)
    if process.returncode or not counted:
        raise SystemExit(f"{competitor.key} failed under valgrind: {process.stderr[-2000:]}")
    return int(counted[1].replace(",", ""))


def per_echo(competitor: Competitor, workload: Workload, echoes: int) -> int:
    valgrind = [VALGRIND, "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    few, many = (
        instructions(competitor, dataclasses.replace(workload, echoes=count), valgrind)
        for count in (echoes, 2 * echoes)
    )
    return round((many - few) / (workload.users * echoes))


def unchecked(measured: dict[str, int]) -> str | None:
    """Why none of these figures can be checked, if that is so."""
    baseline = json.loads(BASELINE.read_text())
    if baseline["python"] != python():
        return f"the baseline was measured on {baseline['python']}, this is {python()}"
    if not measured.keys() & baseline["instructions_per_echo"].keys():
        return "the baseline has none of these competitors"
    return None


def over_baseline(measured: dict[str, int], versions: dict[str, str]) -> list[str]:
    """What has become dearer, each as a sentence."""
    baseline = json.loads(BASELINE.read_text())
    for key, version in versions.items():
        if key in baseline["versions"] and baseline["versions"][key] != version:
            print(f"note: the baseline of {key} was measured with {baseline['versions'][key]}, this is {version}")
    return [
        f"{key}: {count:,} instructions an echo, {count / before - 1:+.0%} against the baseline's {before:,}"
        for key, count in measured.items()
        if (before := baseline["instructions_per_echo"].get(key)) and count > before * (1 + TOLERANCE)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", type=lambda text: text.replace("-", "_").split(","), default=COMPETITORS, metavar="A,B"
    )
    parser.add_argument("--echoes", type=int, default=300, help=f"N, for each of {USERS} users (default: 300)")
    parser.add_argument("--size", type=int, default=Workload.size, help=f"bytes (default: {Workload.size})")
    parser.add_argument("--compressed", action="store_true", help="those that can")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--write-baseline", action="store_true")
    arguments = parser.parse_args()
    if (arguments.check or arguments.write_baseline) and (arguments.compressed or arguments.size != Workload.size):
        parser.error("the baseline is of plain messages of the default size")

    competitors, missing = load_all(arguments.only)
    competitors = [competitor for competitor in competitors if competitor.compresses or not arguments.compressed]
    for key, reason in missing.items():
        print(f"left out: {key}: {reason}")
    measured: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as scratch:
        server = Server(Cores(), Path(scratch))
        workload = Workload(server.url(secure=False), users=USERS, size=arguments.size, compressed=arguments.compressed)
        try:
            for competitor in competitors:
                measured[competitor.key] = per_echo(competitor, workload, arguments.echoes)
                print(f"{competitor.key}: {measured[competitor.key]:,}", flush=True)
        finally:
            server.close()
    names = {competitor.key: competitor.name for competitor in competitors}
    print(table(["competitor", "instructions an echo"], [[names[key], f"{n:,}"] for key, n in measured.items()]))
    versions = {competitor.key: competitor.version for competitor in competitors}
    if arguments.write_baseline:
        baseline = json.loads(BASELINE.read_text())
        baseline["python"] = python()
        baseline["versions"] |= versions
        baseline["instructions_per_echo"] |= measured
        BASELINE.write_text(json.dumps(baseline, indent=2) + "\n")
    if arguments.check:
        if reason := unchecked(measured):
            print(f"NOTHING WAS CHECKED: {reason}")
        elif dearer := over_baseline(measured, versions):
            sys.exit("\n".join(dearer))


if __name__ == "__main__":
    if not (VALGRIND := shutil.which("valgrind") or ""):
        sys.exit("valgrind is not on PATH; install it with the system's package manager")
    main()
