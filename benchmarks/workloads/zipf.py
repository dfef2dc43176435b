"""Zipf's popularity over four times the limit, popular pages scattered."""

from __future__ import annotations

import numpy as np

from workloads.base import Pages, Reference

_TIMES_LIMIT = 4
_WARM = 8
_COUNTED = 8


def draw(pages: int, exponent: float, count: int, random: np.random.Generator) -> Pages:
    """So many pages; the one at a random place of the order of popularity is touched with probability ~ rank^-s."""
    share = np.arange(1, pages + 1, dtype="f8") ** -exponent
    below = np.cumsum(share)
    ranks = np.searchsorted(below, random.random(count) * below[-1])
    page_of_rank: Pages = random.permutation(pages).astype(np.uint32)
    touched: Pages = page_of_rank[np.minimum(ranks, pages - 1)]
    return touched


def _zipf(exponent: float, frames: int, seed: int) -> Reference:
    pages = _TIMES_LIMIT * frames
    order = draw(pages, exponent, (_WARM + _COUNTED) * frames, np.random.default_rng(seed))
    return Reference({"all": pages}, order, _WARM * frames)


def zipf_08(frames: int, seed: int) -> Reference:
    """Exponent 0.8."""
    return _zipf(0.8, frames, seed)


def zipf_099(frames: int, seed: int) -> Reference:
    """Exponent 0.99."""
    return _zipf(0.99, frames, seed)
