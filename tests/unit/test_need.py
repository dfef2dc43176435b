"""csrc/shared/need.h: who of those that share a limit gets more of it, by itself."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

CORE = Path(__file__).parents[2] / "csrc"
FLOOR = 4


class Need(ctypes.Structure):
    """need."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("chunks", "floor", "unused", "starved", "rate"))


class Rule:
    """The two decisions, for one of several."""

    def __init__(self, library: Any) -> None:
        self._library = library
        for name in ("need_to_give", "need_to_take"):
            getattr(library, name).restype = ctypes.c_uint64

    def _ask(self, name: str, needs: list[Need], which: int, free: int) -> int:
        others = [need for number, need in enumerate(needs) if number != which]
        array = (Need * max(1, len(others)))(*others)
        arguments = (ctypes.byref(needs[which]), array, ctypes.c_uint32(len(others)), ctypes.c_uint64(free))
        return int(getattr(self._library, name)(*arguments))

    def gives(self, needs: list[Need], which: int, free: int) -> int:
        """Chunks that it gives away."""
        return self._ask("need_to_give", needs, which, free)

    def takes(self, needs: list[Need], which: int, free: int) -> int:
        """Chunks that it takes."""
        return self._ask("need_to_take", needs, which, free)


@pytest.fixture(scope="module")
def rule(tmp_path_factory: pytest.TempPathFactory) -> Rule:
    made = tmp_path_factory.mktemp("need") / "need.so"
    command = ["cc", "-O1", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error", "-shared", "-fPIC"]
    subprocess.run([*command, f"-I{CORE}", str(CORE / "shared" / "need.c"), "-o", str(made)], check=True)
    return Rule(ctypes.CDLL(str(made)))


def member(chunks: int, *, unused: int = 0, starved: int = 0, rate: int = 0, floor: int = FLOOR) -> Need:
    return Need(chunks, floor, unused, starved, rate)


SMALL = st.integers(0, 1000)
NEEDS = st.lists(st.builds(Need, SMALL, st.integers(0, 20), SMALL, SMALL, SMALL), min_size=1, max_size=6)


@given(needs=NEEDS, free=SMALL)
def test_nobody_gives_from_his_floor_nor_takes_what_is_not_free(rule: Rule, needs: list[Need], free: int) -> None:
    for which, need in enumerate(needs):
        given_away = rule.gives(needs, which, free)
        assert given_away == 0 or given_away <= need.chunks - need.floor
        assert rule.takes(needs, which, free) <= free


@given(needs=NEEDS, free=SMALL)
def test_nobody_gives_what_nobody_lacks(rule: Rule, needs: list[Need], free: int) -> None:
    lacking = any(need.starved or need.chunks < need.floor for need in needs)
    for which in range(len(needs)):
        if not lacking:
            assert rule.gives(needs, which, free) == rule.takes(needs, which, free) == 0


def test_who_is_short_gets_what_others_do_not_use(rule: Rule) -> None:
    idle, short = member(100, unused=60), member(10, starved=30)
    assert rule.gives([idle, short], 0, free=0) == 30
    assert rule.takes([idle, short], 1, free=30) == 30


def test_a_scan_gets_nothing_of_a_hot_set(rule: Rule) -> None:
    hot, scan = member(100, rate=5), member(10, starved=50, rate=0)
    assert rule.gives([hot, scan], 0, free=0) == 0


def test_a_hot_set_gets_what_a_scan_has(rule: Rule) -> None:
    scan, hot = member(100, starved=10, rate=0), member(10, starved=20, rate=50)
    assert 0 < rule.gives([scan, hot], 0, free=0) <= 20
    assert rule.takes([scan, hot], 0, free=20) == 0, "what came free is for who needs it more"
    assert rule.takes([scan, hot], 1, free=20) > 0


def test_a_floor_is_had_whatever_the_rates(rule: Rule) -> None:
    holder, newcomer = member(100, rate=1000), member(0)
    assert rule.gives([holder, newcomer], 0, free=0) >= FLOOR
    assert rule.takes([holder, newcomer], 1, free=FLOOR) == FLOOR


@given(first=st.integers(FLOOR, 200), second=st.integers(FLOOR, 200), rate=st.integers(1, 1000))
def test_equals_do_not_give_to_each_other_to_and_fro(rule: Rule, first: int, second: int, rate: int) -> None:
    """Both want more, and save as much by a chunk: at most one of them ever gives."""
    needs = [member(first, starved=10, rate=rate), member(second, starved=10, rate=rate)]
    assert rule.gives(needs, 0, free=0) == 0 or rule.gives(needs, 1, free=0) == 0
