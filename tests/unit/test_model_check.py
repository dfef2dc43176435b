"""model/check.py: as reached counts what a search has said it reached, and not what no search has looked at."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]

# As spin makes it: a proctype of six states, the third inside a d_step, the fifth and sixth its end.
CHECKER = """
short src_ln0 [] = {
\t  0,   3,   4,   0,   5,   6,
\t  6,   0, };
uchar reached0 [] = {
\t  0,   0,   0,   1,   0,   1,
\t  0,   0, };
char *procname[] = {
   "thread",
   ":np_:",
\t0
};
"""
LINES = [("model.pml", 1, "one"), ("model.pml", 2, "two"), *(("part.pml", n, f"part {n}") for n in range(1, 5))]
SAID = """
State-vector 120 byte, depth reached 488, errors: 0
unreached in proctype thread
\tmodel.pml:4, state 2, "p = 0"
\tmodel.pml:6, state 6, "-end-"
\t(2 of 6 states)
"""
FIRST, MISSED, LAST = ("thread", "part.pml", 1), ("thread", "part.pml", 2), ("thread", "part.pml", 3)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module."""
    monkeypatch.syspath_prepend(str(ROOT / "model"))
    import check  # type: ignore[import-not-found]

    yield check
    del sys.modules["check"]


def test_places_are_told_by_the_file_that_they_are_in(check: ModuleType) -> None:
    assert check.places_reached(CHECKER, SAID, LINES) == ({FIRST, LAST}, {MISSED})


def test_a_search_that_was_cut_off_has_reached_nothing(check: ModuleType) -> None:
    cut_off = SAID[: SAID.index("unreached")]
    assert check.places_reached(CHECKER, cut_off, LINES) == (set(), set())


def outcome(check: ModuleType, reached: list[object], unreached: list[object]) -> object:
    return check.Outcome("some", "assertions", verdict="holds", reached=reached, unreached=unreached)


def test_what_no_search_has_reached_is_told(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "part.pml").write_text("one\ntwo /* unreached: for a reason */\nthree\n")
    monkeypatch.setattr(check, "HERE", tmp_path)
    missing = outcome(check, [FIRST], [MISSED, LAST])
    cut_off, without_it = outcome(check, [], []), outcome(check, [FIRST], [])
    assert check.never_reached([missing, cut_off, without_it]) == ["part.pml:3, in thread: three"]
    assert check.never_reached([missing, outcome(check, [LAST], [MISSED])]) == []


def test_a_model_is_put_together_as_spin_would(check: ModuleType) -> None:
    lines = check.lines_of("shared.pml")
    assert {file for file, _, _ in lines} == {path.name for path in (ROOT / "model").glob("shared*.pml")}
    assert not any(text.startswith("#include") for _, _, text in lines)
    for file, number, text in lines:
        assert (ROOT / "model" / file).read_text().splitlines()[number - 1] == text
