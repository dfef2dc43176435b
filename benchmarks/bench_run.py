"""Unmodified programs under `uswap run`, beside the same in a memory cgroup with kernel swap, and without a limit.

The limit is a share of what the program takes at its peak without one. Each side in turn, as often as --repeats
says; the first run of each program is thrown away. What they print must be the same. The peak is measured from
outside: anonymous memory of a process, less its stack, its brk heap and its ELF files' own data, as smaps says. The
side of kernel swap needs root; where the kernel would kill the program, it is given more memory (oom_relief.py).

Example: python benchmarks/bench_run.py --programs sort,dict --scale 0.1
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from harness import environment
from memory_use import SampledPeak, family
from oom_relief import OomRelief
from run_programs import PROGRAMS, Program

from uswap._sizes import format_size
from uswap.bench import kernel_swap
from uswap.running import prepare

HERE = Path(__file__).resolve().parent
_MIB = 1 << 20
_ENVIRONMENT = {"LC_ALL": "C", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def anonymous_bytes(pid: int, brk: bool) -> int:
    """Resident anonymous memory of a process that has no file and is no stack, with or without its brk heap."""
    total, counted = 0, False
    try:
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            words = line.split()
            if "-" in words[0]:
                counted = len(words) < 6 or words[5].startswith("[anon") or (brk and words[5] == "[heap]")
            elif counted and words[0] == "Anonymous:":
                total += int(words[1]) * 1024
    except (OSError, ValueError):
        pass
    return total


def execute(
    command: list[str],
    env: dict[str, str],
    stdin: Path | None,
    timeout: float,
    cgroup: Path | None = None,
    brk: bool = True,
) -> dict[str, Any]:
    """Runs a command; => seconds, peak_bytes, output, what it said on standard error."""
    enter = ["sh", "-c", f'echo $$ > {cgroup} && exec "$@"', "sh"] if cgroup else []
    with (
        open(stdin or os.devnull, "rb") as source,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        begin = time.monotonic()
        process = subprocess.Popen([*enter, *command], stdin=source, stdout=out, stderr=err, env=env)
        with SampledPeak(lambda: max(anonymous_bytes(pid, brk) for pid in family(process.pid))) as peak:
            try:
                status: int | None = process.wait(timeout)
            except subprocess.TimeoutExpired:
                for pid in reversed(family(process.pid)):
                    with contextlib.suppress(OSError):
                        os.kill(pid, 9)
                process.wait()
                status = None
        seconds = time.monotonic() - begin
        out.seek(0)
        err.seek(0)
        return {
            "seconds": seconds,
            "peak_bytes": peak.peak_bytes,
            "status": status,
            "output": out.read(),
            "stderr": err.read().decode(errors="replace")[-2000:],
        }


def run_side(
    side: str, program: Program, command: list[str], folder: Path, limit: int, options: Any
) -> dict[str, Any]:
    """One run of a program on one side."""
    env = os.environ | _ENVIRONMENT
    stdin = folder / program.stdin if program.stdin else None
    if side == "uswap":
        path, words, variables = prepare(command, limit=limit, swap=options.dir, stats=True, env=env)
        return execute([path, *words[1:]], variables, stdin, options.timeout, brk=False)
    if side == "kernel":
        with (
            kernel_swap.MemoryCgroup(limit) as group,
            OomRelief(group.procs.parent, limit) as relief,
        ):
            done = execute(command, env, stdin, options.timeout, group.procs)
            return done | {"limit_bytes": relief.limit_bytes}
    return execute(command, env, stdin, options.timeout)


def measure(program: Program, options: Any) -> dict[str, Any]:
    """=> the row of a program."""
    with tempfile.TemporaryDirectory(prefix="uswap-bench-", dir=options.dir) as place:
        folder = Path(place)
        command = program.make(folder, options.scale)
        first = run_side("memory", program, command, folder, 0, options)
        limit = max(int(first["peak_bytes"] * options.share) >> 20, 8) << 20
        sides = ["uswap", *(["kernel"] if options.kernel else []), "memory"]
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for _ in range(options.repeats):
            for side in sides:
                done = run_side(side, program, command, folder, limit, options)
                right = done["status"] == 0 and done["output"] == first["output"]
                runs[side].append(done | {"right": right, "output": len(done["output"])})
                print(
                    f"{program.name}: {side}: {done['seconds']:.1f} s, peak {format_size(done['peak_bytes'])}, "
                    f"{'right' if right else 'WRONG, status ' + str(done['status'])}",
                    file=sys.stderr,
                )
    return {"program": program.name, "peak_bytes": first["peak_bytes"], "limit_bytes": limit, "runs": runs}


def line_of(row: dict[str, Any]) -> str:
    """A line of the table."""

    def middle(side: str) -> float:
        return median(run["seconds"] for run in row["runs"][side]) if side in row["runs"] else float("nan")

    own = row["runs"]["uswap"]
    over = max(run["peak_bytes"] for run in own) - row["limit_bytes"]
    right = all(run["right"] for run in row["runs"]["uswap"] + row["runs"]["memory"])
    kernel = row["runs"].get("kernel", [])
    killed = any(not run["right"] for run in kernel)
    given = max((run["limit_bytes"] - row["limit_bytes"] for run in kernel), default=0)
    return (
        f"{row['program']:<10}{row['peak_bytes'] / _MIB:>9.0f}{row['limit_bytes'] / _MIB:>8.0f}{over / _MIB:>+9.1f}"
        f"{middle('memory'):>10.1f}{middle('kernel'):>10.1f}{middle('uswap'):>10.1f}"
        f"{middle('uswap') / middle('kernel'):>9.2f}  {'same' if right else 'DIFFERENT'}"
        f"{f' (kernel: {given >> 20} MiB more)' if given else ''}{' (kernel: not to its end)' if killed else ''}"
    )


HEAD = (
    f"{'program':<10}{'peak':>9}{'limit':>8}{'over':>9}{'memory':>10}{'kernel':>10}{'uswap':>10}{'ratio':>9}  is\n"
    f"{'':<10}{'MiB':>9}{'MiB':>8}{'MiB':>9}{'s':>10}{'s':>10}{'s':>10}{'time':>9}"
)


def main(arguments: list[str] | None = None) -> int:
    """=> 1 if an output differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ",".join(program.name for program in PROGRAMS)
    parser.add_argument("--programs", default=names, help="default: %(default)s")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of the inputs (default: as large as issue 7 says)"
    )
    parser.add_argument("--share", type=float, default=0.25, help="of the peak, as limit (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds a run (default: %(default)s)")
    parser.add_argument(
        "--dir", type=Path, default=Path("/var/tmp"), help="on the disk to use (default: %(default)s)"
    )
    parser.add_argument("--no-kernel", dest="kernel", action="store_false", help="without the side of kernel swap")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "run.json", metavar="FILE")
    parser.add_argument("--text", type=Path, default=HERE / "results" / "run.txt", metavar="FILE")
    options = parser.parse_args(arguments)
    reason = kernel_swap.unavailable_reason()
    if options.kernel and reason:
        print(f"without the side of kernel swap: {reason}", file=sys.stderr)
        options.kernel = False
    wanted = options.programs.split(",")
    with contextlib.ExitStack() as stack:
        if options.kernel:
            kernel_swap.clean_up_after_killed_runs(options.dir)
            stack.enter_context(kernel_swap.swap_file(options.dir, 12 << 30))
        rows = [measure(program, options) for program in PROGRAMS if program.name in wanted]
    text = "\n".join([HEAD, *map(line_of, rows)]) + "\n"
    options.text.write_text(text)
    options.json.write_text(
        json.dumps({"machine": environment(options.dir), "scale": options.scale, "rows": rows}, indent=1)
    )
    print(text, end="")
    return 0 if all(run["right"] for row in rows for run in row["runs"]["uswap"]) else 1


if __name__ == "__main__":
    sys.exit(main())
