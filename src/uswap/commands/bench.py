"""uswap bench: read-ahead on a real disk, beside the disk by itself and the kernel's own swap."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from uswap._core import ffi, lib, require_core
from uswap._errors import UswapError
from uswap._filesystem import file_system_of, free_bytes, is_memory_backed
from uswap._options import default_directory
from uswap._sizes import format_size, parse_size
from uswap._version import __version__
from uswap.bench import disk, kernel_swap, loop_device, plot, table
from uswap.bench.patterns import PAGE, PATTERNS, pattern_named
from uswap.bench.run import BenchmarkError, Configuration, Plan, Results, run_plan

_DEFAULT_WINDOWS, _DEFAULT_DEPTHS = "8,64,512,2048", "256"
_SWEEP_WINDOWS, _SWEEP_DEPTHS, _SWEEP_PATTERNS = "8,32,128,512,2048", "1,2,4,8,32,256", "sequential,stride"
_MARGIN_BYTES = 256 << 20


# ---- arguments ---------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """PATH and the options; `uswap bench --help` lists them."""
    names = ", ".join(PATTERNS)
    parser.add_argument("path", nargs="?", help="a directory on the disk to measure (default: as Pool's swap)")
    parser.add_argument("--size", default="256MiB", help="of the region (default: %(default)s)")
    parser.add_argument(
        "--limit", default="64MiB", help="of the pool, and of the kernel's side (default: %(default)s)"
    )
    parser.add_argument("--patterns", help=f"default: all of {names}; stride:PAGES, streams:NUMBER, zipf:EXPONENT")
    parser.add_argument("--windows", help=f"largest read-ahead windows, pages (default: {_DEFAULT_WINDOWS})")
    parser.add_argument("--depths", help=f"requests in flight at most (default: {_DEFAULT_DEPTHS})")
    parser.add_argument("--sweep", action="store_true", help="windows times depths: shows the knee")
    parser.add_argument("--transports", default="auto", help="of auto, move, copy (default: %(default)s)")
    parser.add_argument("--faults", default="thread", help="of thread, inline (default: %(default)s)")
    parser.add_argument("--io", default="auto", choices=("auto", "uring", "sync"), help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=1.0, help="at most, a pattern (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=1, help="medians of so many (default: %(default)s)")
    parser.add_argument("--no-kernel", action="store_true", help="leave the kernel's own swap out")
    parser.add_argument(
        "--loop", choices=list(loop_device.MAKERS), help="on such a file system, on a loop device (root)"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="every figure as JSON; -: on standard output, without the table"
    )
    parser.add_argument("--plot", metavar="FILE", help="bandwidth and latency against window: .png or .html")


def _names(text: str, known: tuple[str, ...], what: str) -> list[str]:
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found or any(word not in known for word in found):
        raise ValueError(f"{what}: one or more of {', '.join(known)}, not {text!r}")
    return list(dict.fromkeys(found))


def _numbers(text: str, least: int, most: int, what: str) -> list[int]:
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or any(not least <= number <= most for number in found):
        raise ValueError(f"{what}: numbers from {least} to {most}, separated by commas, not {text!r}")
    return list(dict.fromkeys(found))


def _folder(path: str | None) -> Path:
    folder = Path(path) if path else Path(default_directory())
    if not folder.is_dir():
        raise ValueError(f"{folder} is no directory: name one on the disk to measure")
    if is_memory_backed(folder):
        raise ValueError(f"{folder} lies in memory ({file_system_of(folder)}): name a directory on a disk")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{folder} cannot be written by this user")
    return folder


def _configurations(options: argparse.Namespace) -> list[Configuration]:
    windows = options.windows or (_SWEEP_WINDOWS if options.sweep else _DEFAULT_WINDOWS)
    depths = options.depths or (_SWEEP_DEPTHS if options.sweep else _DEFAULT_DEPTHS)
    return [
        Configuration(window, depth, transport, "inline" if faults == "inline" else "thread", options.io)
        for transport in _names(options.transports, ("auto", "move", "copy"), "--transports")
        for faults in _names(options.faults, ("thread", "inline"), "--faults")
        for depth in _numbers(depths, 1, 256, "--depths")
        for window in _numbers(windows, 0, 65536, "--windows")
    ]


def _plan(options: argparse.Namespace, folder: Path, kernel: bool) -> Plan:
    """Raises ValueError."""
    size = parse_size(options.size, "--size") // PAGE * PAGE
    limit = parse_size(options.limit, "--limit")
    default = _SWEEP_PATTERNS if options.sweep else ",".join(PATTERNS)
    patterns = list(dict.fromkeys(word.strip() for word in (options.patterns or default).split(",")))
    for pattern in patterns:
        pattern_named(pattern)
    if size < max(limit, 1 << 20):
        raise ValueError("--size: at least 1 MiB, and no smaller than the limit, or nothing is swapped")
    if options.repeats < 1 or not 0.01 <= options.seconds <= 3600:
        raise ValueError("--repeats is at least 1, --seconds 0.01 to 3600")
    needed = 2 * size + _MARGIN_BYTES
    if free_bytes(folder) < needed:
        raise ValueError(f"{folder} has less than {format_size(needed)} free")
    configurations = _configurations(options)
    return Plan(folder, size, limit, patterns, configurations, options.seconds, options.repeats, kernel)


def _check_outputs(options: argparse.Namespace) -> None:
    """What would only fail after minutes of measuring. Raises ValueError, UnsupportedError."""
    if options.plot:
        if Path(options.plot).suffix not in plot.SUFFIXES:
            raise ValueError(f"--plot: a file that ends in {' or '.join(plot.SUFFIXES)}, not {options.plot!r}")
        plot.require_matplotlib()
    for file in (options.plot, options.json):
        if file and file != "-" and not Path(file).absolute().parent.is_dir():
            raise ValueError(f"{file}: there is no such directory")


# ---- progress ----------------------------------------------------------------------------------------------


class Progress:
    """A bar on a terminal, a line a step elsewhere; on standard error."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._began = time.monotonic()

    def __call__(self, step: str, done: int, total: int) -> None:
        """Before each step, and at the end (step is empty)."""
        if not self._terminal:
            if step:
                print(f"{done + 1}/{total} {step}", file=sys.stderr, flush=True)
            return
        seconds, filled = time.monotonic() - self._began, 30 * done // total
        left = f", {seconds / done * (total - done):.0f} s left" if done else ""
        bar = "#" * filled + "." * (30 - filled)
        print(
            f"\r[{bar}] {done}/{total}{left}  {step:<44.44s}", end="" if step else "\n", file=sys.stderr, flush=True
        )


