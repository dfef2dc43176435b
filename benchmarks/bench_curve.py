"""Whether `uswap curve` is right: a program is traced with all its data in memory, and its time at half of that
foretold and measured.

    python benchmarks/bench_curve.py --size 192MiB --repeats 3

The prediction is made by the command itself (`uswap curve TRACE --work SECONDS --calibrate DIR --limit HALF`),
before the measurement. README.md beside this file says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import workloads
from policy_worker import PolicyJob

import uswap
from uswap._sizes import PAGE_BYTES, format_size, parse_size
from uswap.bench import kernel_swap

# The pool that holds everything has so much more than the data.
_ROOMY = 1.25
_WINDOW = "4MiB"
_TARGET = 0.2
_RESULTS = harness.HERE / "results"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; ends the program if it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="192MiB", help="of a program's data (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of the runs that are timed (default: %(default)s)")
    parser.add_argument("--workloads", default=",".join(workloads.PROGRAMS), help="default: %(default)s")
    parser.add_argument("--window", default=_WINDOW, help="of the traces (default: %(default)s)")
    parser.add_argument("--dir", default="/var/tmp", type=Path, help="on the disk to use (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=_RESULTS / "curve.json", metavar="FILE")
    parser.add_argument("--text", type=Path, default=_RESULTS / "curve.txt", metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        options.size = parse_size(options.size, "--size")
    except ValueError as error:
        parser.error(str(error))
    options.workloads = [name.strip() for name in options.workloads.split(",")]
    if unknown := [name for name in options.workloads if name not in workloads.PROGRAMS]:
        parser.error(f"--workloads: {', '.join(unknown)}: there are {', '.join(workloads.PROGRAMS)}")
    return options


class Bench:
    """One program after the other."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options

    def _job(self, name: str, limit: int) -> PolicyJob:
        options = self._options
        return PolicyJob(
            side="uswap",
            workload=name,
            limit_bytes=limit,
            frames=limit // PAGE_BYTES,
            size_bytes=options.size,
            folder=str(options.dir),
            seconds=0,
            seed=1,
            library="",
            policy="second-chance",
        )

    def _timed(self, job: PolicyJob) -> list[dict[str, Any]]:
        found = []
        for _ in range(self._options.repeats):
            kernel_swap.drop_caches()
            found.append(harness.run_worker(job, script="policy_worker.py")[0])
        return found

    def run(self, name: str) -> dict[str, Any]:
        """Everything about one program."""
        size = self._timed(replace(self._job(name, self._options.size * 2)))[0]["data_bytes"]
        full, half = int(size * _ROOMY), size // 2
        roomy = self._timed(self._job(name, full))
        work = statistics.median(run["seconds"] for run in roomy)
        with tempfile.TemporaryDirectory(dir=self._options.dir) as folder:
            trace = Path(folder) / "program.trace"
            job = replace(self._job(name, full), trace=str(trace), window=self._options.window)
            harness.run_worker(job, script="policy_worker.py")
            curve = self._predict(trace, half, work)
        point = next(point for point in curve["curves"][0]["points"] if point["limit_frames"] == half // PAGE_BYTES)
        measured = self._timed(self._job(name, half))
        return {
            "workload": name,
            "data_bytes": size,
            "half_bytes": half,
            "work_seconds": work,
            "predicted": point,
            "costs": curve["costs"],
            "seconds": [run["seconds"] for run in measured],
            "runs": measured,
        }

    def _predict(self, trace: Path, half: int, work: float) -> dict[str, Any]:
        verb = ["curve", str(trace), "--policy", "second-chance", "--points", "2", "--sample", "1", "--json"]
        given = ["--limit", str(half), "--work", f"{work:.4f}", "--calibrate", str(self._options.dir)]
        command = [sys.executable, "-m", "uswap", *verb, *given]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise harness.BenchmarkError(done.stderr)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


def row_of(found: dict[str, Any]) -> str:
    """A line of the table."""
    measured = statistics.median(found["seconds"])
    wrong = found["predicted"]["seconds"] / measured - 1
    short = "" if abs(wrong) <= _TARGET else f"  SHORT ({100 * _TARGET:.0f}%)"
    return (
        f"{found['workload']:16s}{format_size(found['half_bytes']):>12s}{found['work_seconds']:14.2f}"
        f"{found['predicted']['seconds']:12.2f}{measured:12.2f}{100 * wrong:+11.0f}%{short}"
    )


def main(arguments: list[str] | None = None) -> int:
    """=> 0, or 1 if a program could not be run."""
    options = parse_arguments(arguments)
    report: dict[str, Any] = {"environment": harness.environment(options.dir), "programs": []}
    heads = f"{'program':16s}{'limit':>12s}{'in memory, s':>14s}{'foretold':>12s}{'measured':>12s}{'apart':>12s}"
    lines = [heads]
    print(heads)
    try:
        for name in options.workloads:
            found = Bench(options).run(name)
            report["programs"].append(found)
            lines.append(row_of(found))
            print(lines[-1], flush=True)
    except (harness.BenchmarkError, uswap.UswapError, OSError) as error:
        print(f"bench_curve: {error}", file=sys.stderr)
        return 1
    finally:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
        options.text.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
