"""Rounds over a little more than the limit: the worst case of least recently used, which misses every time."""

from __future__ import annotations

import numpy as np

from workloads.base import Pages, Reference

_TIMES_LIMIT = 1.1
_WARM_ROUNDS = 2
_COUNTED_ROUNDS = 5


def _rounds(order: Pages) -> Reference:
    string = np.tile(order, _WARM_ROUNDS + _COUNTED_ROUNDS)
    return Reference({"all": len(order)}, string, _WARM_ROUNDS * len(order))


def sequential(frames: int, seed: int) -> Reference:
    """In order of the addresses."""
    return _rounds(np.arange(int(_TIMES_LIMIT * frames), dtype=np.uint32))


def shuffled(frames: int, seed: int) -> Reference:
    """In a random order, the same in every round: nothing to read ahead."""
    return _rounds(np.random.default_rng(seed).permutation(int(_TIMES_LIMIT * frames)).astype(np.uint32))
