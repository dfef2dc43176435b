"""Test suites of others under `uswap run` (`make run-suites`): CPython's own and NumPy's, module by module.

Each module runs without uswap first, then under each limit. A test that fails under a limit and not without is a
fault of uswap's, unless EXCEPTIONS names it, with the reason. Whoever runs it needs Python's `test` package, and
for NumPy's suite pytest and hypothesis. Not every installation of Python has all of that package (3.11.7 leaves out
test_concurrent_futures and more): --python names one that has.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

LIMITS = ("64MiB", "256MiB")
# Seconds for one module in one way.
PATIENCE = 1800

PYTHON_MODULES = (
    "test_mmap", "test_bytes", "test_dict", "test_list", "test_set", "test_tuple", "test_unicode", "test_str",
    "test_array", "test_memoryview", "test_buffer", "test_json", "test_re", "test_pickle", "test_marshal",
    "test_gc",
    "test_io", "test_os", "test_posix", "test_signal", "test_fork1", "test_wait3", "test_wait4", "test_popen",
    "test_subprocess", "test_thread", "test_threading", "test_threadsignals", "test_threading_local", "test_queue",
    "test_multiprocessing_fork", "test_multiprocessing_forkserver", "test_multiprocessing_spawn",
    "test_concurrent_futures", "test_asyncio", "test_socket", "test_selectors", "test_select", "test_poll",
    "test_epoll", "test_zlib", "test_gzip", "test_bz2", "test_lzma", "test_hashlib", "test_sqlite3",
    "test_ctypes",
    "test_faulthandler", "test_resource", "test_largefile", "test_decimal", "test_long", "test_float",
    "test_struct",
    "test_shelve", "test_dbm", "test_tempfile", "test_shutil", "test_locale", "test_codecs", "test_weakref",
    "test_atexit", "test_capi", "test_cmd_line", "test_compile", "test_ast", "test_sort", "test_deque",
    "test_heapq",
    "test_generators", "test_exceptions", "test_xml_etree", "test_email", "test_csv", "test_tarfile",
    "test_zipfile", "test_logging", "test_pty", "test_tracemalloc", "test_sys", "test_venv",
)  # fmt: skip
NUMPY_MODULES = (
    "numpy._core", "numpy.lib", "numpy.linalg", "numpy.fft", "numpy.random", "numpy.ma", "numpy.polynomial",
    "numpy.matrixlib", "numpy.testing", "numpy._utils", "numpy.ctypeslib",
)  # fmt: skip

# What may fail under a limit: a part of a test's name -> why.
EXCEPTIONS: dict[str, str] = {
    "test_large_pool": "it forks 200 workers: a process and its descendants are 64 at most, and share its limit",
}
# What is not run at all: module -> patterns of tests. In a virtual machine these wait for its host, uswap or not.
LEFT_OUT = {"test_socket": ("*VSOCK*",)}

# Only the module's own process is to say at its end what it came to: tests look at what those they start write.
_QUIET = "import os, runpy, sys; os.environ['USWAP_RUN_STATS'] = '0'; "
_REPORT = re.compile(
    r"^uswap run: \S+\[\d+\]: peak ([\d.]+) (\w+) of .*?; (\d+) faults, (\d+) of them from swap", re.M
)
_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_FAILED = (
    re.compile(r"^(?:FAIL|ERROR): (\S+ \([^)\s]+\)|\S+)", re.M),  # unittest
    re.compile(r"^(?:FAILED|ERROR) (\S+\.py\S*)", re.M),  # pytest
)
_MISSING = re.compile(r"No such file or directory: '.*/test/test_\w+'$|No module named 'test\.test_\w+'$", re.M)


@dataclass
class Outcome:
    """How a module ended in one way: without uswap, or under a limit."""

    result: str  # passed, skipped, missing, failed, timed out, signal N
    seconds: float
    tests: int = 0
    failed: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)  # failed here, not without uswap, and no exception
    excepted: dict[str, str] = field(default_factory=dict)  # failed here only -> why that may be
    peak_bytes: int | None = None
    faults: int | None = None
    major_faults: int | None = None


def command_of(module: str, tests: Sequence[str] = (), python: str = sys.executable) -> list[str]:
    """=> what runs the tests of a module: all, or those that match tests."""
    if module.startswith("numpy"):
        code = f"import {module}; sys.exit(not {module}.test('fast', extra_argv={['-rfE', *tests]!r}))"
    else:
        words = ["test", "-W", *(word for pattern in tests for word in ("-m", pattern))]
        words += [word for pattern in LEFT_OUT.get(module, ()) for word in ("-i", pattern)] + [module]
        code = f"sys.argv = {words!r}; runpy.run_module('test', run_name='__main__', alter_sys=True)"
    return [python, "-c", _QUIET + code]


def run(
    module: str,
    limit: str | None,
    *,
    swap: Path | None,
    patience: float = PATIENCE,
    tests: Sequence[str] = (),
    python: str = sys.executable,
) -> tuple[Outcome, str]:
    """Runs a module's tests, under a limit or (None) without. => how it ended, and what it printed."""
    command = command_of(module, tests, python)
    if limit is not None:
        where = [] if swap is None else ["--swap", str(swap)]
        command = [sys.executable, "-m", "uswap", "run", "--limit", limit, "--stats", *where, "--", *command]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="uswap-suites-") as folder, tempfile.TemporaryFile("w+b") as output:
        child = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            status: int | None = child.wait(patience)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end_session(child)
        output.seek(0)
        text = output.read().decode(errors="replace")
    return outcome_of(status, text, time.monotonic() - began), text


