"""First in, first out, with fault-around, read-ahead and the background off: a known order of accesses costs
exactly what a short model says."""

import random
from collections import OrderedDict

import pytest
from _support.workload import Pages
from conftest import PoolFactory

import uswap


class FifoModel:
    """Faults, reads and writes of a pool of so many frames that evicts one page, the oldest, when it must."""

    def __init__(self, frames: int) -> None:
        self.frames, self.resident = frames, OrderedDict[int, bool]()  # page -> differs from its slot
        self.stored: set[int] = set()
        self.zero_fills = self.reads = self.writes = 0

    def access(self, page: int, write: bool) -> None:
        if page not in self.resident:
            if len(self.resident) == self.frames:
                oldest, dirty = self.resident.popitem(last=False)
                self.writes += dirty
                self.stored.add(oldest)
            self.reads += page in self.stored
            self.zero_fills += page not in self.stored
            self.resident[page] = False
        self.resident[page] |= write


@pytest.mark.parametrize("pattern", ["sequential", "random", "backward"])
def test_counts_are_those_of_the_model(pool_factory: PoolFactory, pattern: str) -> None:
    pool = pool_factory("4MiB", background=False, fault_around=1, read_ahead=0, reclaim_batch=1, reclaimer=False)
    region = pool.region("16MiB")
    region.advise(uswap.Advice.RANDOM)
    pages = Pages(region)
    frames = pool.stats().capacity_frames
    order = list(range(pages.count)) * 2
    if pattern == "backward":
        order.reverse()
    if pattern == "random":
        order = random.Random(7).choices(range(pages.count), k=3 * pages.count)
    model = FifoModel(frames)
    stored: dict[int, int] = {}
    for number, page in enumerate(order):
        if page not in stored or number % 3 == 0:
            stored[page] = number + 1
            pages.store([page], [number + 1])
            model.access(page, write=True)
        else:
            assert pages.touch([page]) == stored[page]
            model.access(page, write=False)
    # Counters may lag behind the touch they count, and a loan of the reserve may outlive it by an instant; a call
    # that takes the lock of the page touched last waits for both.
    region.lock(order[-1] * 4096, 4096)
    region.unlock(order[-1] * 4096, 4096)
    stats = pool.stats()
    assert pool.stats().capacity_frames == frames, "the charge for metadata must not move in so small a test"
    assert stats.zero_fills == model.zero_fills
    assert stats.major_faults == stats.pages_in == stats.reads == model.reads
    assert stats.pages_out == model.writes
    assert stats.soft_faults == 0
    assert stats.faults == model.zero_fills + model.reads
