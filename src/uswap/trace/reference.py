"""Reference policies: what others make of the same touches, by libCacheSim (https://github.com/1a1a11a/libCacheSim).

They see every touch, have no inactive list, and evict one page at a time when they are full; so they are what a
policy in a pool is measured by, not what it can be. Belady's knows the future, and nothing misses less.
"""

from __future__ import annotations

import os
from typing import Any

from uswap._errors import ArgumentError, UnsupportedError
from uswap.trace.frames import Frames
from uswap.trace.oracle_general import Exported
from uswap.trace.simulator import Simulated

REFERENCES = {
    "lru": "LRU",
    "fifo": "FIFO",
    "clock": "Clock",
    "arc": "ARC",
    "2q": "TwoQ",
    "lirs": "LIRS",
    "sieve": "Sieve",
    "s3fifo": "S3FIFO",
    "belady": "Belady",
}
"""Name -> libCacheSim's class."""

# Below that some of them end the process: a tenth of the cache is no frame at all.
FRAMES_MIN = 32


def require_libcachesim() -> Any:
    """The module. Raises UnsupportedError where it is missing."""
    try:
        import libcachesim
    except ImportError as failure:
        raise UnsupportedError(
            f"--reference needs libcachesim: {failure}", hint="pip install 'uswap[simulate]'"
        ) from failure
    return libcachesim


def check_references(names: list[str]) -> list[str]:
    """The names. Raises ArgumentError for one that there is not, UnsupportedError as require_libcachesim."""
    for name in names:
        if name not in REFERENCES:
            raise ArgumentError(f"there is no reference policy {name!r}: one of {', '.join(REFERENCES)}")
    if names:
        require_libcachesim()
    return names


def run_reference(
    path: str | os.PathLike[str], exported: Exported, name: str, limit_frames: int, frames: Frames
) -> Simulated:
    """One of REFERENCES over what write_oracle_general has written, with the frames of a pool of that limit.

    Raises:
        ArgumentError: fewer than FRAMES_MIN frames. UnsupportedError: libcachesim is missing.
    """
    libcachesim = require_libcachesim()
    if frames.capacity < FRAMES_MIN:
        raise ArgumentError(
            f"reference policies need {FRAMES_MIN} frames of the sample, not {frames.capacity}",
            hint="a larger limit or sample",
        )
    misses = 0
    if exported.touches:
        options = libcachesim.ReaderInitParam(ignore_obj_size=True)
        kind = libcachesim.TraceType.ORACLE_GENERAL_TRACE
        reader = libcachesim.TraceReader(os.fspath(path), kind, options)
        cache = getattr(libcachesim, REFERENCES[name])(
            frames.capacity, hashpower=max(12, frames.capacity.bit_length() + 1)
        )
        ratio, _ = cache.process_trace(reader)
        misses = round(ratio * exported.touches) - exported.objects
    return Simulated(
        policy=f"{name} (reference)",
        limit_frames=limit_frames,
        sample=exported.sample,
        touches=exported.total,
        accesses=exported.touches,
        first_touches=exported.objects,
        misses=misses,
        sequential_misses=0,
        rescues=0,
        evictions=max(0, misses + exported.objects - frames.capacity),
        core_evictions=0,
        decisions=0,
    )