def _end_session(child: subprocess.Popen[bytes]) -> None:
    """Nothing that the module started stays behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, 9)
    child.wait()


def outcome_of(status: int | None, text: str, seconds: float) -> Outcome:
    """=> what a run's exit status (None: it was ended) and output say.

    Example:
        >>> report = "uswap run: python[7]: peak 3.0 MiB of 8.0 MiB; 9 faults, 2 of them from swap"
        >>> o = outcome_of(2, f"FAIL: test_a (x.T.test_a)\\n{report}", 1.0)
        >>> (o.result, o.failed, o.peak_bytes, o.faults)
        ('failed', ['test_a (x.T.test_a)'], 3145728, 9)
    """
    failed = sorted({name for pattern in _FAILED for name in pattern.findall(text)})
    if status is None:
        result = "timed out"
    elif status != 0 and not failed and _MISSING.search(text):
        result = "missing"
    elif status < 0:
        result = f"signal {-status}"
    elif status != 0:
        result = "failed"
    else:
        result = (
            "skipped" if re.search(r"^\S+ skipped$|^.*: NO TESTS RAN|^All .* skipped", text, re.M) else "passed"
        )
    found = Outcome(result, round(seconds, 1), _count(text), failed)
    if report := _REPORT.search(text):
        found.peak_bytes = int(float(report[1]) * _UNITS[report[2]])
        found.faults, found.major_faults = int(report[3]), int(report[4])
    return found


def _count(text: str) -> int:
    counts = re.findall(r"^Ran (\d+) tests? in", text, re.M) or re.findall(r"\b(\d+) passed", text)
    return sum(map(int, counts))


def judge(plain: Outcome, limited: Outcome) -> None:
    """=> limited.new and .excepted: what fails under the limit only."""
    for name in limited.failed:
        if name in plain.failed:
            continue
        reason = next((why for part, why in EXCEPTIONS.items() if part in name), None)
        if reason is None:
            limited.new.append(name)
        else:
            limited.excepted[name] = reason
    if limited.result not in ("passed", plain.result) and not (limited.new or limited.excepted):
        limited.new.append(f"(the module: {limited.result})")


def _cell(outcome: Outcome) -> str:
    if outcome.new:
        return f"{outcome.result}: {len(outcome.new)} new"
    return f"{outcome.result} (listed)" if outcome.excepted else outcome.result


def _peak(outcome: Outcome) -> str:
    return "-" if outcome.peak_bytes is None else f"{outcome.peak_bytes / (1 << 20):.1f}"


def row_of(module: str, ways: dict[str, Outcome]) -> str:
    """=> a line of the table."""
    limited = [outcome for way, outcome in ways.items() if way != "without"]
    cells = [f"{module:32}", *(f"{_cell(outcome):16}" for outcome in ways.values())]
    cells.append("/".join(_peak(outcome) for outcome in limited).rjust(14))
    cells.append("/".join(str(outcome.faults or "-") for outcome in limited).rjust(18))
    return " ".join(cells)


def head_of(limits: Sequence[str]) -> str:
    """=> the first line of the table."""
    ways = " ".join(f"{way:16}" for way in ("without", *limits))
    return f"{'module':32} {ways} {'peak MiB':>14} {'faults':>18}"


def run_modules(
    modules: Sequence[str],
    limits: Sequence[str],
    *,
    swap: Path | None,
    patience: float,
    python: str,
    say: Callable[[str], None],
) -> dict[str, dict[str, Outcome]]:
    """Runs each module without uswap, then under each limit. => module -> way -> how it ended."""
    say(head_of(limits))
    all_of_them: dict[str, dict[str, Outcome]] = {}
    for module in modules:
        plain, _ = run(module, None, swap=swap, patience=patience, python=python)
        ways = {"without": plain}
        for limit in limits if plain.result != "missing" else ():
            ways[limit], text = run(module, limit, swap=swap, patience=patience, python=python)
            judge(plain, ways[limit])
            if ways[limit].new:
                kept = Path(tempfile.gettempdir()) / f"uswap-suite-{module}-{limit}.txt"
                kept.write_text(text)
                say(f"# {module} under {limit}: {', '.join(ways[limit].new)}; see {kept}")
        all_of_them[module] = ways
        say(row_of(module, ways))
    return all_of_them


def main() -> int:
    """The command line; => 0, or 1 if anything failed that passes without uswap and is no exception."""
    parser = argparse.ArgumentParser(prog="make run-suites", description=__doc__)
    parser.add_argument("modules", nargs="*", help="of CPython's suite or NumPy's; default: all")
    parser.add_argument("--limit", action="append", help=f"default: {' and '.join(LIMITS)}")
    parser.add_argument("--swap", type=Path, help="the directory for swap; default: as uswap run")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds for one module in one way")
    parser.add_argument("--python", default=sys.executable, help="whose suite is run (default: this one's)")
    parser.add_argument("--json", type=Path, help="writes the results there")
    options = parser.parse_args()
    limits = options.limit or LIMITS
    began = time.monotonic()
    modules = options.modules or (*PYTHON_MODULES, *NUMPY_MODULES)
    results = run_modules(
        modules,
        limits,
        swap=options.swap,
        patience=options.patience,
        python=options.python,
        say=lambda line: print(line, flush=True),
    )
    new = sum(len(outcome.new) for ways in results.values() for outcome in ways.values())
    print(f"{len(results)} modules, {new} failures that are new under a limit and not listed")
    if options.json:
        report = {
            "kernel": platform.release(),
            "python": options.python,
            "took_seconds": round(time.monotonic() - began),
            "new_failures": new,
            "exceptions": EXCEPTIONS,
            "modules": {
                module: {way: asdict(outcome) for way, outcome in ways.items()} for module, ways in results.items()
            },
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
