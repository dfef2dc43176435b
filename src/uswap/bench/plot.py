"""Bandwidth and latency against the read-ahead window, as a picture (png) or a page with one (html)."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import Any

from uswap._errors import UnsupportedError
from uswap.bench.figures import merged
from uswap.bench.run import KERNEL, Plan, Results

SUFFIXES = (".png", ".html")


def require_matplotlib() -> Any:
    """matplotlib.figure. Raises UnsupportedError where it is missing."""
    try:
        from matplotlib import figure
    except ImportError as failure:
        raise UnsupportedError(f"--plot needs matplotlib: {failure}", hint="pip install 'uswap[plot]'") from failure
    return figure


def _draw(plan: Plan, results: Results) -> Any:
    """A row a pattern: bandwidth on the left, p50 and p99 on the right."""
    figure = require_matplotlib().Figure(figsize=(11, 3.2 * len(plan.patterns)), layout="constrained")
    ways = dict.fromkeys((each.depth, each.transport, each.faults, each.io) for each in plan.configurations)
    for row, pattern in enumerate(plan.patterns):
        speed = figure.add_subplot(len(plan.patterns), 2, 2 * row + 1)
        latency = figure.add_subplot(len(plan.patterns), 2, 2 * row + 2)
        for way in ways:
            points = sorted(
                (configuration.window, merged(runs))
                for (configuration, of), runs in results.pools.items()
                if of == pattern
                and (configuration.depth, configuration.transport, configuration.faults, configuration.io) == way
            )
            windows = [str(window) for window, _ in points]
            label = f"depth {way[0]}, {way[1]}, {way[2]}"
            speed.plot(windows, [figures.mb_per_second for _, figures in points], marker="o", label=label)
            (line,) = latency.plot(
                windows, [each.percentile_us(50) for _, each in points], marker="o", label=f"p50, {label}"
            )
            latency.plot(
                windows,
                [each.percentile_us(99) for _, each in points],
                marker="^",
                linestyle="--",
                color=line.get_color(),
                label=f"p99, {label}",
            )
        if disk := results.disk_of(pattern):
            speed.axhline(disk.mb_per_second, color="0.5", linestyle=":", label="the disk by itself")
        if runs := results.kernel.get(pattern):
            speed.axhline(merged(runs).mb_per_second, color="0.2", linestyle="-.", label=KERNEL)
        speed.set(title=pattern, xlabel="window, pages", ylabel="MB/s", ylim=(0, None))
        latency.set(title=f"{pattern}: a page", xlabel="window, pages", ylabel="us", yscale="log")
        speed.legend(fontsize="small")
        latency.legend(fontsize="small")
    return figure


def write_plot(path: Path, plan: Plan, results: Results, text: str) -> None:
    """Writes the picture; a page also has the tables (text).

    Raises:
        UnsupportedError: matplotlib is missing. OSError: the file cannot be written.
    """
    figure = _draw(plan, results)
    if path.suffix == ".png":
        figure.savefig(path, dpi=120)
        return
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg")
    svg = drawing.getvalue()
    path.write_text(
        "<!doctype html>\n<meta charset='utf-8'>\n<title>uswap bench</title>\n"
        f"{svg[svg.index('<svg') :]}\n<pre>{html.escape(text)}</pre>\n",
        encoding="utf-8",
    )
