"""Stack distances: how much memory LRU would have needed for each touch to be a hit, in one pass.

The stack distance of a touch is how many other pages were touched since the same page was touched last (Mattson et
al., 1970); LRU with c frames misses those of c and more. They are counted by a Fenwick tree over the times of the
last touch of each page, whose size is a small multiple of the number of pages.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate

from uswap.trace.reader import Trace
from uswap.trace.source import Source

FIRST = -1
"""The distance of a touch that LRU misses whatever its size: of a page without contents."""

_TIMES_MIN = 1 << 12


class LruStack:
    """The stack of LRU. distance() is a touch.

    Example:
        >>> stack = LruStack()
        >>> [stack.distance(page) for page in "abcba"]
        [-1, -1, -1, 1, 2]
    """

    __slots__ = ("_last", "_now", "_tree")

    def __init__(self) -> None:
        self._last: dict[object, int] = {}  # page -> time of its last touch, from 1
        self._tree = [0] * (_TIMES_MIN + 1)
        self._now = 0

    def distance(self, page: object) -> int:
        """Touches a page. => how many others were touched since it was touched last, or FIRST."""
        tree, size = self._tree, len(self._tree)
        if self._now == size - 1:
            self._renumber()
            tree, size = self._tree, len(self._tree)
        self._now = now = self._now + 1
        before = self._last.get(page)
        if before == now - 1:
            # The commonest case: the top of the stack. It keeps its time, and nothing changes.
            self._now = before
            return 0
        self._last[page] = now
        at = now
        while at < size:
            tree[at] += 1
            at += at & -at
        if before is None:
            return FIRST
        newer, at = len(self._last), before
        while at:
            newer -= tree[at]
            at &= at - 1
        while before < size:
            tree[before] -= 1
            before += before & -before
        return newer

    def _renumber(self) -> None:
        """Times from 1 on again, without gaps; room for as many more."""
        ordered = sorted(self._last, key=self._last.__getitem__)
        self._last = {page: time for time, page in enumerate(ordered, start=1)}
        self._now = count = len(ordered)
        size = max(_TIMES_MIN, 2 * count)
        self._tree = [0] + [max(0, min(at, count) - (at & (at - 1))) for at in range(1, size + 1)]


class LruCurve:
    """Misses of LRU for every number of frames; lru_curve makes it.

    Attributes:
        sample: the share of pages it was counted on.
        touches: of all pages, as far as the trace has them.
        first_touches: of the sample, of pages without contents.
    """

    def __init__(self, distances: Counter[int], sample: float, touches: float) -> None:
        self.sample, self.touches = sample, touches
        self.first_touches = distances.pop(FIRST, 0)
        self._distances = sorted(distances)
        tail = accumulate(distances[distance] for distance in reversed(self._distances))
        self._misses = [*reversed([*tail]), 0]

    def misses(self, frames: int) -> int:
        """Of the sample, with so many frames (of the sample)."""
        return self._misses[bisect_left(self._distances, frames)]

    def miss_ratio(self, frames: int) -> float:
        """Misses of all touches, with so many frames (of the sample)."""
        return self.misses(frames) / self.sample / self.touches if self.touches else 0.0


def lru_curve(touches: Trace | Iterable[int], sample: float | None = None) -> LruCurve:
    """Passes over the touches once; sample as in simulate.

    Example:
        >>> curve = lru_curve([1, 2, 3] * 10)
        >>> [curve.misses(frames) for frames in (1, 2, 3, 4)]
        [27, 27, 0, 0]
    """
    source = Source(touches, sample)
    distances = Counter(_distances(source))
    return LruCurve(distances, source.sample, source.passed)


def _distances(source: Source) -> Iterator[int]:
    stack = LruStack()
    for chunk in source.chunks():
        for touch in chunk:
            if touch >= 0:
                yield stack.distance(touch)
            else:
                stack.distance(~touch)
                yield FIRST
