"""What tests of policies share: a job, what must hold after it, and a policy that only listens."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import uswap
from _support.workload import Pages
from uswap.policy import Answer, Batch, Need, Policy, View, page_of, region_of


def eventually(condition: Callable[[], object], seconds: float = 20) -> None:
    """Returns when the condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.002)


def job(pool: uswap.Pool, faults: str = "thread", mib: int = 8) -> None:
    """Writes and reads all over a region that is larger than the limit, and checks every word."""
    region = pool.region(mib << 20, faults=faults)
    pages = Pages(region)
    pages.fill(1)
    assert pages.wrong(1) == 0
    assert pages.wrong_at_random(1, 5, 500) == 0
    pages.fill(2, 0, pages.count // 2)
    assert pages.wrong(2, 0, pages.count // 2) + pages.wrong(1, pages.count // 2) == 0
    del pages
    region.close()


def assert_within_limit(pool: uswap.Pool) -> None:
    stats = pool.stats()
    assert stats.peak_resident_bytes <= pool.limit
    assert stats.over_limit_events == 0
    pool.check()


def reclaimer_of(pool: uswap.Pool) -> Any:
    assert pool.reclaimer is not None
    return pool.reclaimer


class Told(Policy):
    """Notes all it is told, and does what the test says."""

    wants = frozenset({"aged", "written", "evicted"})
    every = 1

    def __init__(self) -> None:
        self.seen: dict[str, list[int]] = {name: [] for name in Batch._fields if name not in ("lost", "shared")}
        self.need = Need(0, 0, 0, 0, 0, 0, 0)
        self.view: View | None = None
        self._orders: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._rounds = 0
        self._poke: tuple[Pages, Iterator[int]] | None = None

    def start(self, view: View) -> None:
        self.view = view

    def decide(self, seen: Batch, need: Need) -> Answer | None:
        for name, noted in self.seen.items():
            noted += getattr(seen, name)
        self.need = need
        self._rounds += 1
        return None if self._orders.empty() else self._orders.get()

    def region(self, pool: uswap.Pool, mib: int = 8) -> tuple[uswap.Region, Pages]:
        """A region for the test; and one beside it, whose only use is that a touch of it brings a batch about."""
        poke = pool.region("32MiB", name="poke")
        poke.advise(uswap.Advice.RANDOM)
        self._poke = Pages(poke), iter(range(0, 8192, 2))
        region = pool.region(mib << 20)
        region.advise(uswap.Advice.RANDOM)
        return region, Pages(region)

    def settle(self) -> None:
        """Returns when all that has happened so far has been told, and what was ordered is done."""
        assert self._poke is not None
        pages, numbers = self._poke
        for _ in range(2):
            before = self._rounds
            pages.touch([next(numbers)])
            eventually(lambda before=before: self._rounds > before)

    def order(self, answer: Answer) -> None:
        self._orders.put(answer)
        self.settle()
        self.settle()

    def of(self, name: str, region: uswap.Region) -> list[int]:
        """The stays of this region."""
        return [stay for stay in self.seen[name] if region_of(stay) == region.key]

    def beside(self, name: str, others: str, region: uswap.Region) -> list[int]:
        """What was told beside the stays of this region."""
        pairs = zip(self.seen[others], self.seen[name], strict=True)
        return [value for stay, value in pairs if region_of(stay) == region.key]

    def end(self) -> None:
        self._poke = None

    def forget(self) -> None:
        for noted in self.seen.values():
            noted.clear()


def pages_of(stays: list[int]) -> list[int]:
    return [page_of(stay) for stay in stays]
