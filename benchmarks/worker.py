"""One side of the benchmark in a process of its own: ``python worker.py JOB``, where JOB is JSON (see harness.Job).

It prints one JSON line a pattern. Every pattern starts from the same state: a sweep has checked all contents, and
has left the second quarter of the region in memory, clean. So no sweep finds its start or its end there.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uswap
from uswap.bench.host_memory import warm_host_memory

PAGE = 4096
STRIDE_PAGES = 16
RECORD_PAGES = 4
THREADS = 8
ZIPF_EXPONENT = 0.99
_PR_SET_PDEATHSIG = 1


def u64(value: int) -> ctypes.c_uint64:
    """An argument of the native loops."""
    return ctypes.c_uint64(value)


class Memory:
    """The region under test, and what its contents must be.

    Attributes:
        pages: how many it has.
        version, added: of the contents, as workload.c means them.
    """

    def __init__(self, library: str, buffer: Any, seconds: float, seed: int) -> None:
        self._native = ctypes.CDLL(library)
        self._buffer = buffer
        self._at = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        self.pages = len(memoryview(buffer).cast("B")) // PAGE
        self._budget = u64(int(seconds * 1e9))
        self._seed = u64(seed * 2654435761 + 88172645463325252)
        self.version = self.added = 0

    def _call(self, name: str, *arguments: Any) -> int:
        function = getattr(self._native, name)
        function.restype = ctypes.c_uint64
        return int(function(ctypes.c_void_p(self._at), *arguments))

    def fill(self) -> int:
        """Writes all words for the first time; => accesses (pages). So do all patterns."""
        self._call("sweep_write", u64(self.pages), u64(self.version))
        return self.pages

    def seq_write(self) -> int:
        """Writes all words, in order, without reading any."""
        self.version, self.added = self.version + 1, 0
        return self.fill()

    def seq_rmw(self) -> int:
        """Adds 1 to all words, in order."""
        self._call("sweep_add", u64(self.pages))
        self.added += 1
        return self.pages

    def seq_read(self) -> int:
        """Sums all words, in order."""
        self._call("sweep_read", u64(self.pages))
        return self.pages

    def back_read(self) -> int:
        """Sums all words, last page first."""
        self._call("sweep_read_backward", u64(self.pages))
        return self.pages

    def two_streams(self) -> int:
        """Sums all words, in turn a page of the first half and one of the second."""
        self._call("sweep_read_two_streams", u64(self.pages))
        return self.pages // 2 * 2

    def stride_read(self) -> int:
        """Reads a word of every 16th page."""
        count, total = u64(self.pages // 2), u64(0)
        return self._call(
            "touch_read_stride", u64(self.pages), u64(STRIDE_PAGES), count, self._budget, ctypes.byref(total)
        )

    def rand_read(self) -> int:
        """Reads a word of random pages."""
        count, total = u64(self.pages // 2), u64(0)
        return self._call(
            "touch_read_random", u64(self.pages), self._seed, count, self._budget, ctypes.byref(total)
        )

    def rand_write(self) -> int:
        """Writes a word of random pages, without reading any."""
        return self._call("touch_write_random", u64(self.pages), self._seed, u64(self.pages // 2), self._budget)

    def settle(self) -> int:
        """Checks all contents, from the middle to the end and from the start to the middle; => wrong words."""
        half = self.pages // 2
        contents = u64(self.version), u64(self.added)
        wrong = self._call("sweep_check", u64(half), u64(self.pages - half), *contents)
        return wrong + self._call("sweep_check", u64(0), u64(half), *contents)

    def rand_rmw(self) -> int:
        """Reads a word of random pages and writes it."""
        total = u64(0)
        return self._call(
            "touch_add_random", u64(self.pages), self._seed, u64(self.pages // 2), self._budget, ctypes.byref(total)
        )

    def rand_read_8(self) -> int:
        """Reads a word of random pages in 8 threads."""
        count, total = u64(self.pages), u64(0)
        arguments = u64(self.pages), u64(THREADS), self._seed, count, self._budget, ctypes.byref(total)
        return self._call("touch_read_threads", *arguments)

    def records_read(self) -> int:
        """Reads a word of each page of random records of four."""
        count, total = u64(self.pages), u64(0)
        arguments = u64(self.pages), u64(RECORD_PAGES), self._seed, count, self._budget, ctypes.byref(total)
        return self._call("touch_read_records", *arguments)

    def zipf_read(self) -> int:
        """Reads a word of pages with Zipf's popularity, exponent 0.99, popular pages scattered."""
        count, total, exponent = u64(2 * self.pages), u64(0), ctypes.c_double(ZIPF_EXPONENT)
        arguments = u64(self.pages), exponent, self._seed, count, self._budget, ctypes.byref(total)
        return self._call("touch_read_zipf", *arguments)


