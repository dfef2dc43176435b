"""uswap beside the kernel's swap and numpy.memmap, pattern by pattern, over a region larger than the limit.

    python benchmarks/bench_patterns.py --size 1GiB --limit 256MiB --repeats 3 --json out.json

All sides run in one call, in turn, so that a disk that changes its mind changes it for all. README.md beside this
file says how to read the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import harness
import table
import worker

from uswap._filesystem import free_bytes, is_memory_backed
from uswap._sizes import format_size, parse_size
from uswap.bench import kernel_swap

_QUICK = {"size": "256MiB", "limit": "64MiB", "repeats": 1, "seconds": 2.0}
_QUICK_PATTERNS = "fill,seq_read,seq_write,rand_read,rand_write"
_MARGIN_BYTES = 64 << 20
_IDLE_SECONDS = 3

# Further sides of ours: the same region with other options of the pool.
VARIANTS: dict[str, dict[str, Any]] = {
    "no_policy": {"policy": None},
    "recycle": {"recycle": True},
    "inline": {"faults": "inline"},
    "no_write_ahead": {"write_ahead": False},
    "asleep": {"awake": False},
    "copy": {"transport": "copy"},
    "sync": {"io": "sync"},
    "encrypt": {"encrypt": True},
}


def parse_arguments() -> argparse.Namespace:
    """The command line; ends the program if it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", help="of the region (default: 1GiB)")
    parser.add_argument("--limit", help="of the pool and of the cgroup (default: 256MiB)")
    parser.add_argument("--repeats", type=int, help="default: 5")
    parser.add_argument("--seconds", type=float, help="at most, for a pattern of single pages (default: 4)")
    parser.add_argument("--sides", default="uswap,kernel,memmap", help="default: %(default)s")
    parser.add_argument("--variants", default="", help=f"more sides of ours: {','.join(VARIANTS)}")
    parser.add_argument("--patterns", help=f"default: {','.join(worker.PATTERNS)}")
    parser.add_argument("--dir", default="/var/tmp", type=Path, help="on the disk to use (default: %(default)s)")
    parser.add_argument("--pool", action="append", default=[], metavar="OPTION=VALUE", help="Pool(OPTION=VALUE)")
    parser.add_argument("--quick", action="store_true", help="256MiB / 64MiB, one repeat, fewer patterns")
    parser.add_argument("--no-fio", action="store_true", help="leave out the disk's own figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every repeat there")
    options = parser.parse_args()
    defaults = _QUICK if options.quick else {"size": "1GiB", "limit": "256MiB", "repeats": 5, "seconds": 4.0}
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.patterns is None:
        options.patterns = _QUICK_PATTERNS if options.quick else ",".join(worker.PATTERNS)
    try:
        _check(options)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return options


def _check(options: argparse.Namespace) -> None:
    options.size = parse_size(options.size, "--size") // (2 * worker.PAGE) * (2 * worker.PAGE)
    options.limit = parse_size(options.limit, "--limit")
    options.patterns = _names(options.patterns, worker.PATTERNS, "--patterns")
    options.sides = _names(options.sides, worker.SIDES, "--sides")
    options.sides += _names(options.variants, VARIANTS, "--variants")
    options.pool = dict(_pool_option(text) for text in options.pool)
    if options.repeats < 1 or options.size < options.limit:
        raise ValueError("at least one repeat, and a region no smaller than the limit")
    if is_memory_backed(options.dir):
        raise ValueError(f"--dir: {options.dir} lies in memory; name a directory on a disk")
    needed = 2 * options.size + 2 * _MARGIN_BYTES
    if free_bytes(options.dir) < needed:
        raise ValueError(f"--dir: {options.dir} has less than {format_size(needed)} free")


def _names(text: str, known: dict[str, Any], what: str) -> list[str]:
    """The names in text, in the order of known."""
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"{what}: {', '.join(unknown)}: there are {', '.join(known)}")
    return [name for name in known if name in wanted]


def _pool_option(text: str) -> tuple[str, Any]:
    """Pool's keyword and value, from "name=value" with value as JSON or plain text."""
    name, _, value = text.partition("=")
    with contextlib.suppress(json.JSONDecodeError):
        return name, json.loads(value.lower() if value in ("True", "False") else value)
    return name, value


# ---- running -----------------------------------------------------------------------------------------------


