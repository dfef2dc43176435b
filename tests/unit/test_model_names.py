"""The model in model/ and csrc/README.md name the same states and moves, and the functions that make them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Move = tuple[str, str, str]


def _text(pattern: str) -> str:
    return "\n".join(path.read_text() for path in sorted(ROOT.glob(pattern)))


def _model_moves(macro: str, files: str = "model/shared*.pml") -> set[Move]:
    moves = re.findall(rf"\b{macro}\([^,()]+, (\w+), (\w+), (\w+)\)", _text(files))
    return {move for move in moves if move != ("from", "to", "by")}


def _section(begin: str, end: str) -> str:
    text = (ROOT / "csrc/README.md").read_text()
    return text[text.index(begin) : text.index(end, text.index(begin))]


def _private_rows(begin: str, end: str, first: str) -> set[Move]:
    rows = re.findall(rf"^\|{first} `(\w+)` \| `(\w+)` \| `(\w+)` \|", _section(begin, end), re.MULTILINE)
    return set(rows)


def _private_pages() -> set[Move]:
    return _private_rows("**Moves of a page**", "**Moves of a slot word's state**", "")


def _private_slots() -> set[Move]:
    return _private_rows("**Moves of a slot word's state**", "## A fault meets", " slot \\|")


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


def test_moves_of_a_private_page_are_the_same() -> None:
    assert _private_pages() == _model_moves("move_state", "model/private*.pml")


def test_moves_of_slot_words_are_the_same() -> None:
    assert _private_slots() == _model_moves("move_slot", "model/private*.pml")


def test_private_states_are_the_same() -> None:
    pages, slots = re.findall(r"^mtype = \{ ([^}]*) \};", _text("model/private.pml"), re.MULTILINE)
    readme = _section("## Page states", "**Moves of a page**")
    page_table, slot_table = readme.split("## Swap cache states")
    page_core = re.findall(r"\bPAGE_([A-Z]+) = \d[,} ]", (ROOT / "csrc/region/page_word.h").read_text())
    slot_core = re.findall(r"\bCACHE_([A-Z]+) = \d", (ROOT / "csrc/swap/swap_cache.h").read_text())
    assert (
        set(re.findall(r"^\| `([A-Z]+)` \|", page_table, re.MULTILINE)) == set(pages.split(", ")) == set(page_core)
    )
    assert set(re.findall(r"^\| `([A-Z]+)` \|", slot_table, re.MULTILINE)) == set(slots.split(", "))
    assert set(slot_core) == set(slots.split(", "))


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
    # spin has one set of names for all: LEAVING is among those of a page.
    assert set(second.group(1).split(", ")) | {"LEAVING"} == set(core)


def test_every_move_is_made_by_a_function_of_the_core() -> None:
    core = _text("csrc/*/*.c")
    moves = _page_rows() | _use_rows("frame") | _use_rows("slot") | _private_pages() | _private_slots()
    assert not [name for _, _, name in moves if not re.search(rf"\b{name}\([^;]*\)\s*\{{", core)]