FILLS = ("fill_new", "fill")
# name -> (what runs, the unit it is reported in); the order is that of the run
PATTERNS: dict[str, tuple[Callable[[Memory], int], str]] = {
    "fill_new": (Memory.fill, "MB/s"),
    "fill": (Memory.fill, "MB/s"),
    "seq_read": (Memory.seq_read, "MB/s"),
    "seq_write": (Memory.seq_write, "MB/s"),
    "seq_rmw": (Memory.seq_rmw, "MB/s"),
    "back_read": (Memory.back_read, "MB/s"),
    "two_streams": (Memory.two_streams, "MB/s"),
    "stride_read": (Memory.stride_read, "us/page"),
    "rand_read": (Memory.rand_read, "us/page"),
    "rand_write": (Memory.rand_write, "us/page"),
    "rand_rmw": (Memory.rand_rmw, "us/page"),
    "rand_read_8": (Memory.rand_read_8, "us/page"),
    "records_read": (Memory.records_read, "us/page"),
    "zipf_read": (Memory.zipf_read, "us/page"),
}


# ---- the sides: each yields the buffer, and a function that gives its counters -----------------------------

Counters = Callable[[], dict[str, Any]]


@contextlib.contextmanager
def uswap_side(job: dict[str, Any]) -> Iterator[tuple[Any, Counters]]:
    """A region of a pool with default options, and those the job names."""
    with uswap.Pool(job["limit_bytes"], swap=job["folder"], **job["pool_options"]) as pool:
        region = pool.region(job["size_bytes"])

        def counters() -> dict[str, Any]:
            return pool.stats().as_dict()

        yield region, counters


@contextlib.contextmanager
def kernel_side(job: dict[str, Any]) -> Iterator[tuple[Any, Counters]]:
    """Anonymous memory under the cgroup's limit."""
    Path(job["cgroup_procs"]).write_text(str(os.getpid()))
    yield mmap.mmap(-1, job["size_bytes"], mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), _vm_counters


@contextlib.contextmanager
def memmap_side(job: dict[str, Any]) -> Iterator[tuple[Any, Counters]]:
    """numpy.memmap of a file that has been written in full; its page cache is under the cgroup's limit."""
    import numpy as np

    Path(job["cgroup_procs"]).write_text(str(os.getpid()))
    yield np.memmap(job["file"], dtype="u1", mode="r+", shape=(job["size_bytes"],)), _vm_counters


def _vm_counters() -> dict[str, Any]:
    wanted = ("pswpin", "pswpout", "pgmajfault")
    lines = Path("/proc/vmstat").read_text().splitlines()
    return {name: int(value) for name, value in map(str.split, lines) if name in wanted}


SIDES = {"uswap": uswap_side, "kernel": kernel_side, "memmap": memmap_side}


# ---- measuring ---------------------------------------------------------------------------------------------


def cpu_seconds() -> dict[str, float]:
    """CPU time of this process, and of the whole machine less idle (that includes the kernel's own threads)."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    busy = sum(fields) - fields[3] - fields[4]  # less idle and iowait
    return {"process": own.ru_utime + own.ru_stime, "machine": busy / os.sysconf("SC_CLK_TCK")}


def _difference(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Counters as differences; text as it is."""
    return {
        name: value - before[name] if isinstance(value, (int, float)) else value for name, value in after.items()
    }


def measure(memory: Memory, pattern: str, counters: Counters) -> dict[str, Any]:
    """Runs one pattern; => its figures."""
    before, cpu_before, began = counters(), cpu_seconds(), time.perf_counter()
    accesses = PATTERNS[pattern][0](memory)
    seconds = time.perf_counter() - began
    cpu, after = cpu_seconds(), counters()
    return {
        "pattern": pattern,
        "accesses": accesses,
        "seconds": seconds,
        "mb_per_second": accesses * PAGE / 1e6 / seconds,
        "us_per_access": seconds * 1e6 / accesses,
        "cpu_seconds": _difference(cpu, cpu_before),
        "counters": _difference(after, before),
    }


def discard(buffer: Any) -> None:
    """Makes the region untouched again; its swap space has been written by now. A file stays as it is."""
    if isinstance(buffer, uswap.Region):
        buffer.advise(uswap.Advice.DONTNEED)
    elif isinstance(buffer, mmap.mmap):
        buffer.madvise(mmap.MADV_DONTNEED)


def run(job: dict[str, Any]) -> str | None:
    """Measures the job's patterns, a JSON line each; => what was wrong with the contents, or None."""
    warm_host_memory(2 * job["limit_bytes"])
    with SIDES[job["side"]](job) as (buffer, counters):
        memory = Memory(job["library"], buffer, job["seconds"], job["seed"])
        for pattern in ["fill_new", "fill", *(name for name in job["patterns"] if name not in FILLS)]:
            if pattern == "fill":
                discard(buffer)
            elif pattern != "fill_new" and (wrong := memory.settle()):
                return f"{wrong} words are wrong before {pattern}"
            print(json.dumps(measure(memory, pattern, counters)), flush=True)
        wrong = memory.settle()
        del memory, buffer  # so that the pool can end
    return f"{wrong} words are wrong at the end" if wrong else None


def main() -> int:
    """=> 0, or 1 if it could not run or contents were wrong."""
    # A run that is killed must not leave its workers behind: they would hold its cgroup and swap file.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    job = json.loads(sys.argv[1])
    if os.getppid() != job["parent"]:
        return 1
    try:
        error = run(job)
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    if error is not None:
        print(json.dumps({"error": error}), flush=True)
    return 0 if error is None else 1


if __name__ == "__main__":
    sys.exit(main())
