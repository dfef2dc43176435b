"""Kills mutants: applies each patch to a copy of the tree, builds it, and runs checks until one fails.

    make mutants                     # all of them: an hour and more
    make mutants MUTANTS='03 17'     # some
    make mutants MUTANTS_ARGS=--table   # docs/mutants.md from what is known

The clean tree must pass every check first. Results go to mutants/results.json, so that a run of some leaves the
others as they were. Ends with 1 if a mutant survives, with 2 if a patch does not apply or the clean tree fails.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builder import Builder, BuildError, copy_of_tree
from catalogue import ROOT, CatalogueError, Mutant, apply, read_all
from checks import Check, Verdict, checks_of, fuzz, run
from table import RESULTS, TABLE, table


class CleanTreeError(Exception):
    """The tree without any patch does not build or pass a check."""


class Results:
    """mutants/results.json: what is known, by name of the mutant, and how long the clean tree takes. Several
    drivers may write to it at a time."""

    def __init__(self, path: Path = RESULTS) -> None:
        self._path = path
        self.known = self._read()

    def _read(self) -> dict[str, Any]:
        known: dict[str, Any] = {"clean": {}, "mutants": {}}
        if self._path.exists():
            known = json.loads(self._path.read_text(encoding="utf-8"))
        return known

    def note_clean(self, check: str, seconds: float) -> None:
        """The clean tree has passed a check."""
        self._note("clean", check, round(seconds, 1))

    def note(self, mutant: Mutant, verdict: Verdict | None, kind: str = "mutants") -> None:
        """None: it has survived. kind: "fuzz": the fuzzer alone."""
        found: dict[str, Any] = asdict(verdict) if verdict else {"killed": False}
        if verdict:
            found["seconds"] = round(verdict.seconds, 1)
        self._note(kind, mutant.path.stem, found)

    def _note(self, kind: str, name: str, found: Any) -> None:
        with open(self._path, "a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            self.known = json.loads(text) if text else {"clean": {}, "mutants": {}}
            self.known.setdefault(kind, {})[name] = found
            file.truncate(0)
            file.write(json.dumps(self.known, indent=1, sort_keys=True) + "\n")


@dataclass(frozen=True)
class Choice:
    """Which checks are run. chosen: only those whose name has this in it; quick: not the whole suite; fuzz: the
    fuzzer and nothing else; trust: the clean tree has just passed them."""

    chosen: str | None = None
    quick: bool = False
    fuzz: bool = False
    trust: bool = False


class Driver:
    """One copy of the tree, and what is known of the clean one."""

    def __init__(self, tree: Path, results: Results, how: Choice) -> None:
        self._tree = tree
        self._results = results
        self._chosen, self._quick, self._fuzz = how.chosen, how.quick, how.fuzz
        self._clean: dict[str, float] = dict(results.known["clean"]) if how.trust else {}
        self._applied: Mutant | None = None
        self._built = True
        self._builder = Builder(tree)

    def _checks(self, mutant: Mutant) -> list[Check]:
        checks = [fuzz(mutant.area)] if self._fuzz else checks_of(mutant)
        if self._quick:
            checks = [check for check in checks if check.name != "suite"]
        return [check for check in checks if not self._chosen or re.search(self._chosen, check.name)]

    def _become(self, mutant: Mutant | None) -> None:
        """Applies and builds it; None: the clean tree.

        Raises:
            CatalogueError, CleanTreeError: it does not compile.
        """
        if self._built and self._applied == mutant:
            return
        if self._applied is not None:
            apply(self._applied, self._tree, "--reverse")
        self._applied = None
        if mutant is not None:
            apply(mutant, self._tree)
            self._applied = mutant
        self._built = False
        try:
            self._builder.build(mutant)
        except BuildError as failure:
            if mutant is not None:
                raise CatalogueError(f"{mutant.path.name} does not compile: {failure}") from failure
            raise CleanTreeError(f"the clean tree does not build: {failure}") from failure
        self._built = True

    def _clean_seconds(self, check: Check) -> float:
        """How long the clean tree takes; it is run when the check is first needed.

        Raises:
            CleanTreeError: it does not pass.
        """
        if check.name not in self._clean:
            self._become(None)
            verdict = run(check, self._tree)
            if verdict.killed:
                raise CleanTreeError(f"the clean tree {verdict.how} in {check.name}: {verdict.where}")
            self._clean[check.name] = verdict.seconds
            self._results.note_clean(check.name, verdict.seconds)
            print(f"   clean: {check.name} {verdict.seconds:.0f} s", flush=True)
        return self._clean[check.name]

    def kill(self, mutant: Mutant) -> Verdict | None:
        """Runs checks until one fails. => what has killed it; None: nothing."""
        for check in self._checks(mutant):
            clean = self._clean_seconds(check)
            self._become(mutant)
            verdict = run(check, self._tree, clean)
            if verdict.killed:
                return verdict
        return None


def kill_all(mutants: list[Mutant], how: Choice) -> int:
    """=> how many have survived"""
    results, survivors = Results(), 0
    for mutant in mutants:
        apply(mutant, ROOT, "--check")
    with copy_of_tree() as tree:
        driver = Driver(tree, results, how)
        for mutant in mutants:
            verdict = driver.kill(mutant)
            results.note(mutant, verdict, "fuzz" if how.fuzz else "mutants")
            survivors += verdict is None
            end = (
                f"{verdict.how} in {verdict.check} ({verdict.where}), {verdict.seconds:.0f} s"
                if verdict
                else "SURVIVES"
            )
            print(f"{mutant.number} {mutant.name}: {end}", flush=True)
    return survivors


def main() -> int:
    """=> exit status"""
    parser = argparse.ArgumentParser(
        prog="make mutants", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("mutants", nargs="*", metavar="NN", help="numbers or names; default: all")
    parser.add_argument("--check", help="only checks whose name has this in it (a regular expression)")
    parser.add_argument("--quick", action="store_true", help="what the quick checks leave alive survives")
    parser.add_argument("--fuzz", action="store_true", help="what the fuzzer alone finds: a column of its own")
    parser.add_argument("--trust", action="store_true", help="the clean tree passes: as results.json has its times")
    parser.add_argument(
        "--table", action="store_true", help="writes docs/mutants.md from mutants/results.json, runs nothing"
    )
    arguments = parser.parse_args()
    try:
        mutants = read_all()
        if arguments.table:
            TABLE.write_text(table(mutants, Results().known), encoding="utf-8")
            return 0
        wanted = set(arguments.mutants)
        unknown = wanted - {mutant.number for mutant in mutants} - {mutant.name for mutant in mutants}
        if unknown:
            parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
        some = [mutant for mutant in mutants if not wanted or {mutant.number, mutant.name} & wanted]
        survivors = kill_all(some, Choice(arguments.check, arguments.quick, arguments.fuzz, arguments.trust))
    except (CatalogueError, CleanTreeError) as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 2
    print(f"{len(some) - survivors} of {len(some)} killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
