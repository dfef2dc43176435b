"""The model of the page protocol, checked by spin: which configurations, how, and what must be found.

``make model`` runs the small configurations, ``make model MODEL_ARGS=--all`` the large ones too, and
``make model-mutants`` shows that each mutant of the model is found.
docs/model.md says what is modelled and how to read a trail.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Between two looks at the processor time of a search.
LOOK_SECONDS = 0.5

# A proctype, and a file and line whose statements are in it.
Place = tuple[str, str, int]


@dataclass(frozen=True)
class Configuration:
    """One run of spin.

    Attributes:
        name: what is in it, in words.
        model: the file, without its suffix.
        defines: sizes and features, as the model's head names them.
        exhaustive: all states; else a bitstate search, which may miss some.
        live: cycles are looked for, under weak fairness, instead of wrong states.
        large: not in CI.
        seconds: a search that takes longer (of the processor) is interrupted; it has failed then, unless bitstate.
    """

    name: str
    model: str
    defines: tuple[str, ...]
    exhaustive: bool = True
    live: bool = False
    large: bool = False
    seconds: int = 900


@dataclass
class Outcome:
    """What spin has said.

    Attributes:
        states, transitions, depth: of the search; with a bitstate search those that were visited.
        seconds: of the processor. megabytes: of memory at the most.
        verdict: "holds", "holds so far" (bitstate), or what is wrong.
        found: the property that failed; "" if none did.
        reached, unreached: places of the model with statements that were reached; where none was. One that is not
            in the configuration is in neither; nor is any if the search has not said what it has reached.
    """

    configuration: str
    properties: str
    states: int = 0
    transitions: int = 0
    depth: int = 0
    seconds: float = 0.0
    megabytes: float = 0.0
    verdict: str = ""
    found: str = ""
    reached: list[Place] = field(default_factory=list)
    unreached: list[Place] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return self.verdict.startswith("holds")


_SMALL = ("PAGES=2", "THREADS=2", "MEMBERS=1", "SLOTS=3", "READ_AHEAD=1")
_PRODUCT = ("PAGES=2", "THREADS=3", "MEMBERS=2", "SLOTS=3", "CRASH=1", "READ_AHEAD=1", "MAP_FOR_PEERS=1", "APART=1")
# Pages of one kind, without read-ahead, as the private protocol has been checked with both by itself.
_FORK = ("FORK=1", "THREADS=1", "VALUES=0", "AHEAD=0")
# One slot, and no store that makes zeroes: docs/model.md says what that leaves out.
_ONE_SLOT = ("SLOTS=1", "ZEROING=0")
# The last process has no threads: all it does is to evict.
_EVICTS = ("THREADS=1", "LAST_THREADS=0", "FRAMES=2", "APART=1")
_THREE = ("THREADS=2", "LAST_THREADS=1", "CRASH=1")
CONFIGURATIONS = (
    Configuration("private: 2 pages, 2 threads, 1 process", "private",
                  ("PAGES=2", "THREADS=2", "SLOTS=3"), large=True),
    Configuration("private: 1 page, 1 thread, 1 process", "private", ("THREADS=1",)),
    Configuration("private: 1 page, 2 threads, 1 process, errors, discards", "private",
                  ("THREADS=2", "SLOTS=3", "ERRORS=1", "DISCARDS=1"), large=True),
    Configuration("private: 1 page, a fork, 2 + 1 threads, either may die", "private", (*_FORK, "CRASH=2"),
                  large=True),
    Configuration("private: 1 page, a fork, either may die, bitstate", "private", (*_FORK, "CRASH=2"),
                  exhaustive=False, seconds=10),
    Configuration("1 page, 2 threads, 1 process", "shared", ("THREADS=2", "MEMBERS=1"), live=True),
    Configuration("1 page, 1 thread, 2 processes, no read is broken off", "shared",
                  ("THREADS=1", "BREAKS=0", *_ONE_SLOT), live=True, large=True),
    Configuration("1 page, 2 frames, 1 thread, and a process that only evicts", "shared",
                  (*_EVICTS, *_ONE_SLOT), live=True),
    Configuration("2 pages, 2 threads, 1 process", "shared", _SMALL),
    Configuration("1 page, 2 threads, 1 process, errors, discards", "shared",
                  ("THREADS=2", "MEMBERS=1", "SLOTS=3", "READ_AHEAD=1", "ERRORS=1", "DISCARDS=1")),
    Configuration("1 page, 2 frames, 1 thread, and a process that only evicts, 2 slots", "shared", _EVICTS),
    Configuration("1 page, 2 frames, 1 thread, and a process that only evicts, and dies", "shared",
                  (*_EVICTS, *_ONE_SLOT, "CRASH=1")),
    Configuration("1 page, 1 thread, 1 process, errors, discards", "shared",
                  ("THREADS=1", "MEMBERS=1", "SLOTS=3", "ERRORS=1", "DISCARDS=1")),
    Configuration("1 page, 1 thread, and a process that evicts and discards", "shared",
                  ("THREADS=1", "LAST_THREADS=0", "DISCARDS=1", "APART=1", *_ONE_SLOT)),
    Configuration("1 page, 1 thread that dies, errors, and a process that evicts and mends", "shared",
                  ("THREADS=0", "LAST_THREADS=1", "CRASH=1", "ERRORS=1", "BREAKS=0", "APART=1", *_ONE_SLOT)),
    Configuration("1 page, 1 thread, 2 processes", "shared", ("THREADS=1", *_ONE_SLOT), large=True),
    Configuration("1 page, 1 thread, 2 processes, 2 slots, no read is broken off", "shared",
                  ("THREADS=1", "BREAKS=0", "ZEROING=0")),
    Configuration("1 page, 1 thread, 2 processes, one is stopped for good, no other read is broken off", "shared",
                  ("THREADS=1", "STOPS=1", "BREAKS=0", *_ONE_SLOT)),
    Configuration("1 page, 1 thread, 2 processes, one dies, no read is broken off but the dead one's", "shared",
                  ("THREADS=1", "CRASH=1", "BREAKS=0", *_ONE_SLOT), large=True),
    Configuration("1 page, 2 + 1 threads, 2 processes, the last dies, no read is broken off but its own", "shared",
                  (*_THREE, "BREAKS=0", *_ONE_SLOT), large=True),
    Configuration("1 page, 2 + 1 threads, 2 processes, the last dies, bitstate", "shared", _THREE,
                  exhaustive=False, seconds=120, large=True),
    Configuration("2 pages, 3 threads, 2 processes, one dies, bitstate", "shared", _PRODUCT,
                  exhaustive=False, seconds=120, large=True),
    Configuration("1 page, 1 thread, 2 processes, 2 slots, bitstate", "shared", ("THREADS=1",),
                  exhaustive=False, seconds=120, large=True),
    Configuration("1 page, 2 frames, 1 thread, 2 processes, bitstate", "shared",
                  ("THREADS=1", "FRAMES=2", *_ONE_SLOT), exhaustive=False, seconds=120, large=True),
    Configuration("1 page, 1 thread, 2 processes, discards, bitstate", "shared",
                  ("THREADS=1", "DISCARDS=1", "ZEROING=0"), exhaustive=False, seconds=120, large=True),
    Configuration("1 page, 1 thread, and a process that evicts, discards, and dies, bitstate", "shared",
                  ("THREADS=1", "LAST_THREADS=0", "DISCARDS=1", "APART=1", "CRASH=1", "BREAKS=0", *_ONE_SLOT),
                  exhaustive=False, seconds=120, large=True),
    Configuration("1 page, 1 thread, 2 processes, errors, bitstate", "shared",
                  ("THREADS=1", "SLOTS=3", "READ_AHEAD=1", "ERRORS=1", "ZEROING=0"),
                  exhaustive=False, seconds=120, large=True),
    Configuration("1 page, 1 thread, 2 processes, two reads of one page, bitstate", "shared",
                  ("THREADS=1", "UNITS=2"), exhaustive=False, seconds=120, large=True),
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A mistake in the model, and a configuration that shows it.

    Attributes:
        deep: looked for depth first, where all shorter trails are too many. The trail is not the shortest then.
    """

    name: str
    model: str
    what: str
    defines: tuple[str, ...]
    deep: bool = False


