"""docs/mutants.md: made of the headers of the patches and of mutants/results.json."""

from __future__ import annotations

import re
from typing import Any

from catalogue import HERE, ROOT, Mutant

RESULTS = HERE / "results.json"
TABLE = ROOT / "docs" / "mutants.md"

_HEAD = """# Mutants

Bugs made by hand, a patch each (`mutants/`), in what the core promises (csrc/README.md). `make mutants` applies
each of them to a copy of the tree, builds it, and runs checks until one fails, the cheap ones first; a mutant that
nothing kills shows a test that is missing. `make mutants MUTANTS='03 17'` takes some. This page is made of
`mutants/results.json`, by `make mutants MUTANTS_ARGS=--table`.

"hung": a fault never ended, and the watchdog ended the check: a single test, or a check that takes the clean tree
less than a quarter of that time. Seconds are those until the check ended, on a machine with two processors that did
other things as well.
"""


# From here on the page is about what another folder holds, which may be ahead of it.
MODEL_PART = "\n## Mutants of the model\n"


def _model_part() -> str:
    """The mistakes that are planted in the model: model/check.py names them."""
    script = ROOT / "model" / "check.py"
    if not script.exists():
        return ""
    found = re.findall(r'Mutant\("(\w+)", "(\w+)", "([^"]+)"', script.read_text(encoding="utf-8"))
    rows = "\n".join(f"| {name} | {model}.pml | {_cell(what)} |" for name, model, what in found)
    return (
        f"{MODEL_PART}\n`make model-mutants` plants each in the model of the shared page protocol (docs/model.md); "
        f"spin finds it.\n\n| mutant | model | what is broken |\n|---|---|---|\n{rows}\n"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _row(mutant: Mutant, found: dict[str, Any] | None) -> str:
    if not found:
        killer, where, seconds = "not run", "", ""
    elif not found["killed"]:
        killer, where, seconds = "**survives**", "", ""
    else:
        killer = f"{found['check']}: {found['how']}"
        where, seconds = f"`{found['where']}`" if found["where"] else "", f"{found['seconds']:.0f}"
    cells = (mutant.number, mutant.name, mutant.area, mutant.what, mutant.promise, killer, where, seconds)
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def table(mutants: list[Mutant], known: dict[str, Any]) -> str:
    """The page. known: what results.json says."""
    found = known["mutants"]
    killed = [
        found.get(mutant.path.stem, {}) for mutant in mutants if found.get(mutant.path.stem, {}).get("killed")
    ]
    by: dict[str, int] = {}
    for one in killed:
        kind = one["check"].partition(",")[0].partition(" of ")[0]
        by[kind] = by.get(kind, 0) + 1
    counts = ", ".join(f"{count} by {kind}" for kind, count in sorted(by.items(), key=lambda item: -item[1]))
    rows = "\n".join(_row(mutant, found.get(mutant.path.stem)) for mutant in mutants)
    clean = "\n".join(f"| {name} | {seconds:.0f} |" for name, seconds in sorted(known["clean"].items()))
    return (
        f"{_HEAD}\n{len(killed)} of {len(mutants)} are killed: {counts}.\n\n"
        "| | mutant | area | what is broken | which promise | killed by | where | s |\n"
        "|---|---|---|---|---|---|---|---|\n"
        f"{rows}\n\nThe clean tree passes each check:\n\n| check | s |\n|---|---|\n{clean}\n{_model_part()}"
    )
