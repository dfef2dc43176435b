"""The summary of bench_policies.py: medians, ratios to kernel swap, live misses beside simulated ones."""

from __future__ import annotations

from typing import Any

import harness

KERNEL = "kernel"
# What is aimed at: misses of the watched part as a share of its accesses; live misses beside simulated ones.
WATCHED_SHARE_AIM = 0.02
DIFFERENCE_AIM = 0.05


def _median(runs: list[dict[str, Any]], value: Any) -> float | None:
    return harness.median([found for run in runs if (found := value(run)) is not None])


def _per_access(run: dict[str, Any], value: float) -> float:
    """A count of a string that ran out of time, as if it had gone on so to its end."""
    return value * run["of"] / max(run["accesses"], 1) if "of" in run else value


def _watched_share(run: dict[str, Any], part: str) -> float | None:
    misses = run.get("misses_of_part", {}).get(part)
    return None if misses is None else misses / max(run["watched_accesses"], 1)


def _ratio(mine: float | None, other: float | None) -> float | None:
    return None if mine is None or not other else mine / other


def _live_row(
    workload: str, read_ahead: str, side: str, runs: list[dict[str, Any]], watched: str
) -> dict[str, Any]:
    return {
        "workload": workload,
        "read_ahead": read_ahead,
        "side": side,
        "seconds": _median(runs, lambda run: _per_access(run, run["seconds"])),
        "disk_reads": _median(runs, lambda run: _per_access(run, run["counters"]["disk_reads"])),
        "misses": _median(runs, lambda run: _per_access(run, run["counters"]["misses"])),
        "watched_share": _median(runs, lambda run: _watched_share(run, watched)),
        "cut": any(run.get("accesses") != run.get("of") for run in runs),
    }


def summarize_live(runs: list[dict[str, Any]], watched: dict[str, str]) -> list[dict[str, Any]]:
    """A row for each workload, read-ahead and side. watched: workload -> its watched part."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["workload"], run["read_ahead"], run["side"]), []).append(run)
    rows = [_live_row(*key, mine, watched.get(key[0], "")) for key, mine in groups.items()]
    for row in rows:
        beside = {"workload": row["workload"], "read_ahead": row["read_ahead"], "side": KERNEL}
        kernel = next((other for other in rows if beside.items() <= other.items()), {})
        for name in ("seconds", "disk_reads"):
            row[f"{name}_of_kernel"] = _ratio(row[name], kernel.get(name))
    return rows


def summarize_simulation(simulation: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each string and policy of uswap: misses in simulation, live without read-ahead, and their difference."""
    found = []
    for row in rows:
        if row["side"] == KERNEL or row["read_ahead"] != "0" or row["workload"] not in simulation:
            continue
        simulated = simulation[row["workload"]]["policies"].get(row["side"], {}).get("misses")
        ratio = _ratio(row["misses"], simulated)
        found.append(
            {
                "workload": row["workload"],
                "policy": row["side"],
                "simulated": simulated,
                "live": row["misses"],
                "difference": None if ratio is None else ratio - 1,
            }
        )
    return found


# ---- printing ----------------------------------------------------------------------------------------------


def _number(value: float | None, decimals: int = 2) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}%"


def live_table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines: time, disk reads, misses."""
    heads = f"{'workload':15s}{'read-ahead':>11s}  {'side':14s}{'s':>8s}{'/kernel':>9s}{'disk reads':>12s}"
    lines = [heads + f"{'/kernel':>9s}{'misses':>10s}{'hot misses':>12s}"]
    before = None
    for row in rows:
        if before not in (None, (row["workload"], row["read_ahead"])):
            lines.append("")
        before = row["workload"], row["read_ahead"]
        lines.append(
            f"{row['workload']:15s}{row['read_ahead']:>11s}  {row['side']:14s}{_number(row['seconds'])!s:>8s}"
            f"{_number(row['seconds_of_kernel']):>9s}{_number(row['disk_reads'], 0):>12s}"
            f"{_number(row['disk_reads_of_kernel']):>9s}{_number(row['misses'], 0):>10s}"
            f"{_share(row['watched_share']):>12s}{'  cut' if row['cut'] else ''}"
        )
    return lines


def simulation_table(simulation: dict[str, Any], compared: list[dict[str, Any]]) -> list[str]:
    """Lines: the references' misses by string; then each policy in simulation and live."""
    names = list(dict.fromkeys(name for one in simulation.values() for name in one["references"]))
    lines = []
    if names:
        lines.append(f"{'misses':15s}{'accesses':>10s}{'frames':>8s}" + "".join(f"{name:>10s}" for name in names))
        for workload, one in simulation.items():
            cells = "".join(f"{one['references'][name]['misses']:>10d}" for name in names)
            lines.append(f"{workload:15s}{one['accesses']:>10d}{one['frames']:>8d}{cells}")
        for workload, one in simulation.items():
            if one["watched_accesses"]:
                cells = "".join(
                    f"{_share(one['references'][name]['watched'] / one['watched_accesses']):>10s}" for name in names
                )
                lines.append(f"{workload + ', hot':33s}{cells}")
        lines.append("")
    lines.append(f"{'workload':15s}{'policy':16s}{'simulated':>11s}{'live':>10s}{'difference':>12s}")
    for row in compared:
        lines.append(
            f"{row['workload']:15s}{row['policy']:16s}{_number(row['simulated'], 0):>11s}"
            f"{_number(row['live'], 0):>10s}{_share(row['difference']):>12s}"
        )
    return lines


def text_of(report: dict[str, Any]) -> str:
    """All tables, and how to read them in a line each."""
    lines = [
        report["title"],
        "",
        "Live: medians. misses: faults that waited for a read. cut: out of time, and scaled to the whole string.",
        "",
        *live_table(report["live"]),
        "",
        "Simulation: the same strings, after fill and warm-up, with the frames that the pool has at this limit.",
        "Live misses are those without read-ahead.",
        "",
        *simulation_table(report["simulation"], report["compared"]),
    ]
    notes = [f"{side}: left out: {reason}" for side, reason in report["unavailable"].items()]
    notes += [
        f"{KERNEL}: {workload}: killed for lack of memory and tried again, {times} times"
        for workload, times in report["killed"].items()
    ]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"