_ONE = ("THREADS=1", "MEMBERS=1")
_TWO = ("THREADS=1", "MEMBERS=2", "ZEROING=0")
_DIES = (*_TWO, "CRASH=1", "BREAKS=0")
MUTANTS = (
    Mutant("SLEEPS_ON_ANY_READ", "private", "a missed wake: a thread sleeps on a read that is not WANTED",
           ("THREADS=1",)),
    Mutant("MISSED_WAKE", "private", "a missed wake: who unlocks a page wakes nobody", ("THREADS=2",)),
    Mutant("NO_RECHECK", "private", "a skipped recheck: a page that was discarded while it was read is mapped",
           ("THREADS=1", "DISCARDS=1")),
    Mutant("LOST_FRAME", "private", "a lost frame: the last to unpin does not drop it", ("THREADS=2", "FRAMES=2")),
    Mutant("LOST_USE", "private", "a lost use: the slot that a page kept is not given up", ("THREADS=1",)),
    Mutant("FORK_HOLDS_NOTHING", "private", "a lost use: a fork does not note that the child uses a slot", _FORK),
    Mutant("FORK_KEEPS_THE_SEAL", "private", "a page is sealed in the child, but not write-protected", _FORK),
    Mutant("FORK_DOES_NOT_DRAIN", "private", "a fork does not wait for the writes that are under way", _FORK),
    Mutant("LENDS_WITHOUT_A_LOOK", "private", "a skipped recheck: a slot is lent to who has given it up", _FORK,
           deep=True),
    Mutant("BURIES_WITHOUT_A_SWEEP", "private", "a lost slot: a child dies between its bit and its count",
           (*_FORK, "CRASH=1"), deep=True),
    Mutant("NO_WAITERS", "shared", "a missed wake: who does not get LOCK leaves no WAITERS", _TWO),
    Mutant("LATE_READER", "shared", "a skipped recheck: who has read in vain does not look whose page it is", _TWO),
    Mutant("IN_VAIN_WAKES_NOBODY", "shared", "a missed wake: a read that was broken off ends",
           ("THREADS=1", "LAST_THREADS=0", "DISCARDS=1", "APART=1", *_ONE_SLOT)),
    Mutant("NO_ANNOUNCEMENT", "shared", "a skipped recheck: who evicts does not look who is at the page", _TWO),
    Mutant("COPY_OVERWRITES", "shared", "what a late reader brings replaces what the file has", _TWO),
    Mutant("MAPS_IN_VAIN", "shared", "a page is mapped by who was to make it, and has not", (*_TWO, "SLOTS=1")),
    Mutant("LEAVES_POISONED", "shared", "what a late reader brings stays in the file of a lost page",
           (*_TWO, "ERRORS=1")),
    Mutant("LATE_PUNCH", "shared", "a page is said to have left, and who punches it is not through",
           (*_EVICTS, *_ONE_SLOT)),
    Mutant("UNSETTLED_SLOT", "shared", "a page is said to have left to a slot that its member has not settled",
           (*_EVICTS, *_ONE_SLOT)),
    Mutant("LEAVES_WHAT_STAYED", "shared", "whose order was taken back does not look what the file still has",
           (*_EVICTS, *_ONE_SLOT)),
    Mutant("MARKS_NOTHING", "shared", "a page that is discarded counts as zeroes, and its file has contents",
           ("THREADS=1", "LAST_THREADS=0", "DISCARDS=1", "APART=1", *_ONE_SLOT)),
    Mutant("KEPT_WITHOUT_A_LOOK", "shared", "a skipped recheck: a kept slot is taken that has become the only copy",
           (*_TWO, "PAGES=2", "BREAKS=0"), deep=True),
    Mutant("NO_RECHECK", "shared", "a skipped recheck: an eviction ends although the page was taken back", _ONE),
    Mutant("DROP_BEFORE_WRITE", "shared", "the frame is dropped before its write has ended", _ONE),
    Mutant("NO_PROTECT", "shared", "no write-protection before the contents are read", _ONE),
    Mutant("LOST_SLOT", "shared", "a lost use: the slot of a write that was broken off", _ONE),
    Mutant("LOST_FRAME", "shared", "a lost use: the frame of a page that has left", _ONE),
    Mutant("TAKES_OVER_A_STEP", "shared", "a step of who is stopped under LOCK is taken over",
           (*_DIES, "ERRORS=1")),
    Mutant("NO_BARRIER", "shared", "a repair does not wait for the dead member's writes", (*_DIES, "SLOTS=1"),
           deep=True),
    Mutant("REPAIR_WAKES_NOBODY", "shared", "a repair wakes nobody", _DIES),
)  # fmt: skip


