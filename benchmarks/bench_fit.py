"""Memory that fits: NumPy on a uswap region below its limit, beside ordinary memory of the same size.

    python benchmarks/bench_fit.py --size 256MiB --repeats 9 --age-seconds 60 --json fit.json

Once its pages are there, managed memory should cost nothing: no fault, no thread of the core at work, the same
4 KiB pages. All sides live in one process and take turns, kernel by kernel; README.md beside this file says how to
read the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy comes: the matrix product of one thread

import harness
import numpy as np

import uswap
from uswap._filesystem import free_bytes, is_memory_backed
from uswap._sizes import format_size, parse_size

PAGE = 4096
# What the limit has beyond the working set: the reserve, the high watermark and the metadata.
ROOM_SHARE = 4
# The limit while a region ages, as a share of its size: three pages of four are out.
AGE_SHARE = 4
_AGE_BATCH = 256
# A measurement is the best of so many runs in a row: what else happens on the machine can only add time.
_RUNS = 3
_REFERENCE = "plain"


# ---- the memory of each side -------------------------------------------------------------------------------


@dataclass
class Side:
    """Memory under test.

    Attributes:
        memory: float64, the working set.
        pool: None for ordinary memory.
    """

    name: str
    memory: Any
    pool: uswap.Pool | None = None
    seconds: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    contiguous: float | None = None


def plain(size: int, advice: int) -> Any:
    """Ordinary anonymous memory with this advice, untouched."""
    mapping = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapping.madvise(advice)
    return np.frombuffer(mapping, dtype="f8")


def touch_at_random(memory: Any, seed: int) -> None:
    """The first touch in random order: neighbours in the memory then lie in frames far apart."""
    words = memory.reshape(-1, PAGE // 8)
    words[np.random.default_rng(seed).permutation(len(words)), 0] = 1.0


def age(memory: Any, pool: uswap.Pool, seconds: float, seed: int) -> int:
    """Random stores for so long under a limit that has room for a quarter, then a limit that has room for all, in
    which the pages come back in random order; => pages read from the disk in all."""
    full, before = pool.limit, pool.stats().pages_in
    words, random = memory.reshape(-1, PAGE // 8), np.random.default_rng(seed)
    pool.limit = max(memory.nbytes // AGE_SHARE, pool.minimum_limit)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        words[random.integers(0, len(words), _AGE_BATCH), 0] += 1.0
    pool.limit = full
    touch_at_random(memory, seed)
    return int(pool.stats().pages_in - before)


def share_of_followers(frames: Any) -> float | None:
    """Of these frame numbers, those that follow the one before; None if they are hidden (all 0)."""
    return float((np.diff(frames.astype("i8")) == 1).mean()) if frames.any() else None


def contiguous_share(memory: Any) -> float | None:
    """Of all pages, those whose frame lies just behind that of the page before: near 1 as the kernel hands out
    memory, near 0 when frames have been shuffled. None: not for this user to see."""
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            file.seek(memory.ctypes.data // PAGE * 8)
            entries = np.frombuffer(file.read(memory.nbytes // PAGE * 8), dtype="u8")
    except OSError:
        return None
    return share_of_followers(entries & np.uint64((1 << 55) - 1))


@contextlib.contextmanager
def all_sides(options: argparse.Namespace) -> Iterator[list[Side]]:
    """The sides asked for, each touched in full, the aged ones aged."""
    limit = options.size + options.size // ROOM_SHARE + (16 << 20)
    makers: dict[str, Callable[[], Side]] = {
        "plain": lambda: Side("plain", plain(options.size, mmap.MADV_NOHUGEPAGE)),
        "scattered": lambda: Side("scattered", plain(options.size, mmap.MADV_NOHUGEPAGE)),
        "huge": lambda: Side("huge", plain(options.size, mmap.MADV_HUGEPAGE)),
    }
    for recycle in (False, True):
        for aged in (False, True):
            name = ("recycle" if recycle else "uswap") + ("_aged" if aged else "")
            makers[name] = lambda name=name, recycle=recycle: managed(name, limit, recycle, options)
    sides = []
    for name in options.sides:
        side = makers[name]()
        if name == "scattered":
            touch_at_random(side.memory, 1)
        side.memory[:] = 1.0
        if name.endswith("_aged"):
            side.counts["aged_pages_in"] = age(side.memory, side.pool, options.age_seconds, 7)
        side.memory[:] = 1.0  # every page is there now
        side.contiguous = contiguous_share(side.memory)
        sides.append(side)
    yield sides
    for side in sides:
        side.memory = None
        if side.pool is not None:
            side.pool.close()


def managed(name: str, limit: int, recycle: bool, options: argparse.Namespace) -> Side:
    """A region of a pool of its own whose limit has room for all of it."""
    pool = uswap.Pool(limit, swap=str(options.dir), recycle=recycle)
    return Side(name, pool.zeros(options.size // 8, dtype="f8", name=name), pool)


# ---- what NumPy does with it -------------------------------------------------------------------------------


class Kernels:
    """The work, the same on every side. Each kernel prepares its operands in the memory; only the run that it gives
    back is timed. Source data lie in ordinary memory.
    """

    def __init__(self, words: int) -> None:
        random = np.random.default_rng(2)
        self._data = random.random(words // 4)
        self._order = max(64, int((words // 4) ** 0.5) // 2)
        self._index = random.integers(0, words // 2, words // 8)

    def sum(self, memory: Any) -> Callable[[], float]:
        """Adds up all of the memory."""
        return lambda: float(memory.sum())

    def sort(self, memory: Any) -> Callable[[], float]:
        """Sorts a quarter of the memory in place."""
        part = memory[: len(self._data)]
        part[:] = self._data

        def run() -> float:
            part.sort()
            return float(part[len(part) // 2])

        return run

    def product(self, memory: Any) -> Callable[[], float]:
        """A product of two matrices, which fill three eighths of half the memory with their result."""
        n = self._order
        left, right, result = (memory[i * n * n : (i + 1) * n * n].reshape(n, n) for i in range(3))
        left[:] = self._data[: n * n].reshape(n, n)
        right[:] = left.T

        def run() -> float:
            np.matmul(left, right, out=result)
            return float(result[0, 0])

        return run

    def gather(self, memory: Any) -> Callable[[], float]:
        """Picks random words of the first half; the index and the result lie in the other half."""
        half, count = len(memory) // 2, len(self._index)
        source, result = memory[:half], memory[half : half + count]
        index = memory[half + count : half + 2 * count].view("i8")
        source[: len(self._data)] = self._data
        source[len(self._data) :] = 0.5
        index[:] = self._index

        def run() -> float:
            np.take(source, index, out=result, mode="clip")
            return float(result[-1])

        return run

    ALL = ("sum", "sort", "product", "gather")


def core_switches() -> int:
    """How often a thread of the core has been put on a CPU so far: 0 more means that all of them slept."""
    total = 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "comm").read_text().startswith("uswap-"):
                lines = (task / "status").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return total


def timed(kernels: Kernels, name: str, side: Side, answers: set[float]) -> list[float]:
    """Seconds of some runs in a row; what the core did meanwhile is added to the side's counts."""
    seconds = []
    for _ in range(_RUNS):
        run = getattr(kernels, name)(side.memory)
        faults = side.pool.stats().faults if side.pool else 0
        switches = core_switches()
        began = time.perf_counter()
        answers.add(run())
        seconds.append(time.perf_counter() - began)
        side.counts["core_switches"] = side.counts.get("core_switches", 0) + core_switches() - switches
        if side.pool:
            side.counts["faults"] = side.counts.get("faults", 0) + side.pool.stats().faults - faults
    return seconds


