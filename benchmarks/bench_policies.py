"""Which policy makes how many faults: uswap's policies and kernel swap, live, and references in simulation.

    python benchmarks/bench_policies.py --limit 64MiB --size 256MiB --repeats 3

Reference strings are made for the limit, programs have --size bytes of data. All sides of a workload run in turn.
README.md beside this file says how to read the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import policy_simulation
import policy_table
import workloads
from policy_worker import PolicyJob

import uswap
from uswap._filesystem import free_bytes, is_memory_backed
from uswap._sizes import PAGE_BYTES, format_size, parse_size
from uswap.bench import kernel_swap

KERNEL, NO_POLICY = policy_table.KERNEL, policy_simulation.NO_POLICY
POLICIES = ("second-chance", "fifo", "s3-fifo")
_READ_AHEAD = ("default", "0")
_MARGIN_BYTES = 64 << 20
_KERNEL_TRIES = 3
# A limit under which nothing is ever swapped: to find what a program needs besides its data.
_ROOMY_TIMES = 4
_ROOMY_BYTES = 1 << 30
_RESULTS = "results/policies"
_USUAL = {
    "limit": "64MiB",
    "size": "256MiB",
    "repeats": 3,
    "json": harness.HERE / f"{_RESULTS}.json",
    "text": harness.HERE / f"{_RESULTS}.txt",
}
_QUICK = {"limit": "16MiB", "size": "64MiB", "repeats": 1}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; ends the program if it is wrong."""
    everything = [*workloads.STRINGS, *workloads.PROGRAMS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", help="of the pool and of the cgroup (default: 64MiB)")
    parser.add_argument("--size", help="of a program's data (default: 256MiB)")
    parser.add_argument("--repeats", type=int, help="default: 3")
    parser.add_argument("--seconds", type=float, default=30.0, help="at most, for a string (default: %(default)s)")
    parser.add_argument("--workloads", default=",".join(everything), help="default: %(default)s")
    parser.add_argument("--policies", default=",".join(POLICIES), help="default: %(default)s")
    parser.add_argument(
        "--read-ahead", default=",".join(_READ_AHEAD), help="default: %(default)s; programs: the first"
    )
    parser.add_argument("--write", action="store_true", help="strings write instead of reading")
    parser.add_argument("--no-kernel", action="store_true", help="leave out kernel swap")
    parser.add_argument("--no-simulation", action="store_true", help="leave out simulations")
    parser.add_argument("--traces", type=Path, metavar="FOLDER", help="keep each pool's trace there")
    parser.add_argument("--dir", default="/var/tmp", type=Path, help="on the disk to use (default: %(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="16MiB, programs of 64MiB, one repeat; keeps no results"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"every repeat (default: {_RESULTS}.json)")
    parser.add_argument("--text", type=Path, metavar="FILE", help=f"the tables (default: {_RESULTS}.txt)")
    options = parser.parse_args(arguments)
    for name, value in (_QUICK if options.quick else _USUAL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    try:
        _check(options, everything)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return options


def _names(text: str, known: Any, what: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{what}: {', '.join(unknown)}: there are {', '.join(known)}")
    return names


def _check(options: argparse.Namespace, everything: list[str]) -> None:
    options.limit = parse_size(options.limit, "--limit") // PAGE_BYTES * PAGE_BYTES
    options.size = parse_size(options.size, "--size")
    options.workloads = _names(options.workloads, everything, "--workloads")
    options.read_ahead = _names(options.read_ahead, _READ_AHEAD, "--read-ahead")
    options.policies = [name.strip() for name in options.policies.split(",") if name.strip()]
    if options.repeats < 1 or not (options.workloads and options.read_ahead and options.policies):
        raise ValueError("at least one repeat, workload, policy and way of reading ahead")
    if options.traces and not hasattr(uswap.Pool, "trace"):
        raise ValueError("--traces: this Pool cannot record traces")
    needed = 2 * _largest_bytes(options) + 2 * _MARGIN_BYTES
    if is_memory_backed(options.dir) or free_bytes(options.dir) < needed:
        raise ValueError(f"--dir: {options.dir} lies in memory or has less than {format_size(needed)} free")


def _largest_bytes(options: argparse.Namespace) -> int:
    """What may be in swap at most: strings go over up to five times the limit."""
    size, limit = int(options.size), int(options.limit)
    return max(size * 5 // 4, 5 * limit)


# ---- running -----------------------------------------------------------------------------------------------


class Bench:
    """A run: who takes part, and what has been found so far (report)."""

    def __init__(self, options: argparse.Namespace, library: str, report: dict[str, Any]) -> None:
        self._options, self._library, self._report = options, library, report
        self._policies = policies_there(options, report["unavailable"])
        reason = "--no-kernel" if options.no_kernel else kernel_swap.unavailable_reason()
        self._kernel = reason is None
        if reason is not None:
            report["unavailable"][KERNEL] = reason
        # workload -> bytes that the cgroup gets besides the limit
        self._extra: dict[str, int] = {}

    def run(self) -> None:
        """Everything."""
        for workload in self._options.workloads:
            if self._kernel:
                self._measure_extra(workload)
            for read_ahead in self._read_aheads(workload):
                for repeat in range(self._options.repeats):
                    self._run_sides(workload, read_ahead, repeat)
            if workload in workloads.STRINGS and not self._options.no_simulation:
                self._simulate(workload)

    def _read_aheads(self, workload: str) -> list[str]:
        """Programs are run as they would be, strings in every way asked for."""
        asked: list[str] = self._options.read_ahead
        return asked if workload in workloads.STRINGS else asked[:1]

    def _run_sides(self, workload: str, read_ahead: str, repeat: int) -> None:
        sides = [*self._policies, *([KERNEL] if self._kernel else [])]
        turn = repeat % len(sides)  # each is first as often as any other
        for side in [*sides[turn:], *sides[:turn]]:
            figures = self._run_side(side, workload, read_ahead, repeat)
            if figures is None:
                print(f"  {workload:15s} {read_ahead:8s} {side}: killed by the kernel each time", flush=True)
                continue
            about = {"workload": workload, "read_ahead": read_ahead, "side": side, "repeat": repeat}
            self._report["runs"].append(about | figures)
            self._check_answer(workload, figures)
            counters = figures["counters"]
            print(
                f"  {workload:15s} {read_ahead:8s}{repeat + 1}/{self._options.repeats} {side:14s}"
                f"{figures['seconds']:8.2f} s {counters['disk_reads']:9d} read {counters['misses']:9d} missed",
                flush=True,
            )

    def _job(self, workload: str, side: str, repeat: int) -> PolicyJob:
        options = self._options
        return PolicyJob(
            side="kernel" if side == KERNEL else "uswap",
            workload=workload,
            limit_bytes=options.limit,
            frames=options.limit // PAGE_BYTES,
            size_bytes=options.size,
            folder=str(options.dir),
            seconds=options.seconds,
            seed=1,  # every repeat has the same string: the simulation's
            library=self._library,
            write=options.write,
            policy="" if side in (KERNEL, NO_POLICY) else side,
            trace=str(options.traces / f"{workload}-{side}-{repeat}.trace") if options.traces else "",
        )

    def _run_side(self, side: str, workload: str, read_ahead: str, repeat: int) -> dict[str, Any] | None:
        job = self._job(workload, side, repeat)
        kernel_swap.drop_caches()
        if side != KERNEL:
            # Alone means alone: pages that came in together would leave together, which no simulation knows of.
            one_by_one = {"read_ahead": 0, "fault_around": 1}
            return _run(replace(job, pool_options={} if read_ahead == "default" else one_by_one))
        return self._run_kernel(job, None if read_ahead == "default" else 0)

    def _run_kernel(self, job: PolicyJob, page_cluster: int | None) -> dict[str, Any] | None:
        """Kernel swap; None if the kernel killed it each time: a small cgroup can run out of memory beside swap."""
        for _ in range(_KERNEL_TRIES):
            with contextlib.ExitStack() as stack:
                stack.enter_context(kernel_swap.page_cluster(page_cluster))
                size = _largest_bytes(self._options) + _MARGIN_BYTES
                stack.enter_context(kernel_swap.swap_file(self._options.dir, size))
                limit = self._options.limit + self._extra[job.workload]
                cgroup = stack.enter_context(kernel_swap.MemoryCgroup(limit))
                with contextlib.suppress(harness.KilledError):
                    return _run(replace(job, cgroup_procs=str(cgroup.procs)))
            killed = self._report["killed"]
            killed[job.workload] = killed.get(job.workload, 0) + 1
        return None

    def _measure_extra(self, workload: str) -> None:
        """Runs the workload in memory: what it needs besides its data, its time, and its answer."""
        roomy = _ROOMY_TIMES * _largest_bytes(self._options) + _ROOMY_BYTES
        with kernel_swap.MemoryCgroup(roomy) as cgroup:
            figures = _run(replace(self._job(workload, KERNEL, 0), cgroup_procs=str(cgroup.procs)))
            extra = max(0, cgroup.peak_bytes() - figures["data_bytes"])
        self._extra[workload] = extra
        self._check_answer(workload, figures)
        found = {"seconds": figures["seconds"], "data_bytes": figures["data_bytes"], "extra_bytes": extra}
        self._report["in_memory"][workload] = found
        print(
            f"  {workload:15s} in memory    {figures['seconds']:12.2f} s; besides its data {format_size(extra)}",
            flush=True,
        )

    def _check_answer(self, workload: str, figures: dict[str, Any]) -> None:
        answer = figures.get("answer")
        if answer != self._report["answers"].setdefault(workload, answer):
            raise harness.BenchmarkError(f"{workload}: the sides disagree about the result")

    def _simulate(self, workload: str) -> None:
        limit_frames = self._options.limit // PAGE_BYTES
        string = workloads.string_named(workload)(limit_frames, 1)
        frames = next(run["capacity_frames"] for run in reversed(self._report["runs"]) if "capacity_frames" in run)
        references = policy_simulation.simulate_references(string, frames)
        policies = policy_simulation.simulate_policies(string, self._policies, limit_frames)
        self._report["watched"][workload] = string.watched
        self._report["simulation"][workload] = {
            "frames": frames,
            "accesses": string.counted,
            "watched_accesses": string.watched_accesses,
            "references": {name: one.as_dict() for name, one in references.items()},
            "policies": {name: one.as_dict() for name, one in policies.items()},
        }


def _run(job: PolicyJob) -> dict[str, Any]:
    return harness.run_worker(job, script="policy_worker.py")[0]


def policies_there(options: argparse.Namespace, unavailable: dict[str, str]) -> list[str]:
    """The policies asked for, less those this Pool does not know; one side without a name if it knows none."""
    found = []
    for name in options.policies:
        policy: dict[str, Any] = {"policy": name}
        try:
            uswap.Pool(options.limit, swap=str(options.dir), **policy).close()
        except TypeError:
            return [NO_POLICY]
        except ValueError as error:
            unavailable[name] = str(error)
        else:
            found.append(name)
    return found


@contextlib.contextmanager
def _reported(report: dict[str, Any], options: argparse.Namespace) -> Iterator[None]:
    """What has been measured is summed up and written, however the block ends."""
    try:
        yield
    finally:
        report["live"] = policy_table.summarize_live(report["runs"], report["watched"])
        report["compared"] = policy_table.summarize_simulation(report["simulation"], report["live"])
        text = policy_table.text_of(report)
        print("\n" + text)
        for file, content in ((options.json, json.dumps(report, indent=1) + "\n"), (options.text, text)):
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(content)


def main(arguments: list[str] | None = None) -> int:
    """=> 0; 1 if a side failed, found wrong contents, or had another result."""
    options = parse_arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that finally blocks run
    for what in kernel_swap.clean_up_after_killed_runs(options.dir):
        print(f"left by a killed run, removed: {what}")
    report: dict[str, Any] = {
        "title": (
            f"limit {format_size(options.limit)}, programs with {format_size(options.size)} of data,"
            f" {options.repeats} repeats"
        ),
        "environment": harness.environment(options.dir),
        "arguments": {name: str(value) for name, value in vars(options).items()},
        "unavailable": {},
        "killed": {},
        "in_memory": {},
        "answers": {},
        "watched": {},
        "simulation": {},
        "runs": [],
    }
    print(report["title"])
    with _reported(report, options):
        try:
            with harness.native_library() as library:
                Bench(options, library, report).run()
        except (
            harness.BenchmarkError,
            kernel_swap.UnavailableError,
            uswap.UswapError,
            ValueError,
            OSError,
        ) as error:
            print(f"bench_policies: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nbench_policies: interrupted; the tables have what was measured", file=sys.stderr)
            return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
