"""Costs: what misses take, and what a program takes without them."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass

from uswap.trace.reader import Trace

# A miss through the fault thread, as measured in csrc/README.md (Waiting awake); a page of a stream at 1 GB/s.
# `--calibrate` asks the disk at hand.
DEFAULT_MISS_US, DEFAULT_SEQUENTIAL_US = 75.0, 4.0
# What a soft fault takes from the program beyond its share of stall_ns: the trap, and two switches of threads.
DEFAULT_SOFT_US = 8.0
# With fewer waits than this, or if other faults were more, a trace's own stall_ns says nothing of its misses.
_MISSES_MIN = 1000
# Threads wait at the same time, so that stalls can add up to more than the run took.
_WORK_SHARE_MIN = 0.05

_CALIBRATION_LIMIT, _CALIBRATION_REGION, _CALIBRATION_AREA = 16 << 20, 96 << 20, 256 << 20
_CALIBRATION_TOUCHES = 3000
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one event each, microseconds.

    Attributes:
        miss_us: of a miss whose page nobody expected.
        sequential_us: of one beside the miss before, which read-ahead has read by then.
        soft_us: of a soft fault, beyond what stall_ns has.
        basis: where these come from, in words.
    """

    miss_us: float
    sequential_us: float
    soft_us: float = DEFAULT_SOFT_US
    basis: str = "as given"

    def seconds(self, misses: float, sequential_misses: float) -> float:
        """What so many misses take, the sequential ones among them.

        Example:
            >>> Costs(miss_us=100, sequential_us=10).seconds(misses=1000, sequential_misses=900)
            0.019
        """
        return ((misses - sequential_misses) * self.miss_us + sequential_misses * self.sequential_us) / 1e6


def costs_of(trace: Trace, miss_us: float | None = None, sequential_us: float | None = None) -> Costs:
    """What is given; for what is not, the trace's own waits, if it has enough; else the defaults."""
    basis = []
    if miss_us is None:
        own = _own_miss_us(trace)
        miss_us = DEFAULT_MISS_US if own is None else own
        basis.append("a miss by default" if own is None else "a miss as the trace waited for it")
    if sequential_us is None:
        sequential_us = min(DEFAULT_SEQUENTIAL_US, miss_us)
        basis.append("a sequential page by default")
    return Costs(miss_us, sequential_us, basis=", ".join(basis) or "as given")


def _own_miss_us(trace: Trace) -> float | None:
    stats = trace.end.stats
    misses, others = stats.get("major_faults", 0), stats.get("soft_faults", 0) + stats.get("zero_fills", 0)
    if misses < _MISSES_MIN or others > misses:
        return None
    return float(stats.get("stall_ns", 0) / misses / 1000)


def work_seconds(trace: Trace, costs: Costs) -> tuple[float, list[str]]:
    """What the program takes with all its pages in memory and nobody tracing it; => seconds, doubts."""
    end, doubts = trace.end, list[str]()
    elapsed = end.elapsed_ns / 1e9
    if not end.stats:
        doubts.append("the trace has no statistics: the time of the run stands for that without misses")
        return elapsed, doubts
    waited = end.stats.get("stall_ns", 0) / 1e9
    if trace.header.window_pages:
        waited += end.stats.get("soft_faults", 0) * costs.soft_us / 1e6
    least = elapsed * _WORK_SHARE_MIN
    if elapsed - waited < least:
        doubts.append("the run waited nearly all the time, or several threads at once: times are rough")
    return max(elapsed - waited, least), doubts


def calibrate(directory: str | os.PathLike[str]) -> Costs:
    """Asks the disk: a pool of 16 MiB swaps there for a second or two. Takes 256 MiB of disk, at most.

    Raises as Pool: UnsupportedError, SwapAreaError, ...
    """
    import uswap

    with uswap.Pool(_CALIBRATION_LIMIT, swap=uswap.SwapArea(directory, size=_CALIBRATION_AREA)) as pool:
        view = memoryview(pool.region(_CALIBRATION_REGION, name="calibration"))
        pages = len(view) // _PAGE
        for page in range(pages):
            view[page * _PAGE : page * _PAGE + 8] = (page + 1).to_bytes(8, "little")
        chooser = random.Random(1)
        chosen = [chooser.randrange(pages) * _PAGE for _ in range(_CALIBRATION_TOUCHES)]
        before, begin = pool.stats().major_faults, time.perf_counter()
        for offset in chosen:
            view[offset]
        elapsed = time.perf_counter() - begin
        misses = max(1, pool.stats().major_faults - before)
        begin = time.perf_counter()
        for page in range(pages):
            view[page * _PAGE]
        sequential = (time.perf_counter() - begin) / pages
        view.release()
    return Costs(elapsed / misses * 1e6, sequential * 1e6, basis=f"measured in {os.fspath(directory)}")
