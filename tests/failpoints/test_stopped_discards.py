"""A member is stopped while it throws pages away: the others load, store and throw away all of them meanwhile
(csrc/README.md, Discarded pages)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from _support.failpoints import Action
from _support.members import Member
from _support.policies import eventually

import uswap
from uswap._core import lib

pytestmark = pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")

PAGE = 4096
PAGES, DISCARDED = 512, 256
TOGETHER = 64  # of them, discarded as one
# Where they are still pages that the store takes back: then they are discarded again.
BEFORE = ("shared.protected", "shared.leaving")
GO_ON_SECONDS = 1.0
# What each page passes that is in memory; each run of them; each page that is out.
RESIDENT, RUN = ("frame.going", "slot.leaving", "shared.leaving", "frame.freed", "slot.freed"), (
    "shared.committed", "shared.ordered", "shared.punched", "shared.late",
)  # fmt: skip
OUT = ("shared.unnamed", "slot.leaving", "slot.freed")
CASES = [(False, name, nth) for name in RESIDENT for nth in (1, 40)]
CASES += [(False, name, nth) for name in RUN for nth in (1, 3)]
CASES += [(True, name, nth) for name in OUT for nth in (1, 40)]


@pytest.fixture
def pool(runtime_folder: Path, swap_directory: Path) -> Iterator[uswap.Pool]:
    swap = uswap.SwapArea(swap_directory, size="256MiB")
    with uswap.Pool("32MiB", name="stopped", swap=swap) as pool:
        yield pool
        pool.check()


@pytest.fixture
def region(pool: uswap.Pool) -> Iterator[uswap.SharedRegion]:
    """Full of ones; each page has a slot that is right."""
    with pool.region(PAGES * PAGE, shared=True, name="r") as region:
        region[:] = bytes([1]) * len(region)
        region.advise(uswap.Advice.PAGEOUT)
        yield region


def stop_in(victim: Member, swap_directory: Path, name: str, nth: int, code: str, first: str = "") -> None:
    """It does that, until it is stopped there."""
    victim("from _support.failpoints import set_failpoint")
    victim(f"pool = uswap.attach('stopped', swap=uswap.SwapArea({str(swap_directory)!r}, size='256MiB'))")
    victim("r = pool.open_region('r')")
    if first:
        victim(first)
    victim(f"set_failpoint({name!r}, {int(Action.FREEZE)}, nth={nth})")
    victim.send(code)
    found = os.waitid(os.P_PID, victim.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert found is not None
    assert found.si_code == os.CLD_STOPPED, name


def stop_in_a_discard(victim: Member, swap_directory: Path, out: bool, name: str, nth: int) -> None:
    discard = f"r.advise(uswap.Advice.DONTNEED, 0, {DISCARDED * PAGE})"
    stop_in(victim, swap_directory, name, nth, discard, "" if out else "sum(r[::4096])")


def seconds_of_all(region: uswap.SharedRegion, store: int) -> float:
    """Of a load of each page, and a store to each, which stays."""
    begin = time.monotonic()
    assert set(region[::PAGE][:DISCARDED]) <= {0, 1}
    assert set(region[::PAGE][DISCARDED:]) == {1}
    region[1::PAGE] = bytes([store]) * PAGES
    assert region[1::PAGE] == bytes([store]) * PAGES
    return time.monotonic() - begin


@pytest.mark.parametrize(("out", "name", "nth"), CASES)
def test_the_others_go_on(
    out: bool, name: str, nth: int, region: uswap.SharedRegion, pool: uswap.Pool, swap_directory: Path
) -> None:
    calm = seconds_of_all(region, 2)
    region.advise(uswap.Advice.PAGEOUT)
    with Member() as victim:
        stop_in_a_discard(victim, swap_directory, out, name, nth)
        assert seconds_of_all(region, 3) < GO_ON_SECONDS + 2 * calm
        region.advise(uswap.Advice.PAGEOUT)
        pool.check()
        assert seconds_of_all(region, 4) < GO_ON_SECONDS + 2 * calm
        begin = time.monotonic()
        region.advise(uswap.Advice.DONTNEED, 0, DISCARDED * PAGE)
        assert time.monotonic() - begin < GO_ON_SECONDS
        assert region[: DISCARDED * PAGE] == bytes(DISCARDED * PAGE)
        victim.go_on()
        victim.answer()
        assert region[: DISCARDED * PAGE] == bytes(DISCARDED * PAGE)
        assert region[DISCARDED * PAGE + 1 :: PAGE] == bytes([4]) * (PAGES - DISCARDED)
        victim("r.close(); pool.close()")
    region.advise(uswap.Advice.PAGEOUT)
    assert pool.group_info().shared_swap_used_bytes == (PAGES - DISCARDED) * PAGE


@pytest.mark.parametrize(("out", "name", "nth"), CASES)
def test_it_dies_there(
    out: bool, name: str, nth: int, region: uswap.SharedRegion, pool: uswap.Pool, swap_directory: Path
) -> None:
    """Stopped first, and passed by: then it dies without having gone on."""
    with Member() as victim:
        stop_in_a_discard(victim, swap_directory, out, name, nth)
        region[1::PAGE] = bytes([3]) * PAGES
        victim.kill()
        assert region[1::PAGE] == bytes([3]) * PAGES
        eventually(lambda: len(pool.members()) == 1)

    def all_are_out() -> bool:
        region.advise(uswap.Advice.PAGEOUT)  # what is being mended stays
        return pool.group_info().shared_swap_used_bytes == PAGES * PAGE

    eventually(all_are_out)
    pool.check()
    assert region[1::PAGE] == bytes([3]) * PAGES


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize(
    "name", ["shared.protected", "shared.leaving", "shared.committed", "shared.ordered", "shared.late"]
)
def test_what_is_stored_meanwhile_stays(
    name: str, dies: bool, region: uswap.SharedRegion, pool: uswap.Pool, swap_directory: Path
) -> None:
    """Also where the page was mapped here for stores all the time."""
    region[::PAGE] = bytes([2]) * PAGES
    with Member() as victim:
        stop_in_a_discard(victim, swap_directory, True, name, 1)
        region[1 : TOGETHER * PAGE : PAGE] = bytes([3]) * TOGETHER
        region.advise(uswap.Advice.PAGEOUT)
        if dies:
            victim.kill()
            eventually(lambda: len(pool.members()) == 1)
        else:
            victim.go_on()
            victim.answer()
        if dies or name not in BEFORE:
            assert region[1 : TOGETHER * PAGE : PAGE] == bytes([3]) * TOGETHER
        if not dies:
            victim("r.close(); pool.close()")


def test_what_an_eviction_has_left_in_the_file_is_discarded_too(
    region: uswap.SharedRegion, pool: uswap.Pool, swap_directory: Path
) -> None:
    """A member is stopped before it punches what is out already by others' word."""
    region[::PAGE] = bytes([2]) * PAGES
    with Member() as victim:
        stop_in(victim, swap_directory, "shared.committed", 1, "r.advise(uswap.Advice.PAGEOUT)")
        region.advise(uswap.Advice.DONTNEED)
        assert region[:] == bytes(len(region))
        region[::PAGE] = bytes([4]) * PAGES
        victim.go_on()
        victim.answer()
        assert region[::PAGE] == bytes([4]) * PAGES
        victim("r.close(); pool.close()")