def run_side(
    side: str, repeat: int, options: argparse.Namespace, library: str, file: Path | None
) -> list[dict[str, Any]]:
    """One repeat of one side, in a process of its own; => the figures of its patterns."""
    ours = side == "uswap" or side in VARIANTS
    job = harness.Job(
        side="uswap" if ours else side,
        patterns=options.patterns,
        size_bytes=options.size,
        limit_bytes=options.limit,
        folder=str(options.dir),
        seconds=options.seconds,
        seed=repeat,
        library=library,
        pool_options=options.pool | VARIANTS.get(side, {}),
    )

    def progress(result: dict[str, Any]) -> None:
        unit = worker.PATTERNS[result["pattern"]][1]
        value = result["mb_per_second"] if unit == "MB/s" else result["us_per_access"]
        print(
            f"  {repeat + 1}/{options.repeats} {side:14s} {result['pattern']:12s} {value:9.1f} {unit}", flush=True
        )

    kernel_swap.drop_caches()
    with contextlib.ExitStack() as stack:
        fields = vars(job).copy()
        if side == "kernel":
            stack.enter_context(kernel_swap.swap_file(options.dir, options.size + _MARGIN_BYTES))
        if not ours:
            fields["cgroup_procs"] = str(stack.enter_context(kernel_swap.MemoryCgroup(options.limit)).procs)
        if side == "memmap":
            fields["file"] = str(file)
        return harness.run_worker(harness.Job(**fields), progress)


def run_all(options: argparse.Namespace, report: dict[str, Any]) -> None:
    """Fills report["runs"], ["disk"] and ["unavailable"]."""
    reason = kernel_swap.unavailable_reason()
    sides = [side for side in options.sides if side not in ("kernel", "memmap") or reason is None]
    for side in options.sides:
        if side not in sides:
            print(f"{side}: left out: {reason}")
            report["unavailable"][side] = reason
    with contextlib.ExitStack() as stack:
        library = stack.enter_context(harness.native_library())
        file = None
        if "memmap" in sides or not options.no_fio:
            file = stack.enter_context(written_file(options.dir, options.size))
            kernel_swap.drop_caches()
        report["idle_cpu"] = idle_cpu()
        for repeat in range(options.repeats):
            # Each side is first as often as any other.
            turn = repeat % max(len(sides), 1)
            for side in [*sides[turn:], *sides[:turn]]:
                try:
                    results = run_side(side, repeat, options, library, file)
                except kernel_swap.UnavailableError as error:
                    print(f"{side}: left out: {error}")
                    report["unavailable"][side] = str(error)
                    sides = [other for other in sides if other != side]
                    continue
                report["runs"] += [{"side": side, "repeat": repeat} | result for result in results]
            if file is not None and not options.no_fio:
                report["disk_runs"].append(harness.fio_figures(file))
        for job in report["disk_runs"][0] if report["disk_runs"] else {}:
            report["disk"][job] = harness.median([run[job] for run in report["disk_runs"] if job in run])


def idle_cpu() -> float:
    """CPU seconds a second that the machine uses while nothing of ours runs."""
    before = worker.cpu_seconds()["machine"]
    time.sleep(_IDLE_SECONDS)
    return (worker.cpu_seconds()["machine"] - before) / _IDLE_SECONDS


@contextlib.contextmanager
def written_file(folder: Path, size: int) -> Any:
    """A scratch file that has been written in full: blocks of a reserved but unwritten one read as zeroes, fast."""
    with kernel_swap.scratch_file(folder, ".data", size) as path:
        block = memoryview(bytes(range(1, 256)) * 4112 + bytes(16))[: 1 << 20]
        with open(path, "r+b", buffering=0) as file:
            for start in range(0, size, len(block)):
                file.write(block[: min(len(block), size - start)])
        yield path


def main() -> int:
    """=> 0; 1 if a side failed or found wrong contents."""
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that finally blocks run
    for what in kernel_swap.clean_up_after_killed_runs(options.dir):
        print(f"left by a killed run, removed: {what}")
    report: dict[str, Any] = {
        "environment": harness.environment(options.dir),
        "arguments": {name: value if name == "pool" else str(value) for name, value in vars(options).items()},
        "unavailable": {},
        "disk": {},
        "disk_runs": [],
        "runs": [],
    }
    print(f"region {format_size(options.size)}, limit {format_size(options.limit)}, {options.repeats} repeats")
    status = 0
    try:
        run_all(options, report)
    except (harness.BenchmarkError, OSError) as error:
        print(f"bench_patterns: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("\nbench_patterns: interrupted; the table has what was measured", file=sys.stderr)
        status = 128 + signal.SIGINT
    report["summary"] = table.summarize(report, options.patterns, options.sides)
    if report["runs"]:
        table.print_table(report["summary"], options.sides, report["disk"])
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
