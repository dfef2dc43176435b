"""fuzz: many programs, until the time is over or one of them fails."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from uswap.testing import failpoints
from uswap.testing.machine import Machine, machine_for
from uswap.testing.options import Failure, Options, Report
from uswap.testing.program import COUNTERS, Program, source_of

_FIRST_EXAMPLES = 4
_ROUND_SECONDS = 5.0
_EXAMPLES_MAX = 200
# Named pools cost more to make: one round of so many is theirs.
_SHARED_EVERY = 3


@dataclass
class _Watch:
    """What is counted while programs run, and the last one that failed."""

    report: Report
    say: Callable[[Report], None]
    journal: Journal | None
    last_failure: tuple[str, str] | None = None
    _said: float = field(default_factory=time.monotonic)

    def began(self, program: Program) -> None:
        """Of each program."""
        self.report.examples += 1
        if self.journal is not None:
            self.journal.begin(program.setup.arguments())

    def ended(self, program: Program, error: BaseException | None) -> None:
        """Of each program."""
        report = self.report
        report.rules += program.steps
        report.accesses += program.accesses
        report.checked += program.ledger.checked
        report.steps.update(line.partition("(")[0] for line in program.lines)
        report.counters.update({name: program.counters.get(name, 0) for name in COUNTERS})
        if isinstance(error, (AssertionError, Exception)):
            source = source_of(program.setup.arguments(), program.lines)
            self.last_failure = source, "".join(traceback.format_exception_only(error)).strip()
        report.seconds = time.monotonic() - report.began
        if time.monotonic() - self._said > 1:
            self._said = time.monotonic()
            self.say(report)


class Journal:
    """The program that runs now, in a file, so that it is known when the process is not there any more."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - as long as this

    def begin(self, arguments: str) -> None:
        """A new program."""
        self._file.truncate(0)
        self._file.seek(0)
        self._file.write(arguments.encode() + b"\n")

    def step(self, line: str) -> None:
        """One step of it, before it is run."""
        self._file.write(line.encode() + b"\n")


def fuzz(
    options: Options, *, say: Callable[[Report], None] = lambda _: None, journal: Path | None = None
) -> Report:
    """Runs programs as options say, and stops at the first that fails; examples that failed in an earlier run with
    the same database come first. say is called with the report as it grows, about once a second.

    In this process: a policy that ends the process ends this one; `uswap fuzz` watches over it from another.

    Raises: ArgumentError: there is no such policy, or no such limit.

    Example:
        >>> from uswap.testing import Options, fuzz
        >>> report = fuzz(Options(rules=50, seed=1, database=None))
        >>> report.rules >= 50, report.failures
        (True, [])
    """
    report = Report(seed=options.chosen_seed(), policy=options.policy or "default", failpoints=failpoints.built())
    watch = _Watch(report, say, None if journal is None else Journal(journal))
    kinds = {False: _Rounds(options, False, watch), True: _Rounds(options, True, watch)}
    number = 0
    while not options.over(report) and not report.failures:
        shared = options.shared and number % _SHARED_EVERY == _SHARED_EVERY - 1
        # The examples that failed before come first, of both kinds.
        if options.shared and number == 1:
            shared = True
        kinds[shared].run(report.seed + 1_000_003 * number)
        number += 1
    report.seconds = time.monotonic() - report.began
    say(report)
    return report


class _Rounds:
    """Rounds of one kind of machine, each of some seconds."""

    def __init__(self, options: Options, shared: bool, watch: _Watch) -> None:
        self._options, self._watch, self._shared = options, watch, shared
        self._examples = _FIRST_EXAMPLES
        journal = watch.journal
        self._machine: type[Machine] = type(
            "PoolMachine",
            (
                machine_for(
                    policy=options.policy,
                    shared=shared,
                    hang_seconds=options.hang_seconds,
                    limit=options.limit,
                    pages=options.pages,
                ),
            ),
            {
                "began": staticmethod(watch.began),
                "ended": staticmethod(watch.ended),
                "journal": None if journal is None else staticmethod(journal.step),
            },
        )
        self._database = None
        if options.database is not None:
            slug = re.sub(r"[^A-Za-z0-9.-]+", "-", options.policy or "default")
            self._database = DirectoryBasedExampleDatabase(
                options.database / slug / ("shared" if shared else "private")
            )

    def run(self, number: int) -> None:
        """One round, with that number as its seed."""
        began = time.monotonic()
        machine = seed(number)(self._machine)
        self._watch.last_failure = None
        try:
            run_state_machine_as_test(machine, settings=self._settings())
        except Exception as error:
            self._watch.report.failures.append(self._failure(error, number))
        took = max(time.monotonic() - began, 0.001)
        wanted = round(self._examples * _ROUND_SECONDS / took)
        self._examples = max(_FIRST_EXAMPLES, min(wanted, 2 * self._examples, _EXAMPLES_MAX))

    def _settings(self) -> settings:
        return settings(
            max_examples=self._examples,
            stateful_step_count=self._options.steps,
            deadline=None,
            database=self._database,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            phases=[Phase.reuse, Phase.generate, *([Phase.shrink] if self._options.minimise else [])],
            print_blob=False,
        )

    def _failure(self, error: Exception, number: int) -> Failure:
        source, text = self._watch.last_failure or ("", "")
        if not source:
            raise error
        message = text
        if isinstance(error, Flaky):
            message = (
                f"{text}\n(it came, but not again when the same steps were run again: what decides it is an"
                " order that the steps do not fix)"
            )
        return Failure("wrong", message, source, number)


__all__ = ["Failure", "Options", "Report", "fuzz"]
