"""The reference itself: it accepts whatever plain memory could show, also of accesses that run beside each other,
and nothing else. Quietly: three seconds."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from uswap.testing import Program, memory
from uswap.testing.memory import PAGE

WAIT_SECONDS = 60.0


class Turns:
    """memory.load and memory.store, each in its turn: the store comes first, or the load does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store_first: bool) -> None:
        self._load, self._store, self._store_first = memory.load, memory.store, store_first
        self.loaded, self.stored = threading.Event(), threading.Event()
        monkeypatch.setattr(memory, "load", self.load)
        monkeypatch.setattr(memory, "store", self.store)

    def load(self, address: int, length: int) -> bytes:
        if self._store_first:
            assert self.stored.wait(WAIT_SECONDS)
        found = self._load(address, length)
        self.loaded.set()
        return found

    def store(self, address: int, data: bytes) -> None:
        if not self._store_first:
            assert self.loaded.wait(WAIT_SECONDS)
        self._store(address, data)
        self.stored.set()


@pytest.mark.parametrize("store_first", [True, False])
@pytest.mark.parametrize("started_first", ["keep_in", "write"])
@pytest.mark.parametrize("looks", ["keep_in", "read"])
def test_who_loads_beside_a_store_may_see_it_or_not(
    monkeypatch: pytest.MonkeyPatch, store_first: bool, started_first: str, looks: str
) -> None:
    with Program(io="sync", background=False) as program:
        program.map(pages=4)
        program.write(region=0, start=0, length=64, value=2)
        program.let_run()
        with monkeypatch.context() as patches:
            Turns(patches, store_first)
            if started_first == "write":
                program.write(region=0, start=0, length=1, value=1)
            if looks == "keep_in":
                program.keep_in(region=0, page=0, count=1)
            else:
                program.read(region=0, start=0, length=4096)
            if started_first != "write":
                program.write(thread=1, region=0, start=0, length=1, value=1)
            program.join()
        assert program.ledger.checked == 1
        program.read(region=0, start=0, length=64)


def test_what_somebody_else_has_stored_is_found_in_pages_that_are_kept_in() -> None:
    program = Program(io="sync", background=False)
    program.map(pages=4)
    program.let_run()
    memory.store(program.address(program.regions[0]), b"\x07")
    program.keep_in(region=0, page=0, count=1)
    with pytest.raises(AssertionError, match="lost or stale data: region 1, byte 0"):
        program.join()
    program.abandon()


def test_a_shared_region_is_as_long_as_its_processes_have_made_it(runtime_folder: Path) -> None:
    with Program(shared=True) as program:
        shared = program.shared
        assert shared is not None
        program.peer_joins()
        program.write(region=0, start=0, length=8 * PAGE, value=5)
        program.peer_resizes(peer=0, pages=100)
        assert (shared.pages, shared.whole) == (64, 100 * PAGE)
        program.refresh_shared()
        program.write(region=0, start=90 * PAGE, length=PAGE, value=6)
        program.peer_reads(peer=0, start=90 * PAGE, length=PAGE)
        program.resize_shared(pages=4)
        assert shared.whole == 100 * PAGE  # the peer sees more
        program.peer_leaves(peer=0)
        program.resize_shared(pages=4)
        program.resize_shared(pages=100)
        program.read(region=0, start=0, length=100 * PAGE)
        assert (shared.pages, program.ledger.checked) == (100, 2)


def test_what_a_shared_region_has_of_its_longer_life_is_found(runtime_folder: Path) -> None:
    program = Program(shared=True)
    program.resize_shared(pages=1)
    program.resize_shared(pages=9)
    memory.store(program.address(program.regions[0]) + 8 * PAGE, b"\x07")
    with pytest.raises(AssertionError, match=f"lost or stale data: shared region 0, byte {8 * PAGE}"):
        program.read_all(region=0)
    program.abandon()


def test_a_shared_region_that_is_cut_under_somebody_is_found(runtime_folder: Path) -> None:
    program = Program(shared=True)
    program.peer_joins()
    assert program.peers[0]("resize", PAGE)[0].startswith("BusyError")  # this process sees more
    program.resize_shared(pages=70)
    program.peers[0].seen = 70 * PAGE  # it does not, but were it so
    with pytest.raises(AssertionError, match="cut to 266240 bytes, and somebody sees more"):
        program.resize_shared(pages=65)
    program.peer_leaves(peer=0)
    program.abandon()
