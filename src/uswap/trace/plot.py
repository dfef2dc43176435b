"""A curve as a picture: miss ratio and time against the limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uswap._errors import UnsupportedError
from uswap.trace.curve import Curve

SUFFIXES = (".png", ".svg", ".pdf")


def require_matplotlib() -> Any:
    """matplotlib.figure. Raises UnsupportedError where it is missing."""
    try:
        from matplotlib import figure
    except ImportError as failure:
        raise UnsupportedError(f"--plot needs matplotlib: {failure}", hint="pip install 'uswap[plot]'") from failure
    return figure


def write_plot(path: Path, title: str, curve: Curve, page_bytes: int) -> None:
    """Raises UnsupportedError: matplotlib is missing. OSError: the file cannot be written."""
    figure = require_matplotlib().Figure(figsize=(11, 4), layout="constrained")
    ratios, times = figure.subplots(1, 2)
    mib = [limit * page_bytes / 2**20 for limit in curve.limits]
    ratios.plot(mib, curve.lru, color="0.5", linestyle="--", label="LRU, exact")
    for each in curve.curves:
        (line,) = ratios.plot(mib, [point.miss_ratio for point in each.points], marker="o", label=each.policy)
        times.plot(mib, [point.seconds for point in each.points], marker="o", label=each.policy)
        times.axvline(each.needed_frames * page_bytes / 2**20, color=line.get_color(), linestyle=":")
    times.axhline(curve.work_seconds, color="0.5", linestyle="--", label="without misses")
    ratios.set(title=title, xlabel="limit, MiB", ylabel="miss ratio", xscale="log", ylim=(0, None))
    times.set(title="estimated time", xlabel="limit, MiB", ylabel="s", xscale="log", ylim=(0, None))
    for axes in (ratios, times):
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
