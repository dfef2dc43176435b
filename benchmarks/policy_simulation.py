"""What policies would miss on a reference string, with so many frames: libcachesim's, and uswap's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from workloads import Reference

# name -> libcachesim's class; Belady knows the future, so nobody misses less
REFERENCES = {"LRU": "LRU", "S3-FIFO": "S3FIFO", "SIEVE": "Sieve", "Belady": "Belady"}
_NEVER_AGAIN = (1 << 63) - 1
# What the side of a pool is called that knows no policies, and what uswap.trace calls it.
NO_POLICY = "uswap"
CORE = "core"
_REGION_BITS = 18

# Whether each access of a string missed.
Misses = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Simulated:
    """What counts of a simulated string.

    Attributes:
        misses: of the counted accesses. watched: of those, misses of the watched part; None: there is none.
    """

    misses: int
    watched: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def next_touches(pages: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """For each access the next one of the same page, or _NEVER_AGAIN."""
    result = np.full(len(pages), _NEVER_AGAIN, dtype=np.int64)
    order = np.argsort(pages, kind="stable")
    same = pages[order][1:] == pages[order][:-1]
    result[order[:-1][same]] = order[1:][same]
    return result


def counted(string: Reference, missed: Misses) -> Simulated:
    """The counted part of the misses of string.with_fill()."""
    first = string.pages + string.warm
    misses = int(missed[first:].sum())
    if not string.watched:
        return Simulated(misses)
    watched = string.is_watched(string.order[string.warm :])
    return Simulated(misses, int((missed[first:] & watched).sum()))


def has_libcachesim() -> bool:
    """Whether it is installed."""
    try:
        importlib.import_module("libcachesim")
    except ImportError:
        return False
    return True


def reference_misses(name: str, pages: npt.NDArray[Any], frames: int) -> Misses:
    """Whether each access missed under one of REFERENCES. Raises ImportError without libcachesim."""
    library: Any = importlib.import_module("libcachesim")
    cache, request = getattr(library, REFERENCES[name])(frames), library.Request()
    request.obj_size = 1
    missed = np.empty(len(pages), dtype=np.bool_)
    for at, (page, following) in enumerate(zip(pages.tolist(), next_touches(pages).tolist(), strict=True)):
        request.obj_id, request.clock_time, request.next_access_vtime = page, at, following
        missed[at] = not cache.get(request)
    return missed


def simulate_references(string: Reference, frames: int) -> dict[str, Simulated]:
    """Each of REFERENCES; {} without libcachesim."""
    if not has_libcachesim():
        return {}
    pages = string.with_fill()
    return {name: counted(string, reference_misses(name, pages, frames)) for name in REFERENCES}


def uswap_simulator() -> Callable[..., Any] | None:
    """uswap.trace.simulate, if this uswap has it."""
    try:
        found: Callable[..., Any] | None = getattr(importlib.import_module("uswap.trace"), "simulate", None)
    except ModuleNotFoundError as error:
        if error.name != "uswap.trace":
            raise
        return None
    return found


def page_keys(string: Reference) -> npt.NDArray[np.int64]:
    """string.with_fill() as uswap.trace.simulate takes it: page of its region << 18 | number of the region."""
    pages = string.with_fill().astype(np.int64)
    ends = np.cumsum(list(string.parts.values()))
    part = np.searchsorted(ends, pages, side="right")
    first = np.concatenate([[0], ends[:-1]])[part]
    keys: npt.NDArray[np.int64] = (pages - first) << _REGION_BITS | part + 1
    return keys


def simulate_policies(string: Reference, policies: list[str], limit_frames: int) -> dict[str, Simulated]:
    """uswap's own policies, the objects that run live, in a pool of that limit; {} if this uswap cannot simulate.

    Each runs twice, from the start to where counting begins, and to the end: the difference is what counts.
    """
    simulate = uswap_simulator()
    if simulate is None:
        return {}
    keys = page_keys(string).tolist()
    before = keys[: string.pages + string.warm]
    found = {}
    for side in policies:
        name = CORE if side == NO_POLICY else side
        found[side] = Simulated(
            simulate(keys, name, limit_frames).misses - simulate(before, name, limit_frames).misses
        )
    return found
