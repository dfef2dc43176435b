"""A data loader with worker processes over one shared array with a limit, beside workers with copies of their own
and beside numpy.memmap: memory and time of the same job.

    python benchmarks/bench_loader.py --size 512MiB --limit 128MiB --workers 4 --epochs 2

README.md beside this file says how to read the figures. The job is that of docs/examples/data_loader.py.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import conversation
import harness
import numpy as np
from memory_use import PssPeak, family

import uswap
from uswap._sizes import format_size
from uswap.bench import kernel_swap
from uswap.shared_array import SharedArray

sys.path.insert(0, str(harness.HERE.parent / "docs" / "examples"))
import data_loader

_IMAGE_BYTES = data_loader.SIDE * data_loader.SIDE * 3
_BATCH_IMAGES = 64
_BARE_IMAGES = _BATCH_IMAGES  # of the run that shows what the processes take by themselves
_EXTRA_BYTES = 16 << 20  # allowed for each process, besides 1 % of the limit
SHARED, COPIES, MEMMAP, MEMMAP_LIMITED = "shared", "copies", "memmap", "memmap_limited"
SIDES = {
    SHARED: "one shared array with a limit",
    COPIES: "a copy in each process",
    MEMMAP: "numpy.memmap, as much page cache as there is",
    MEMMAP_LIMITED: "numpy.memmap in a cgroup with that limit, MADV_RANDOM",
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; ends the program if it is wrong."""
    parser = harness.sharing_arguments("loader", __doc__, size="512MiB", limit="128MiB", repeats=1)
    parser.add_argument("--workers", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=60, help="an epoch may take (default: %(default)s)")
    parser.add_argument("--start", default="spawn", choices=("spawn", "forkserver"), help="default: %(default)s")
    options = harness.parse_sharing(parser, arguments)
    if min(options.workers, options.epochs, options.repeats) < 1 or options.size < _BARE_IMAGES * _IMAGE_BYTES:
        parser.error(f"at least one of each, and {format_size(_BARE_IMAGES * _IMAGE_BYTES)} of images")
    return options


# ---- the job, in a process of its own ----------------------------------------------------------------------


class MappedImages(data_loader.Images):
    """Images in a file. A numpy.memmap would be pickled by value: each worker opens the file instead."""

    def __init__(self, path: str, labels: data_loader.Labels, at_random: bool) -> None:
        shape = (len(labels), data_loader.SIDE, data_loader.SIDE, 3)
        mapped: Any = np.memmap(path, np.uint8, "r+", shape=shape)
        if at_random:
            mapped._mmap.madvise(mmap.MADV_RANDOM)
        super().__init__(mapped, labels)
        self._made_of = path, labels, at_random

    def __reduce__(self) -> Any:
        return MappedImages, self._made_of


def _end_with_parent(number: int, dataset: Any) -> None:
    conversation.end_with_parent()
    if isinstance(dataset.pixels, SharedArray):
        data_loader.open_images(number, dataset)


