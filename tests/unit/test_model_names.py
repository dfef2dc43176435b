"""The model in model/ and csrc/README.md name the same states and moves, and the functions that make them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Move = tuple[str, str, str]


def _text(pattern: str) -> str:
    return "\n".join(path.read_text() for path in sorted(ROOT.glob(pattern)))


def _model_moves(macro: str) -> set[Move]:
    moves = re.findall(rf"\b{macro}\(\w+, (\w+), (\w+), (\w+)\)", _text("model/shared*.pml"))
    return {move for move in moves if move != ("from", "to", "by")}


def _section(begin: str, end: str) -> str:
    text = (ROOT / "csrc/README.md").read_text()
    return text[text.index(begin) : text.index(end, text.index(begin))]


def _page_rows() -> set[Move]:
    text = _section("**Moves of a shared page's word**", "**Moves of a use word**")
    return set(re.findall(r"^\| `(\w+)` \| `(\w+)` \| `(\w+)` \|", text, re.MULTILINE))


def _use_rows(what: str) -> set[Move]:
    text = _section("**Moves of a use word**", "A fault in a member's process")
    return set(re.findall(rf"^\| {what} \| `(\w+)` \| `(\w+)` \| `(\w+)` \|", text, re.MULTILINE))


def test_moves_of_a_shared_page_are_the_same() -> None:
    assert _page_rows() == _model_moves("move_page")


@pytest.mark.parametrize("what", ["frame", "slot"])
def test_moves_of_use_words_are_the_same(what: str) -> None:
    assert _use_rows(what) == _model_moves(f"move_{what}")


def test_states_of_a_shared_page_are_the_same() -> None:
    table = _section("### A shared page", "**Moves of a shared page's word**")
    readme = set(re.findall(r"^\| `([A-Z]+)` \|", table, re.MULTILINE))
    first = re.search(r"mtype = \{ (ZERO[^}]*) \}", _text("model/shared.pml"))
    core = re.findall(r"\bSHARED_([A-Z]+)\s*=\s*\d", (ROOT / "csrc/shared/shared_word.h").read_text())
    assert first
    assert readme == set(first.group(1).split(", ")) == set(core)


def test_kinds_of_use_words_are_the_same() -> None:
    second = re.search(r"mtype = \{ (FREE[^}]*) \}", _text("model/shared.pml"))
    core = re.findall(r"\bUSE_([A-Z]+)\s*=\s*\d", (ROOT / "csrc/shared/commons.h").read_text())
    assert second
    assert set(second.group(1).split(", ")) == set(core)


def test_every_move_is_made_by_a_function_of_the_core() -> None:
    core = _text("csrc/shared/*.c")
    moves = _page_rows() | _use_rows("frame") | _use_rows("slot")
    assert not [name for _, _, name in moves if not re.search(rf"\b{name}\([^;]*\)\s*\{{", core)]
