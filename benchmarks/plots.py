"""The same results as pictures."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from .competitors import Competitor
from .measuring import Measurement
from .report import Results, Select
from .scenarios import Scenario

OURS = "#2a7f62"
OTHERS = "#9aa5b1"


def write_plots(
    folder: Path, label: str, measurements: list[Measurement], scenarios: list[Scenario], competitors: list[Competitor]
) -> list[Path]:
    results = Results(measurements)
    echo = [s.name for s in scenarios if s.name.startswith("echo 64 B") and "," not in s.name.split("users")[1]]
    written = []
    if echo:
        written.append(
            bars(
                folder / f"{label}-echoes.png",
                "echoes per second on one core",
                results,
                echo,
                competitors,
                lambda m: m.echoes,
            )
        )
        written.append(
            bars(
                folder / f"{label}-cpu.png",
                "CPU per echo, microseconds",
                results,
                echo,
                competitors,
                lambda m: m.cpu_us,
            )
        )
    idle = [s.name for s in scenarios if s.name.startswith("idle,")][-1:]
    if idle:
        written.append(
            bars(folder / f"{label}-memory.png", "RSS, MiB", results, idle, competitors, lambda m: m.rss_kib / 1024)
        )
    return written


def bars(
    path: Path, title: str, results: Results, scenarios: list[str], competitors: list[Competitor], select: Select
) -> Path:
    """One panel for each scenario: a bar at the median, a line from minimum to maximum."""
    figure, axes = pyplot.subplots(1, len(scenarios), figsize=(5 * len(scenarios) + 2, 0.4 * len(competitors) + 1.6))
    for axis, scenario in zip([axes] if len(scenarios) == 1 else axes, scenarios, strict=True):
        spreads = [(c, results.spread(scenario, c.key, select)) for c in competitors]
        found = sorted(((c, s) for c, s in spreads if s), key=lambda pair: pair[1].median)
        axis.barh(
            [c.name for c, _ in found],
            [s.median for _, s in found],
            xerr=([s.median - s.low for _, s in found], [s.high - s.median for _, s in found]),
            color=[OURS if c.key.startswith("ours") else OTHERS for c, _ in found],
            error_kw={"elinewidth": 1},
        )
        axis.set_title(scenario)
        axis.set_xlabel(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