class Job:
    """A data set of one kind, a loader over it, and epochs."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self._setup = setup
        self._pool: uswap.Pool | None = None
        self._loader: data_loader.DataLoader | None = None

    def make(self) -> float:
        """The images, drawn; => seconds."""
        setup, began = self._setup, time.perf_counter()
        images = setup["images"]
        shape, labels = (images, data_loader.SIDE, data_loader.SIDE, 3), np.empty(images, np.int64)
        self._dataset: data_loader.Images
        if setup["kind"] == SHARED:
            self._pool = uswap.Pool(setup["limit"], swap=setup["folder"], name="bench")
            self._dataset = data_loader.Images(self._pool.empty(shape, np.uint8, shared=True), labels)
        elif setup["kind"] == COPIES:
            self._dataset = data_loader.Images(np.empty(shape, np.uint8), labels)
        else:
            self._dataset = MappedImages(setup["file"], labels, setup["kind"] == MEMMAP_LIMITED)
        data_loader.draw(self._dataset.pixels, labels)
        if "file" in setup:
            _write_and_forget(setup["file"], self._dataset.pixels)
        return time.perf_counter() - began

    def start(self) -> float:
        """The workers; => seconds until the first batch."""
        began, setup = time.perf_counter(), self._setup
        self._loader = data_loader.DataLoader(
            self._dataset,
            _BATCH_IMAGES,
            workers=setup["workers"],
            start=setup["start"],
            worker_init=_end_with_parent,
        )
        next(iter(self._loader))
        return time.perf_counter() - began

    def epoch(self) -> dict[str, Any]:
        """=> seconds, a checksum over all batches in their order, and pages read from swap. One that takes too long
        is cut: its seconds are scaled up, and it has no checksum."""
        assert self._loader is not None
        before, began, checksum, share = self._pages_read(), time.perf_counter(), 0, 1.0
        for number, (pixels, labels) in enumerate(self._loader, 1):
            checksum = zlib.crc32(labels.tobytes(), zlib.crc32(pixels.tobytes(), checksum))
            if time.perf_counter() - began > self._setup["seconds"]:
                share = number / len(self._loader)
                break
        return {
            "seconds": (time.perf_counter() - began) / share,
            "share": share,
            "checksum": checksum if share == 1.0 else None,
            "pages_read": self._pages_read() - before,
        }

    def _pages_read(self) -> int:
        return 0 if self._pool is None else int(self._pool.group_info().pages_read)

    def end(self) -> bool:
        """The workers, and the data set."""
        assert self._loader is not None
        self._loader.__exit__()
        del self._dataset
        return True


def _write_and_forget(path: str, mapped: Any) -> None:
    """The file as another program would have left it: on the disk, not in memory."""
    mapped.flush()
    mapped._mmap.madvise(mmap.MADV_DONTNEED)  # pages that are mapped stay in the page cache
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def work(setup: dict[str, Any], answer_all: Any) -> None:
    """The process that trains."""
    if "cgroup" in setup:
        Path(setup["cgroup"]).write_text(str(os.getpid()))
    job = Job(setup)
    answer_all({name: getattr(job, name) for name in ("make", "start", "epoch", "end")})


# ---- measuring ---------------------------------------------------------------------------------------------


class Bench:
    """All sides, in turn; each begins with new processes."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._images = options.size // _IMAGE_BYTES
        self.bare_bytes = 0

    def sides(self) -> list[str]:
        """Those that can run here."""
        reason = kernel_swap.unavailable_reason()
        if reason is not None:
            print(f"without {MEMMAP_LIMITED}: {reason}")
        return [side for side in SIDES if side != MEMMAP_LIMITED or reason is None]

    @contextmanager
    def _worker(self, side: str, images: int) -> Iterator[conversation.Worker]:
        options = self._options
        setup: dict[str, Any] = {name: getattr(options, name) for name in ("limit", "workers", "start", "seconds")}
        setup |= {"side": side, "kind": side, "images": images, "folder": str(options.dir)}
        with ExitStack() as stack:
            os.environ["USWAP_RUNTIME_DIR"] = stack.enter_context(tempfile.TemporaryDirectory())
            if side in (MEMMAP, MEMMAP_LIMITED):
                scratch = kernel_swap.scratch_file(options.dir, ".images", images * _IMAGE_BYTES)
                setup["file"] = str(stack.enter_context(scratch))
            if side == MEMMAP_LIMITED:
                cgroup = kernel_swap.MemoryCgroup(options.limit + self.bare_bytes)
                setup["cgroup"] = str(stack.enter_context(cgroup).procs)
            yield stack.enter_context(conversation.Worker(__file__, setup))

    def one(self, side: str, images: int = 0) -> dict[str, Any]:
        """One run of one side; images: how many, if not all."""
        with (
            self._worker(side, images or self._images) as worker,
            PssPeak(lambda: family(worker.pid), less_before=False) as pss,
        ):
            made, started = worker.ask("make"), worker.ask("start")
            epochs = [worker.ask("epoch") for _ in range(self._options.epochs)]
            worker.ask("end")
        return {
            "make": made,
            "start": started,
            "epochs": [epoch["seconds"] for epoch in epochs],
            "shares": [epoch["share"] for epoch in epochs],
            "checksums": [epoch["checksum"] for epoch in epochs],
            "pages_read": sum(epoch["pages_read"] for epoch in epochs),
            "pss_bytes": pss.peak_bytes,
            "pss_samples": pss.samples,
        }

    def run(self) -> dict[str, list[dict[str, Any]]]:
        """Everything. Raises harness.BenchmarkError."""
        self.bare_bytes = self.one(COPIES, _BARE_IMAGES)["pss_bytes"]
        found: dict[str, list[dict[str, Any]]] = {side: [] for side in self.sides()}
        for repeat in range(self._options.repeats):
            for side, runs in found.items():
                runs.append(self.one(side))
                print(f"  {repeat + 1}/{self._options.repeats} {side} {json.dumps(runs[-1])}", flush=True)
        return found


