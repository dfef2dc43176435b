"""What it costs that NumPy allocates from a pool: arrays made, used and freed, beside NumPy's own memory.

    python benchmarks/bench_numpy.py --repeats 7 --json numpy.json

Everything fits in the limit but for the rows named beyond. Both sides live in one process and take turns within
each round; a figure is the median over the rounds of the time beside NumPy's own *in the same round*.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np

import uswap
from uswap._filesystem import free_bytes, is_memory_backed

_LIMIT = 1 << 30
_BEYOND_LIMIT = 48 << 20
_DISK_BYTES = 4 << 30
SIDES = ("numpy", "uswap")

# ---- the work: each returns the seconds of what is measured ------------------------------------------------------


def seconds_of(work: Callable[[], object]) -> float:
    """One run."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Work:
    """The kernels, by name. count: arrays in the rows that make many."""

    def __init__(self, count: int) -> None:
        self.count = count
        random_numbers = np.random.default_rng(1)
        self._data = random_numbers.random(1 << 22)

    def make_small(self) -> float:
        """Makes so many arrays of 10 numbers, and keeps them."""
        kept: list[Any] = []
        return seconds_of(lambda: kept.extend(np.empty(10) for _ in range(self.count)))

    def free_small(self) -> float:
        """Frees them."""
        kept = [np.empty(10) for _ in range(self.count)]
        return seconds_of(kept.clear)

    def churn_small(self) -> float:
        """Makes one and frees it, so many times."""

        def run() -> None:
            for _ in range(self.count):
                np.empty(10)

        return seconds_of(run)

    def _in_turn(self, size: int, rounds: int) -> float:
        a = self._data[: size // 8]
        rounds = max(1, rounds * self.count // 1_000_000)

        def run() -> None:
            for _ in range(rounds):
                _ = a * 2.0 + 1.0

        return seconds_of(run)

    def temporary_8KiB(self) -> float:
        """a * 2 + 1, one result after the other."""
        return self._in_turn(8 << 10, 20_000)

    def temporary_256KiB(self) -> float:
        """The same."""
        return self._in_turn(256 << 10, 2_000)

    def temporary_4MiB(self) -> float:
        """The same."""
        return self._in_turn(4 << 20, 100)

    def temporary_32MiB(self) -> float:
        """The same: each of these is a region of its own."""
        return self._in_turn(32 << 20, 10)

    def sort_copy(self) -> float:
        """np.sort of 32 MiB, into a fresh array."""
        return seconds_of(lambda: np.sort(self._data))

    def concatenate(self) -> float:
        """16 pieces to 32 MiB."""
        pieces = [self._data[i::16] for i in range(16)]
        return seconds_of(lambda: np.concatenate(pieces))

    def append(self) -> float:
        """An array that grows to 4 MiB by resize, 64 KiB at a time."""

        def run() -> None:
            a = np.empty(0)
            for size in range(8192, 8192 * 64, 8192):
                a.resize(size, refcheck=False)

        return seconds_of(run)

    ALL = (
        "make_small",
        "free_small",
        "churn_small",
        "temporary_8KiB",
        "temporary_256KiB",
        "temporary_4MiB",
        "temporary_32MiB",
        "sort_copy",
        "concatenate",
        "append",
    )


def beyond(count: int, folder: str, shuffled: bool) -> dict[str, Any]:
    """Arrays of 1 KiB, several times the limit: made, then freed in the order in which they were made, or any."""
    with uswap.Pool(_BEYOND_LIMIT, swap=folder) as pool, pool.numpy():
        kept: list[Any] = []
        made = seconds_of(lambda: kept.extend(np.full(128, i) for i in range(count)))
        if shuffled:
            random.Random(1).shuffle(kept)
        before = pool.stats()
        freed = seconds_of(kept.clear)
        after = pool.stats()
    return {
        "shuffled": shuffled,
        "make_s": made,
        "free_s": freed,
        "pages_of_data": count // 4,
        "pages_in_by_free": after.pages_in - before.pages_in,
    }


# ---- the run -----------------------------------------------------------------------------------------------------


def measure(pool: uswap.Pool, work: Work, repeats: int) -> dict[str, dict[str, list[float]]]:
    """kernel -> side -> seconds; who begins changes from round to round."""
    seconds: dict[str, dict[str, list[float]]] = {name: {side: [] for side in SIDES} for name in Work.ALL}
    for repeat in range(repeats):
        for name in Work.ALL:
            for side in SIDES if repeat % 2 == 0 else SIDES[::-1]:
                with pool.numpy() if side == "uswap" else contextlib.nullcontext():
                    seconds[name][side].append(getattr(work, name)())
        print(f"  {repeat + 1}/{repeats}", flush=True)
    return seconds


def summarize(seconds: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Per kernel the medians in ms, and that of the time beside NumPy's own in the same round."""
    return [
        {
            "kernel": name,
            "median_ms": {side: 1e3 * (harness.median(values[side]) or 0) for side in SIDES},
            "time_ratio": harness.median([b / a for a, b in zip(values["numpy"], values["uswap"], strict=True)]),
        }
        for name, values in seconds.items()
    ]


def print_tables(report: dict[str, Any]) -> None:
    """For people."""
    print(f"\n{'kernel':18s}{'numpy ms':>10s}{'uswap ms':>10s}{'time ratio':>12s}")
    for row in report["summary"]:
        numpy_ms, uswap_ms = (row["median_ms"][side] for side in SIDES)
        print(f"{row['kernel']:18s}{numpy_ms:10.1f}{uswap_ms:10.1f}{row['time_ratio']:12.2f}")
    print(f"\n{'beyond':18s}{'make s':>10s}{'free s':>10s}{'pages':>10s}{'read by free':>14s}")
    for row in report["beyond"]:
        name = "freed in any order" if row["shuffled"] else "freed in order"
        print(
            f"{name:18s}{row['make_s']:10.2f}{row['free_s']:10.2f}{row['pages_of_data']:10d}"
            f"{row['pages_in_by_free']:14d}"
        )


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; ends the program if it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--count", type=int, default=1_000_000, help="small arrays; in proportion all else (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=7, help="rounds (default: %(default)s)")
    parser.add_argument("--dir", default="/var/tmp", type=Path, help="where swap files lie (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round there")
    options = parser.parse_args(arguments)
    if options.count < 100 or options.repeats < 1:
        parser.error("at least 100 arrays and one round")
    try:
        if is_memory_backed(str(options.dir)) or free_bytes(str(options.dir)) < _DISK_BYTES:
            parser.error(f"--dir: {options.dir} lies in memory or has less than 4 GiB")
    except OSError as error:
        parser.error(str(error))
    return options


def main(arguments: list[str] | None = None) -> int:
    """=> 0."""
    options = parse_arguments(arguments)
    work = Work(options.count)
    pool = uswap.Pool(_LIMIT, swap=str(options.dir))
    seconds = measure(pool, work, options.repeats)
    report: dict[str, Any] = {
        "environment": harness.environment(options.dir),
        "arguments": {name: str(value) for name, value in vars(options).items()},
        "summary": summarize(seconds),
        "seconds": seconds,
        "faults": pool.stats().faults,
        "beyond": [beyond(options.count // 5, str(options.dir), shuffled) for shuffled in (False, True)],
    }
    print_tables(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
