"""A run of `uswap bench`: every configuration on every pattern, beside the disk and the kernel's own swap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from uswap.bench import disk, kernel_swap
from uswap.bench.figures import Figures, merged
from uswap.bench.patterns import DiskJob, pattern_named
from uswap.bench.worker import Job

KERNEL = "kernel swap"
# So often a disk job is measured by each tool, in turn: a disk of a virtual machine changes from second to second.
DISK_ROUNDS = 5
_MARGIN_BYTES = 64 << 20


class BenchmarkError(Exception):
    """A side ended badly or found wrong contents; the message says how."""


@dataclass(frozen=True)
class Configuration:
    """One way to run a pool.

    Attributes:
        window: the largest read-ahead window, pages. depth: requests in flight at most.
    """

    window: int
    depth: int
    transport: str
    faults: Literal["thread", "inline"]
    io: str

    @property
    def name(self) -> str:
        """Such as "window 512, depth 256, move, thread".

        Example:
            >>> Configuration(512, 256, "move", "thread", "auto").name
            'window 512, depth 256, move, thread'
        """
        parts = [f"window {self.window}", f"depth {self.depth}", self.transport, self.faults]
        return ", ".join([*parts, self.io] if self.io != "auto" else parts)

    def options(self) -> dict[str, Any]:
        """Pool's keywords."""
        return {
            "read_ahead": self.window,
            "io_depth": self.depth,
            "transport": self.transport,
            "io": self.io,
            "faults": self.faults,
        }


@dataclass(frozen=True)
class Plan:
    """What is measured, and where.

    Attributes:
        seconds: budget of each pattern. repeats: of each configuration.
        kernel: whether the kernel's swap runs beside.
    """

    folder: Path
    size_bytes: int
    limit_bytes: int
    patterns: list[str]
    configurations: list[Configuration]
    seconds: float
    repeats: int
    kernel: bool


@dataclass
class Results:
    """What has been measured so far; an interrupted run has a part.

    Attributes:
        pools: (configuration, pattern) -> runs. kernel: pattern -> runs.
        raw, fio: disk job -> runs.
        notes: what was left out, and why.
    """

    pools: dict[tuple[Configuration, str], list[Figures]] = field(default_factory=dict)
    kernel: dict[str, list[Figures]] = field(default_factory=dict)
    raw: dict[DiskJob, list[Figures]] = field(default_factory=dict)
    fio: dict[DiskJob, list[Figures]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def disk_of(self, pattern: str) -> Figures | None:
        """What the core's I/O layer gave for the pattern's disk job."""
        runs = self.raw.get(pattern_named(pattern).disk)
        return merged(runs) if runs else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: every run."""
        return {
            "pools": [
                {"configuration": vars(configuration), "pattern": pattern, "runs": [run.as_dict() for run in runs]}
                for (configuration, pattern), runs in self.pools.items()
            ],
            "kernel": [
                {"pattern": pattern, "runs": [run.as_dict() for run in runs]}
                for pattern, runs in self.kernel.items()
            ],
            "disk": [
                {
                    "job": vars(job),
                    "raw": [run.as_dict() for run in runs],
                    "fio": [run.as_dict() for run in self.fio.get(job, [])],
                }
                for job, runs in self.raw.items()
            ],
            "notes": self.notes,
        }


# Told before each step: what it is, how many are done, how many there are.
Progress = Callable[[str, int, int], None]


def steps_of(plan: Plan) -> int:
    """How many steps a run has, for a progress bar."""
    sides = len(plan.configurations) + plan.kernel
    return len(disk_jobs(plan)) * DISK_ROUNDS + sides * plan.repeats


def disk_jobs(plan: Plan) -> list[DiskJob]:
    """The jobs that the plan's patterns are held against, each once."""
    return list(dict.fromkeys(pattern_named(pattern).disk for pattern in plan.patterns))


def run_plan(plan: Plan, results: Results, progress: Progress) -> None:
    """Fills results.

    Raises:
        BenchmarkError: a side failed. OSError, UswapError: the disk cannot be used.
    """
    total = steps_of(plan)
    for done, (step, work) in enumerate(_steps(plan, results)):
        progress(step, done, total)
        work()
    progress("", total, total)


def _steps(plan: Plan, results: Results) -> Iterator[tuple[str, Callable[[], None]]]:
    with disk.written_file(plan.folder, plan.size_bytes) as path:
        for _ in range(DISK_ROUNDS):
            for job in disk_jobs(plan):
                yield f"disk: {job.name}", lambda job=job: _measure_disk(path, job, plan, results)  # type: ignore[misc]
    sides: list[Configuration | None] = [*plan.configurations, *([None] if plan.kernel else [])]
    for repeat in range(plan.repeats):
        turn = repeat % len(sides)  # each is first as often as any other
        for side in [*sides[turn:], *sides[:turn]]:
            name = side.name if side else KERNEL
            yield name, lambda side=side, repeat=repeat: _measure_side(plan, side, repeat, results)  # type: ignore[misc]


def _measure_disk(path: Path, job: DiskJob, plan: Plan, results: Results) -> None:
    seconds = min(plan.seconds, 1.0)
    results.raw.setdefault(job, []).append(disk.raw(path, job, seconds, seed=len(results.raw) + 1))
    if disk.has_fio() and (figures := disk.fio(path, job, seconds)):
        results.fio.setdefault(job, []).append(figures)


def _measure_side(plan: Plan, side: Configuration | None, repeat: int, results: Results) -> None:
    fields: dict[str, Any] = {
        "patterns": plan.patterns,
        "size_bytes": plan.size_bytes,
        "limit_bytes": plan.limit_bytes,
        "folder": str(plan.folder),
        "seconds": plan.seconds,
        "seed": repeat + 1,
    }
    kernel_swap.drop_caches()
    if side is not None:
        job = Job(side="uswap", options=side.options(), faults=side.faults, **fields)
        for pattern, figures in run_worker(job):
            results.pools.setdefault((side, pattern), []).append(figures)
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(kernel_swap.swap_file(plan.folder, plan.size_bytes + _MARGIN_BYTES))
            cgroup = stack.enter_context(kernel_swap.MemoryCgroup(plan.limit_bytes))
        except kernel_swap.UnavailableError as reason:
            results.notes.append(f"{KERNEL} is left out: {reason}")
            return
        for pattern, figures in run_worker(Job(side="kernel", cgroup_procs=str(cgroup.procs), **fields)):
            results.kernel.setdefault(pattern, []).append(figures)


def run_worker(job: Job) -> Iterator[tuple[str, Figures]]:
    """Runs a job in a process of its own; yields each pattern's figures as they come. Raises BenchmarkError."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uswap.bench.worker", job.to_json()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            document = json.loads(line)
            if "error" in document:
                raise BenchmarkError(f"{job.side}: {document['error']}")
            yield document["pattern"], Figures.from_dict(document)
        said = process.stderr.read().strip()
        if status := process.wait():
            raise BenchmarkError(f"{job.side}: the worker ended with status {status}: {said[-500:]}")
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
