"""Looks after the process that fuzzes: if it ends or hangs, what it was doing is known from its journal, made as
small as time allows, and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from uswap.testing.options import Failure, Options, Report
from uswap.testing.program import source_of

# The process is asked after so often.
_LOOK_SECONDS = 0.25
# How long a program that has ended its process may be made smaller.
_MINIMISE_SECONDS = 90.0
_STACKS_SECONDS = 5.0
_TAIL_LINES = 40
_FAILED = 1


class WorkerError(RuntimeError):
    """The process that was to fuzz could not begin; the message is its last words."""


def supervise(options: Options, say: Callable[[Report], None]) -> Report:
    """Fuzzes in a process of its own. Programs kept from earlier runs that ended their process come first.

    Raises: WorkerError."""
    if options.database is not None:
        report = _replay(options, say)
        if report is not None:
            return report
    with tempfile.TemporaryDirectory(prefix="uswap-fuzz-") as folder:
        return _Supervised(options, Path(folder), say).run()


def _environment(folder: Path) -> dict[str, str]:
    runtime = folder / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "USWAP_RUNTIME_DIR": str(runtime), "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}


class _Supervised:
    """One such process."""

    def __init__(self, options: Options, folder: Path, say: Callable[[Report], None]) -> None:
        self._options, self._folder, self._say = options, folder, say
        self._journal = folder / "journal"
        self._errors = folder / "stderr"
        self._report: dict[str, Any] = {}
        self._buffer = b""

    def run(self) -> Report:
        """=> the report, with its failures."""
        given = asdict(self._options) | {
            "database": str(self._options.database) if self._options.database else None
        }
        with open(self._errors, "wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "uswap.testing.worker", str(self._journal)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment(self._folder),
                start_new_session=True,
            )
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(given).encode())
            process.stdin.close()
            hung = self._watch(process)
        finally:
            _end_group(process)
        return self._judge(process.returncode, hung)

    def _watch(self, process: subprocess.Popen[bytes]) -> bool:
        """Until its end. => whether it hangs."""
        seen, since = None, time.monotonic()
        while process.poll() is None:
            self._read(process, _LOOK_SECONDS)
            mark = self._mark()
            if mark != seen:
                seen, since = mark, time.monotonic()
            elif time.monotonic() - since > self._limit(seen):
                self._ask_for_stacks(process)
                return True
        while self._read(process, 0):
            pass
        return False

    def _limit(self, mark: object) -> float:
        """How long nothing may change: steps are awaited by the process itself, which then has to tidy up."""
        return 2 * self._options.hang_seconds + (20 if mark is not None else 60)

    def _mark(self) -> tuple[int, int] | None:
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(self._journal)
            return found.st_mtime_ns, found.st_size
        return None

    def _read(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        """What it says, if it says anything. => whether it did."""
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], seconds)[0]:
            return False
        piece = os.read(process.stdout.fileno(), 1 << 16)
        if not piece:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            return False
        *lines, self._buffer = (self._buffer + piece).split(b"\n")
        for line in lines:
            self._report = json.loads(line)
            self._say(self._as_report())
        return True

    def _ask_for_stacks(self, process: subprocess.Popen[bytes]) -> None:
        """faulthandler writes them when it is aborted."""
        process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STACKS_SECONDS)

    def _as_report(self) -> Report:
        found = dict(self._report)
        report = Report(seed=int(found.pop("seed", self._options.seed or 0)))
        failures = [Failure(**each) for each in found.pop("failures", [])]
        for name, value in found.items():
            kept = getattr(report, name)
            if isinstance(kept, dict):
                kept.update(value)
            else:
                setattr(report, name, value)
        report.failures = failures
        return report

    def _judge(self, status: int | None, hung: bool) -> Report:
        report = self._as_report()
        if not hung and (status == 0 or (status == _FAILED and report.failures)):
            return report
        last_words = tail(self._errors)
        program = read_journal(self._journal)
        if program is None:
            raise WorkerError(last_words or f"it ended with status {status}")
        report.failures.append(self._failure(program, status, hung, last_words))
        return report

    def _failure(self, program: tuple[str, list[str]], status: int | None, hung: bool, words: str) -> Failure:
        arguments, lines = program
        seconds = self._options.hang_seconds
        what = (
            f"nothing has happened for {self._limit(0):g} s" if hung else f"the process ended: {described(status)}"
        )
        smaller: list[str] | None = lines
        if self._options.minimise:
            runner = Runner(self._folder, seconds)
            smaller = minimised(lines, lambda some: runner.fails(arguments, some), _MINIMISE_SECONDS)
        if smaller is None:
            what += "; the same steps, run again by themselves, did not do so again"
        kept = lines if smaller is None else smaller
        if self._options.database is not None:
            keep(self._options.database, arguments, kept)
        return Failure("hang" if hung else "ended", f"{what}\n{words}".rstrip(), source_of(arguments, kept))


class Runner:
    """Runs programs in processes of their own."""

    def __init__(self, folder: Path, hang_seconds: float) -> None:
        self._environment = _environment(folder)
        self._seconds = 4 * hang_seconds + 20

    def run(self, source: str) -> tuple[int | None, str]:
        """=> (status, or None for a hang; the last words)."""
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", source],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,
        )
        try:
            _, errors = process.communicate(timeout=self._seconds)
            return process.returncode, last_lines(errors.decode(errors="replace"))
        except subprocess.TimeoutExpired:
            return None, f"it has not ended within {self._seconds:g} s"
        finally:
            _end_group(process)

    def fails(self, arguments: str, lines: list[str]) -> bool:
        """Whether the program does not come to a good end."""
        return self.run(source_of(arguments, lines))[0] != 0


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """It and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None and not pipe.closed:
            pipe.close()


