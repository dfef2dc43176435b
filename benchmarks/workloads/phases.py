"""A working set that fits, and becomes another one every so many accesses."""

from __future__ import annotations

import numpy as np

from workloads.base import Reference

_SHARE = 0.9
_SETS = 4
# The first is for warming up; the last one comes back to the set of the first.
_PHASES = 5
_TOUCHES_A_PAGE = 6


def phases(frames: int, seed: int) -> Reference:
    """Uniform on 0.9 of the limit, six accesses a page of it; then the same on the next 0.9 of it."""
    random = np.random.default_rng(seed)
    pages = int(_SHARE * frames)
    length = _TOUCHES_A_PAGE * pages
    starts = np.repeat(np.arange(_PHASES) % _SETS * pages, length)
    order = (starts + random.integers(0, pages, _PHASES * length)).astype(np.uint32)
    return Reference({"all": _SETS * pages}, order, length)
