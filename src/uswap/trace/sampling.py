"""Sampling by page: all touches of a page are recorded, or none (SHARDS; Waldspurger et al., FAST 2015).

A page is in the sample if the upper bits of its hash are below a threshold, so samples are nested: what a recorder
took at 0.1 can be thinned out to 0.01 afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from uswap.trace._numpy import numpy_or_none

_MASK = (1 << 64) - 1
_HASH_SHIFT = 40
_UNIT = 1 << 24


def page_hash(page_key: int) -> int:
    """64 bits: the finalizer of splitmix64."""
    mixed = page_key & _MASK
    mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _MASK
    return mixed ^ mixed >> 31


def is_sampled(page_key: int, sample: float) -> bool:
    """Whether a page belongs to a sample of that share.

    Example:
        >>> sum(is_sampled(key, 0.25) for key in range(10000)) / 10000
        0.2...
    """
    return page_hash(page_key) >> _HASH_SHIFT < sample * _UNIT


def thin_out(chunks: Iterable[list[int]], sample: float) -> Iterator[list[int]]:
    """Those of the touches (of Trace.touches) whose pages are in the sample."""
    if sample >= 1:
        yield from chunks
        return
    known: dict[int, bool] = {}
    for chunk in chunks:
        yield _thin_out_by_numpy(chunk, sample) if numpy_or_none() else _thin_out(chunk, sample, known)


def _thin_out(chunk: list[int], sample: float, known: dict[int, bool]) -> list[int]:
    kept = []
    for touch in chunk:
        key = touch if touch >= 0 else ~touch
        inside = known.get(key)
        if inside is None:
            inside = known[key] = is_sampled(key, sample)
        if inside:
            kept.append(touch)
    return kept


def _thin_out_by_numpy(chunk: list[int], sample: float) -> list[int]:
    numpy = numpy_or_none()
    touches = numpy.array(chunk, dtype=numpy.int64)
    mixed = numpy.where(touches < 0, ~touches, touches).astype(numpy.uint64)
    mixed = (mixed ^ mixed >> numpy.uint64(30)) * numpy.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> numpy.uint64(27)) * numpy.uint64(0x94D049BB133111EB)
    mixed = mixed ^ mixed >> numpy.uint64(31)
    kept: list[int] = touches[(mixed >> numpy.uint64(_HASH_SHIFT)) < sample * _UNIT].tolist()
    return kept
