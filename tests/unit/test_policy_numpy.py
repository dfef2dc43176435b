"""NumPy is used where the program has it, and not imported for the sake of a policy."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from uswap.policy._numpy import imported_numpy

PROGRAM = """
import sys, uswap
with uswap.Pool(limit="8MiB") as pool:
    region = pool.region("32MiB")
    rounds = 0
    while pool.stats().policy_orders == 0:  # a loop that holds the GIL may leave the policy no turn for a while
        rounds += 1
        for page in range(len(region) // 4096):
            region[page * 4096] = (page + rounds) % 255 + 1
    assert pool.reclaimer.error is None, pool.reclaimer.error
    region.close()
assert "numpy" not in sys.modules
"""


def test_a_pool_with_its_policy_imports_no_numpy() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_numpy_that_is_being_imported_is_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    half = types.ModuleType("numpy")
    half.__spec__ = types.SimpleNamespace(_initializing=True)  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "numpy", half)
    assert imported_numpy() is None
    half.__spec__ = types.SimpleNamespace(_initializing=False)  # type: ignore[assignment]
    assert imported_numpy() is half
