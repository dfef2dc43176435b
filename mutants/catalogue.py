"""The mutants: one patch a bug, with a header that says what it is.

A patch begins with four lines, each a name and what it says, then an empty line:

    What: what is broken
    Promise: which promise that breaks: an invariant of csrc/README.md, or a sentence of it
    Area: one of AREAS
    Expected: the check that is to kill it; or tests, as pytest is told of them, which are then run first
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
AREAS = ("fault", "swap", "reclaim", "frame", "io", "region", "fork", "shared", "python")
_FIELDS = ("What", "Promise", "Area", "Expected")


class CatalogueError(Exception):
    """A patch whose header is not complete, or that does not apply; the message says which and why."""


@dataclass(frozen=True)
class Mutant:
    """A patch and its header."""

    path: Path
    what: str
    promise: str
    area: str
    expected: str

    @property
    def number(self) -> str:
        """As MUTANTS names it: "03"."""
        return self.path.name.partition("-")[0]

    @property
    def name(self) -> str:
        """Without its number."""
        return self.path.stem.partition("-")[2]


def read_mutant(path: Path) -> Mutant:
    """Raises CatalogueError if the header is not complete.

    Example:
        >>> read_mutant(HERE / "01-unlock-without-wake.patch").area
        'fault'
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    said: dict[str, str] = {}
    for line in lines[: len(_FIELDS)]:
        name, _, text = line.partition(": ")
        said[name] = text.strip()
    missing = [name for name in _FIELDS if not said.get(name)]
    if missing or lines[len(_FIELDS)] != "":
        raise CatalogueError(
            f"{path.name}: the header must be the lines {', '.join(_FIELDS)}, then an empty one; "
            f"there is no {', '.join(missing) or 'empty line'}"
        )
    if said["Area"] not in AREAS:
        raise CatalogueError(f"{path.name}: Area must be one of {', '.join(AREAS)}, not {said['Area']!r}")
    if not path.name[:2].isdigit() or path.name[2] != "-":
        raise CatalogueError(f"{path.name}: a patch is called NN-name.patch")
    return Mutant(path, said["What"], said["Promise"], said["Area"], said["Expected"])


def read_all(folder: Path = HERE) -> list[Mutant]:
    """All mutants, in order. Raises CatalogueError as read_mutant, and where two have one number."""
    mutants = [read_mutant(path) for path in sorted(folder.glob("*.patch"))]
    numbers = [mutant.number for mutant in mutants]
    for number in numbers:
        if numbers.count(number) > 1:
            raise CatalogueError(f"two mutants have the number {number}")
    return mutants


def apply(mutant: Mutant, tree: Path, *options: str) -> None:
    """git apply, with these options, in the tree.

    Raises:
        CatalogueError: the patch does not apply: what it changes has changed, and it must be made anew.
    """
    # A repository around the tree would make git look for the files there.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.resolve().parent)}
    command = ["git", "apply", *options, str(mutant.path.resolve())]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CatalogueError(f"{mutant.path.name} does not apply: {done.stderr.strip()}")
