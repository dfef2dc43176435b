"""What may kill a mutant: commands, the cheap ones first, and what their end says."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from catalogue import Mutant

STRESS_OPERATIONS = 3_000_000  # of each kind
FUZZ_SECONDS = 60
# A test that takes longer hangs; those that take long say so themselves.
_TEST_SECONDS = 120
# A check of a mutant may take so many times as long as that of the clean tree, and so much more.
_TIMES = 4.0
_MORE_SECONDS = 30.0
_CLEAN_SECONDS = 1800.0

_FAULTS = ("tests/integration/test_swap_cache.py", "tests/integration/test_inline_faults.py")
_FAILPOINTS = ("tests/failpoints/test_failpoints.py", "tests/failpoints/test_lock_failures.py")
# Area -> the tests that are about it, quick ones only.
_QUICK: dict[str, tuple[str, ...]] = {
    "fault": (*_FAULTS, *_FAILPOINTS),
    "swap": (
        "tests/unit/test_shadow.py",
        "tests/integration/test_swap_cache.py",
        "tests/integration/test_filled_pages.py",
        *_FAILPOINTS,
        "tests/integration/test_swapoff.py",
        "tests/integration/test_policy_batches.py",
    ),
    "reclaim": (
        "tests/integration/test_sealed_pages.py",
        "tests/integration/test_write_ahead.py",
        "tests/integration/test_hints.py",
        *_FAILPOINTS,
    ),
    "frame": (
        "tests/integration/test_sealed_pages.py",
        "tests/integration/test_lowered_limit.py",
        *_FAULTS,
    ),
    "io": ("tests/integration/test_encrypt.py",),
    "region": (
        "tests/integration/test_hints.py",
        "tests/integration/test_sealed_pages.py",
        "tests/integration/test_resize.py",
        "tests/integration/test_swapoff.py",
        *_FAILPOINTS,
    ),
    "fork": (
        *(
            f"tests/integration/test_fork_snapshots.py::{test}"
            for test in (
                "test_both_sides_have_the_data_and_write_everything",
                "test_a_child_that_only_reads_writes_nothing",
                "test_what_a_killed_child_had_comes_back",
                "test_locked_and_pinned_pages_are_in_both",
            )
        ),
        "tests/failpoints/test_fork_failpoints.py::test_each_step_is_passed",
    ),
    "shared": (
        "tests/integration/test_shared_tables.py",
        "tests/integration/test_shared_regions.py",
    ),
    "python": (
        "tests/unit/test_regions.py",
        "tests/integration/test_hints.py",
        "tests/integration/test_policies.py",
        "tests/integration/test_policy_batches.py",
    ),
}
# Of several processes, of which the stress and the fuzzer, one process each, see nothing.
_MEMBERS = (
    "tests/stress/test_members.py",
    "tests/integration/test_named_pool.py",
    "tests/failpoints/test_member_failpoints.py",
)


@dataclass(frozen=True)
class Check:
    """A command that the clean tree passes."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """How a check has ended.

    Attributes:
        killed: it did not pass.
        how: "failed", "crashed" (an invariant, a signal) or "hung"; "" if it passed.
        where: the test, or the last line it printed.
    """

    check: str
    killed: bool
    how: str
    where: str
    seconds: float


def _pytest(*tests: str) -> tuple[str, ...]:
    options = ("-x", "-v", "--no-header", "-p", "no:cacheprovider", f"--timeout={_TEST_SECONDS}")
    return (sys.executable, "-m", "pytest", *options, *tests)


def _stress(*options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "_support.word_stress", "--operations", str(STRESS_OPERATIONS), *options)


def fuzz(area: str) -> Check:
    """`uswap fuzz`, with other processes only where the mutant is about them."""
    options = ("--seconds", str(FUZZ_SECONDS), "--seed", "1", "--as-found", "--database", "build/fuzz")
    command = (sys.executable, "-m", "uswap", "fuzz", *options)
    if area in ("shared", "python"):
        return Check("fuzz", command)
    return Check("fuzz, private", (*command, "--private"))


def _expected(mutant: Mutant) -> list[Check]:
    """The tests that its header names, if it names any."""
    tests = [word for word in mutant.expected.split() if word.startswith("tests/")]
    return [Check(" ".join(test.rpartition("/")[2] for test in tests), _pytest(*tests))] if tests else []


def checks_of(mutant: Mutant) -> list[Check]:
    """For this mutant, the cheapest first: the tests that are expected to kill it, if its header names any."""
    area = mutant.area
    quick = Check(f"tests of {area}", _pytest(*_QUICK[area]))
    suite = Check("suite", _pytest("tests/unit", "tests/failpoints", "tests/integration", "tests/stress"))
    if area == "shared":
        return [*_expected(mutant), quick, Check("members", _pytest(*_MEMBERS)), fuzz(area), suite]
    if area in ("fork", "python"):
        return [*_expected(mutant), quick, fuzz(area), suite]
    stress = [
        Check("stress, move", _stress("--seed", "1")),
        Check("stress, copy", _stress("--seed", "2", "--transport", "copy", "--io", "sync")),
        Check("stress, inline", _stress("--seed", "3", "--faults", "inline", "--encrypt")),
    ]
    return [*_expected(mutant), *stress, quick, fuzz(area), suite]


def run(check: Check, tree: Path, clean_seconds: float | None = None) -> Verdict:
    """Runs the check in the tree. clean_seconds: how long the clean tree takes (None: this is the clean tree);
    what takes much longer hangs, and is ended."""
    limit = _CLEAN_SECONDS if clean_seconds is None else _TIMES * clean_seconds + _MORE_SECONDS
    path = os.pathsep.join([str(tree / "src"), str(tree / "tests")])
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "USWAP_NO_SKIPS")}
    environment |= {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    shutil.rmtree(tree / "build/fuzz", ignore_errors=True)  # what fails is kept there, and would be replayed
    started = time.monotonic()
    process = subprocess.Popen(
        check.command,
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
        hung = False
    except subprocess.TimeoutExpired:
        hung = True
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    seconds = time.monotonic() - started
    if process.returncode == 0 and not hung:
        return Verdict(check.name, False, "", "", seconds)
    where = _where(output)
    if hung and "::" not in where:  # what it printed last has nothing to do with it
        where = ""
    return Verdict(check.name, True, "hung" if hung else _how(process.returncode, output), where, seconds)


def _how(status: int, output: str) -> str:
    if re.search(r"\+ Timeout \+|Failed: Timeout|Timeout \(>|^HANG: ", output, re.MULTILINE):
        return "hung"
    ended = re.search(r"uswap: invariant|^THE PROCESS ENDED: ", output, re.MULTILINE)
    return "crashed" if status < 0 or ended else "failed"


def _where(output: str) -> str:
    """The invariant, what the fuzzer says, the test, or the last line."""
    invariant = re.search(r"uswap: (invariant \S+) does not hold", output)
    if invariant:
        return invariant[1]
    found = re.search(r"^(?:FAILURE|HANG|THE PROCESS ENDED): (.{1,70})", output, re.MULTILINE)
    if found:
        return found[1]
    tests = re.findall(r"^(tests/\S+?::\w+)", output, re.MULTILINE)
    if tests:
        return str(tests[-1]).rpartition("/")[2]
    lines = [
        line for line in output.split("\n") if line.strip() and not line.startswith(("  ", "Thread", "Current"))
    ]
    return re.sub(r"\s+", " ", lines[-1])[:70] if lines else ""