# ---- running -----------------------------------------------------------------------------------------------


def _environment(plan: Plan) -> dict[str, Any]:
    return {
        "uswap": __version__,
        "core": ffi.string(lib.uswap_build_info()).decode(),
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "file_system": file_system_of(plan.folder),
        "size_bytes": plan.size_bytes,
        "limit_bytes": plan.limit_bytes,
        "seconds": plan.seconds,
        "repeats": plan.repeats,
    }


@contextmanager
def _ends_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does: what was made is removed."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _measure(plan: Plan, results: Results) -> int:
    """=> the exit status; what was measured until then is in results."""
    try:
        with _ends_by_sigterm():
            run_plan(plan, results, Progress())
    except KeyboardInterrupt:
        print("\nuswap bench: interrupted; what follows is what was measured until then", file=sys.stderr)
        return 128 + signal.SIGINT
    except (BenchmarkError, UswapError, OSError) as failure:
        print(f"\nuswap bench: {failure}", file=sys.stderr)
        return 1
    return 0


def _write(options: argparse.Namespace, plan: Plan, results: Results) -> None:
    lines = [*table.pattern_tables(plan, results), *table.sweep_tables(plan, results), *table.disk_table(results)]
    text = "\n".join([*lines, *(["", *results.notes] if results.notes else [])])
    document = json.dumps({"environment": _environment(plan)} | results.as_dict(), indent=2)
    if options.json == "-":
        print(document)
    else:
        print(text)
        if options.json:
            Path(options.json).write_text(document + "\n")
    if options.plot and results.pools:
        plot.write_plot(Path(options.plot), plan, results, text)


def run(options: argparse.Namespace) -> int:
    """=> 0; 1 if a side failed or found wrong contents, 2 if nothing could be run, 130 if interrupted."""
    results, reason = Results(), kernel_swap.unavailable_reason()
    try:
        require_core()
        folder = _folder(options.path)
        _check_outputs(options)
        with ExitStack() as stack:
            for what in [*loop_device.unmount_abandoned(folder), *kernel_swap.clean_up_after_killed_runs(folder)]:
                print(f"left by a killed run, removed: {what}", file=sys.stderr)
            plan = _plan(options, folder, reason is None and not options.no_kernel)
            if options.loop:
                inside = stack.enter_context(
                    loop_device.loop_file_system(options.loop, folder, 2 * plan.size_bytes + 2 * _MARGIN_BYTES)
                )
                # To swap by way of a loop device takes memory in order to free some: the kernel's side stays out.
                plan = _plan(options, inside, False)
                results.notes.append(f"{options.loop} on a loop device; without the kernel's swap")
            elif reason and not options.no_kernel:
                results.notes.append(f"the kernel's swap is left out: {reason}")
            if not disk.has_fio():
                results.notes.append("fio is not installed: the disk by itself stands alone")
            kind = file_system_of(plan.folder)
            print(
                f"region {format_size(plan.size_bytes)}, limit {format_size(plan.limit_bytes)}, on {kind}",
                file=sys.stderr,
            )
            status = _measure(plan, results)
            _write(options, plan, results)
            return status
    except (ValueError, UswapError, kernel_swap.UnavailableError, OSError) as error:
        print(f"uswap bench: {error}", file=sys.stderr)
        return 2
