"""csrc/swap/shadow.h: what is left of the time of an eviction, by itself."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uswap.policy import NEVER

CORE = Path(__file__).parents[2] / "csrc"
SOURCE = """
#include "swap/shadow.h"
uint64_t make(uint64_t clock) { return shadow_make(clock); }
uint32_t distance(uint64_t shadow, uint64_t clock) { return shadow_decode(shadow_encode(shadow, clock)); }
unsigned code(uint64_t shadow, uint64_t clock) { return shadow_encode(shadow, clock); }
uint64_t modulus(void) { return SHADOW_MODULUS; }
"""
MODULUS = (1 << 30) - 1


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("shadow")
    (folder / "shadow.c").write_text(SOURCE)
    made = folder / "shadow.so"
    command = ["cc", "-O1", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error", "-shared", "-fPIC"]
    subprocess.run([*command, f"-I{CORE}", str(folder / "shadow.c"), "-o", str(made)], check=True)
    library = ctypes.CDLL(str(made))
    for name in ("make", "modulus"):
        getattr(library, name).restype = ctypes.c_uint64
    for name in ("make", "distance", "code"):
        getattr(library, name).argtypes = [ctypes.c_uint64] * (1 if name == "make" else 2)
    library.distance.restype = ctypes.c_uint32
    return library


@given(clock=st.integers(0, 1 << 62), distance=st.integers(0, MODULUS - 1))
@example(clock=0, distance=MODULUS - 1)
@example(clock=MODULUS - 1, distance=1)
@example(clock=MODULUS, distance=MODULUS - 1)
def test_a_distance_comes_back_at_most_a_quarter_off(native: Any, clock: int, distance: int) -> None:
    shadow = native.make(clock)
    assert 0 < shadow < 1 << 30, "it has the bits of a frame, and 0 is no shadow"
    found = native.distance(shadow, clock + distance)
    assert abs(found - distance) <= distance / 4
    assert native.code(shadow, clock + distance) < 64


def test_small_distances_are_exact_and_none_is_never(native: Any) -> None:
    assert native.modulus() == MODULUS
    shadow = native.make(100)
    assert [native.distance(shadow, 100 + distance) for distance in range(5)] == [0, 1, 2, 3, 5]
    assert native.distance(0, 12345) == NEVER


@given(st.integers(0, MODULUS - 2), st.integers(1, 1 << 20))
def test_farther_is_never_nearer(native: Any, distance: int, more: int) -> None:
    shadow = native.make(0)
    assert native.code(shadow, distance) <= native.code(shadow, min(distance + more, MODULUS - 1))