# ---- the table ---------------------------------------------------------------------------------------------


def _median(values: list[float]) -> float:
    return statistics.median(values)


def same_result(found: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether all runs of all sides have made the same batches, as far as they came to the end of an epoch."""
    every = (run["checksums"] for runs in found.values() for run in runs)
    return all(len({one for one in epoch if one is not None}) <= 1 for epoch in zip(*every, strict=True))


def text_of(found: dict[str, list[dict[str, Any]]], bare_bytes: int, options: argparse.Namespace) -> str:
    """What was found, and what falls short of what is aimed at."""
    processes = options.workers + 1
    what = f"{format_size(options.size)} of images, limit {format_size(options.limit)}"
    lines = [
        f"{what}, {options.workers} workers ({options.start}), {options.repeats} repeats, medians\n",
        f"{'':15}{'memory':>12}{'images, seconds':>17}{'first batch':>13}{'an epoch':>10}{'all':>8}",
    ]
    for side, runs in found.items():
        memory = max(run["pss_bytes"] for run in runs) - bare_bytes
        make, start = (_median([run[name] for run in runs]) for name in ("make", "start"))
        epoch = _median([seconds for run in runs for seconds in run["epochs"]])
        total = _median([run["make"] + run["start"] + sum(run["epochs"]) for run in runs])
        line = f"{side:15}{format_size(memory):>12}{make:17.1f}{start:13.1f}{epoch:10.1f}{total:8.1f}"
        allowed = options.limit * 1.01 + processes * _EXTRA_BYTES
        if any(share < 1 for run in runs for share in run["shares"]):
            line += "  (cut and scaled up)"
        lines.append(line + ("  SHORT" if side == SHARED and memory > allowed else ""))
    lines += ["", *(f"{side}: {SIDES[side]}" for side in found)]
    lines.append(
        f"memory: largest sum of Pss of all {processes} processes, less the {format_size(bare_bytes)} "
        "that they take with hardly any images"
    )
    lines.append("batches: " + ("the same on all sides" if same_result(found) else "DIFFERENT"))
    return "\n".join(lines) + "\n"


def main() -> int:
    """=> 0, or 1 if a process failed or the sides disagree."""
    if conversation.is_worker():
        return conversation.serve(work)
    options = parse_arguments()
    kernel_swap.clean_up_after_killed_runs(options.dir)
    bench = Bench(options)
    try:
        found = bench.run()
    except (harness.BenchmarkError, kernel_swap.UnavailableError, OSError) as error:
        print(f"bench_loader: {error}", file=sys.stderr)
        return 1
    report = {"environment": harness.environment(options.dir), "bare_bytes": bench.bare_bytes, "runs": found}
    text = text_of(found, bench.bare_bytes, options)
    print("\n" + text)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    options.text.write_text(text)
    return 0 if same_result(found) else 1


if __name__ == "__main__":
    sys.exit(main())
