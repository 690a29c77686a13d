"""The same results as pictures."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from .measuring import Measurement
from .report import Results, Select, measured_scenarios

OURS = "#2a7f62"
OTHERS = "#9aa5b1"


def write_plots(folder: Path, label: str, measurements: list[Measurement]) -> None:
    results = Results(measurements)
    names = measured_scenarios(results)
    echo = [name for name in names if name.startswith("echo 64 B") and name.endswith("users")]
    if echo:
        bars(folder / f"{label}-echoes.png", "echoes per second on one core", results, echo, lambda m: m.echoes)
        bars(folder / f"{label}-cpu.png", "CPU per echo, microseconds", results, echo, lambda m: m.cpu_us)
    if idle := [name for name in names if name.startswith("idle,")][-1:]:
        bars(folder / f"{label}-memory.png", "RSS, MiB", results, idle, lambda m: m.rss_kib / 1024)


def bars(path: Path, title: str, results: Results, scenarios: list[str], select: Select) -> None:
    """One panel for each scenario: a bar at the median, a line from minimum to maximum."""
    taking_part = [key for key in results.names if any(results.of(scenario, key) for scenario in scenarios)]
    figure, axes = pyplot.subplots(1, len(scenarios), figsize=(5 * len(scenarios) + 2, 0.4 * len(taking_part) + 1.6))
    for axis, scenario in zip([axes] if len(scenarios) == 1 else axes, scenarios, strict=True):
        spreads = [(key, results.spread(scenario, key, select)) for key in taking_part]
        found = sorted(((key, s) for key, s in spreads if s), key=lambda pair: pair[1].median)
        axis.barh(
            [results.names[key] for key, _ in found],
            [s.median for _, s in found],
            xerr=([s.median - s.low for _, s in found], [s.high - s.median for _, s in found]),
            color=[OURS if key.startswith("ours") else OTHERS for key, _ in found],
            error_kw={"elinewidth": 1},
        )
        axis.set_title(scenario)
        axis.set_xlabel(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
