"""Does a page cost more in a larger region? The same accesses at several sizes, under the same limit.

    python benchmarks/bench_scale.py --sizes 1GiB,8GiB,1TiB:1GiB --repeats 5 --json scale.json

A size is that of the region; behind a colon stands how much of it is touched, in clusters scattered over all of it.
Every size has a process of its own, the sizes take turns; README.md beside this file says how to read the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
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
# Of the frames the limit gives to pages: touched first, while nothing has to leave.
_RESIDENT_SHARE = 0.75
_RANDOM_BATCH = 64
PATTERNS = ("fill", "seq_read", "rand_read")
# What metadata may take, in bytes a page.
MOST_BYTES = {"resident": 64, "swapped": 40}


@dataclass(frozen=True)
class Size:
    """A region of size_bytes, touched_bytes of which are used."""

    name: str
    size_bytes: int
    touched_bytes: int


def parse_sizes(text: str, cluster: int) -> list[Size]:
    """ "1GiB,1TiB:1GiB" => sizes in whole clusters. Raises ValueError."""
    sizes = []
    for name in filter(None, map(str.strip, text.split(","))):
        whole, _, part = name.partition(":")
        size = parse_size(whole, "--sizes") // cluster * cluster
        touched = parse_size(part, "--sizes") // cluster * cluster if part else size
        if not 0 < touched <= size:
            raise ValueError(f"--sizes: {name}: at least a cluster, and no more than the region, must be touched")
        sizes.append(Size(name, size, touched))
    if not sizes:
        raise ValueError("--sizes: none")
    return sizes


def cluster_starts(size: int, touched: int, cluster: int) -> Any:
    """The first pages of the clusters, evenly over the region, in random order: a stream begins and ends as often
    at every size."""
    count = touched // cluster
    starts = np.arange(count) * (size // PAGE // count)
    return np.random.default_rng(3).permutation(starts)


# ---- a worker: one region ----------------------------------------------------------------------------------


class Scaled:
    """The region of one size, and the patterns over its clusters."""

    def __init__(self, pool: Any, region: Any, setup: dict[str, Any]) -> None:
        self._pool = pool
        self._pages = np.frombuffer(region, dtype="u8").reshape(-1, WORDS)
        self._cluster = setup["cluster"] // PAGE
        self._starts = cluster_starts(setup["size"], setup["touched"], setup["cluster"])
        self._random = np.random.default_rng(setup["seed"])
        self._block = np.arange(self._cluster * WORDS, dtype="u8").reshape(self._cluster, WORDS)
        self._accesses = setup["accesses"]

    def _fill(self, clusters: Any) -> int:
        for start in clusters:
            self._block += np.uint64(int(start) * WORDS + 1)  # no page like another
            self._pages[start : start + self._cluster] = self._block
        return len(clusters) * self._cluster

    def _fill_resident(self) -> int:
        capacity = self._pool.stats().capacity_frames * _RESIDENT_SHARE
        self._first = min(len(self._starts), int(capacity) // self._cluster)
        return self._fill(self._starts[: self._first])

    def _fill_rest(self) -> int:
        return self._fill(self._starts[self._first :])

    def _seq_read(self) -> int:
        for start in self._starts:
            self._pages[start : start + self._cluster].sum()
        return len(self._starts) * self._cluster

    def _rand_read(self) -> int:
        done = 0
        while done < self._accesses:
            clusters = self._starts[self._random.integers(0, len(self._starts), _RANDOM_BATCH)]
            self._pages[clusters + self._random.integers(0, self._cluster, _RANDOM_BATCH), 0].sum()
            done += _RANDOM_BATCH
        return done

    def run(self, pattern: str) -> dict[str, float]:
        """One pattern; => its figures."""
        before, cpu, began = self._pool.stats(), _cpu_seconds(), time.perf_counter()
        pages = getattr(self, f"_{pattern}")()
        took, cpu, after = time.perf_counter() - began, _cpu_seconds() - cpu, self._pool.stats()
        return {"pages": pages, "seconds": took, "cpu_seconds": cpu, "faults": after.faults - before.faults}

    def memory(self) -> dict[str, int]:
        """What there is in memory beside the pages themselves."""
        while True:
            stats = self._pool.stats()
            rss = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
            if self._pool.stats().resident_bytes == stats.resident_bytes:
                break
        lines = Path("/proc/self/status").read_text().splitlines()
        return {
            "metadata": stats.metadata_bytes,
            "rss_outside": rss - (stats.resident_bytes - stats.metadata_charged_bytes),
            "page_tables": next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmPTE")),
            "resident_pages": (stats.mapped_bytes + stats.cached_bytes) // PAGE,
            "swapped_pages": stats.swap_used_bytes // PAGE,
        }


def _cpu_seconds() -> float:
    """Of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def work(setup: dict[str, Any], answer_all: Callable[[conversation.Steps], None]) -> None:
    """Makes the region and does as told."""
    import uswap

    with uswap.Pool(setup["limit"], swap=setup["folder"], overcommit=True, recycle=setup["recycle"]) as pool:
        scaled: Any = Scaled(pool, pool.region(setup["size"]), setup)
        answer_all({"memory": scaled.memory, "run": scaled.run})
        del scaled  # so that the pool can end


