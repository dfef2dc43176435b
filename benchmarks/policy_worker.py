"""One side of bench_policies.py in a process of its own: ``python policy_worker.py JOB``.

JOB is JSON (PolicyJob). It prints one JSON line: the figures of the workload, or {"error": text}. What the work
needs besides its data is made, and imported, before the data where that can be: the cgroup of the kernel's side
counts only what comes after joining it.
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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import workloads
from worker import PAGE, cpu_seconds

import uswap
from uswap._core import ffi, lib
from uswap.bench.host_memory import warm_host_memory

_PR_SET_PDEATHSIG = 1
_NO_END_SECONDS = 1e6


@dataclass(frozen=True)
class PolicyJob:
    """What a worker does.

    Attributes:
        side: "uswap", or "kernel": anonymous memory in the cgroup of cgroup_procs.
        workload: a name of workloads.STRINGS or PROGRAMS.
        frames: pages the limit has room for: what strings are made for.
        size_bytes: of a program's data.
        seconds: budget of a string.
        policy: Pool(policy=...); "": say nothing.
        trace: file for the pool's trace; "": none.
        window: of the trace, which then is of a program's work alone; "": none.
    """

    side: str
    workload: str
    limit_bytes: int
    frames: int
    size_bytes: int
    folder: str
    seconds: float
    seed: int
    library: str
    write: bool = False
    policy: str = ""
    pool_options: dict[str, Any] = field(default_factory=dict)
    cgroup_procs: str = ""
    trace: str = ""
    window: str = ""


# ---- the sides ---------------------------------------------------------------------------------------------


class PoolCounter(ctypes.Structure):
    """pool_counter of workload.c."""

    _fields_ = (
        ("stats", ctypes.c_void_p),
        ("pool", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("error", ctypes.c_void_p),
        ("offset", ctypes.c_uint64),
    )


class UswapSide:
    """A pool, and the policy it took; None: this Pool knows no policies, or was told none."""

    def __init__(self, pool: uswap.Pool, policy: str | None) -> None:
        self._pool, self._policy = pool, policy

    def facts(self) -> dict[str, Any]:
        """What the figures depend on. The capacity falls by what metadata takes.

        Raises RuntimeError: the policy has failed, and so it is not what was measured.
        """
        if (error := getattr(self._pool.reclaimer, "error", None)) is not None:
            raise RuntimeError(f"the policy {self._policy} failed: {error!r}")
        stats = self._pool.stats()
        return {
            "policy": self._policy,
            "capacity_frames": stats.capacity_frames,
            "transport": stats.transport,
            "peak_resident_bytes": stats.peak_resident_bytes,
        }

    def recording(self, job: PolicyJob) -> contextlib.AbstractContextManager[Any]:
        """Around what is to be traced by itself."""
        return self._pool.trace(job.trace, window=job.window) if job.window else contextlib.nullcontext()

    def memory(self, size: int, name: str) -> Any:
        """A buffer of zeroes."""
        return self._pool.region(size, name)

    def allocate(self, shape: Any, dtype: Any) -> Any:
        """An array of zeroes."""
        return self._pool.zeros(shape, dtype)

    def counters(self) -> dict[str, int]:
        """All numbers of the pool's statistics, and the two that each side has."""
        stats = {name: value for name, value in self._pool.stats().as_dict().items() if type(value) is int}
        return stats | {"disk_reads": stats["pages_in"], "misses": stats["major_faults"]}

    @contextlib.contextmanager
    def missed(self, native: Any) -> Iterator[tuple[Any, Any]]:
        """The function and its context that touch_order asks: the core's own counter, called from C."""
        values, error = ffi.new("uswap_stats *"), ffi.new("uswap_error *")
        core = self._pool._core
        call = core.enter()
        try:
            addresses = (ffi.addressof(lib, "uswap_pool_stats"), call.pointer, values, error)
            numbers = [int(ffi.cast("uintptr_t", address)) for address in addresses]
            counter = PoolCounter(*numbers, ffi.offsetof("uswap_stats", "major_faults"))
            yield native.pool_major_faults, ctypes.byref(counter)
        finally:
            core.leave(call)


