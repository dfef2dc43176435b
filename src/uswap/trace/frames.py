"""Frames: the sizes of a pool, from its limit, as the core sets them."""

from __future__ import annotations

from typing import NamedTuple

from uswap._errors import ArgumentError

# The core's own, in frames: RESERVE_FRAMES, LOW_SHARE, LOW_FRAMES_MAX, RESTING_MAX (csrc/frame/frame_pool.[ch]),
# INACTIVE_SHARE, INACTIVE_FRAMES_MAX (csrc/reclaim/inactive.c), and half of its buffer of events.
RESERVE_FRAMES = 64
LOW_SHARE, LOW_FRAMES_MAX = 64, 4096
INACTIVE_SHARE, INACTIVE_FRAMES_MAX = 8, 16384
EVENTS_MAX = 32768 // 2
RESTING_MAX, RESTING_SHARE = 256, 128
WIDE_SHARE, LOW_FRAMES_LEAST = 16, 128


class Frames(NamedTuple):
    """Sizes of a simulated pool, in frames.

    Attributes:
        capacity: frames for pages.
        low: with fewer free ones than that, reclaim starts...
        high: ...and goes on until so many are free.
        inactive: how many the core keeps inactive by itself.
        events: a policy is told what has happened after so many events at the latest.
        resting: so many frames of copies, at most, rest for the next ones when they are dropped, and are not free.
    """

    capacity: int
    low: int
    high: int
    inactive: int
    events: int
    resting: int = 0


def frames_of(limit_frames: int, sample: float = 1.0) -> Frames:
    """The sizes of a pool with that limit (pages of 4 KiB), scaled to a sample of the pages.

    Raises ArgumentError if the limit leaves no frame for pages.

    Example:
        >>> frames_of(65536)
        Frames(capacity=65472, low=1024, high=2048, inactive=8192, events=16384, resting=256)
        >>> frames_of(65536, 0.01)
        Frames(capacity=655, low=10, high=20, inactive=82, events=164, resting=3)
    """
    if limit_frames <= RESERVE_FRAMES:
        raise ArgumentError(
            f"a limit of {limit_frames} frames leaves none for pages: {RESERVE_FRAMES} are reserved"
        )
    capacity = max(1, round((limit_frames - RESERVE_FRAMES) * sample))
    low = _scaled(_low(limit_frames), sample)
    return Frames(
        capacity=capacity,
        low=min(low, capacity),
        high=min(2 * low, capacity),
        inactive=min(_scaled(min(limit_frames // INACTIVE_SHARE, INACTIVE_FRAMES_MAX), sample), capacity),
        events=_scaled(EVENTS_MAX, sample),
        resting=_scaled(min(limit_frames // RESTING_SHARE, RESTING_MAX), sample),
    )


def limit_that_holds(pages: int) -> int:
    """The least limit, in frames, with which so many pages stay in memory without any reclaim.

    Example:
        >>> limit = limit_that_holds(10000)
        >>> frames = frames_of(limit)
        >>> limit, frames.capacity - frames.low
        (10223, 10000)
    """
    limit = least = pages + RESERVE_FRAMES
    while limit - least < _low(limit):
        limit = least + _low(limit)
    return limit


def _low(limit_frames: int) -> int:
    """Free frames below which reclaim starts (while there is no stream)."""
    wide = min(limit_frames // WIDE_SHARE, LOW_FRAMES_MAX)
    return min(max(limit_frames // LOW_SHARE, LOW_FRAMES_LEAST), wide)


def _scaled(frames: int, sample: float) -> int:
    return max(1, round(frames * sample)) if frames else 0
