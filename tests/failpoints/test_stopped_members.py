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
    "shared.fault", "shared.announced", "shared.claimed", "shared.read", "shared.filled", "shared.settled",
    "shared.before_continue", "shared.unsealed", "frame.claimed",
)  # fmt: skip
GOING = ("shared.writing", "shared.protected", "shared.written", "shared.punched", "slot.claimed", "frame.freed")
# The hole is about to be punched, or the page is locked: it can be read, but not stored to.
ABOUT_TO_GO = ("shared.committed", "frame.leaving", "slot.leaving")
# Only where what one brings in is mapped for all.
FOR_PEERS = ("shared.looked", "shared.mapped_peers")


@pytest.fixture(params=[False, True], ids=["each_for_itself", "for_peers"])
def map_for_peers(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


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
    process("import itertools; from _support.failpoints import set_failpoint")
    process(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')")
    process("pool = uswap.attach('stopped', swap=swap); r = pool.open_region('r')")
    return process


def stop_at(victim: Member, name: str, nth: int) -> None:
    """It loads all pages, stores to all of them, and throws them out, until it is stopped there."""
    victim(f"set_failpoint({name!r}, {int(Action.FREEZE)}, nth={nth})")
    victim.send(
        "for n in itertools.cycle(range(256)):\n"
        " r.advise(uswap.Advice.PAGEOUT)\n"
        " bytes(r[::4096])\n"
        " r[2::4096] = bytes([n]) * (len(r) // 4096)\n"
        " r.advise(uswap.Advice.PAGEOUT)\n"
        " bytes(r[::4096])\n"
    )
    found = os.waitid(os.P_PID, victim.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert found is not None
    assert found.si_code == os.CLD_STOPPED, name


def seconds_of(region: uswap.SharedRegion, store: int) -> float:
    """Of a load of each page, and, not 0: of a store to each."""
    begin = time.monotonic()
    assert region[::PAGE] == FIRST_BYTES
    if store:
        region[1::PAGE] = bytes([store]) * PAGES
        assert region[1::PAGE] == bytes([store]) * PAGES
    return time.monotonic() - begin


@pytest.mark.parametrize("nth", [1, 40])
@pytest.mark.parametrize("name", COMING + GOING + ABOUT_TO_GO + FOR_PEERS)
def test_the_others_go_on(
    name: str, nth: int, map_for_peers: bool, region: uswap.SharedRegion, swap_directory: Path
) -> None:
    if name in FOR_PEERS and not map_for_peers:
        pytest.skip("is passed only where what one brings in is mapped for all")
    with joined(swap_directory) as victim:
        calm = seconds_of(region, 1)
        stop_at(victim, name, nth)
        for store in (0, 2 if name not in ABOUT_TO_GO else 0):
            assert seconds_of(region, store) < GO_ON_SECONDS + 2 * calm, (name, store)
        left = 2 if name not in ABOUT_TO_GO else 1
        region.advise(uswap.Advice.PAGEOUT)  # what the stopped one is at stays
        assert region[1::PAGE] == bytes([left]) * PAGES
        victim.go_on()  # and does late what it had begun
        for _ in range(3):
            seconds_of(region, left)
            region.advise(uswap.Advice.PAGEOUT)
        assert region[1::PAGE] == bytes([left]) * PAGES
        victim.kill()
    assert region[::PAGE] == FIRST_BYTES
    assert region[1::PAGE] == bytes([left]) * PAGES
