"""Refault distances as coarse as a pool's own (csrc/swap/shadow.h): two for each power of two."""

from __future__ import annotations


def coarse(distance: int) -> int:
    """The middle of those that the core does not tell apart: at most a quarter off.

    Example:
        >>> [coarse(distance) for distance in (0, 1, 2, 3, 4, 5, 6, 1000, 1024)]
        [0, 1, 2, 3, 5, 5, 7, 896, 1280]
    """
    if distance < 2:
        return distance
    log = distance.bit_length() - 1
    half = distance >> (log - 1) & 1
    return (1 << log) + (half << (log - 1)) + (1 << (log - 2) if log > 1 else 0)
