"""A Hypothesis state machine: regions against a byte-for-byte model, with a second thread at work all the time;
after each step the core checks itself."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

import hypothesis.strategies as st
import pytest
from _support.addresses import hem_in
from _support.workload import PAGE, Pages
from conftest import probe
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import uswap
from uswap._options import default_directory

REGION_PAGES = 1100  # more than the least limit has frames
SIZE = REGION_PAGES * PAGE  # at first

offsets = st.integers(0, SIZE - 1)
lengths = st.one_of(st.integers(0, 3 * PAGE), st.integers(0, SIZE))
pages = st.integers(0, REGION_PAGES - 1)


class RegionMachine(RuleBasedStateMachine):
    """What a program may do to a region, and a bytearray that has it done too."""

    transport = "move"
    io = "uring"
    faults = "thread"
    encrypt = False

    @initialize()
    def make(self) -> None:
        area = uswap.SwapArea(default_directory(), size="64MiB")
        self.pool = uswap.Pool(
            (4 if self.encrypt else 3) << 20,
            swap=area,
            transport=self.transport,
            io=self.io,
            recycle=False,
            faults=self.faults,
            encrypt=self.encrypt,
        )
        self.neighbour = Pages(self.pool.region(4 << 20))
        self.open()
        self.done = threading.Event()
        self.wrong = 0
        self.thread = threading.Thread(target=self.work_beside, daemon=True)
        self.thread.start()

    def open(self, reserve: int | None = None) -> None:
        self.region: Any = self.pool.region(SIZE, name="model", reserve=reserve)
        self.model = bytearray(SIZE)
        self.protected: set[int] = set()
        self.locked = False

    def span(self, start: int, length: int) -> tuple[int, int]:
        """The range as far as the region has it now: (start, length)."""
        start = min(start, len(self.model) - 1)
        return start, min(length, len(self.model) - start)

    def page_span(self, first: int, count: int) -> tuple[int, int]:
        """The same for whole pages: (first, stop)."""
        pages_now = len(self.model) // PAGE
        first = min(first, pages_now - 1)
        return first, min(first + count, pages_now)

    def work_beside(self) -> None:
        seed = 1
        while not self.done.is_set():
            self.wrong += self.neighbour.stress(seed, 20)
            seed += 1

    def writable(self, start: int, length: int) -> bool:
        touched = range(start // PAGE, -(-(start + length) // PAGE))
        return not any(page in self.protected for page in touched)

    @rule(start=offsets, data=st.binary(min_size=1, max_size=2 * PAGE))
    def write(self, start: int, data: bytes) -> None:
        start, length = self.span(start, len(data))
        data = data[:length]
        if self.writable(start, len(data)):
            self.region[start : start + len(data)] = data
            self.model[start : start + len(data)] = data

    @rule(start=offsets, length=lengths)
    def read(self, start: int, length: int) -> None:
        assert self.region[start : start + length] == self.model[start : start + length]

    @rule(first=pages, count=st.integers(1, REGION_PAGES), value=st.integers(0, 255))
    def fill(self, first: int, count: int, value: int) -> None:
        start, stop = (page * PAGE for page in self.page_span(first, count))
        if self.writable(start, stop - start):
            data = bytes([value]) * (stop - start)
            self.region[start:stop] = data
            self.model[start:stop] = data

    @rule(first=pages, count=st.integers(1, 400), salt=st.integers(1, 1 << 30))
    def fill_pages_that_differ(self, first: int, count: int, salt: int) -> None:
        first, stop = self.page_span(first, count)
        if self.writable(first * PAGE, (stop - first) * PAGE):
            Pages(self.model).fill(salt, first, stop - first)
            Pages(self.region).fill(salt, first, stop - first)

    @rule(size=st.integers(1, SIZE))
    def evict_some(self, size: int) -> None:
        self.pool.evict(size)

    @rule()
    def evict_all(self) -> None:
        self.region.advise(uswap.Advice.PAGEOUT)

    @rule(
        advice=st.sampled_from([advice for advice in uswap.Advice if advice is not uswap.Advice.DONTNEED]),
        start=offsets,
        length=lengths,
    )
    def advise(self, advice: uswap.Advice, start: int, length: int) -> None:
        self.region.advise(advice, *self.span(start, length))

    @precondition(lambda self: not self.locked)
    @rule(start=offsets, length=lengths)
    def discard(self, start: int, length: int) -> None:
        start, length = self.span(start, length)
        self.region.advise(uswap.Advice.DONTNEED, start, length)
        first, last = -(-start // PAGE), (start + length) // PAGE
        if last > first:
            self.model[first * PAGE : last * PAGE] = bytes((last - first) * PAGE)

    @rule(first=pages, count=st.integers(1, 50), writable=st.booleans())
    def protect(self, first: int, count: int, writable: bool) -> None:
        first, stop = self.page_span(first, count)
        wanted = uswap.Protection.READ | (uswap.Protection.WRITE if writable else uswap.Protection.NONE)
        self.region.protect(wanted, first * PAGE, (stop - first) * PAGE)
        change = self.protected.difference_update if writable else self.protected.update
        change(range(first, stop))

    @rule(first=pages, count=st.integers(1, 100))
    def lock(self, first: int, count: int) -> None:
        first, stop = self.page_span(first, count)
        self.region.unlock()
        self.region.lock(first * PAGE, (stop - first) * PAGE)
        self.locked = True
        assert set(self.region.page_classes(first * PAGE, (stop - first) * PAGE)) == {uswap.PageClass.RESIDENT}

    @rule()
    def unlock(self) -> None:
        self.region.unlock()
        self.locked = False

    @rule(first=pages, count=st.integers(1, 50))
    def hold(self, first: int, count: int) -> None:
        first, stop = self.page_span(first, count)
        start, length = first * PAGE, (stop - first) * PAGE
        with self.region.resident(start, length):
            self.region.advise(uswap.Advice.PAGEOUT)
            assert set(self.region.page_classes(start, length)) == {uswap.PageClass.RESIDENT}
            assert self.region[start : start + length] == self.model[start : start + length]

    @rule(mebibytes=st.integers(3, 6))
    def change_the_limit(self, mebibytes: int) -> None:
        self.pool.limit = limit = max(mebibytes << 20, self.pool.minimum_limit)
        assert self.pool.stats().resident_bytes <= limit

    @rule()
    def verify(self) -> None:
        self.region.verify()

    @rule(number=st.integers(1, 2 * REGION_PAGES), hem=st.booleans())
    def resize(self, number: int, hem: bool) -> None:
        size = number * PAGE
        if hem:
            hem_in(self.region)
        if size < len(self.model) and self.locked:
            self.unlock()
        self.region.resize(size)
        self.model = self.model[:size] + bytes(max(0, size - len(self.model)))
        self.protected = {page for page in self.protected if page < number}

    @precondition(lambda self: not self.locked)
    @rule(cut=st.integers(1, PAGE - 1))
    def cut_and_grow(self, cut: int) -> None:
        size = len(self.model)
        self.region.resize(size - cut)
        self.region.resize(size)
        self.model[size - cut :] = bytes(cut)

    @rule(reserve=st.sampled_from([None, SIZE + (2 << 20)]))
    def close_and_reopen(self, reserve: int | None) -> None:
        self.region.close()
        self.open(reserve)

    @invariant()
    def the_core_agrees_with_itself(self) -> None:
        if hasattr(self, "done"):
            self.pool.check()
            stats = self.pool.stats()
            assert stats.over_limit_events == 0
            assert self.wrong == 0

    def teardown(self) -> None:
        if not hasattr(self, "done"):
            return
        self.done.set()
        self.thread.join()
        assert self.wrong == 0
        assert self.region[:] == self.model
        assert self.neighbour.wrong_after_stress() == 0
        self.pool.check()
        self.region.close()
        del self.neighbour
        gc.collect()
        self.pool.close()


EXAMPLES, STEPS = (60, 50) if os.environ.get("CI") else (8, 30)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("transport", "io", "faults", "encrypt"),
    [
        ("move", "uring", "thread", False),
        ("move", "sync", "thread", False),
        ("copy", "uring", "thread", False),
        ("copy", "sync", "thread", False),
        ("move", "uring", "inline", False),
        ("copy", "sync", "inline", False),
        ("move", "uring", "thread", True),
        ("copy", "sync", "inline", True),
    ],
)
def test_regions_are_what_their_model_says(transport: str, io: str, faults: str, encrypt: bool) -> None:
    if transport == "move" and probe().live_move_errno:
        pytest.skip("UFFDIO_MOVE is not there")
    if io == "uring" and probe().uring_errno:
        pytest.skip("io_uring is not there")
    if encrypt and probe().encrypt_errno:
        pytest.skip("swap cannot be encrypted: no libcrypto")
    machine = type(
        "Machine", (RegionMachine,), {"transport": transport, "io": io, "faults": faults, "encrypt": encrypt}
    )
    machine.TestCase.settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    machine.TestCase().runTest()
