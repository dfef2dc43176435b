"""A member is stopped while it brings pages in, maps them, or throws them out: the others load and store all of
them meanwhile, and what it does late does no harm (csrc/README.md, Nobody waits for anybody)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from _support.failpoints import Action
from _support.members import Member

import uswap
from uswap._core import lib

pytestmark = pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")

PAGE = 4096
PAGES = 1024
FIRST_BYTES = bytes(page % 255 + 1 for page in range(PAGES))
# After a quarter of a second a member counts as stopped.
GO_ON_SECONDS = 1.0
# Its share thread; then its eviction thread.
COMING = (
    "shared.fault", "shared.announced", "shared.unsettled", "shared.claimed", "shared.read", "shared.arriving",
    "shared.filled", "shared.settled", "shared.before_continue", "shared.unsealed", "frame.claimed",
)  # fmt: skip
GOING = (
    "shared.writing", "shared.protected", "shared.written", "slot.claimed", "frame.going", "slot.leaving",
    "slot.kept", "shared.leaving", "shared.committed", "shared.ordered", "shared.punched", "shared.late",
    "frame.freed", "slot.freed",
)  # fmt: skip
# Only where what one brings in is mapped for all.
FOR_PEERS = ("shared.looked", "shared.mapped_peers")


# Pages that one read brings.
MOST_AT_ONCE = 64


CASES = [(False, name, nth) for name in COMING + GOING for nth in (1, 40)]
CASES += [(True, name, nth) for name in ("shared.arriving", "shared.settled", *FOR_PEERS) for nth in (1, 40)]


@pytest.fixture
def map_for_peers(request: pytest.FixtureRequest) -> bool:
    return bool(getattr(request, "param", False))


@pytest.fixture
def pool(runtime_folder: Path, swap_directory: Path, map_for_peers: bool) -> Iterator[uswap.Pool]:
    swap = uswap.SwapArea(swap_directory, size="256MiB")
    with uswap.Pool("32MiB", name="stopped", swap=swap, map_for_peers=map_for_peers) as pool:
        yield pool
        pool.check()


@pytest.fixture
def region(pool: uswap.Pool) -> Iterator[uswap.SharedRegion]:
    """Each page begins with a byte of its own, and has a 0 behind it."""
    with pool.region(PAGES * PAGE, shared=True, name="r") as region:
        for page in range(PAGES):
            region[page * PAGE] = FIRST_BYTES[page]
        yield region


def joined(swap_directory: Path) -> Member:
    """Another process of it, with the region as `r`."""
    process = Member()
    process("import itertools, threading; from _support.failpoints import set_failpoint")
    process(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')")
    process("pool = uswap.attach('stopped', swap=swap); r = pool.open_region('r')")
    return process


def stop_at(victim: Member, name: str, nth: int) -> None:
    """It loads all pages, stores to all of them, and throws them out, until it is stopped there."""
    victim(f"set_failpoint({name!r}, {int(Action.FREEZE)}, nth={nth})")
    victim(
        "def work():\n"
        " for n in itertools.cycle(range(1, 256)):\n"
        "  if not going: return\n"
        "  r.advise(uswap.Advice.PAGEOUT)\n"
        "  bytes(r[::4096])\n"
        "  stored = bytes([n]) * (len(r) // 4096)\n"
        "  r[2::4096] = stored\n"
        "  r.advise(uswap.Advice.PAGEOUT)\n"
        "  assert bytes(r[2::4096]) == stored\n"
        "  assert bytes(r[::4096]) == first"
    )
    victim(
        "failed = []; threading.excepthook = failed.append; going = True;"
        f"first = bytes.fromhex({FIRST_BYTES.hex()!r})"
    )
    victim.send("thread = threading.Thread(target=work, daemon=True); thread.start()")
    found = os.waitid(os.P_PID, victim.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert found is not None
    assert found.si_code == os.CLD_STOPPED, name


def discarded(region: uswap.SharedRegion, page: int) -> bool:
    """Whether it could be."""
    try:
        region.advise(uswap.Advice.DONTNEED, page * PAGE, PAGE)
    except uswap.BusyError:
        return False
    return True


def end_work(victim: Member) -> None:
    """All that it has loaded was right."""
    victim.answer()
    victim("going = False; thread.join()")
    assert victim("[str(one.exc_value) or 'wrong' for one in failed]") == []


def seconds_of(region: uswap.SharedRegion, store: int) -> float:
    """Of a load of each page, and, not 0: of a store to each."""
    begin = time.monotonic()
    assert region[::PAGE] == FIRST_BYTES
    if store:
        region[1::PAGE] = bytes([store]) * PAGES
        assert region[1::PAGE] == bytes([store]) * PAGES
    return time.monotonic() - begin


@pytest.mark.parametrize(("map_for_peers", "name", "nth"), CASES, indirect=["map_for_peers"])
def test_the_others_go_on(name: str, nth: int, region: uswap.SharedRegion, swap_directory: Path) -> None:
    with joined(swap_directory) as victim:
        calm = seconds_of(region, 1)
        stop_at(victim, name, nth)
        for store in (0, 2):
            assert seconds_of(region, store) < GO_ON_SECONDS + 2 * calm, (name, store)
        region.advise(uswap.Advice.PAGEOUT)  # what the stopped one is at stays
        assert region[1::PAGE] == bytes([2]) * PAGES
        victim.go_on()  # and does late what it had begun
        for store in (3, 4, 5):
            seconds_of(region, store)
            region.advise(uswap.Advice.PAGEOUT)
        assert region[1::PAGE] == bytes([5]) * PAGES
        end_work(victim)
    assert region[::PAGE] == FIRST_BYTES
    assert region[1::PAGE] == bytes([5]) * PAGES


def test_what_is_about_to_be_brought_is_not_discarded(region: uswap.SharedRegion, swap_directory: Path) -> None:
    """It would come late, to a page that is all zeroes."""
    with joined(swap_directory) as victim:
        stop_at(victim, "shared.arriving", 1)
        at = [page for page in range(PAGES) if not discarded(region, page)]
        assert 0 < len(at) <= MOST_AT_ONCE
        victim.go_on()
        victim.answer()
        victim("going = False; thread.join()")
    for _ in range(2):
        assert [page for page in range(PAGES) if region[page * PAGE]] == at
        region.advise(uswap.Advice.PAGEOUT)


def test_a_mapping_that_comes_late_is_of_a_page_that_has_stayed(
    region: uswap.SharedRegion, swap_directory: Path
) -> None:
    """It would let stores through to a page that was read meanwhile, and counts as unchanged."""
    with joined(swap_directory) as victim:
        victim(f"set_failpoint('shared.before_continue', {int(Action.FREEZE)})")
        victim.send("r[0]")
        os.waitid(os.P_PID, victim.pid, os.WSTOPPED | os.WNOWAIT)
        region.advise(uswap.Advice.PAGEOUT)
        assert region[0] == FIRST_BYTES[0]
        victim.go_on()
        assert victim.answer() == FIRST_BYTES[0]
        victim("r[1] = 7")
        region.advise(uswap.Advice.PAGEOUT)
    assert region[1] == 7


def test_a_first_touch_that_comes_late_maps_only_what_is_its_own(pool: uswap.Pool, swap_directory: Path) -> None:
    """Two members are slow while they make the same page, so that each is broken off. A store of the first, to a
    page that the second was still making, would go with it (found by the model: MAPS_IN_VAIN)."""
    with pool.region(PAGES * PAGE, shared=True, name="r") as region:
        with joined(swap_directory) as first, joined(swap_directory) as second:
            for place, member in enumerate((first, second)):
                member(f"set_failpoint('shared.fresh', {int(Action.FREEZE)})")
                member.send(f"r[{place}] = {place + 1}")
                os.waitid(os.P_PID, member.pid, os.WSTOPPED | os.WNOWAIT)
            first.go_on()
            first.answer()
            discarded(region, 0)  # or not: the second one has announced it
            second.go_on()
            second.answer()
            assert region[:2] == bytes([1, 2])
        region.advise(uswap.Advice.PAGEOUT)
        assert region[:2] == bytes([1, 2])
