"""uswap fuzz: programs at random against a model, for a policy of one's own or for uswap itself."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from uswap._core import require_core
from uswap._errors import ArgumentError, UswapError
from uswap._options import minimum_limit
from uswap._sizes import PAGE_BYTES, parse_size
from uswap.commands._trace_options import check_output
from uswap.policy import by_name

if TYPE_CHECKING:
    from uswap.testing.options import Failure, Options, Report

_DATABASE = ".uswap-fuzz"
_PAGES = 256
_PAGES_MAX = 16384
_SAY_SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options; `uswap fuzz --help` lists them."""
    parser.add_argument(
        "--seconds", type=float, metavar="N", help="end after so long (default: 60, without --rules)"
    )
    parser.add_argument("--rules", type=int, metavar="N", help="end after so many steps")
    parser.add_argument(
        "--policy", metavar="NAME", help="fifo, s3-fifo, ... or module:Class (default: the default one)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of all random choices (default: one at random)")
    parser.add_argument(
        "--size", default="1MiB", metavar="SIZE", help="the most that a region may have (default: 1MiB)"
    )
    parser.add_argument("--limit", metavar="SIZE", help="of the pools (default: the least there can be)")
    parser.add_argument(
        "--steps", type=int, default=100, metavar="N", help="of one program, at most (default: 100)"
    )
    parser.add_argument("--private", action="store_true", help="no named pools with other processes")
    parser.add_argument(
        "--database", default=_DATABASE, metavar="DIR", help=f"where what fails is kept (default: {_DATABASE})"
    )
    parser.add_argument(
        "--hang", type=float, default=20.0, metavar="SECONDS", help="how long a step may take (default: 20)"
    )
    parser.add_argument(
        "--as-found", action="store_true", help="do not make a failing program smaller: sooner, and longer"
    )
    parser.add_argument("--json", metavar="FILE", help="the report as JSON into a file; -: on standard output")


def _options(given: argparse.Namespace) -> Options:
    """Raises ArgumentError, ValueError, UnsupportedError."""
    require_core()
    if importlib.util.find_spec("hypothesis") is None:
        raise ArgumentError("this needs Hypothesis: pip install 'uswap[fuzz]'")
    from uswap.testing.options import Options

    if given.policy is not None:
        if "" not in sys.path:
            sys.path.insert(0, "")
        by_name(given.policy)
    for name in ("seconds", "rules", "steps", "hang"):
        value = getattr(given, name)
        if value is not None and not value > 0:
            raise ArgumentError(f"--{name}: a number above 0, not {value}")
    if given.json is not None and given.json != "-":
        check_output(given.json)
    seconds = 60.0 if given.seconds is None and given.rules is None else given.seconds
    return Options(
        seconds=seconds,
        rules=given.rules,
        policy=given.policy,
        seed=given.seed if given.seed is not None else int.from_bytes(os.urandom(4), "little"),
        pages=_pages(given.size),
        limit=_limit(given.limit),
        steps=given.steps,
        shared=not given.private,
        database=_database(given.database),
        hang_seconds=given.hang,
        minimise=not given.as_found,
    )


def _pages(text: str) -> int:
    pages = parse_size(text, "--size") // PAGE_BYTES
    if not 1 <= pages <= _PAGES_MAX:
        raise ArgumentError(f"--size: from 4KiB to {_PAGES_MAX * PAGE_BYTES >> 20}MiB, not {text}")
    return pages


def _limit(text: str | None) -> int | None:
    limit = None if text is None else parse_size(text, "--limit")
    if limit is not None and limit < minimum_limit():
        raise ArgumentError(f"--limit: at least {minimum_limit() >> 10}KiB, not {text}")
    return limit


def _database(text: str) -> Path:
    path = Path(text).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"--database: {text} cannot be made: {error.strerror}") from error
    return path


class _Progress:
    """A line every few seconds on standard error."""

    def __init__(self) -> None:
        self._said = time.monotonic()
        self.last: Report | None = None

    def __call__(self, report: Report) -> None:
        self.last = report
        if time.monotonic() - self._said >= _SAY_SECONDS:
            self._said = time.monotonic()
            print(f"{report.seconds:6.0f} s  {_counted(report)}", file=sys.stderr, flush=True)


def _counted(report: Report) -> str:
    return (
        f"{report.examples} programs, {report.rules} rules, {report.accesses} accesses, {report.checked} checked,"
        f" {len(report.failures)} failures"
    )


def _summary(options: Options, report: Report) -> list[str]:
    counters = report.counters
    lines = [f"seed {report.seed}: {_counted(report)}, in {report.seconds:.1f} s"]
    if report.rules:
        lines.append(
            f"pages: {counters['pages_out']} written, {counters['pages_in']} read back, {counters['evictions']}"
            f" evicted, {counters['evictions_steered']} of them by the policy's thread"
        )
    if options.policy is not None and report.rules:
        lines += _of_the_policy(options.policy, report)
    if not report.failpoints:
        lines.append(
            "this build of uswap has no failpoints: no errors were injected and no steps held (CONTRIBUTING.md,"
            " Building)"
        )
    return lines


def _of_the_policy(policy: str, report: Report) -> list[str]:
    orders, passed = report.counters["policy_orders"], report.counters["policy_passed"]
    lines = [f"policy {policy}: {orders} pages named, {passed} of them out of date, locked, or none"]
    steered, others = report.counters["evictions_steered"], report.counters["evictions_native"]
    others += report.counters["evictions_direct"]
    if orders == 0 and report.counters["evictions"]:
        lines.append("  it has named no page at all: the core chose by itself")
    elif passed > orders / 2:
        lines.append("  most of what it names cannot leave: are stays kept for too long, or named twice?")
    if others > steered:
        lines.append("  it is late: the core had to choose more pages than it did")
    return lines


def _print_failure(failure: Failure, minimised: bool) -> None:
    title = {"wrong": "FAILURE", "hang": "HANG", "ended": "THE PROCESS ENDED"}[failure.kind]
    which = "smallest program found" if minimised else "program"
    print(f"\n{title}: {failure.message}\n\nThe {which} that does it:\n\n{failure.source}\n")


def run(given: argparse.Namespace) -> int:
    """=> 0; 1 if something failed, 2 if nothing could be run."""
    try:
        options = _options(given)
    except (ValueError, TypeError, UswapError) as error:
        print(f"uswap fuzz: {error}", file=sys.stderr)
        return 2
    from uswap.testing.supervise import WorkerError, supervise

    progress = _Progress()
    try:
        report = supervise(options, progress)
    except WorkerError as error:
        print(f"uswap fuzz: it could not begin: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if progress.last is None:
            return 130
        report = progress.last
    return _end(given, options, report)


def _end(given: argparse.Namespace, options: Options, report: Report) -> int:
    if given.json is not None:
        text = json.dumps(report.as_dict(), indent=2)
        print(text) if given.json == "-" else Path(given.json).write_text(text + "\n")
    if given.json != "-":
        print("\n".join(_summary(options, report)))
        for failure in report.failures:
            _print_failure(failure, options.minimise)
        if report.failures:
            print(f"It is kept in {options.database}, and comes first in the next run with the same options.")
    return 1 if report.failures else 0