# ---- the run -----------------------------------------------------------------------------------------------


def run_size(size: Size, repeat: int, options: argparse.Namespace) -> dict[str, Any]:
    """One repeat of one size, in a process of its own."""
    setup = {
        "side": size.name,
        "size": size.size_bytes,
        "touched": size.touched_bytes,
        "cluster": options.cluster,
        "limit": options.limit,
        "folder": str(options.dir),
        "recycle": options.recycle,
        "accesses": options.accesses,
        "seed": repeat,
    }
    kernel_swap.drop_caches()
    with conversation.Worker(__file__, setup) as worker:
        made = worker.ask("memory")
        first = worker.ask("run", pattern="fill_resident")
        resident = worker.ask("memory")
        rest = worker.ask("run", pattern="fill_rest")
        swapped = worker.ask("memory")
        figures = {"fill": {name: first[name] + rest[name] for name in first}}
        figures |= {step: worker.ask("run", pattern=step) for step in PATTERNS[1:]}
    return {
        "size": size.name,
        "repeat": repeat,
        "figures": figures,
        "costs": costs(figures),
        "metadata": metadata_a_page(made, resident, swapped),
        "memory": {"made": made, "resident": resident, "swapped": swapped},
    }


def costs(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """Per-page costs in us. A random read counts by fault: how many of them hit depends on how much was touched,
    not on what a page costs."""
    found = {}
    for pattern, figure in figures.items():
        count = max(1, figure["faults"] if pattern == "rand_read" else figure["pages"])
        found[f"{pattern}_us"] = figure["seconds"] * 1e6 / count
        found[f"{pattern}_cpu_us"] = figure["cpu_seconds"] * 1e6 / count
    return found


def metadata_a_page(made: dict[str, int], resident: dict[str, int], swapped: dict[str, int]) -> dict[str, float]:
    """Bytes of metadata for a resident page (all there is while nothing is swapped, the ring for the whole limit
    included) and for each page swapped after that: as the pool counts them, and by the process's memory outside of
    pages."""
    pages, more = max(1, resident["resident_pages"]), swapped["swapped_pages"] - resident["swapped_pages"]
    found = {
        "resident": resident["metadata"] / pages,
        "resident_rss": (resident["rss_outside"] - made["rss_outside"] + made["metadata"]) / pages,
    }
    if more > 0:
        found["swapped"] = (swapped["metadata"] - resident["metadata"]) / more
        found["swapped_rss"] = (swapped["rss_outside"] - resident["rss_outside"]) / more
        found["swapped_page_tables"] = (swapped["page_tables"] - resident["page_tables"]) / more
    return found


# ---- reporting ---------------------------------------------------------------------------------------------


# name of a figure -> size -> value
Table = dict[str, dict[str, float]]


def medians(runs: list[dict[str, Any]], kind: str) -> Table:
    """The figures of this kind, medians over the repeats."""
    found: Table = {}
    names = {name: None for run in runs for name in run[kind]}
    for name in names:
        for size in dict.fromkeys(run["size"] for run in runs):
            values = [run[kind][name] for run in runs if run["size"] == size and name in run[kind]]
            if (value := harness.median(values)) is not None:
                found.setdefault(name, {})[size] = value
    return found


def spread(by_size: dict[str, float]) -> float:
    """How much more the dearest size costs than the first one; below 0: none is dearer."""
    first, *others = by_size.values()
    return max([value / first - 1 for value in others], default=0.0)


def print_tables(cost: Table, metadata: Table, sizes: list[str]) -> None:
    """A line for each figure, a column for each size."""
    print(f"\n{'us a page':22s}" + "".join(f"{size:>14s}" for size in sizes) + f"{'growth':>10s}")
    for name, by_size in cost.items():
        cells = "".join(f"{by_size[size]:14.3f}" for size in sizes)
        print(f"{name.removesuffix('_us'):22s}{cells}{spread(by_size):10.0%}")
    print(f"\n{'bytes a page':22s}" + "".join(f"{size:>14s}" for size in sizes) + f"{'at most':>10s}")
    for name, by_size in metadata.items():
        cells = "".join(f"{by_size[size]:14.1f}" if size in by_size else f"{'-':>14s}" for size in sizes)
        print(f"{name:22s}{cells}{MOST_BYTES.get(name.removesuffix('_rss'), '-'):>10}")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; ends the program if it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", help="SIZE[:TOUCHED],... (default: 1GiB,8GiB,1TiB:1GiB)")
    parser.add_argument("--limit", help="of the pool (default: 256MiB)")
    parser.add_argument("--cluster", default="8MiB", help="touched together (default: %(default)s)")
    parser.add_argument("--repeats", type=int, help="default: 5")
    parser.add_argument("--accesses", type=int, help="random reads (default: 20000)")
    parser.add_argument("--recycle", action="store_true", help="Pool(recycle=True)")
    parser.add_argument("--dir", default="/var/tmp", type=Path, help="where swap files lie (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="256MiB, 1GiB and 1TiB:256MiB under 64MiB, one repeat")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every repeat there")
    options = parser.parse_args(arguments)
    quick = {"sizes": "256MiB,1GiB,1TiB:256MiB", "limit": "64MiB", "repeats": 1, "accesses": 5000}
    slow = {"sizes": "1GiB,8GiB,1TiB:1GiB", "limit": "256MiB", "repeats": 5, "accesses": 20000}
    for name, value in (quick if options.quick else slow).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    try:
        options.limit = parse_size(options.limit, "--limit")
        options.cluster = parse_size(options.cluster, "--cluster") // PAGE * PAGE
        if options.cluster == 0 or options.repeats < 1 or options.accesses < 1:
            raise ValueError("a cluster of a page or more, and at least one repeat and one access")
        options.sizes = parse_sizes(options.sizes, options.cluster)
        needed = 2 * max(size.touched_bytes for size in options.sizes)
        if is_memory_backed(options.dir) or free_bytes(options.dir) < needed:
            raise ValueError(f"--dir: {options.dir} lies in memory or has less than {format_size(needed)} free")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return options


def main(arguments: list[str] | None = None) -> int:
    """=> 0; 1 if a run failed."""
    options = parse_arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that finally blocks run
    report: dict[str, Any] = {
        "environment": harness.environment(options.dir),
        "arguments": {name: str(value) for name, value in vars(options).items()},
        "runs": [],
    }
    status = 0
    with contextlib.suppress(KeyboardInterrupt):
        try:
            for repeat in range(options.repeats):
                turn = repeat % len(options.sizes)
                for size in [*options.sizes[turn:], *options.sizes[:turn]]:
                    run = run_size(size, repeat, options)
                    report["runs"].append(run)
                    cells = "  ".join(f"{name} {value:.2f}" for name, value in run["costs"].items())
                    print(f"  {repeat + 1}/{options.repeats} {size.name:12s} {cells}", flush=True)
        except (harness.BenchmarkError, OSError) as error:
            print(f"bench_scale: {error}", file=sys.stderr)
            status = 1
    if report["runs"]:
        names = [size.name for size in options.sizes if any(run["size"] == size.name for run in report["runs"])]
        report["summary"] = {kind: medians(report["runs"], kind) for kind in ("costs", "metadata")}
        report["growth"] = {name: spread(by_size) for name, by_size in report["summary"]["costs"].items()}
        print_tables(report["summary"]["costs"], report["summary"]["metadata"], names)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(conversation.serve(work) if conversation.is_worker() else main())