class ModelError(Exception):
    """The tools are missing, or the model cannot be translated: the message is what they say."""


def _run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0 or "Error:" in done.stdout:
        raise ModelError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def lines_of(file: str) -> list[tuple[str, int, str]]:
    """A model with all that it includes: file, number and text of each line. (spin names the wrong file for what is
    inlined, so it is given a single one.)"""
    lines: list[tuple[str, int, str]] = []
    for number, text in enumerate((HERE / file).read_text().splitlines(), 1):
        included = re.fullmatch(r'#include "(\w+\.pml)"', text)
        lines += lines_of(included.group(1)) if included else [(file, number, text)]
    return lines


def build(folder: Path, model: str, defines: Sequence[str], options: Sequence[str]) -> None:
    """Translates the model, and compiles its checker in the folder.

    Raises:
        ModelError: one of the two steps has failed.
    """
    if not shutil.which("spin"):
        raise ModelError("There is no spin. Please install it, for example:  sudo apt-get install spin")
    whole = folder / f"{model}.pml"
    whole.write_text("".join(f"{text}\n" for _, _, text in lines_of(whole.name)))
    _run(["spin", "-a", *(f"-D{define}" for define in defines), whole.name], folder)
    _run([os.environ.get("CC", "cc"), "-O1", "-w", *options, "-o", "pan", "pan.c"], folder)


