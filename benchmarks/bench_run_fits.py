"""Programs under `uswap run` with room for all that they have, beside the same without: what that costs.

Two kinds of rows. Those of pyperformance are timed by its own benchmarks, each value without the start of Python:
--python names an interpreter that has pyperformance installed, in an environment of its own. Those of whole
programs (sort, sqlite) are timed from outside, start and end and all. In each round both sides run, one after the
other, the first of them in turn; a ratio is taken within a round. Aimed at: a median of at most 1.03.

Example: python -m venv /tmp/perf && /tmp/perf/bin/pip install pyperformance
         python benchmarks/bench_run_fits.py --python /tmp/perf/bin/python --rounds 7
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from harness import environment
from run_programs import PROGRAMS

from uswap.running import prepare

HERE = Path(__file__).resolve().parent
WHOLE_PROGRAMS = ("sort", "sqlite")
# Of pyperformance, those that need no other packages: numbers, objects, strings, allocation, the collector, files.
PERFORMANCE = (
    "chaos", "deltablue", "float", "gc_collect", "gc_traversal", "generators", "go", "hexiom", "json_dumps",
    "json_loads", "mdp", "nbody", "nqueens", "pickle pickle", "pickle unpickle", "pickle pickle_list", "pprint",
    "pyflate", "raytrace", "regex_compile", "regex_v8", "richards", "spectral_norm", "sqlite_synth", "telco",
    "unpack_sequence", "xml_etree",
)  # fmt: skip
# Of one value: as many loops as that takes, by the first run.
_VALUE_SECONDS = 0.2
_VALUES = 5
_ENVIRONMENT = {"LC_ALL": "C", "PYTHONHASHSEED": "0"}
_FIND = "import pyperformance, os; print(os.path.dirname(pyperformance.__file__))"


@dataclass(frozen=True)
class Measured:
    """One run of one side: of each of its benchmarks the seconds of a loop, and what the process took."""

    seconds: dict[str, float]
    cpu_seconds: float
    faults: int
    output: str  # a digest


def run_process(
    command: Sequence[str], env: dict[str, str], stdin: Path | None, timeout: float
) -> tuple[float, Any, str]:
    """=> seconds, resources used, a digest of the output.

    Raises: CalledProcessError, with what it said; so too where it was killed because it took longer.
    """
    with (
        open(stdin or os.devnull, "rb") as source,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        begin = time.monotonic()
        process = subprocess.Popen(command, stdin=source, stdout=out, stderr=err, env=env)
        killer = threading.Timer(timeout, process.kill)
        killer.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begin
        killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, list(command), stderr=err.read()[-2000:])
        return seconds, usage, hashlib.file_digest(out, "sha256").hexdigest()


def on_side(side: str, command: list[str], options: Any) -> tuple[list[str], dict[str, str]]:
    """=> the command and its environment."""
    env = os.environ | _ENVIRONMENT
    if side == "memory":
        return command, env
    path, words, variables = prepare(command, limit=options.limit, swap=options.dir, env=env)
    return [path, *words[1:]], variables


# ---- the two kinds of rows ----


def run_program(name: str, side: str, folder: Path, options: Any) -> Measured:
    """One run of a program of run_programs.py."""
    program = next(program for program in PROGRAMS if program.name == name)
    command, env = on_side(side, program.make(folder, options.scale), options)
    stdin = folder / program.stdin if program.stdin else None
    seconds, usage, digest = run_process(command, env, stdin, options.timeout)
    return Measured({name: seconds}, usage.ru_utime + usage.ru_stime, usage.ru_minflt, digest)


def run_benchmark(name: str, side: str, folder: Path, loops: int, options: Any) -> Measured:
    """One run of a script of pyperformance's, in one process."""
    script, *words = name.split()
    path = options.performance / f"bm_{script}" / "run_benchmark.py"
    found = folder / "values.json"
    found.unlink(missing_ok=True)
    options_of_pyperf = ["--worker", f"-l{loops}", f"-n{_VALUES}", "-w1", "-o", str(found)]
    command, env = on_side(side, [options.python, str(path), *options_of_pyperf, *words], options)
    _, usage, _ = run_process(command, env, None, options.timeout)
    return Measured(values_in(found), usage.ru_utime + usage.ru_stime, usage.ru_minflt, "")


def values_in(found: Path) -> dict[str, float]:
    """=> benchmark -> seconds a loop, the median of its values, from pyperf's file. If there is a loop within each,
    a value there is that of one of its turns."""
    told = json.loads(found.read_text())
    seconds = {}
    for one in told["benchmarks"]:
        about = told["metadata"] | one.get("metadata", {})
        values = [value for run in one["runs"] for value in run.get("values", [])]
        seconds[about["name"]] = median(values) * about.get("inner_loops", 1)
    return seconds


