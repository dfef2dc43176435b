"""uswap demo: NumPy's own sort and a group-by on an array four times the limit, checked and measured."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from typing import Any

from uswap._errors import UswapError
from uswap._sampler import ResidentPeak
from uswap._sizes import format_size, parse_size
from uswap._stats import Stats
from uswap.pool import Pool

_MIB = 1 << 20
# What the limit may be exceeded by, as seen from outside: 1 % and the runtime itself.
_ALLOWANCE_SHARE, _ALLOWANCE_BYTES = 0.01, 16 * _MIB


class ProgressLine:
    """One line that says how the job goes: twice a second on a terminal, every five seconds elsewhere.

    A thread of its own writes it, so that it also moves while NumPy sorts.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._terminal = sys.stderr.isatty()
        self._period = 0.5 if self._terminal else 5.0
        self._phase, self._done, self._total = "", 0, 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uswap-demo-progress", daemon=True)
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def __enter__(self) -> ProgressLine:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finish_phase()
        self._end.set()
        self._thread.join()
        if self._terminal:
            print(file=sys.stderr)

    def __call__(self, phase: str, done: int = 0, total: int = 0) -> None:
        """The job is in this phase, so far along."""
        if phase != self._phase:
            self._finish_phase()
        self._phase, self._done, self._total = phase, done, total

    def _finish_phase(self) -> None:
        now = time.monotonic()
        if self._phase:
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._began
        self._began = now

    def _run(self) -> None:
        before, then = self._pool.stats(), time.monotonic()
        while not self._end.wait(self._period):
            stats, now = self._pool.stats(), time.monotonic()
            self._write(stats, before, now - then)
            before, then = stats, now

    def _write(self, stats: Stats, before: Stats, seconds: float) -> None:
        moved = stats.pages_in + stats.pages_out - before.pages_in - before.pages_out
        share = f"{100 * self._done // self._total:3d} %" if self._total else "     "
        line = (
            f"{self._phase:6s} {share}  limit {format_size(stats.limit_bytes)}"
            f"  resident {format_size(stats.resident_bytes)}  in {stats.pages_in} out {stats.pages_out} pages"
            f"  {moved * 4096 / 1e6 / seconds:.0f} MB/s"
        )
        print(f"\r{line:<110s}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr)
        sys.stderr.flush()


def _work(pool: Pool, count: int) -> dict[str, Any]:
    from uswap.commands import _demo_job as job

    with ProgressLine(pool) as progress:
        array = pool.empty((count,), dtype=job.RECORD, name="records")
        job.fill(array, progress)
        progress("sort")
        array.view("<u8").sort()
        summary, ordered = job.group(array, progress)
        right = ordered and summary.same_as(job.expected(count, progress))
    return {"right": right, "seconds": progress.seconds, "stats": pool.stats().as_dict()}


def _report(result: dict[str, Any]) -> str:
    stats, limit = result["stats"], result["limit_bytes"]
    phases = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in result["seconds"].items())
    return "\n".join(
        [
            (
                f"answer: {'right' if result['right'] else 'WRONG'}"
                " (order, checksums and every group, against an independent computation that streams)"
            ),
            f"data {format_size(result['data_bytes'])}, limit {format_size(limit)}: {phases}",
            (
                f"pages in {stats['pages_in']}, out {stats['pages_out']}, evictions by the Python reclaimer"
                f" {stats['evictions_steered']} of {stats['evictions']}"
            ),
            (
                f"peak resident memory, measured from outside in {result['samples']} samples, less"
                f" {format_size(result['baseline_bytes'])} before the pool: {format_size(result['growth_bytes'])}"
                f" ({'within' if result['within'] else 'BEYOND'} limit + 1 % + 16 MiB)"
            ),
        ]
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--size, --limit, --swap, --json."""
    parser.add_argument("--size", default="2GiB", help="bytes of records (default: %(default)s)")
    parser.add_argument("--limit", default="512MiB", help="the pool's limit (default: %(default)s)")
    parser.add_argument("--swap", default=None, help="a swap file or directory (default: as Pool)")
    parser.add_argument("--json", action="store_true", help="the result as one JSON document")


def run(options: argparse.Namespace) -> int:
    """=> 0 if the answer is right and the limit held, 1 if not, 2 if the demo cannot run."""
    try:
        from uswap.commands import _demo_job as job
    except ImportError:
        print("uswap demo: needs NumPy: pip install 'uswap[numpy]'", file=sys.stderr)
        return 2
    job.expected(job.CHUNK, lambda *_: None)  # NumPy's own memory comes before the baseline
    try:
        size, limit = parse_size(options.size, "--size"), parse_size(options.limit, "--limit")
        count = max(size // job.RECORD.itemsize, 1)
        with ResidentPeak() as peak, Pool(limit, swap=options.swap) as pool:
            result = _work(pool, count)
    except (UswapError, ValueError, OSError) as error:
        print(f"uswap demo: {error}", file=sys.stderr)
        return 2
    result |= {"data_bytes": count * job.RECORD.itemsize, "limit_bytes": limit, "samples": peak.samples}
    result |= {"baseline_bytes": peak.baseline_bytes, "growth_bytes": peak.growth_bytes}
    result["within"] = peak.growth_bytes <= limit * (1 + _ALLOWANCE_SHARE) + _ALLOWANCE_BYTES
    print(json.dumps(result, indent=2) if options.json else _report(result))
    return 0 if result["right"] and result["within"] else 1
