"""A hot set of half the limit, and a scan over four times the limit that wants it out of memory."""

from __future__ import annotations

import numpy as np

from workloads.base import Reference

_HOT_SHARE = 0.5
_SCAN_TIMES_LIMIT = 4
_WARM = 8
_COUNTED = 16


def scan_and_hot_set(frames: int, seed: int) -> Reference:
    """Half of the accesses are uniform on the hot set; at random between them the scan goes a page further."""
    random = np.random.default_rng(seed)
    hot, scanned = int(_HOT_SHARE * frames), _SCAN_TIMES_LIMIT * frames
    count = (_WARM + _COUNTED) * frames
    is_hot = random.random(count) < 0.5
    next_of_scan = np.cumsum(~is_hot) % scanned + hot
    order = np.where(is_hot, random.integers(0, hot, count), next_of_scan).astype(np.uint32)
    return Reference({"hot": hot, "scan": scanned}, order, _WARM * frames, watched="hot")
