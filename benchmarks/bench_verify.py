"""What checking each page at page-in costs, and what encryption costs: the patterns of bench_patterns.py with
Pool(verify=True), Pool(verify=False) and Pool(encrypt=True).

    python benchmarks/bench_verify.py --repeats 7

All sides run in one call, in turn, each in a process of its own; the ratio of two sides is taken within a repeat,
and the median of the repeats is shown. Aimed at: checking costs at most 5 % of the time of any pattern, and
encryption leaves at least 0.8 of the speed. README.md beside this file says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import harness
import worker

from uswap._filesystem import is_memory_backed
from uswap._sizes import format_size, parse_size
from uswap.bench import kernel_swap

CHECKED, UNCHECKED, ENCRYPTED = "checked", "unchecked", "encrypted"
SIDES: dict[str, dict[str, Any]] = {CHECKED: {}, UNCHECKED: {"verify": False}, ENCRYPTED: {"encrypt": True}}
MOST_OVERHEAD = 0.05
LEAST_SPEED = 0.8


def parse_arguments() -> argparse.Namespace:
    """The command line; ends the program if it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="256MiB", help="of the region (default: %(default)s)")
    parser.add_argument("--limit", default="64MiB", help="of the pool (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=1.0, help="at most, for a pattern of single pages")
    parser.add_argument("--patterns", default=",".join(worker.PATTERNS), help="default: all")
    parser.add_argument("--dir", default="/var/tmp", type=Path, help="on the disk to use (default: %(default)s)")
    results = harness.HERE / "results"
    parser.add_argument("--json", type=Path, default=results / "verify.json", metavar="FILE")
    parser.add_argument("--text", type=Path, default=results / "verify.txt", metavar="FILE")
    options = parser.parse_args()
    try:
        options.size = parse_size(options.size, "--size") // (2 * worker.PAGE) * (2 * worker.PAGE)
        options.limit = parse_size(options.limit, "--limit")
        options.patterns = options.patterns.split(",")
        if unknown := set(options.patterns) - set(worker.PATTERNS):
            raise ValueError(f"--patterns: {', '.join(unknown)}: there are {', '.join(worker.PATTERNS)}")
        if options.repeats < 1 or options.size < options.limit:
            raise ValueError("at least one repeat, and a region no smaller than the limit")
        if is_memory_backed(options.dir):
            raise ValueError(f"--dir: {options.dir} lies in memory; name a directory on a disk")
    except ValueError as error:
        parser.error(str(error))
    return options


def measure(side: str, repeat: int, options: argparse.Namespace, library: str) -> dict[str, float]:
    """One repeat of one side; => microseconds an access, by pattern."""
    job = harness.Job(
        side="uswap",
        patterns=options.patterns,
        size_bytes=options.size,
        limit_bytes=options.limit,
        folder=str(options.dir),
        seconds=options.seconds,
        seed=repeat,
        library=library,
        pool_options=SIDES[side],
    )
    kernel_swap.drop_caches()
    print(f"  {repeat + 1}/{options.repeats} {side}", flush=True)
    return {str(result["pattern"]): float(result["us_per_access"]) for result in harness.run_worker(job)}


def run_all(options: argparse.Namespace) -> list[dict[str, dict[str, float]]]:
    """=> for each repeat, by side and pattern, microseconds an access."""
    repeats = []
    sides = list(SIDES)
    with harness.native_library() as library:
        for repeat in range(options.repeats):
            turn = repeat % len(sides)  # each side is first as often as any other
            order = [*sides[turn:], *sides[:turn]]
            repeats.append({side: measure(side, repeat, options, library) for side in order})
    return repeats


def summarize(repeats: list[dict[str, dict[str, float]]], patterns: list[str]) -> list[dict[str, Any]]:
    """A row a pattern: medians, and the medians of the ratios.

    Example:
        >>> once = {"checked": {"fill": 1.04}, "unchecked": {"fill": 1.0}, "encrypted": {"fill": 1.3}}
        >>> row = summarize([once], ["fill"])[0]
        >>> round(row["overhead_of_checking"], 2), round(row["speed_encrypted"], 2), row["met"]
        (0.04, 0.8, True)
    """
    rows = []
    for pattern in patterns:
        times = {side: harness.median([repeat[side][pattern] for repeat in repeats]) for side in SIDES}
        ratios = [repeat[CHECKED][pattern] / repeat[UNCHECKED][pattern] for repeat in repeats]
        speeds = [repeat[CHECKED][pattern] / repeat[ENCRYPTED][pattern] for repeat in repeats]
        overhead, speed = (harness.median(ratios) or 0.0) - 1, harness.median(speeds) or 0.0
        rows.append(
            {
                "pattern": pattern,
                "us_per_access": times,
                "overhead_of_checking": overhead,
                "speed_encrypted": speed,
                "met": overhead <= MOST_OVERHEAD and speed >= LEAST_SPEED,
            }
        )
    return rows


def as_text(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """The table."""
    sizes = f"region {format_size(options.size)}, limit {format_size(options.limit)}"
    titles = " ".join(f"{side:>10s}" for side in SIDES)
    lines = [
        f"{sizes}, medians of {options.repeats}; microseconds an access (a page)",
        f"{'pattern':12s} {titles}  checking  encrypted",
    ]
    for row in rows:
        times = " ".join(f"{row['us_per_access'][side]:10.3f}" for side in SIDES)
        missed = "" if row["met"] else "  missed"
        ratios = f"{row['overhead_of_checking']:+9.1%} {row['speed_encrypted']:9.2f}x"
        lines.append(f"{row['pattern']:12s} {times} {ratios}{missed}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """=> 0; 1 if a side failed or found wrong contents."""
    options = parse_arguments()
    environment = harness.environment(options.dir)
    try:
        repeats = run_all(options)
    except (harness.BenchmarkError, OSError) as error:
        print(f"bench_verify: {error}", file=sys.stderr)
        return 1
    rows = summarize(repeats, options.patterns)
    text = as_text(rows, options)
    print(text, end="")
    arguments = {name: str(value) for name, value in vars(options).items() if name not in ("json", "text", "dir")}
    report = {"environment": environment, "arguments": arguments, "summary": rows, "repeats": repeats}
    for path, contents in ((options.json, json.dumps(report, indent=2) + "\n"), (options.text, text)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents)
    return 0


if __name__ == "__main__":
    sys.exit(main())
