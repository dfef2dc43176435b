"""After hours of random writes, what is left of the speed of a sequential read? uswap beside the kernel's swap.

    sudo .venv/bin/python benchmarks/bench_churn.py --seconds 3600 --json churn.json

Random read-modify-writes tear apart what was written together, so that in the end neighbours in memory lie anywhere
in the swap file. Both sides churn at the same time, each in a process of its own; a scan is timed while the other
side stands still. README.md beside this file says how to read the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import conversation
import harness
import numpy as np

from uswap._filesystem import free_bytes, is_memory_backed
from uswap._sizes import format_size, parse_size
from uswap.bench import kernel_swap

PAGE = 4096
WORDS = PAGE // 8
# Pages read, then written, by one step of the churn: few enough to be in memory until they are written.
_BATCH = 64
# Scans at the start and at the end; they change no page, so that each finds the same slots.
_SCANS = 3
_MARGIN_BYTES = 64 << 20
SIDES = ("uswap", "kernel")


# ---- a worker: one side ------------------------------------------------------------------------------------


class Churned:
    """The memory of one side. Word 1 of each page counts its writes; the other words never change."""

    def __init__(self, buffer: Any, seed: int, reads: Callable[[], tuple[int, int]]) -> None:
        self._pages = np.frombuffer(buffer, dtype="u8").reshape(-1, WORDS)
        self._random = np.random.default_rng(seed)
        self._reads = reads
        self._writes = 0

    def fill(self) -> None:
        """No page is zero and no two are equal, so that no side can save I/O on the contents."""
        offsets = np.arange(WORDS, dtype="u8") * np.uint64(0xBF58476D1CE4E5B9)
        for page in range(len(self._pages)):
            self._pages[page] = offsets + np.uint64((page + 1) * 0x9E3779B97F4A7C15 % (1 << 64))
            self._pages[page, 1] = 0

    def churn(self, seconds: float) -> dict[str, float]:
        """Random read-modify-writes of a word of a page for so long; => how many, and how long it took."""
        began, before = time.perf_counter(), self._writes
        while (took := time.perf_counter() - began) < seconds:
            index = np.unique(self._random.integers(0, len(self._pages), _BATCH))
            self._pages[index, 1] += np.uint64(1)
            self._writes += len(index)
        return {"writes": self._writes - before, "seconds": took}

    def scan(self, first: int, count: int) -> dict[str, float]:
        """Sums all words of a run of pages, in order."""
        pages_before, reads_before = self._reads()
        began = time.perf_counter()
        for page in range(first, first + count, _BATCH):
            self._pages[page : min(page + _BATCH, first + count)].sum()
        took = time.perf_counter() - began
        pages, reads = self._reads()
        figures = {"mb_per_second": count * PAGE / 1e6 / took}
        if reads > reads_before:
            figures["pages_per_read"] = (pages - pages_before) / (reads - reads_before)
        return figures

    def check(self) -> int:
        """=> how many words are wrong: of all pages the first and the last, and the number of writes counted."""
        numbers = (np.arange(len(self._pages), dtype="u8") + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        last = numbers + np.uint64((WORDS - 1) * 0xBF58476D1CE4E5B9 % (1 << 64))
        wrong = int((self._pages[:, 0] != numbers).sum() + (self._pages[:, -1] != last).sum())
        return wrong + (int(self._pages[:, 1].sum()) != self._writes)


def work(setup: dict[str, Any], answer_all: Callable[[conversation.Steps], None]) -> None:
    """Makes the memory and does as told."""
    with contextlib.ExitStack() as stack:
        if setup["side"] == "uswap":
            import uswap

            pool = stack.enter_context(uswap.Pool(setup["limit"], swap=setup["folder"], **setup["pool"]))
            buffer: Any = pool.region(setup["size"])

            def reads() -> tuple[int, int]:
                stats = pool.stats()
                return stats.pages_in, stats.reads
        else:
            Path(setup["cgroup_procs"]).write_text(str(os.getpid()))
            buffer = mmap.mmap(-1, setup["size"], mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            buffer.madvise(mmap.MADV_NOHUGEPAGE)

            def reads() -> tuple[int, int]:
                return 0, 0  # the kernel does not count requests

        churned: Any = Churned(buffer, setup["seed"], reads)
        answer_all({name: getattr(churned, name) for name in ("fill", "churn", "scan", "check")})
        del churned, buffer  # so that the pool can end


# ---- the run -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def started_sides(options: argparse.Namespace) -> Iterator[list[conversation.Worker]]:
    """A worker for each side, memory made and filled."""
    with contextlib.ExitStack() as stack:
        workers = []
        for side in options.sides:
            setup = {
                "side": side,
                "size": options.size,
                "limit": options.limit,
                "folder": str(options.dir),
                "pool": {"recycle": options.recycle},
                "seed": 1,
            }
            if side == "kernel":
                stack.enter_context(kernel_swap.swap_file(options.dir, options.size + _MARGIN_BYTES))
                setup["cgroup_procs"] = str(stack.enter_context(kernel_swap.MemoryCgroup(options.limit)).procs)
            worker = stack.enter_context(conversation.Worker(__file__, setup))
            worker.ask("fill")
            workers.append(worker)
        yield workers


def scan_all(workers: list[conversation.Worker], first: int, count: int) -> dict[str, dict[str, float]]:
    """Each side in turn, the others standing still."""
    return {worker.name: worker.ask("scan", first=first, count=count) for worker in workers}


def sample_starts(pages: int, count: int) -> Iterator[int]:
    """Where the sampled scans begin: one stretch after the other, around the region."""
    first = 0
    while True:
        yield first
        first = first + count if first + 2 * count <= pages else 0


def churn(workers: list[conversation.Worker], options: argparse.Namespace, report: dict[str, Any]) -> None:
    """Fills report["before"], ["samples"] and ["after"]."""
    pages = options.size // PAGE
    sample_pages = min(options.sample // PAGE, pages)
    starts = sample_starts(pages, sample_pages)
    report["before"] = [scan_all(workers, 0, pages) for _ in range(_SCANS)]
    churned = 0.0
    while churned < options.seconds:
        step = min(options.sample_every, options.seconds - churned)
        for worker in workers:
            worker.tell("churn", seconds=step)
        done = {worker.name: worker.listen() for worker in workers}
        churned += step
        sample = {"seconds": churned, "churn": done, "scan": scan_all(workers, next(starts), sample_pages)}
        report["samples"].append(sample)
        cells = "  ".join(
            f"{side} {figures['mb_per_second']:7.0f} MB/s" for side, figures in sample["scan"].items()
        )
        print(f"  {churned:6.0f} s  {cells}", flush=True)
    report["after"] = [scan_all(workers, 0, pages) for _ in range(_SCANS)]
    for worker in workers:
        if wrong := worker.ask("check"):
            raise harness.BenchmarkError(f"{worker.name}: {wrong} words are wrong at the end")


# ---- reporting ---------------------------------------------------------------------------------------------


def summarize(report: dict[str, Any], sides: list[str]) -> dict[str, Any]:
    """Medians of the whole scans before and after, how many writes there were, and uswap over the kernel."""
    rows: dict[str, Any] = {}
    for side in sides:
        writes = sum(sample["churn"][side]["writes"] for sample in report["samples"])
        rows[side] = {"writes": writes}
        for when in ("before", "after"):
            rows[side][when] = harness.median([scan[side]["mb_per_second"] for scan in report[when]])
        if asked := [scan[side]["pages_per_read"] for scan in report["after"] if "pages_per_read" in scan[side]]:
            rows[side]["pages_per_read_after"] = harness.median(asked)
    if set(SIDES) <= set(sides):
        rows["ratio"] = {when: rows["uswap"][when] / rows["kernel"][when] for when in ("before", "after")}
    return rows


def print_table(rows: dict[str, Any], sides: list[str], pages: int) -> None:
    """The sequential read of the whole region before and after the churn."""
    print(
        f"\n{'side':10s}{'before MB/s':>14s}{'after MB/s':>14s}{'writes':>14s}{'a page':>10s}{'pages a read':>14s}"
    )
    for side in sides:
        row = rows[side]
        asked = f"{row['pages_per_read_after']:14.1f}" if "pages_per_read_after" in row else f"{'-':>14s}"
        figures = f"{row['before']:14.0f}{row['after']:14.0f}{row['writes']:14d}{row['writes'] / pages:10.1f}"
        print(f"{side:10s}{figures}{asked}")
    if "ratio" in rows:
        print(f"{'ratio':10s}{rows['ratio']['before']:14.2f}{rows['ratio']['after']:14.2f}")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; ends the program if it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, help="of churn, on both sides at once (default: 3600)")
    parser.add_argument("--sample-every", type=float, help="seconds of churn between two samples (default: 60)")
    parser.add_argument("--sample", help="bytes a sample reads (default: a sixteenth of the region)")
    parser.add_argument("--size", help="of the region (default: 1GiB)")
    parser.add_argument("--limit", help="of the pool and of the cgroup (default: a quarter of the region)")
    parser.add_argument("--sides", default=",".join(SIDES), help="default: %(default)s")
    parser.add_argument("--recycle", action="store_true", help="Pool(recycle=True)")
    parser.add_argument("--dir", default="/var/tmp", type=Path, help="on the disk to use (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="256MiB, 20 seconds, a sample every 5")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    options = parser.parse_args(arguments)
    quick = {"seconds": 20.0, "sample_every": 5.0, "size": "256MiB"}
    defaults = quick if options.quick else {"seconds": 3600.0, "sample_every": 60.0, "size": "1GiB"}
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    try:
        _check(options)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return options


def _check(options: argparse.Namespace) -> None:
    options.size = parse_size(options.size, "--size") // PAGE * PAGE
    options.limit = parse_size(options.limit, "--limit") if options.limit else options.size // 4
    options.sample = parse_size(options.sample, "--sample") if options.sample else options.size // 16
    names = [name.strip() for name in options.sides.split(",")]
    if unknown := set(names) - set(SIDES):
        raise ValueError(f"--sides: {', '.join(sorted(unknown))}: there are {', '.join(SIDES)}")
    options.sides = [name for name in SIDES if name in names]
    if options.seconds <= 0 or options.sample_every <= 0 or not PAGE <= options.sample <= options.size:
        raise ValueError("seconds above 0, and samples of a page or more, no larger than the region")
    needed = len(options.sides) * (options.size + 2 * _MARGIN_BYTES)
    if is_memory_backed(options.dir) or free_bytes(options.dir) < needed:
        raise ValueError(f"--dir: {options.dir} lies in memory or has less than {format_size(needed)} free")


def main(arguments: list[str] | None = None) -> int:
    """=> 0; 1 if a side failed or its contents were wrong."""
    options = parse_arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that finally blocks run
    for what in kernel_swap.clean_up_after_killed_runs(options.dir):
        print(f"left by a killed run, removed: {what}")
    report: dict[str, Any] = {
        "environment": harness.environment(options.dir),
        "arguments": {name: str(value) for name, value in vars(options).items()},
        "unavailable": {},
        "samples": [],
    }
    if "kernel" in options.sides and (reason := kernel_swap.unavailable_reason()):
        print(f"kernel: left out: {reason}")
        report["unavailable"]["kernel"] = reason
        options.sides.remove("kernel")
    print(f"region {format_size(options.size)}, limit {format_size(options.limit)}, {options.seconds:g} s of churn")
    status = 0
    try:
        with started_sides(options) as workers:
            churn(workers, options, report)
        report["summary"] = summarize(report, options.sides)
        print_table(report["summary"], options.sides, options.size // PAGE)
    except (harness.BenchmarkError, kernel_swap.UnavailableError, OSError) as error:
        print(f"bench_churn: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("\nbench_churn: interrupted; the JSON has the samples", file=sys.stderr)
        status = 128 + signal.SIGINT
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(conversation.serve(work) if conversation.is_worker() else main())