def minimised(lines: list[str], fails: Callable[[list[str]], bool], seconds: float) -> list[str] | None:
    """The shortest part of the lines found, within that time, that still fails: pieces are left out, half of them
    at first, single ones at last. None: the whole does not fail either.

    Example:
        >>> minimised(list("abcdefgh"), lambda some: "c" in some and "g" in some, 10)
        ['c', 'g']
    """
    deadline = time.monotonic() + seconds
    if not fails(lines):
        return None
    size = len(lines) // 2
    while size >= 1:
        start, found = 0, False
        while start < len(lines) and time.monotonic() < deadline:
            shorter = lines[:start] + lines[start + size :]
            if fails(shorter):
                lines, found = shorter, True
            else:
                start += size
        if time.monotonic() >= deadline:
            break
        if not found or size > 1:
            size //= 2
    return lines


def read_journal(path: Path) -> tuple[str, list[str]] | None:
    """(arguments of Program, steps) of the program that ran last; None: none did."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    lines = [line.strip("\0") for line in text.split("\n")[:-1]]
    return (lines[0], lines[1:]) if lines else None


def described(status: int | None) -> str:
    """An exit status in words.

    Example:
        >>> described(-11), described(3)
        ('SIGSEGV', 'status 3')
    """
    if status is not None and status < 0:
        return signal.Signals(-status).name
    return f"status {status}"


def tail(path: Path) -> str:
    """The last words in a file."""
    return last_lines(path.read_text(errors="replace"))


def last_lines(text: str) -> str:
    """The last of many lines."""
    lines = text.strip().splitlines()
    return "\n".join(lines[-_TAIL_LINES:])


# ---- programs that ended their process, kept for the next run --------------------------------------------------


def _kept_in(database: Path) -> Path:
    return database / "programs"


def keep(database: Path, arguments: str, lines: list[str]) -> Path:
    """=> where it is kept."""
    source = source_of(arguments, lines)
    path = _kept_in(database) / (hashlib.sha256(source.encode()).hexdigest()[:16] + ".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source + "\n")
    return path


def _replay(options: Options, say: Callable[[Report], None]) -> Report | None:
    """The kept programs again; => a report if one of them still fails. Those that do not are forgotten."""
    assert options.database is not None
    report = Report(seed=options.seed or 0, policy=options.policy or "default")
    with tempfile.TemporaryDirectory(prefix="uswap-fuzz-") as folder:
        runner = Runner(Path(folder), options.hang_seconds)
        for path in sorted(_kept_in(options.database).glob("*.py")):
            source = path.read_text().rstrip()
            status, words = runner.run(source)
            report.examples += 1
            if status == 0:
                path.unlink()
                continue
            what = "it hangs" if status is None else f"the process ended: {described(status)}"
            failure = Failure("hang" if status is None else "ended", f"{what}\n{words}".rstrip(), source)
            report.failures.append(failure)
            say(report)
            return report
    return None