def measure(sides: list[Side], options: argparse.Namespace) -> None:
    """Every kernel on every side, --repeats times; who begins changes from round to round."""
    kernels = Kernels(options.size // 8)
    for repeat in range(options.repeats):
        for name in Kernels.ALL:
            answers: set[float] = set()
            turn = repeat % len(sides)
            for side in [*sides[turn:], *sides[:turn]]:
                side.seconds.setdefault(name, []).append(min(timed(kernels, name, side, answers)))
            if len(answers) != 1:
                raise harness.BenchmarkError(f"{name}: the sides disagree: {sorted(answers)}")
        print(f"  {repeat + 1}/{options.repeats}", flush=True)


# ---- reporting ---------------------------------------------------------------------------------------------


def paired_ratio(reference: list[float], seconds: list[float]) -> float:
    """Median of the speed of one side over that of the reference in the same round: what changes from round to
    round, such as the machine's other load, falls out."""
    ratio = harness.median([a / b for a, b in zip(reference, seconds, strict=True)])
    assert ratio is not None
    return ratio


def summarize(sides: list[Side]) -> list[dict[str, Any]]:
    """Per kernel: the median time of each side in ms, and its speed over that of plain memory of 4 KiB pages."""
    reference = next(side for side in sides if side.name == _REFERENCE)
    return [
        {
            "kernel": name,
            "median_ms": {side.name: 1e3 * (harness.median(side.seconds[name]) or 0) for side in sides},
            "of_plain": {
                side.name: paired_ratio(reference.seconds[name], side.seconds[name])
                for side in sides
                if side is not reference
            },
        }
        for name in Kernels.ALL
    ]


def print_table(rows: list[dict[str, Any]], sides: list[Side]) -> None:
    """Speed over that of plain memory; and who was awake."""
    others = [side for side in sides if side.name != _REFERENCE]
    print(f"\n{'kernel':10s}{'plain ms':>10s}" + "".join(f"{side.name:>14s}" for side in others))
    for row in rows:
        cells = "".join(f"{row['of_plain'][side.name]:14.3f}" for side in others)
        print(f"{row['kernel']:10s}{row['median_ms'][_REFERENCE]:10.1f}{cells}")
    for what in ("faults", "core_switches"):
        counts = "".join(f"{side.counts.get(what, 0) if side.pool else '-':>14}" for side in others)
        print(f"{what:20s}{counts}")
    shares = {side.name: "-" if side.contiguous is None else f"{side.contiguous:.2f}" for side in sides}
    print(f"{'contiguous':10s}{shares[_REFERENCE]:>10s}" + "".join(f"{shares[side.name]:>14s}" for side in others))
    print("\nSpeed over that of plain memory of 4 KiB pages: 1 is the same, above 1 is faster.")


SIDES = ("plain", "scattered", "huge", "uswap", "uswap_aged", "recycle", "recycle_aged")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; ends the program if it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", help="of the working set of each side (default: 256MiB)")
    parser.add_argument("--repeats", type=int, help="default: 9")
    parser.add_argument("--age-seconds", type=float, help="of each aged region (default: 60)")
    parser.add_argument("--sides", default=",".join(SIDES), help="default: %(default)s")
    parser.add_argument("--dir", default="/var/tmp", type=Path, help="where swap files lie (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="64MiB, three repeats, aged for five seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every repeat there")
    options = parser.parse_args(arguments)
    quick = {"size": "64MiB", "repeats": 3, "age_seconds": 5.0}
    for name, value in (quick if options.quick else {"size": "256MiB", "repeats": 9, "age_seconds": 60.0}).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    try:
        options.size = parse_size(options.size, "--size") // (64 * PAGE) * (64 * PAGE)
        names = [name.strip() for name in options.sides.split(",")]
        if unknown := set(names) - set(SIDES):
            raise ValueError(f"--sides: {', '.join(sorted(unknown))}: there are {', '.join(SIDES)}")
        options.sides = [name for name in SIDES if name in names or name == _REFERENCE]
        if options.size < 1 << 20 or options.repeats < 1:
            raise ValueError("at least 1MiB and one repeat")
        if is_memory_backed(options.dir) or free_bytes(options.dir) < 5 * options.size:
            raise ValueError(
                f"--dir: {options.dir} lies in memory or has less than {format_size(5 * options.size)}"
            )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return options


def main(arguments: list[str] | None = None) -> int:
    """=> 0; 1 if the sides disagree about a result."""
    options = parse_arguments(arguments)
    report: dict[str, Any] = {
        "environment": harness.environment(options.dir),
        "arguments": {name: str(value) for name, value in vars(options).items()},
    }
    print(
        f"working set {format_size(options.size)}, {options.repeats} repeats; aging: {options.age_seconds:g} s each"
    )
    try:
        with all_sides(options) as sides:
            measure(sides, options)
            report["summary"] = summarize(sides)
            report["sides"] = {
                side.name: {"seconds": side.seconds, "contiguous": side.contiguous, **side.counts} for side in sides
            }
            print_table(report["summary"], sides)
    except harness.BenchmarkError as error:
        print(f"bench_fit: {error}", file=sys.stderr)
        return 1
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
