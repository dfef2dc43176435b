"""One side of `uswap bench` in a process of its own: ``python -m uswap.bench.worker JOB``, where JOB is JSON (Job).

It prints a JSON line for each pattern. Before each the whole region is read and checked, from its middle to its end
and from its start to its middle: so every pattern starts from the same state.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import uswap
from uswap._core import ffi, lib
from uswap.bench.figures import Figures
from uswap.bench.host_memory import warm_host_memory
from uswap.bench.patterns import PAGE, pattern_named

_PR_SET_PDEATHSIG = 1
_STEP_ACCESSES = 4096
_STEP_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """What a worker does.

    Attributes:
        side: "uswap" or "kernel".
        patterns: names (patterns.pattern_named).
        size_bytes, limit_bytes: of the region; of the pool or cgroup.
        folder: where the swap file lies.
        seconds: budget of each pattern.
        options: of the Pool. faults: of the region.
        cgroup_procs: the file to join the cgroup by (side "kernel").
    """

    side: str
    patterns: list[str]
    size_bytes: int
    limit_bytes: int
    folder: str
    seconds: float
    seed: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    faults: Literal["thread", "inline"] = "thread"
    cgroup_procs: str = ""

    def to_json(self) -> str:
        """For the command line of a worker whose parent this process is."""
        return json.dumps(asdict(self) | {"parent": os.getpid()})


class WrongContentsError(Exception):
    """A page did not have what was written to it."""


class Memory:
    """The region under test."""

    def __init__(self, buffer: Any, seed: int) -> None:
        self._address = ffi.from_buffer(buffer)
        self.pages = len(self._address) // PAGE
        self._seed = seed

    def run(self, name: str, accesses: int, seconds: float, first: int = 0) -> Figures:
        """Runs a pattern, in steps that Ctrl-C can come between. Raises WrongContentsError."""
        pattern, done = pattern_named(name), Figures()
        while done.accesses < accesses and done.seconds < seconds:
            result = ffi.new("uswap_bench_result *")
            job = ffi.new("uswap_bench_job *")
            job.order = getattr(lib, f"USWAP_ORDER_{pattern.order}")
            job.access = getattr(lib, f"USWAP_ACCESS_{pattern.access}")
            job.step, job.exponent, job.seed = pattern.step, pattern.exponent, self._seed
            job.first = first + done.accesses
            job.count = min(accesses - done.accesses, _STEP_ACCESSES)
            job.budget_ns = int(min(seconds - done.seconds, _STEP_SECONDS) * 1e9)
            lib.uswap_bench_run(self._address, self.pages, job, result)
            if result.wrong:
                raise WrongContentsError(f"{name}: {result.wrong} of {result.accesses} pages had wrong contents")
            done.add_result(result, PAGE)
        return done

    def settle(self) -> None:
        """Checks all contents, and leaves the same pages in memory each time. Raises WrongContentsError."""
        self.run("sequential", self.pages, float("1e9"), first=self.pages // 2)


# ---- the sides: each yields the buffer, and a function that gives its counters -----------------------------

Counters = Callable[[], dict[str, int]]


@contextlib.contextmanager
def _uswap_side(job: Job) -> Iterator[tuple[Any, Counters]]:
    with uswap.Pool(job.limit_bytes, swap=job.folder, **job.options) as pool:
        region = pool.region(job.size_bytes, faults=job.faults)

        def counters() -> dict[str, int]:
            values = pool.stats().as_dict()
            return {name: value for name, value in values.items() if type(value) is int}

        yield region, counters


@contextlib.contextmanager
def _kernel_side(job: Job) -> Iterator[tuple[Any, Counters]]:
    Path(job.cgroup_procs).write_text(str(os.getpid()))

    def counters() -> dict[str, int]:
        wanted = ("pswpin", "pswpout", "pgmajfault")
        lines = Path("/proc/vmstat").read_text().splitlines()
        return {name: int(value) for name, value in map(str.split, lines) if name in wanted}

    yield mmap.mmap(-1, job.size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), counters


_SIDES = {"uswap": _uswap_side, "kernel": _kernel_side}


# ---- running -----------------------------------------------------------------------------------------------


def _measure(memory: Memory, name: str, seconds: float, counters: Counters) -> Figures:
    before = counters()
    figures = memory.run(name, max(int(pattern_named(name).share * memory.pages), 1), seconds)
    after = counters()
    figures.counters = {key: value - before.get(key, 0) for key, value in after.items()}
    return figures


def _discard(buffer: Any) -> None:
    """Makes the region untouched again."""
    if isinstance(buffer, uswap.Region):
        buffer.advise(uswap.Advice.DONTNEED)
    else:
        buffer.madvise(mmap.MADV_DONTNEED)


def _work(job: Job, report: Callable[[str, Figures], None]) -> None:
    warm_host_memory(2 * job.limit_bytes)
    with _SIDES[job.side](job) as (buffer, counters):
        memory = Memory(buffer, job.seed)
        memory.run("fill", memory.pages, float("1e9"))
        _discard(buffer)  # so that fill meets swap space that has been written, as the disk's own figures do
        filled = _measure(memory, "fill", float("1e9"), counters)
        for name in job.patterns:
            if name == "fill":
                report(name, filled)
                continue
            memory.settle()
            report(name, _measure(memory, name, job.seconds, counters))
        memory.settle()
        del memory


def _report(name: str, figures: Figures) -> None:
    print(json.dumps({"pattern": name} | figures.as_dict()), flush=True)


def main() -> int:
    """=> the exit status. An error is the last line: {"error": text}."""
    # A run that is killed must not leave its workers behind: they would hold its cgroup and swap file.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    document = json.loads(sys.argv[1])
    if os.getppid() != document.pop("parent"):
        return 1
    try:
        _work(Job(**document), _report)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as failure:
        print(json.dumps({"error": f"{type(failure).__name__}: {failure}"}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