def _options_of_fork(defines: Sequence[str]) -> list[str]:
    """Where a death stops all others for a moment, no two steps are independent."""
    return ["-DNOREDUCE"] if "FORK=1" in defines else []


def _arguments_of_fork(defines: Sequence[str]) -> list[str]:
    """Under "unless" spin knows no end states: private.pml looks itself whether all is at rest."""
    return ["-E"] if "FORK=1" in defines else []


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    return float(found.group(1)) if found else 0.0


def _verdict(text: str, exhaustive: bool, returned: int) -> tuple[str, str]:
    """The verdict, and what failed."""
    failed = re.search(r"pan:\d+: (.*?) \(at depth", text)
    if failed:
        return "fails", failed.group(1)
    if "Search not completed" in text or "max search depth too small" in text or returned != 0:
        return ("not completed" if exhaustive else "holds so far"), ""
    if not re.search(r"errors: 0", text):
        return "no verdict", ""
    return ("holds" if exhaustive else "holds so far"), ""


def _search_within(arguments: Sequence[str], folder: Path, seconds: int) -> tuple[str, int]:
    """Runs a search for so long (of the processor), then interrupts it: so it still says what it has reached.
    => its output and status."""
    hertz = os.sysconf("SC_CLK_TCK")
    with (folder / "said").open("w+") as said, subprocess.Popen(arguments, cwd=folder, stdout=said) as search:
        while search.poll() is None:
            spent = Path(f"/proc/{search.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
            if sum(map(int, spent)) > seconds * hertz:
                search.send_signal(signal.SIGINT)
                search.wait()
            time.sleep(LOOK_SECONDS)
        said.seek(0)
        return said.read(), search.returncode


def _numbers(kind: str, checker: str) -> dict[int, list[int]]:
    """An array that the checker has for each proctype, by its number."""
    arrays = re.findall(rf"^{kind}(\d+) \[\] = {{([^}}]*)}};", checker, re.MULTILINE)
    return {int(proctype): [int(number) for number in re.findall(r"\d+", text)] for proctype, text in arrays}


def _statements(checker: str) -> dict[tuple[str, int], int]:
    """Proctype and state -> line, of all statements in the source of a checker (pan.c) whose being
    reached it notes: not the parts of a d_step, nor the end of a process."""
    names = re.findall(r'"(.*?)"', checker.partition("char *procname[] = {")[2].partition("}")[0])
    noted, line = _numbers("uchar reached", checker), _numbers("short src_ln", checker)
    return {
        (names[p].strip(":"), state): line[p][state]
        for p in line
        for state, known in enumerate(noted[p][:-2])
        if line[p][state] and not known
    }


def places_reached(checker: str, said: str, lines: Sequence[tuple[str, int, str]]) -> tuple[set[Place], set[Place]]:
    """From the source of a checker and what its search has said: the places of which a statement was reached, and
    those of which none was; both empty if the search was ended before it could say."""
    if "unreached in " not in said:
        return set(), set()
    missed = {
        (name, int(state))
        for name, part in re.findall(r"^unreached in (?:proctype |claim )?(\w+)\n((?:\t.*\n)*)", said, re.MULTILINE)
        for state in re.findall(r"\.pml:\d+, state (\d+), ", part)
    }
    reached: set[Place] = set()
    all_there: set[Place] = set()
    for (proctype, state), line in _statements(checker).items():
        file, number, _ = lines[line - 1]
        all_there.add((proctype, file, number))
        if (proctype, state) not in missed:
            reached.add((proctype, file, number))
    return reached, all_there - reached


def check(configuration: Configuration, megabytes: int, extra: Sequence[str] = ()) -> Outcome:
    """Runs one configuration.

    Args:
        megabytes: what the search may take.
        extra: more defines.

    Raises:
        ModelError: the model cannot be checked at all.
    """
    options = ["-DVECTORSZ=2048", f"-DMEMLIM={megabytes}"]
    options += ["-DCOLLAPSE"] if configuration.exhaustive else ["-DBITSTATE"]
    options += ["-DNFAIR=4"] if configuration.live else ["-DSAFETY"]
    options += _options_of_fork(configuration.defines)
    arguments = ["./pan", f"-m{12 if configuration.large else 5}000000" if configuration.exhaustive else "-m500000"]
    arguments += ["-a", "-f"] if configuration.live else []
    arguments += [] if configuration.exhaustive else ["-w31"]
    arguments += ["-v", *_arguments_of_fork(configuration.defines)]
    defines = [*configuration.defines, *(["LIVE=1"] if configuration.live else []), *extra]
    properties = "every fault ends" if configuration.live else "assertions, end states"
    with tempfile.TemporaryDirectory(prefix="uswap-model-") as name:
        folder = Path(name)
        build(folder, configuration.model, defines, options)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        text, returned = _search_within(arguments, folder, configuration.seconds)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        checker = (folder / "pan.c").read_text()
    verdict, found = _verdict(text, configuration.exhaustive, returned)
    reached, unreached = places_reached(checker, text, lines_of(f"{configuration.model}.pml"))
    progress = re.findall(r"Depth=\s*(\d+) States=\s*(\S+) Transitions=\s*(\S+) Memory=\s*(\S+)", text)
    last = progress[-1] if progress else ("0", "0", "0", "0")
    return Outcome(
        configuration=configuration.name,
        properties=properties,
        states=int(_number(r"(\d+) states, stored", text) or float(last[1])),
        transitions=int(_number(r"([\d.e+]+) transitions", text) or float(last[2])),
        depth=int(_number(r"depth reached (\d+)", text) or float(last[0])),
        seconds=round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        megabytes=_number(r"([\d.]+)\s+total actual memory", text) or float(last[3]),
        verdict=verdict,
        found=found,
        reached=sorted(reached),
        unreached=sorted(unreached),
    )


def find(mutant: Mutant, megabytes: int) -> Outcome:
    """Looks for the mutant."""
    if mutant.deep:
        return _search(mutant, megabytes, ["-DCOLLAPSE"], ["-n", "-m8000000"])
    return _search(mutant, megabytes, ["-DBFS"], ["-n"])


def _search(mutant: Mutant, megabytes: int, options: Sequence[str], arguments: Sequence[str]) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="uswap-model-") as name:
        folder = Path(name)
        defines = [*mutant.defines, f"MUTANT_{mutant.name}"]
        options = ["-DSAFETY", "-DVECTORSZ=2048", f"-DMEMLIM={megabytes}", *options, *_options_of_fork(defines)]
        build(folder, mutant.model, defines, options)
        arguments = [*arguments, *_arguments_of_fork(defines)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(["./pan", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = done.stdout
    verdict, found = _verdict(text, True, done.returncode)
    return Outcome(
        configuration=mutant.name,
        properties=mutant.what,
        states=int(_number(r"(\d+) states, stored", text)),
        transitions=int(_number(r"(\d+) transitions", text)),
        depth=int(_number(r"\(at depth (\d+)\)", text)),
        seconds=round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        megabytes=_number(r"([\d.]+)\s+total actual memory", text),
        verdict="found" if verdict == "fails" else "NOT FOUND",
        found=found,
    )


# ---- what is never reached -----------------------------------------------------------------------


def never_reached(outcomes: Sequence[Outcome]) -> list[str]:
    """Places of a model that no search of it has reached, and that do not say why ("unreached:").

    A search that does not say what it has reached (it was ended from outside) counts as having reached nothing."""
    reached = {place for outcome in outcomes for place in outcome.reached}
    missed = {place for outcome in outcomes for place in outcome.unreached} - reached
    wrong = []
    for proctype, file, number in sorted(missed, key=lambda place: (place[1:], place[0])):
        source = (HERE / file).read_text().splitlines()[number - 1]
        if "unreached:" not in source:
            wrong.append(f"{file}:{number}, in {proctype}: {source.strip()}")
    return wrong


# ---- reports -------------------------------------------------------------------------------------

_COLUMNS = ("configuration", "states", "transitions", "depth", "CPU s", "MiB", "properties", "verdict")


def table(outcomes: Sequence[Outcome]) -> str:
    """Rows of Markdown, one an outcome.

    >>> print(table([Outcome("1 page", "assertions", 7, 9, 5, 0.1, 2.0, "holds")]).splitlines()[2])
    | 1 page | 7 | 9 | 5 | 0.1 | 2 | assertions | holds |
    """
    rows = [_COLUMNS, tuple("---" for _ in _COLUMNS)]
    for o in outcomes:
        verdict = f"{o.verdict}: {o.found}" if o.found else o.verdict
        rows.append((o.configuration, str(o.states), str(o.transitions), str(o.depth), f"{o.seconds:.1f}",
                     f"{o.megabytes:.0f}", o.properties, verdict))  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return: 0; 1: a property does not hold, a search has not ended, a line never reached, a mutant not found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="the large configurations too")
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="configurations or mutants with this in their name"
    )
    parser.add_argument("--mutants", action="store_true", help="look for the mutants instead")
    parser.add_argument(
        "--megabytes", type=int, default=8192, help="memory of a search, MiB (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        if options.mutants:
            chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
            outcomes = [_said(find(mutant, options.megabytes), options.json) for mutant in chosen]
            failures = [o.configuration for o in outcomes if o.verdict != "found"]
        else:
            runs = [c for c in CONFIGURATIONS if options.only in c.name and (options.all or not c.large)]
            outcomes = [_said(check(c, options.megabytes), options.json) for c in runs]
            failures = [o.configuration for o in outcomes if not o.good]
            if options.all and not options.only:
                told = [o for c, o in zip(runs, outcomes, strict=True) if not c.live]
                failures += [f"never reached: {line}" for line in never_reached(told)]
    except ModelError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([asdict(o) for o in outcomes], indent=1))
    else:
        print(table(outcomes))
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if failures or not outcomes else 0


def _said(outcome: Outcome, quiet: bool) -> Outcome:
    if not quiet:
        print(f"{outcome.configuration}: {outcome.verdict} {outcome.found}", flush=True, file=sys.stderr)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