def loops_for(name: str, folder: Path, options: Any) -> int:
    """=> how many loops a value is to have, so that it takes long enough to be timed."""
    slowest = max(run_benchmark(name, "memory", folder, 1, options).seconds.values())
    return max(1, round(_VALUE_SECONDS / slowest))


# ---- rounds ----


def measure(kind: str, name: str, options: Any) -> list[dict[str, Any]]:
    """=> the rows of a program, or of a script of pyperformance's (which may have several benchmarks)."""
    with tempfile.TemporaryDirectory(prefix="uswap-fits-", dir=options.dir) as place:
        folder = Path(place)
        loops = loops_for(name, folder, options) if kind == "pyperformance" else 1
        rounds: list[dict[str, Measured]] = []
        for i in range(options.rounds):
            sides = ("memory", "uswap") if i % 2 else ("uswap", "memory")
            rounds.append(
                {
                    side: run_benchmark(name, side, folder, loops, options)
                    if kind == "pyperformance"
                    else run_program(name, side, folder, options)
                    for side in sides
                }
            )
    print(f"{name}: {len(rounds)} rounds", file=sys.stderr)
    return [row_of(kind, benchmark, rounds) for benchmark in rounds[0]["memory"].seconds]


def row_of(kind: str, name: str, rounds: list[dict[str, Measured]]) -> dict[str, Any]:
    """=> a row: medians over the rounds."""
    ratios = sorted(each["uswap"].seconds[name] / each["memory"].seconds[name] for each in rounds)
    return {
        "kind": kind,
        "name": name,
        "seconds": {side: median(each[side].seconds[name] for each in rounds) for side in ("memory", "uswap")},
        "ratio": median(ratios),
        "ratios": ratios,
        "cpu_ratio": median(each["uswap"].cpu_seconds / each["memory"].cpu_seconds for each in rounds),
        "faults": {side: median(each[side].faults for each in rounds) for side in ("memory", "uswap")},
        "same": len({each[side].output for each in rounds for side in each}) == 1,
    }


def table_of(rows: list[dict[str, Any]]) -> str:
    """=> the table, with the mean of pyperformance's rows."""
    lines = [f"{'':<24}{'memory s':>12}{'uswap s':>12}{'ratio':>8}{'least':>8}{'most':>8}{'CPU':>8}{'faults':>18}"]
    for row in rows:
        seconds, faults = row["seconds"], row["faults"]
        lines.append(
            f"{row['name']:<24}{seconds['memory']:>12.6f}{seconds['uswap']:>12.6f}{row['ratio']:>8.3f}"
            f"{row['ratios'][0]:>8.3f}{row['ratios'][-1]:>8.3f}{row['cpu_ratio']:>8.3f}"
            f"{faults['memory']:>9.0f}{faults['uswap']:>9.0f}{'' if row['same'] else '  OUTPUT DIFFERS'}"
        )
    ratios = [row["ratio"] for row in rows if row["kind"] == "pyperformance"]
    if ratios:
        lines.append(f"{'pyperformance':<48}{geometric_mean(ratios):>8.3f}  ({len(ratios)} rows, geometric mean)")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """=> 1 if an output differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="an interpreter with pyperformance; default: only whole programs are run")
    parser.add_argument("--benchmarks", default=",".join(PERFORMANCE), help="default: %(default)s")
    parser.add_argument("--programs", default=",".join(WHOLE_PROGRAMS), help="default: %(default)s")
    parser.add_argument("--scale", type=float, default=0.1, help="of the programs' inputs (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--limit", default="4GiB", help="more than any of them needs (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds a run (default: %(default)s)")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="default: %(default)s")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "run_fits.json", metavar="FILE")
    parser.add_argument("--text", type=Path, default=HERE / "results" / "run_fits.txt", metavar="FILE")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    if options.python:
        package = subprocess.run([options.python, "-c", _FIND], check=True, capture_output=True, text=True).stdout
        options.performance = Path(package.strip()) / "data-files" / "benchmarks"
        for name in filter(None, options.benchmarks.split(",")):
            rows += measure("pyperformance", name, options)
    for name in filter(None, options.programs.split(",")):
        rows += measure("program", name, options)
    text = table_of(rows)
    options.text.write_text(text)
    told = {"machine": environment(options.dir), "scale": options.scale, "limit": options.limit, "rows": rows}
    options.json.write_text(json.dumps(told, indent=1) + "\n")
    print(text, end="")
    return 0 if all(row["same"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
