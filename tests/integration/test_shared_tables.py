"""The tables that processes of one pool share: members are killed and stopped at every step of every protocol; at
the end every frame, slot and chunk is accounted for, and every page has what was last stored."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from _support.native import ROOT, program

SHARED = (
    "commons",
    "shared_word",
    "mend",
    "frame_table",
    "slot_table",
    "grants",
    "object_place",
    "members",
    "life_lock",
    "repair",
    "group_check",
)
BASE = ("lock", "awake", "invariant", "status", "findings", "memory", "proc_stat")


@pytest.fixture(scope="module")
def shared_tables() -> str:
    core = [ROOT / "csrc" / "shared" / f"{name}.c" for name in SHARED]
    core += [ROOT / "csrc" / "base" / f"{name}.c" for name in BASE]
    support = ROOT / "tests" / "_support"
    return program(support / "shared_tables.c", support / "shared_model.c", *core, flags=("-DUSWAP_FAILPOINTS",))


@pytest.mark.parametrize(("seed", "mode"), [(1, "awaited"), (2, "awaited"), (3, "awaited"), (4, "unawaited")])
def test_nothing_is_lost_or_leaked_whoever_dies_where(
    shared_tables: str, tmp_path: Path, seed: int, mode: str
) -> None:
    """unawaited: the file system cannot tell when a dead member's writes have ended, so its slots are not used
    again."""
    done = subprocess.run(
        [shared_tables, str(tmp_path), str(seed), "120", mode],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
        timeout=60,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert done.returncode == 0, done.stderr
    resident, slots = (int(word) for word in done.stdout.replace(",", "").split()[:3:2])
    assert resident > 0
    assert slots > 0
