"""The figures of a run as text: one row a pattern and configuration, the disk, and the knee of a sweep."""

from __future__ import annotations

from uswap.bench.figures import Figures, merged
from uswap.bench.patterns import pattern_named
from uswap.bench.run import KERNEL, Configuration, Plan, Results

# A smaller window or depth that reaches this part of the best is where more no longer pays.
KNEE = 0.95


def _ratio(mine: float, other: float | None) -> str:
    return f"{mine / other:8.2f}" if other else f"{'-':>8s}"


def _row(name: str, figures: Figures, disk: Figures | None, kernel: Figures | None) -> str:
    speed = figures.mb_per_second
    of_disk = _ratio(speed, disk.mb_per_second if disk else None)
    of_kernel = _ratio(speed, kernel.mb_per_second if kernel else None)
    p50, p99 = figures.percentile_us(50), figures.percentile_us(99)
    return f"  {name:42s}{speed:9.1f}{p50:10.1f}{p99:11.1f}{of_disk}{of_kernel}"


def pattern_tables(plan: Plan, results: Results) -> list[str]:
    """A table a pattern: bandwidth, latency of a page (of a request, for the disk), ratios to disk and kernel."""
    lines = []
    for pattern in plan.patterns:
        disk, runs = results.disk_of(pattern), results.kernel.get(pattern)
        kernel = merged(runs) if runs else None
        rows = [
            _row(configuration.name, merged(results.pools[configuration, pattern]), disk, kernel)
            for configuration in plan.configurations
            if (configuration, pattern) in results.pools
        ]
        if kernel:
            rows.append(_row(KERNEL, kernel, disk, None))
        if disk:
            job = pattern_named(pattern).disk
            rows.append(_row(f"the disk: {job.name}", disk, None, None))
        if rows:
            head = f"{'MB/s':>9s}{'p50 us':>10s}{'p99 us':>11s}{'/disk':>8s}{'/kernel':>8s}"
            lines += ["", f"{pattern:44s}{head}", *rows]
    return lines


def disk_table(results: Results) -> list[str]:
    """The disk through the core's I/O layer beside fio, medians of runs taken in turn."""
    if not results.raw:
        return []
    head = f"{'MB/s':>9s}{'p50 us':>10s}{'p99 us':>11s}{'fio MB/s':>10s}{'/fio':>8s}"
    lines = ["", f"{'the disk by itself (O_DIRECT)':44s}{head}"]
    for job, runs in results.raw.items():
        figures, fio = merged(runs), results.fio.get(job)
        theirs = merged(fio).mb_per_second if fio else None
        shown = f"{theirs:10.1f}" if theirs else f"{'-':>10s}"
        lines.append(
            f"  {job.name:42s}{figures.mb_per_second:9.1f}{figures.percentile_us(50):10.1f}"
            f"{figures.percentile_us(99):11.1f}{shown}{_ratio(figures.mb_per_second, theirs)}"
        )
    return lines


def sweep_tables(plan: Plan, results: Results) -> list[str]:
    """Where several windows and several depths were asked for: MB/s by window and depth, and the knee."""
    windows = sorted({configuration.window for configuration in plan.configurations})
    depths = sorted({configuration.depth for configuration in plan.configurations})
    lines: list[str] = []
    if len(windows) < 2 or len(depths) < 2:
        return lines
    ways = dict.fromkeys((each.transport, each.faults, each.io) for each in plan.configurations)
    for pattern in plan.patterns:
        for transport, faults, io in ways:
            speed = {
                (window, depth): merged(runs).mb_per_second
                for window in windows
                for depth in depths
                if (runs := results.pools.get((Configuration(window, depth, transport, faults, io), pattern)))
            }
            if not speed:
                continue
            lines += [
                "",
                f"{pattern}, {transport}, {faults}: MB/s by window (pages, down) and depth (requests, across)",
            ]
            lines.append(f"{'':8s}" + "".join(f"{depth:>9d}" for depth in depths))
            for window in windows:
                cells = (
                    f"{speed[window, depth]:9.0f}" if (window, depth) in speed else f"{'-':>9s}" for depth in depths
                )
                lines.append(f"{window:>8d}" + "".join(cells))
            window, depth = knee(speed)
            lines.append(f"knee: window {window}, depth {depth} ({100 * KNEE:.0f} % of the best)")
    return lines


def knee(speed: dict[tuple[int, int], float]) -> tuple[int, int]:
    """The smallest window, and with it the smallest depth, that reaches KNEE of the best.

    Example:
        >>> knee({(8, 1): 10.0, (8, 4): 20.0, (64, 1): 97.0, (64, 4): 100.0})
        (64, 1)
    """
    best = max(speed.values())
    return min(at for at, value in speed.items() if value >= KNEE * best)
