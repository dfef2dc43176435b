"""The mutants (make mutants): every patch applies and says what it is, the page is up to date, and the driver can
tell how a check ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = ROOT / "mutants"
HEADER = "What: a thing\nPromise: I1\nArea: swap\nExpected: fuzz\n\n"


@pytest.fixture(autouse=True)
def driver_importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The driver's files import each other as they do when it is run."""
    monkeypatch.syspath_prepend(str(MUTANTS))
    yield
    for name in [name for name, module in sys.modules.items() if _is_drivers(module)]:
        del sys.modules[name]


def _is_drivers(module: ModuleType) -> bool:
    return Path(getattr(module, "__file__", None) or "/").parent == MUTANTS


def test_every_patch_applies_and_says_what_it_is() -> None:
    from catalogue import AREAS, apply, read_all

    mutants = read_all()
    for mutant in mutants:
        apply(mutant, ROOT, "--check")
    assert len(mutants) >= 30
    assert {mutant.area for mutant in mutants} == set(AREAS)


def test_every_mutant_is_killed_and_the_page_says_so() -> None:
    from catalogue import read_all
    from run import Results
    from table import MODEL_PART, TABLE, table

    mutants, known = read_all(), Results().known
    unkilled = [m.path.stem for m in mutants if not known["mutants"].get(m.path.stem, {}).get("killed")]
    assert unkilled == [], "run make mutants MUTANTS=... for these"
    written, made = (page.partition(MODEL_PART)[0].rstrip() for page in (TABLE.read_text(), table(mutants, known)))
    assert written == made, "run make mutants MUTANTS_ARGS=--table"


@pytest.mark.parametrize("missing", ["What", "Promise", "Area", "Expected"])
def test_a_header_that_is_not_complete_is_refused(missing: str, tmp_path: Path) -> None:
    from catalogue import CatalogueError, read_mutant

    patch = tmp_path / "01-x.patch"
    patch.write_text("".join(line for line in HEADER.splitlines(True) if not line.startswith(missing)))
    with pytest.raises(CatalogueError, match=f"there is no .*{missing}"):
        read_mutant(patch)


def test_an_area_that_is_none_and_numbers_used_twice_are_refused(tmp_path: Path) -> None:
    from catalogue import CatalogueError, read_all

    (tmp_path / "01-x.patch").write_text(HEADER)
    (tmp_path / "01-y.patch").write_text(HEADER)
    with pytest.raises(CatalogueError, match="two mutants have the number 01"):
        read_all(tmp_path)
    (tmp_path / "01-y.patch").write_text(HEADER.replace("swap", "kernel"))
    with pytest.raises(CatalogueError, match=r"Area must be one of .*'kernel'"):
        read_all(tmp_path)


def test_a_patch_that_does_not_apply_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    from catalogue import CatalogueError, apply, read_mutant

    patch = tmp_path / "01-x.patch"
    patch.write_text(HEADER + "diff --git a/f.c b/f.c\n--- a/f.c\n+++ b/f.c\n@@ -1 +1 @@\n-one\n+two\n")
    (tmp_path / "f.c").write_text("another\n")
    with pytest.raises(CatalogueError, match=r"01-x\.patch does not apply"):
        apply(read_mutant(patch), tmp_path)
    assert (tmp_path / "f.c").read_text() == "another\n"
    (tmp_path / "f.c").write_text("one\n")
    apply(read_mutant(patch), tmp_path)
    assert (tmp_path / "f.c").read_text() == "two\n"
    apply(read_mutant(patch), tmp_path, "--reverse")
    assert (tmp_path / "f.c").read_text() == "one\n"


@pytest.mark.parametrize(
    ("program", "how"),
    [
        ("pass", ""),
        ("print('tests/x.py::test_y'); raise SystemExit(1)", "failed"),
        ("import os; os.abort()", "crashed"),
        ("print('uswap: invariant I7 does not hold: x'); raise SystemExit(1)", "crashed"),
        ("import time; time.sleep(600)", "hung"),
    ],
)
def test_the_end_of_a_check_is_told(
    program: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import checks

    monkeypatch.setattr(checks, "_MORE_SECONDS", 3.0 if how == "hung" else 60.0)
    verdict = checks.run(checks.Check("c", (sys.executable, "-c", program)), tmp_path, 0.0)
    assert (verdict.killed, verdict.how) == (how != "", how)


def test_a_check_names_what_has_failed(tmp_path: Path) -> None:
    import checks

    program = "print('tests/unit/x.py::test_a PASSED\\ntests/unit/x.py::test_b[1] '); raise SystemExit(1)"
    assert checks.run(checks.Check("c", (sys.executable, "-c", program)), tmp_path, 1.0).where == "x.py::test_b"
    program = "print('uswap: invariant I7 does not hold: x'); raise SystemExit(1)"
    assert checks.run(checks.Check("c", (sys.executable, "-c", program)), tmp_path, 1.0).where == "invariant I7"


class _Driver:
    """Kills none but the second."""

    def __init__(self, *_: object) -> None:
        self.turn = 0

    def kill(self, _: object) -> object:
        from checks import Verdict

        self.turn += 1
        return Verdict("c", True, "failed", "t", 1.0) if self.turn == 2 else None


def test_survivors_are_counted_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import run
    from catalogue import read_all
    from table import table

    results = run.Results(tmp_path / "r.json")
    monkeypatch.setattr(run, "Results", lambda: results)
    monkeypatch.setattr(run, "Driver", _Driver)
    assert run.kill_all(read_all()[:3], run.Choice()) == 2
    assert [one["killed"] for one in results.known["mutants"].values()] == [False, True, False]
    assert table(read_all()[:3], results.known).count("**survives**") == 2
