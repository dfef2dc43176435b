"""That the fuzzer finds what is planted: a race that needs one order of steps, policies that misbehave, a process
that ends or hangs. What it finds is small, is kept, comes first in the next run, and fails again when it is
pasted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.stateful import run_state_machine_as_test

import uswap
from uswap._core import lib
from uswap.policy import Batch, Need, Policy
from uswap.testing import PolicyFailure, Program, machine_for, memory
from uswap.testing.engine import step
from uswap.testing.supervise import minimised

needs_failpoints = pytest.mark.skipif(
    not lib.uswap_failpoints_built(), reason="the core was built without failpoints"
)


class Planted(Program):
    """A program whose evictor forgets to look again: it writes back what it has read before the page left, so that
    a store from between is lost."""

    @step
    def advise(self, *, thread: int = 0, region: int, advice: str, page: int, count: int) -> None:
        mapped = self.pick(region)
        if mapped is None or not mapped.may_store(0, len(mapped.model)):
            return
        start, length = mapped.page_span(page, count)
        address = self.address(mapped) + start

        def careless() -> None:
            seen = memory.load(address, length)
            mapped.region.advise(uswap.Advice[advice], start, length)
            if memory.load(address, length) != seen:
                memory.store(address, seen)

        self.start(thread, "a careless evictor", careless)


def fuzz_planted(folder: Path, number: int = 1) -> tuple[list[Program], BaseException | None]:
    """=> all programs that were run with this seed, and what was found."""
    programs: list[Program] = []

    def ended(program: Program, error: BaseException | None) -> None:
        programs.append(program)

    body: dict[str, Any] = {"program_class": Planted, "ended": staticmethod(ended)}
    # There the page is not locked: whoever stores goes on while the evictor is held, and what comes is decided.
    points = ["page_out.published", "page_out.written"]
    only = ["write", "advise", "hold", "release"]
    base = machine_for(only=only, points=points, transport="copy", io="sync", background=False, encrypt=False)
    machine = seed(number)(type("PlantedMachine", (base,), body))
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=3000,
                stateful_step_count=12,
                deadline=None,
                database=DirectoryBasedExampleDatabase(folder),
                suppress_health_check=list(HealthCheck),
                report_multiple_bugs=False,
                phases=[Phase.reuse, Phase.generate, Phase.shrink],
            ),
        )
    except BaseException as error:
        return programs, error
    return programs, None


@needs_failpoints
@pytest.mark.timeout(600)
def test_a_race_is_found_minimised_kept_and_replayed(tmp_path: Path) -> None:
    # Which programs are tried is chance: one seed may miss it.
    for number in range(1, 5):
        folder = tmp_path / str(number)
        programs, error = fuzz_planted(folder, number)
        if isinstance(error, AssertionError):
            break
    assert isinstance(error, AssertionError), error
    assert "lost or stale data" in str(error)
    smallest = programs[-1]
    source = smallest.source()
    assert "hold" in [line.partition("(")[0] for line in smallest.lines], source
    assert len(smallest.lines) <= 8, source

    pasted = source.replace("from uswap.testing import Program", "")
    with pytest.raises(AssertionError, match="lost or stale data"):
        exec(pasted, {"Program": Planted})

    again, error = fuzz_planted(folder, number)
    assert isinstance(error, AssertionError)
    assert again[0].lines == smallest.lines


POLICIES = """
import os
from uswap.policy import Answer, Fifo, Policy

class Good(Fifo):
    pass

class Raises(Policy):
    def decide(self, seen, need):
        if len(seen.faulted) > 3:
            raise KeyError("forgotten")

class Answers(Policy):
    def decide(self, seen, need):
        return 7

class Ends(Policy):
    def decide(self, seen, need):
        os.abort()

class Nothing:
    pass
"""


def run_fuzz(folder: Path, *words: str, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    """`uswap fuzz` in a folder with these policies."""
    (folder / "mine.py").write_text(POLICIES)
    return subprocess.run(
        [sys.executable, "-m", "uswap", "fuzz", "--private", "--seed", "1", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_policy_that_keeps_to_the_rules_passes(tmp_path: Path) -> None:
    result = run_fuzz(tmp_path, "--rules", "150", "--policy", "mine:Good", "--json", "report.json")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "policy mine:Good: " in result.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["seed"] == 1
    assert report["rules"] >= 150
    assert report["failures"] == []
    assert report["counters"]["policy_orders"] > 0


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("Raises", "policy mine:Raises raised KeyError: 'forgotten'"),
        ("Answers", "policy mine:Answers gave an answer that is none: TypeError"),
        ("Ends", "the process ended: SIGABRT"),
    ],
)
def test_a_policy_that_misbehaves_is_named_with_a_program_that_shows_it(
    policy: str, says: str, tmp_path: Path
) -> None:
    words = ["--rules", "2000", "--steps", "8", "--policy", f"mine:{policy}"]
    result = run_fuzz(tmp_path, *words, timeout=380)
    assert result.returncode == 1, result.stdout + result.stderr
    assert says in result.stdout
    source = result.stdout[result.stdout.index("from uswap.testing import Program") :]
    assert f"policy='mine:{policy}'" in source
    assert source.count("    program.") <= 4, source


def test_a_policy_that_does_not_come_back_is_named() -> None:
    awake = threading.Event()

    class Hangs(Policy):
        def decide(self, seen: Batch, need: Need) -> None:
            awake.wait()

    with (
        pytest.raises(PolicyFailure, match=r"policy .*Hangs has not"),
        Program(policy_class=Hangs, hang_seconds=1) as program,
    ):
        program.press(page=0, count=900, value=1)
    awake.set()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--policy", "nowhere:Class"], "there is no policy 'nowhere:Class'"),
        (["--policy", "mine:Nothing"], "is no policy"),
        (["--policy", "lru"], "there is no policy 'lru'"),
        (["--seconds", "0"], "--seconds: a number above 0"),
        (["--limit", "1KiB"], "--limit: at least"),
        (["--size", "1TiB"], "--size: from 4KiB"),
        (["--database", "/dev/null/x"], "--database: /dev/null/x cannot be made"),
    ],
)
def test_bad_input_is_one_line(words: list[str], says: str, tmp_path: Path) -> None:
    result = run_fuzz(tmp_path, *words)
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("uswap fuzz: ")
    assert says in line


def test_without_hypothesis_it_says_how_to_get_it(tmp_path: Path) -> None:
    program = """
        import sys
        sys.modules["hypothesis"] = None
        import importlib.util
        found = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "hypothesis" else found(name, *rest)
        from uswap.cli import main
        sys.exit(main(["fuzz", "--rules", "1"]))
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.returncode == 2
    assert result.stderr.strip() == "uswap fuzz: this needs Hypothesis: pip install 'uswap[fuzz]'"


def test_what_ends_the_process_is_made_smaller_line_by_line() -> None:
    tried: list[list[str]] = []

    def fails(lines: list[str]) -> bool:
        tried.append(lines)
        return "b" in lines and "e" in lines

    assert minimised(list("abcdef"), fails, 10) == ["b", "e"]
    assert minimised(list("xyz"), fails, 10) is None
