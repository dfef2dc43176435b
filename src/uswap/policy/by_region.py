"""ByRegion: regions share memory by their weights."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from uswap.policy._numpy import imported_numpy
from uswap.policy.interface import Answer, Batch, Need, Policy, Stays, View, region_of
from uswap.policy.queue import Queue, as_array

if TYPE_CHECKING:
    from uswap._stats import RegionInfo

# The regions are asked for when a new one shows up, and after so many decisions: priorities change, regions end.
_LOOK_EVERY = 16
# Queues that hold more than so many times what memory does are full of what is out of date.
_TIDY_ABOVE = 1.25


def weight_of(info: RegionInfo) -> float:
    """1.25 for each step of the region's priority, as the kernel weighs nice levels."""
    return float(1.25**info.priority)


class ByRegion(Policy):
    """Each region has a queue of its own, first in, first out, and gives pages in proportion to the length of that
    queue by the region's weight. So of two regions that fault alike, one of twice the weight has twice the memory;
    and a region that is not used any more gives all of its memory, slower if its weight is high.

    Args:
        weight: what a region weighs, by what is known of it, and above 0: Region.priority if nothing else is said.
            It is called often.

    Example:
        >>> from array import array
        >>> policy = ByRegion()
        >>> came = memoryview(array("Q", [page << 28 | key << 10 for key in (1, 2) for page in range(8)]))
        >>> gone = policy.decide(Batch(faulted=came), Need(4, 16, 16, 0, 0, 0, 0)).clean
        >>> [(stay >> 28, region_of(stay)) for stay in gone]
        [(0, 1), (1, 1), (0, 2), (1, 2)]
    """

    def __init__(self, weight: Callable[[RegionInfo], float] = weight_of) -> None:
        self._weight = weight
        self._view: View | None = None
        self._queues: dict[int, Queue] = {}
        self._weights: dict[int, float] = {}
        self._due: dict[int, float] = {}  # parts of pages that a region owes: it would else never give a single one
        self._decisions = 0

    def start(self, view: View) -> None:
        self._view = view
        self._look()

    def decide(self, seen: Batch, need: Need) -> Answer:
        if seen.lost:
            self._queues.clear()
        for arrived in (seen.kept, seen.read_ahead, seen.faulted, seen.rescued):
            for key, stays in by_region(arrived):
                self._queues.setdefault(key, Queue()).push(stays)
        self._decisions += 1
        if self._decisions % _LOOK_EVERY == 0 or not self._weights.keys() >= self._queues.keys():
            self._look()
        if sum(map(len, self._queues.values())) > need.capacity * _TIDY_ABOVE:
            self._tidy()
        return Answer(clean=self._take(need.frames + need.target - need.inactive))

    def _look(self) -> None:
        """Which regions there are, and what they weigh."""
        if self._view is None:
            self._weights = dict.fromkeys(self._queues, 1.0)
            return
        self._weights = {key: self._weight(info) for key, info in self._view.regions().items()}
        for key in self._queues.keys() - self._weights.keys():
            del self._queues[key]
        self._due = {key: due for key, due in self._due.items() if key in self._queues}

    def _tidy(self) -> None:
        if self._view is not None:
            for queue in self._queues.values():
                queue.tidy(self._view)

    def _take(self, count: int) -> array[int]:
        """The oldest of each region's, count of them together or all there are."""
        taken = array("Q")
        for key, pages in self._shares(count).items():
            taken.extend(self._queues[key].pop(pages))
        return taken

    def _shares(self, count: int) -> dict[int, int]:
        """Key -> how many pages that region gives."""
        left = {key: len(queue) for key, queue in self._queues.items() if queue}
        shares = dict.fromkeys(left, 0)
        count = min(count, sum(left.values()))
        while count > 0:
            pressure = {key: pages / self._weights[key] for key, pages in left.items()}
            scale = count / sum(pressure.values())
            for key, pages in left.items():
                due = self._due.get(key, 0.0) + pressure[key] * scale
                given = max(min(int(due), pages, count), 0)
                self._due[key] = min(due - given, 1.0)  # what an empty queue owes is no debt for later
                shares[key] += given
                left[key] = pages - given
                count -= given
            left = {key: pages for key, pages in left.items() if pages}
            if 0 < count < len(left):  # the rest are single pages, of those that owe the most
                for key in sorted(left, key=self._due.__getitem__, reverse=True)[:count]:
                    shares[key] += 1
                    self._due[key] -= 1
                return shares
        return shares


def by_region(stays: Stays) -> Iterator[tuple[int, Stays]]:
    """(key of a region, its stays in their order), for each region that the stays name, by key. With NumPy nothing
    is done page by page.

    Example:
        >>> stays = [7 << 10, 1 << 28 | 7 << 10, 5 << 10]
        >>> [(key, [int(stay >> 28) for stay in some]) for key, some in by_region(stays)]
        [(5, [0]), (7, [0, 1])]
    """
    if len(stays) == 0:
        return iter(())
    numpy = imported_numpy()
    return _by_loop(stays) if numpy is None else _by_sorting(numpy, numpy.asarray(stays, dtype=numpy.uint64))


def _by_sorting(numpy: Any, stays: Any) -> Iterator[tuple[int, Stays]]:
    keys: Any = region_of(stays)
    if keys[0] == keys[-1] and bool((keys == keys[0]).all()):
        yield int(keys[0]), stays
        return
    order = numpy.argsort(keys, kind="stable")
    keys = keys[order]
    starts = [0, *(numpy.flatnonzero(keys[1:] != keys[:-1]) + 1).tolist()]
    for start, end in zip(starts, [*starts[1:], len(keys)], strict=True):
        yield int(keys[start]), stays[order[start:end]]


def _by_loop(stays: Stays) -> Iterator[tuple[int, Stays]]:
    found: dict[int, array[int]] = {}
    for stay in as_array(stays):
        key = region_of(stay)
        some = found.get(key)
        if some is None:
            some = found[key] = array("Q")
        some.append(stay)
    return iter(sorted(found.items()))
