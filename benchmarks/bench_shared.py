"""Processes of one pool: what they have in memory together, what they read, and how fast, beside one process with
memory of its own, and beside a pool that sets up what one brings in for all (map_for_peers=True).

    python benchmarks/bench_shared.py --size 2GiB --limit 512MiB --processes 4 --repeats 3

README.md beside this file says how to read the figures.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import conversation
import harness
from memory_use import PssPeak

from uswap._sizes import PAGE_BYTES, format_size

_EXTRA_BYTES = 16 << 20  # allowed for each process, besides 1 % of the limit
_STEP_BYTES = 64 << 20  # processes in step wait for each other so often
_SHARED_TARGET, _READS_TARGET = 0.7, 0.1


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; ends the program if it is wrong."""
    parser = harness.sharing_arguments("shared", __doc__, size="2GiB", limit="512MiB", repeats=3)
    parser.add_argument("--processes", type=int, default=4, help="default: %(default)s")
    return harness.parse_sharing(parser, arguments)


# ---- the processes -----------------------------------------------------------------------------------------


class Memory:
    """The array of one process: its own, or shared. All steps take and give pages."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self._setup = setup
        self._native = ctypes.CDLL(setup["library"])
        for name in ("sweep_read", "sweep_check"):
            getattr(self._native, name).restype = ctypes.c_uint64
        self._pool: Any = None
        self._address = 0

    def prepare(self) -> bool:
        """All that a process takes before it has a pool."""
        import uswap

        return uswap.Pool is not None  # loads the core

    def join(self, kind: str) -> bool:
        """kind: private, make or attach."""
        import uswap

        limit, size, swap = self._setup["limit"], self._setup["size"], self._setup["folder"]
        if kind == "private":
            self._pool = uswap.Pool(limit, swap=swap)
            region = self._pool.region(size)
        elif kind == "make":
            self._pool = uswap.Pool(limit, swap=swap, name="bench", map_for_peers=self._setup["map_for_peers"])
            region = self._pool.region(size, shared=True, name="array")
        else:
            self._pool = uswap.attach("bench", swap=swap)
            region = self._pool.open_region("array")
        self._region = region
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(region))
        return True

    def _at(self, first: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(self._address + first * PAGE_BYTES)

    def fill(self, first: int, pages: int) -> float:
        """=> seconds."""
        began = time.perf_counter()
        self._native.sweep_write(self._at(first), ctypes.c_uint64(pages), ctypes.c_uint64(1))
        return time.perf_counter() - began

    def read(self, first: int, pages: int) -> float:
        """=> seconds."""
        began = time.perf_counter()
        self._native.sweep_read(self._at(first), ctypes.c_uint64(pages))
        return time.perf_counter() - began

    def check(self, first: int, pages: int) -> int:
        """=> words that are wrong; the array must have been filled by one call."""
        arguments = [ctypes.c_uint64(number) for number in (first, pages, 1, 0)]
        return int(self._native.sweep_check(ctypes.c_void_p(self._address), *arguments))

    def disk_reads(self) -> int:
        """Pages read from swap so far: by all members, if they share."""
        own = int(self._pool.stats().pages_in)
        return int(self._pool.group_info().pages_read) if self._pool.name else own


def work(setup: dict[str, Any], answer_all: Any) -> None:
    """A process of the benchmark."""
    memory = Memory(setup)
    answer_all({name: getattr(memory, name) for name in ("prepare", "join", "fill", "read", "check", "disk_reads")})


# ---- measuring ---------------------------------------------------------------------------------------------


class Bench:
    """All measurements; each begins with new processes."""

    def __init__(self, options: argparse.Namespace, library: str) -> None:
        self._options, self._library = options, library
        self._pages = options.size // PAGE_BYTES

    @contextmanager
    def _workers(self, count: int, map_for_peers: bool) -> Iterator[list[conversation.Worker]]:
        options = self._options
        setup = {
            "limit": options.limit,
            "size": options.size,
            "folder": str(options.dir),
            "library": self._library,
            "map_for_peers": map_for_peers,
        }
        with tempfile.TemporaryDirectory() as runtime, ExitStack() as stack:
            os.environ["USWAP_RUNTIME_DIR"] = runtime
            yield [
                stack.enter_context(conversation.Worker(__file__, setup | {"side": f"process {number}"}))
                for number in range(count)
            ]

    def _speed(self, seconds: float, pages: int | None = None) -> float:
        return (self._pages if pages is None else pages) * PAGE_BYTES / seconds / 1e6

    def alone(self, kind: str) -> dict[str, float]:
        """One process: MB/s of a fill and of a sequential read, and pages read meanwhile."""
        with self._workers(1, map_for_peers=False) as (worker,):
            worker.ask("join", kind=kind)
            filled = self._speed(worker.ask("fill", first=0, pages=self._pages))
            before = worker.ask("disk_reads")
            read = self._speed(worker.ask("read", first=0, pages=self._pages))
            return {"fill": filled, "read": read, "disk_reads": worker.ask("disk_reads") - before}

    def together(self, map_for_peers: bool) -> dict[str, Any]:
        """All scan the shared array in step, then each a part of its own, then they check it."""
        count = self._options.processes
        with self._workers(count, map_for_peers) as workers:
            for worker in workers:
                worker.ask("prepare")
            with PssPeak([worker.pid for worker in workers]) as pss:
                workers[0].ask("join", kind="make")
                workers[0].ask("fill", first=0, pages=self._pages)
                for worker in workers[1:]:
                    worker.ask("join", kind="attach")
                before = workers[0].ask("disk_reads")
                seconds = self._in_step(workers)
                reads = workers[0].ask("disk_reads") - before
                apart = self._apart(workers)
                wrong = sum(self._all(workers, "check", [(0, self._pages)] * count))
        return {
            "in_step": self._speed(seconds),
            "disk_reads": reads,
            "apart": apart,
            "wrong_words": wrong,
            "pss_bytes": pss.peak_bytes,
            "pss_samples": pss.samples,
        }

    @staticmethod
    def _all(workers: list[conversation.Worker], step: str, parts: list[tuple[int, int]]) -> list[Any]:
        for worker, (first, pages) in zip(workers, parts, strict=True):
            worker.tell(step, first=first, pages=pages)
        return [worker.listen() for worker in workers]

    def _in_step(self, workers: list[conversation.Worker]) -> float:
        step, began = _STEP_BYTES // PAGE_BYTES, time.perf_counter()
        for first in range(0, self._pages, step):
            self._all(workers, "read", [(first, min(step, self._pages - first))] * len(workers))
        return time.perf_counter() - began

    def _apart(self, workers: list[conversation.Worker]) -> float:
        part = self._pages // len(workers)
        began = time.perf_counter()
        self._all(workers, "read", [(number * part, part) for number in range(len(workers))])
        return self._speed(time.perf_counter() - began, part * len(workers))

    def run(self) -> dict[str, Any]:
        """Everything, in turn."""
        found: dict[str, list[Any]] = {"private": [], "shared": [], "together": [], "for_peers": []}
        for repeat in range(self._options.repeats):
            found["private"].append(self.alone("private"))
            found["shared"].append(self.alone("make"))
            found["together"].append(self.together(map_for_peers=False))
            found["for_peers"].append(self.together(map_for_peers=True))
            print(f"  {repeat + 1}/{self._options.repeats} {json.dumps({k: v[-1] for k, v in found.items()})}")
        return found


# ---- the table ---------------------------------------------------------------------------------------------


def _median(runs: list[dict[str, Any]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def text_of(found: dict[str, Any], options: argparse.Namespace) -> str:
    """What was found, and what falls short of what is aimed at."""
    private, shared, together, for_peers = (found[side] for side in ("private", "shared", "together", "for_peers"))
    count = options.processes
    allowed = options.limit * 1.01 + count * _EXTRA_BYTES
    peak = max(run["pss_bytes"] for run in together + for_peers)
    wrong = sum(run["wrong_words"] for run in together + for_peers)
    reads = _median(together, "disk_reads") / _median(shared, "disk_reads")
    alone, apart = _median(shared, "read"), _median(together, "apart")
    mapped = f"in all: {_median(for_peers, 'apart'):.0f}; in step, each: {_median(for_peers, 'in_step'):.0f}"
    ratio = alone / _median(private, "read")
    rows = [
        (
            f"private, sequential read, MB/s: {_median(private, 'read'):.0f}; fill: {_median(private, 'fill'):.0f}",
            True,
        ),
        (f"shared, one process: {alone:.0f}; fill: {_median(shared, 'fill'):.0f}", True),
        (f"shared / private: {ratio:.2f} (at least {_SHARED_TARGET})", ratio >= _SHARED_TARGET),
        (f"{count} processes, each a part, in all: {apart:.0f}; / one: {apart / alone:.2f} (1.0)", apart >= alone),
        (f"{count} processes in step, each: {_median(together, 'in_step'):.0f} MB/s", True),
        (f"map_for_peers=True: each a part, {mapped}", True),
        (f"pages read in step / by one: {reads:.2f} (at most {1 + _READS_TARGET:.1f})", reads <= 1 + _READS_TARGET),
        (f"sum of Pss, at most: {format_size(peak)} (of {format_size(int(allowed))})", peak <= allowed),
        (f"wrong words: {wrong}", wrong == 0),
    ]
    head = f"{format_size(options.size)} under {format_size(options.limit)}, {options.repeats} repeats, medians\n\n"
    return head + "".join(f"{text}{'' if fine else '  SHORT'}\n" for text, fine in rows)


def main() -> int:
    """=> 0, or 1 if a process failed."""
    if conversation.is_worker():
        return conversation.serve(work)
    options = parse_arguments()
    with harness.native_library() as library:
        try:
            found = Bench(options, library).run()
        except (harness.BenchmarkError, OSError) as error:
            print(f"bench_shared: {error}", file=sys.stderr)
            return 1
    report = {"environment": harness.environment(options.dir), "runs": found}
    text = text_of(found, options)
    print("\n" + text)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    options.text.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