class KernelSide:
    """Anonymous memory, in a cgroup from here on. The swap counted is the machine's: nothing else may swap."""

    def __init__(self, cgroup_procs: str) -> None:
        Path(cgroup_procs).write_text(str(os.getpid()))

    def facts(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def recording(self, job: PolicyJob) -> contextlib.AbstractContextManager[Any]:
        """Of nothing."""
        return contextlib.nullcontext()

    def memory(self, size: int, name: str) -> Any:
        """A buffer of zeroes."""
        return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def allocate(self, shape: Any, dtype: Any) -> Any:
        """An array of zeroes."""
        return np.zeros(shape, dtype)

    def counters(self) -> dict[str, int]:
        """Of the machine's swap, and of this process's faults."""
        lines = Path("/proc/vmstat").read_text().splitlines()
        of_machine = {name: int(value) for name, value in map(str.split, lines) if name in ("pswpin", "pswpout")}
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        return of_machine | {"disk_reads": of_machine["pswpin"], "misses": faults}

    @contextlib.contextmanager
    def missed(self, native: Any) -> Iterator[tuple[Any, Any]]:
        """As UswapSide.missed."""
        yield native.thread_major_faults, None


Side = UswapSide | KernelSide


def make_pool(job: PolicyJob) -> tuple[uswap.Pool, str | None]:
    """=> the pool, and the policy that it took; None: this Pool knows no policies, or was told none."""
    if job.policy:
        with contextlib.suppress(TypeError):
            options: dict[str, Any] = job.pool_options | {"policy": job.policy}
            return uswap.Pool(job.limit_bytes, swap=job.folder, **options), job.policy
    return uswap.Pool(job.limit_bytes, swap=job.folder, **job.pool_options), None


@contextlib.contextmanager
def side_of(job: PolicyJob) -> Iterator[Side]:
    """The job's side, with the limit in force."""
    if job.side == "kernel":
        yield KernelSide(job.cgroup_procs)
        return
    pool, policy = make_pool(job)
    with pool, contextlib.ExitStack() as stack:
        if job.trace and not job.window:
            stack.enter_context(pool.trace(job.trace))
        yield UswapSide(pool, policy)


# ---- strings -----------------------------------------------------------------------------------------------


class Walk(ctypes.Structure):
    """walk of workload.c."""

    _fields_ = (
        ("parts", ctypes.POINTER(ctypes.c_void_p)),
        ("ends", ctypes.POINTER(ctypes.c_uint64)),
        ("misses", ctypes.POINTER(ctypes.c_uint64)),
        ("order", ctypes.c_void_p),
        ("count", ctypes.c_uint64),
        ("write", ctypes.c_uint64),
        ("budget_ns", ctypes.c_uint64),
        ("missed", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
        ("wrong", ctypes.c_uint64),
    )


class Walker:
    """Fills the parts of a string, and touches their pages in its order."""

    def __init__(self, native: Any, side: Side, string: workloads.Reference) -> None:
        native.touch_order.restype = ctypes.c_uint64
        self._native, self._side, self._string = native, side, string
        self._buffers = [side.memory(pages * PAGE, name) for name, pages in string.parts.items()]
        addresses = [ctypes.addressof(ctypes.c_char.from_buffer(buffer)) for buffer in self._buffers]
        count = len(addresses)
        self._parts = (ctypes.c_void_p * count)(*addresses)
        self._ends = (ctypes.c_uint64 * count)(*np.cumsum(list(string.parts.values())).tolist())
        for version, (address, pages) in enumerate(zip(addresses, string.parts.values(), strict=True)):
            native.sweep_write(ctypes.c_void_p(address), ctypes.c_uint64(pages), ctypes.c_uint64(version))

    def walk(self, first: int, end: int, seconds: float, write: bool) -> dict[str, Any]:
        """Makes accesses first to end. Raises ValueError if contents are wrong."""
        order = self._string.order[first:end]
        misses = (ctypes.c_uint64 * len(self._parts))()
        walk = Walk(self._parts, self._ends, misses, order.ctypes.data, len(order), write, int(seconds * 1e9))
        with contextlib.ExitStack() as stack:
            if self._string.watched:
                function, context = stack.enter_context(self._side.missed(self._native))
                walk.missed = ctypes.cast(function, ctypes.c_void_p)
                walk.context = ctypes.cast(context, ctypes.c_void_p) if context is not None else None
            done = int(self._native.touch_order(ctypes.byref(walk)))
        if walk.wrong:
            raise ValueError(f"{walk.wrong} of {done} words were wrong")
        found: dict[str, Any] = {"accesses": done, "of": len(order)}
        if self._string.watched:
            found["misses_of_part"] = dict(zip(self._string.parts, misses, strict=True))
            found["watched_accesses"] = int(self._string.is_watched(order[:done]).sum())
        return found


def run_string(job: PolicyJob) -> dict[str, Any]:
    """Fill and warm-up, then the part that counts."""
    string = workloads.string_named(job.workload)(job.frames, job.seed)
    native = ctypes.CDLL(job.library)
    with side_of(job) as side:
        walker = Walker(native, side, string)
        walker.walk(0, string.warm, _NO_END_SECONDS, job.write)
        figures = measured(side, lambda: walker.walk(string.warm, len(string.order), job.seconds, job.write))
    return figures | {"data_bytes": string.pages * PAGE}


# ---- programs ----------------------------------------------------------------------------------------------


def run_program(job: PolicyJob) -> dict[str, Any]:
    """Preparation, then the work that counts."""
    program = workloads.program_named(job.workload)  # with its imports: before the cgroup counts
    data_bytes = 0
    with side_of(job) as side:

        def allocate(shape: Any, dtype: Any) -> Any:
            nonlocal data_bytes
            array = side.allocate(shape, dtype)
            data_bytes += array.nbytes
            return array

        work = program.prepare(allocate, job.size_bytes)
        with side.recording(job):
            figures = measured(side, lambda: {"answer": work()})
        return figures | {"data_bytes": data_bytes}


# ---- measuring ---------------------------------------------------------------------------------------------


def measured(side: Side, work: Any) -> dict[str, Any]:
    """What work gives, with its time, CPU time and counters."""
    before, cpu_before, began = side.counters(), cpu_seconds(), time.perf_counter()
    found: dict[str, Any] = work()
    seconds, cpu, after = time.perf_counter() - began, cpu_seconds(), side.counters()
    always = ("disk_reads", "misses")
    counters = {name: after[name] - before[name] for name in after if name in always or after[name] != before[name]}
    cpu_used = {name: cpu[name] - cpu_before[name] for name in cpu}
    return found | {"seconds": seconds, "cpu_seconds": cpu_used, "counters": counters} | side.facts()


def main() -> int:
    """=> 0, or 1 if it could not run or contents were wrong."""
    # A run that is killed must not leave its workers behind: they would hold its cgroup and swap file.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    document = json.loads(sys.argv[1])
    if os.getppid() != document.pop("parent"):
        return 1
    job = PolicyJob(**document)
    try:
        warm_host_memory(2 * job.limit_bytes)
        figures = run_string(job) if job.workload in workloads.STRINGS else run_program(job)
    except Exception as failure:
        figures = {"error": f"{type(failure).__name__}: {failure}"}
    print(json.dumps(figures), flush=True)
    return 1 if "error" in figures else 0


if __name__ == "__main__":
    sys.exit(main())
