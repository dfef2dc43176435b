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
other things as well. "Fuzzer alone": what a minute of `uswap fuzz` with a fixed seed finds of it (`make mutants
MUTANTS_ARGS=--fuzz`).
"""

_LEFT_OUT = """
## Left out

Written, and not kept, because no step and no time that a test could see is different:

- 03: a late message of a store finds its page in, and only wakes instead of taking off a write-protection that was
  left. Whoever protects a page takes that off himself, and wakes, whenever the page stays (`copy_out`,
  `unseal_page`).
- 08: reclaim takes a frame out of the swap cache while a fault copies from it. Both have the page's lock.
- 30: frames that come free wake nobody. Who waits for frames looks again after 1 to 10 ms: every fault ends, only
  later.
- 51: an eviction of a shared page ends without looking who has mapped the region since it began. Who maps it
  meanwhile faults at the first touch of the page, and that takes the page back: the word has changed, and the
  eviction ends in vain. The look is a second net.
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


def _fuzzed(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    return f"{found['how']}, {found['seconds']:.0f} s" if found["killed"] else "no"


def _row(mutant: Mutant, found: dict[str, Any] | None, fuzzed: str) -> str:
    if not found:
        killer, where, seconds = "not run", "", ""
    elif not found["killed"]:
        killer, where, seconds = "**survives**", "", ""
    else:
        killer = f"{found['check']}: {found['how']}"
        where, seconds = f"`{found['where']}`" if found["where"] else "", f"{found['seconds']:.0f}"
    cells = (mutant.number, mutant.name, mutant.area, mutant.what, mutant.promise, killer, where, seconds, fuzzed)
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def table(mutants: list[Mutant], known: dict[str, Any]) -> str:
    """The page. known: what results.json says."""
    found = known["mutants"]
    killed = [
        found.get(mutant.path.stem, {}) for mutant in mutants if found.get(mutant.path.stem, {}).get("killed")
    ]
    by: dict[str, int] = {}
    for one in killed:
        kind = "the stress" if one["check"].startswith("stress") else "tests"
        by[kind] = by.get(kind, 0) + 1
    counts = ", ".join(f"{count} by {kind}" for kind, count in sorted(by.items(), key=lambda item: -item[1]))
    fuzzed = known.get("fuzz", {})
    alone = sum(bool(fuzzed.get(mutant.path.stem, {}).get("killed")) for mutant in mutants)
    rows = "\n".join(
        _row(mutant, found.get(mutant.path.stem), _fuzzed(fuzzed.get(mutant.path.stem))) for mutant in mutants
    )
    clean = "\n".join(f"| {name} | {seconds:.0f} |" for name, seconds in sorted(known["clean"].items()))
    return (
        f"{_HEAD}\n{len(killed)} of {len(mutants)} are killed: {counts}. The fuzzer by itself has found {alone} of"
        f" {sum(mutant.path.stem in fuzzed for mutant in mutants)}.\n\n"
        "| | mutant | area | what is broken | which promise | killed by | where | s | fuzzer alone |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
        f"{rows}\n\nThe clean tree passes each check:\n\n| check | s |\n|---|---|\n{clean}\n"
        f"{_LEFT_OUT}{_model_part()}"
    )
