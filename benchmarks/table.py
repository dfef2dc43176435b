"""The summary of bench_patterns.py: medians, ratios to each other side and to the disk, and what is aimed at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import harness
import worker

GIB = 1 << 30


@dataclass(frozen=True)
class Row:
    """What a pattern is held against.

    Attributes:
        fio: its jobs; the best of them counts.
        over_kernel, over_fio: the ratios of throughput aimed at; None: none.
        inline_kernel, inline_fio: the same where threads serve their own faults.
        per_miss: the disk's figure is held against an access that missed, not against all.
    """

    fio: tuple[str, ...] = ()
    over_kernel: float | None = None
    over_fio: float | None = None
    inline_kernel: float | None = None
    inline_fio: float | None = None
    per_miss: bool = False


_READ = ("read_1MiB_depth8", "read_256KiB_depth6")
ROWS = {
    "fill_new": Row(over_kernel=3),
    "fill": Row(("write_1MiB_depth8", "write_256KiB_depth8"), 3, 0.8),
    "seq_read": Row(_READ, 6, 0.9),
    "seq_write": Row(("mixed_256KiB_depth8",)),
    "seq_rmw": Row(("mixed_256KiB_depth8",), 3.5, 0.7),
    "back_read": Row(_READ, 6, 0.9),
    "two_streams": Row(_READ, 6, 0.8),
    "stride_read": Row(("randread_4KiB_depth32",), 6, 0.8),
    "rand_read": Row(("randread_4KiB_depth1",), 0.9, 0.7, 1.0, 0.85, per_miss=True),
    "rand_write": Row(),
    "rand_rmw": Row((), 1.1),
    "rand_read_8": Row(("randread_4KiB_depth8",), 1.5, 0.8, per_miss=True),
    "records_read": Row((), 1.0),
    "zipf_read": Row((), 1.5),
}
SEQUENTIAL = ("fill_new", "fill", "seq_read", "seq_write", "seq_rmw", "back_read", "two_streams")


def _misses(run: dict[str, Any]) -> int:
    counters = run["counters"]
    return int(counters.get("major_faults", counters.get("pgmajfault", 0)))


def _moved_gib(run: dict[str, Any]) -> float:
    """GiB that went in and out of swap."""
    counters = run["counters"]
    pages = counters.get("pages_in", counters.get("pswpin", 0)) + counters.get(
        "pages_out", counters.get("pswpout", 0)
    )
    return float(pages) * worker.PAGE / GIB


def _throughput(run: dict[str, Any], misses_only: bool = False) -> float:
    """Accesses (or misses) a second."""
    return float(_misses(run) if misses_only else run["accesses"]) / float(run["seconds"])


def _disk_throughput(row: Row, pattern: str, disk: dict[str, float]) -> float | None:
    """Pages a second of the best job; of a mixed job the half that is read."""
    found = [disk[job] * (0.5 if job.startswith("mixed") else 1) for job in row.fio if job in disk]
    return max(found) * 1e6 / worker.PAGE if found else None


def _cpu_per_gib(runs: list[dict[str, Any]], idle_rate: float) -> float | None:
    """CPU seconds of the machine, less those of an idle one, a GiB swapped; the median."""
    return harness.median(
        [
            (run["cpu_seconds"]["machine"] - idle_rate * run["seconds"]) / moved
            for run in runs
            if (moved := _moved_gib(run)) > 0.01
        ]
    )


def _over(mine: float | None, other: float | None) -> float | None:
    return mine / other if mine and other else None


def summarize(report: dict[str, Any], patterns: list[str], sides: list[str]) -> list[dict[str, Any]]:
    """Per pattern: medians of each side in the pattern's unit, and for each of ours the ratios and targets."""
    rows = []
    for pattern in patterns:
        row, runs = ROWS[pattern], [run for run in report["runs"] if run["pattern"] == pattern]
        of = {side: [run for run in runs if run["side"] == side] for side in sides}
        unit = worker.PATTERNS[pattern][1]
        name = "mb_per_second" if unit == "MB/s" else "us_per_access"
        rate = {side: harness.median([_throughput(run) for run in of[side]]) for side in sides}
        disk = _disk_throughput(row, pattern, report["disk"])
        cpu = {side: _cpu_per_gib(of[side], report.get("idle_cpu", 0.0)) for side in sides if side != "memmap"}
        entry: dict[str, Any] = {
            "pattern": pattern,
            "unit": unit,
            "fio": row.fio,
            "median": {side: harness.median([run[name] for run in of[side]]) for side in sides},
            "cpu_seconds_per_gib": cpu,
            "ours": {},
        }
        for side in sides:
            if side in ("kernel", "memmap") or not of[side]:
                continue
            inline = side == "inline"
            per_miss = harness.median([_throughput(run, row.per_miss) for run in of[side]])
            waits = sum(run["counters"]["write_waits"] for run in of[side])
            entry["ours"][side] = {
                "over_kernel": _over(rate[side], rate.get("kernel")),
                "over_memmap": _over(rate[side], rate.get("memmap")),
                "over_fio": _over(per_miss, disk),
                "cpu_over_kernel": _over(cpu.get(side), cpu.get("kernel")),
                "write_waits_share": waits / max(1, sum(run["counters"]["faults"] for run in of[side])),
                "target_kernel": row.inline_kernel if inline and row.inline_kernel else row.over_kernel,
                "target_fio": row.inline_fio if inline and row.inline_fio else row.over_fio,
            }
        rows.append(entry)
    return rows


# ---- printing ----------------------------------------------------------------------------------------------


def _number(value: float | None, decimals: int = 2) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _judged(value: float | None, target: float | None) -> str:
    """The ratio, what is aimed at, and whether it is met."""
    if value is None:
        return "-"
    if target is None:
        return f"{value:.2f}"
    return f"{value:.2f} ({target:g} {'met' if value >= target else 'SHORT'})"


def print_table(rows: list[dict[str, Any]], sides: list[str], disk: dict[str, float]) -> None:
    """The medians; the ratios of each of our sides; the disk's own figures."""
    print(f"\n{'pattern':12s} {'unit':8s}" + "".join(f"{side:>16s}" for side in sides))
    for row in rows:
        values = "".join(f"{_number(row['median'].get(side), 1):>16s}" for side in sides)
        print(f"{row['pattern']:12s} {row['unit']:8s}{values}")
    for side in sides:
        if side in ("kernel", "memmap"):
            continue
        print(f"\n{side}, ratios of throughput: above 1 it is faster (in brackets what is aimed at)")
        heads = f"{'to kernel swap':>18s}{'to memmap':>16s}{'to the disk':>18s}{'CPU/GiB':>9s}{'waits':>8s}"
        print(f"{'pattern':12s}{heads}  fio job")
        for row in rows:
            if ours := row["ours"].get(side):
                print(
                    f"{row['pattern']:12s}{_judged(ours['over_kernel'], ours['target_kernel']):>18s}"
                    f"{_judged(ours['over_memmap'], 1.0):>16s}{_judged(ours['over_fio'], ours['target_fio']):>18s}"
                    f"{_number(ours['cpu_over_kernel']):>9s}{100 * ours['write_waits_share']:7.2f}%"
                    f"  {' or '.join(row['fio'])}"
                )
    if disk:
        figures = ", ".join(f"{job} {value:.0f} MB/s" for job, value in disk.items())
        print(f"\nThe disk itself (fio, O_DIRECT, io_uring; medians): {figures}")
