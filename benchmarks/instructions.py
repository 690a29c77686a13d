"""Instructions per echo, which a busy machine cannot blur, and the guard against making them more.

    python -m benchmarks.instructions                    measure and print
    python -m benchmarks.instructions --check            only the paths of this package (benchmarks/paths.py), half a
                                                         minute; fail where one is over the baseline by 5 %; on
                                                         another build of Python than the baseline's the last line
                                                         says that nothing was checked
    python -m benchmarks.instructions --write-baseline   measure both, and keep the figures in benchmarks/baseline.json
    python -m benchmarks.instructions --size 65536 --echoes 50 --compressed      for other messages, printed only

Each competitor runs under valgrind's cachegrind (its cache model off: it then only counts, at twice the speed of
callgrind and with the same total) with N echoes for each user and again with 2 N. The difference is the cost of the
echoes alone: start-up, connecting and the end fall out. User-mode instructions only; the kernel's are not seen.

The paths run under callgrind, which is told when to count. That needs a C compiler and valgrind's header.
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

TOLERANCE = 0.05
USERS = 10
COUNT = 50  # as benchmarks/paths.py has it, which this process must not import: Locust would patch it
PATHS = ("echo", "request", "connect and close", "push", "event")
ENGINES = ("websockets", "picows")
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


COUNTER = """
#include <valgrind/callgrind.h>

void start_counting(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }

void stop_counting(const char *path) { CALLGRIND_DUMP_STATS_AT(path); CALLGRIND_STOP_INSTRUMENTATION; }
"""


def paths_of(engine: str, url: str) -> dict[str, int]:
    """Instructions of each path of this package (``benchmarks/paths.py``) on this engine."""
    with tempfile.TemporaryDirectory() as scratch:
        source, library, counted = (Path(scratch, name) for name in ("counter.c", "counter.so", "counted"))
        source.write_text(COUNTER)
        compiler = shutil.which("cc") or sys.exit("cc is not on PATH: install a C compiler")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
        locust = [
            *(sys.executable, "-m", "locust", "--locustfile", str(ROOT / "benchmarks" / "paths.py"), "--headless")
        ]
        locust += [*("--skip-log", "--users", "1", "--host", url.rstrip("/"))]
        valgrind = [VALGRIND, "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={counted}"]
        process = subprocess.run(
            [*valgrind, *locust],
            cwd=ROOT,
            env=os.environ
            | {"PYTHONHASHSEED": "0", "COUNTER": str(library), "ENGINE": engine}
            | {"BENCHMARK_COUNTS_INSTRUCTIONS": "1"},
            capture_output=True,
            text=True,
        )
        found: dict[str, list[int]] = {}
        for dump in Path(scratch).glob("counted.*"):
            text = dump.read_text()
            path, total = (re.search(pattern, text, re.M) for pattern in (r"Client Request: (.+)$", r"^totals: (\d+)"))
            if path and total:
                found.setdefault(path[1], []).append(int(total[1]))
    if process.returncode or len(found) != len(PATHS):
        raise SystemExit(f"the paths of {engine} failed under valgrind: {process.stdout} {process.stderr[-2000:]}")
    return {path: round(min(found[path]) / COUNT) for path in PATHS}


def measured_paths(url: str) -> dict[str, int]:
    """Those of all engines, by "engine, path"."""
    measured: dict[str, int] = {}
    for engine in ENGINES:
        for path, count in paths_of(engine, url).items():
            measured[f"{engine}, {path}"] = count
            print(f"{engine}, {path}: {count:,}", flush=True)
    return measured


def check(measured: dict[str, int]) -> None:
    """Exit with what has become dearer, if anything has."""
    baseline = json.loads(BASELINE.read_text())
    if baseline["python"] != python():
        print(f"NOTHING WAS CHECKED: the baseline was measured on {baseline['python']}, this is {python()}")
        return
    dearer = [
        f"{path}: {count:,} instructions, {count / before - 1:+.0%} against the baseline's {before:,}"
        for path, count in measured.items()
        if count > (before := baseline["instructions_of_paths"][path]) * (1 + TOLERANCE)
    ]
    if dearer:
        sys.exit("\n".join(dearer))


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

    competitors, missing = ([], {}) if arguments.check else load_all(arguments.only)
    competitors = [competitor for competitor in competitors if competitor.compresses or not arguments.compressed]
    for key, reason in missing.items():
        print(f"left out: {key}: {reason}")
    measured: dict[str, int] = {}
    paths: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as scratch:
        server = Server(Cores(), Path(scratch))
        workload = Workload(server.url(secure=False), users=USERS, size=arguments.size, compressed=arguments.compressed)
        try:
            for competitor in competitors:
                measured[competitor.key] = per_echo(competitor, workload, arguments.echoes)
                print(f"{competitor.key}: {measured[competitor.key]:,}", flush=True)
            if arguments.check or arguments.write_baseline:
                paths = measured_paths(workload.url)
        finally:
            server.close()
    if arguments.check:
        check(paths)
        return
    names = {competitor.key: competitor.name for competitor in competitors}
    print(table(["competitor", "instructions an echo"], [[names[key], f"{n:,}"] for key, n in measured.items()]))
    if arguments.write_baseline:
        baseline = json.loads(BASELINE.read_text())
        baseline["python"] = python()
        baseline["versions"] |= {competitor.key: competitor.version for competitor in competitors}
        baseline["instructions_per_echo"] |= measured
        baseline["instructions_of_paths"] = paths
        BASELINE.write_text(json.dumps(baseline, indent=2) + "\n")


if __name__ == "__main__":
    if not (VALGRIND := shutil.which("valgrind") or ""):
        sys.exit("valgrind is not on PATH; install it with the system's package manager")
    main()
